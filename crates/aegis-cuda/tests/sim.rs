//! The simulated device: virtual time, declared costs, injected faults.

use aegis_cuda::{
    CopyMark, CudaEvent, CudaStream, DeviceContext, DeviceError, EventStatus, SimConfig, SimDevice,
    SimFault, SimWaits, SimWork, StageEvents,
};
use aegis_trace::{Bytes, Category, Nanos, Timestamp};
use proptest::prelude::*;

fn device() -> DeviceContext {
    let config = SimConfig { memory_limit: Bytes::from_gib(80), max_streams: 3, stream_depth: 16 };
    DeviceContext::sim(config).expect("the limits are not zero")
}

fn time(device: &DeviceContext) -> &SimDevice {
    device.simulator().expect("the device is simulated")
}

fn stream(device: &DeviceContext) -> CudaStream {
    device.create_stream().expect("a free stream")
}

/// Enqueues work and an event behind it.
fn run(
    device: &DeviceContext,
    stream: &CudaStream,
    cost: u64,
    fault: Option<SimFault>,
) -> CudaEvent {
    stream.enqueue_sim(SimWork { cost: Nanos(cost), fault }).expect("room");
    let done = device.create_event().expect("a live device");
    stream.record(&done).expect("room");
    done
}

fn at(event: &CudaEvent) -> Option<u64> {
    match event.query().expect("no fault") {
        EventStatus::Complete { at } => Some(at.0),
        EventStatus::Pending => None,
    }
}

/// Ends all work that ever ends, and gives the times at which some did.
fn run_dry(device: &DeviceContext) -> Vec<u64> {
    let next = || time(device).next_event();
    let mut times = Vec::new();
    while let Some(next) = next() {
        time(device).advance_to(next);
        times.push(next.0);
    }
    times
}

#[test]
fn a_stream_runs_in_order_and_streams_run_side_by_side() {
    let device = device();
    let (a, b) = (stream(&device), stream(&device));
    let events =
        [run(&device, &a, 10, None), run(&device, &a, 20, None), run(&device, &b, 25, None)];
    assert_eq!(run_dry(&device), [10, 25, 30]);
    assert_eq!(events.each_ref().map(at), [Some(10), Some(30), Some(25)]);
    assert_eq!(device.clock().now(), Timestamp(30));
}

#[test]
fn work_ends_at_its_own_time_however_far_time_jumps() {
    let device = device();
    let stream = stream(&device);
    let events = [run(&device, &stream, 10, None), run(&device, &stream, 20, None)];
    time(&device).advance_to(Timestamp(9));
    assert_eq!(events.each_ref().map(at), [None, None]);
    time(&device).advance_to(Timestamp(1_000));
    assert_eq!(events.each_ref().map(at), [Some(10), Some(30)]);
    assert_eq!(device.clock().now(), Timestamp(1_000));
    // Work starts when it is enqueued, not when the stream went idle.
    let late = run(&device, &stream, 5, None);
    time(&device).advance_to(Timestamp(3)); // The past.
    assert_eq!(at(&late), None);
    assert_eq!(run_dry(&device), [1_005]);
}

#[test]
fn an_event_on_an_idle_stream_completes_at_once() {
    let device = device();
    let (stream, event) = (stream(&device), device.create_event().expect("a live device"));
    time(&device).advance_to(Timestamp(7));
    stream.record(&event).expect("room");
    assert_eq!(at(&event), Some(7));
    assert_eq!(event.synchronize().expect("complete"), Timestamp(7));
}

#[test]
fn work_of_no_cost_ends_when_time_is_told_so() {
    let device = device();
    let stream = stream(&device);
    let done = run(&device, &stream, 0, None);
    assert_eq!((at(&done), time(&device).next_event()), (None, Some(Timestamp::ZERO)));
    time(&device).advance_to(Timestamp::ZERO);
    assert_eq!(at(&done), Some(0));
}

#[test]
fn waiting_where_time_is_moved_by_hand_is_refused() {
    let device = device();
    let stream = stream(&device);
    let done = run(&device, &stream, 10, None);
    for result in [stream.synchronize(), done.synchronize().map(|_| ())] {
        let error = result.expect_err("time does not move by itself");
        assert!(matches!(error, DeviceError::StillPending));
        assert_eq!(error.category(), Category::Transient);
    }
    run_dry(&device);
    stream.synchronize().expect("all is done");
}

#[test]
fn a_fault_reaches_the_next_event_and_nothing_else() {
    for fault in [SimFault::OutOfMemory, SimFault::ExecutionFailure] {
        let device = device();
        let (sick, well) = (stream(&device), stream(&device));
        let failed = run(&device, &sick, 10, Some(fault));
        let (later, elsewhere) = (run(&device, &sick, 10, None), run(&device, &well, 15, None));
        assert_eq!(run_dry(&device), [10, 15, 20]);
        let error = failed.query().expect_err("the work failed");
        assert!(matches!(&error, DeviceError::Work { stream, .. } if *stream == sick.id()));
        assert_eq!(error.category(), Category::Permanent);
        assert_eq!((at(&later), at(&elsewhere)), (Some(20), Some(15)));
    }
}

#[test]
fn synchronising_reports_a_fault_no_event_has_reported() {
    let device = device();
    let stream = stream(&device);
    let fault = Some(SimFault::ExecutionFailure);
    stream.enqueue_sim(SimWork { cost: Nanos(1), fault }).expect("room");
    run_dry(&device);
    let error = stream.synchronize().expect_err("the work failed");
    assert!(matches!(error, DeviceError::Work { .. }));
    stream.synchronize().expect("it was reported");
}

#[test]
fn an_overrun_succeeds_late() {
    let device = device();
    let stream = stream(&device);
    let late = run(&device, &stream, 10, Some(SimFault::Overrun { extra: Nanos(7) }));
    assert_eq!(run_dry(&device), [17]);
    assert_eq!(at(&late), Some(17));
}

#[test]
fn a_launch_failure_enqueues_nothing() {
    let device = device();
    let stream = stream(&device);
    let refused = SimWork { cost: Nanos(10), fault: Some(SimFault::LaunchFailure) };
    let error = stream.enqueue_sim(refused).expect_err("declared");
    assert_eq!(error.to_string(), "s0 could not launch the work");
    assert_eq!(error.category(), Category::Permanent);
    assert_eq!(time(&device).next_event(), None);
    stream.synchronize().expect("the stream is empty");
}

#[test]
fn a_hang_never_ends_and_holds_only_its_own_stream() {
    let device = device();
    let (hung, well) = (stream(&device), stream(&device));
    let never = run(&device, &hung, 10, Some(SimFault::Hang));
    let behind = run(&device, &hung, 10, None);
    let fine = run(&device, &well, 10, None);
    assert_eq!(run_dry(&device), [10]);
    time(&device).advance_to(Timestamp::NEVER);
    assert_eq!([at(&never), at(&behind), at(&fine)], [None, None, Some(10)]);
    assert_eq!(time(&device).next_event(), None);
}

#[test]
fn a_hung_stream_keeps_its_slot_when_dropped() {
    let config = SimConfig { memory_limit: Bytes::ZERO, max_streams: 1, stream_depth: 2 };
    let device = DeviceContext::sim(config).expect("the limits are not zero");
    drop(run(&device, &stream(&device), 1, Some(SimFault::Hang)));
    time(&device).advance_to(Timestamp::NEVER);
    assert!(matches!(device.create_stream(), Err(DeviceError::StreamsExhausted { limit: 1 })));
}

#[test]
fn work_that_would_end_past_the_last_point_hangs() {
    let device = device();
    let stream = stream(&device);
    let never = run(&device, &stream, u64::MAX, None);
    assert_eq!(time(&device).next_event(), None);
    time(&device).advance_to(Timestamp::NEVER);
    assert_eq!(at(&never), None);
}

#[test]
fn a_lost_device_is_lost_for_good() {
    let device = device();
    let (sick, well) = (stream(&device), stream(&device));
    let before = run(&device, &well, 5, None);
    let fatal = run(&device, &sick, 10, Some(SimFault::DeviceLost));
    let (behind, elsewhere) = (run(&device, &sick, 1, None), run(&device, &well, 20, None));
    assert_eq!(run_dry(&device), [5, 10]);

    assert_eq!(at(&before), Some(5), "what completed before stays true");
    let is_lost = |result: Result<(), DeviceError>| {
        let error = result.expect_err("the device is lost");
        assert!(matches!(&error, DeviceError::DeviceLost { at: Timestamp(10), .. }), "{error}");
        assert_eq!(error.category(), Category::Fatal);
    };
    for event in [&fatal, &behind, &elsewhere] {
        is_lost(event.query().map(|_| ()));
        is_lost(event.synchronize().map(|_| ()));
        is_lost(event.elapsed_since(&before).map(|_| ()));
    }
    is_lost(well.enqueue_sim(SimWork { cost: Nanos(1), fault: None }));
    is_lost(well.record(&before));
    is_lost(well.synchronize());
    is_lost(device.create_stream().map(|_| ()));
    is_lost(device.create_event().map(|_| ()));
    is_lost(device.reserve_arena(Bytes(1)).map(|_| ()));
    assert_eq!(at(&before), Some(5), "a refused recording leaves the event as it was");
    time(&device).advance_to(Timestamp(99));
    assert_eq!(device.clock().now(), Timestamp(99));
}

#[test]
fn a_full_stream_refuses_and_takes_again_once_work_is_done() {
    let config = SimConfig { memory_limit: Bytes::ZERO, max_streams: 1, stream_depth: 2 };
    let device = DeviceContext::sim(config).expect("the limits are not zero");
    let stream = stream(&device);
    for round in 1..=100 {
        let done = run(&device, &stream, 10, None);
        let more = SimWork { cost: Nanos(1), fault: None };
        let full = stream.enqueue_sim(more).expect_err("two are unfinished");
        assert_eq!(full.to_string(), "s0 is full with 2 unfinished entries");
        assert!(matches!(stream.record(&done), Err(DeviceError::StreamFull { depth: 2, .. })));
        run_dry(&device);
        assert_eq!(at(&done), Some(10 * round));
    }
}

#[test]
fn a_dropped_stream_finishes_in_its_own_time_and_then_frees_its_slot() {
    let config = SimConfig { memory_limit: Bytes::ZERO, max_streams: 1, stream_depth: 4 };
    let device = DeviceContext::sim(config).expect("the limits are not zero");
    let first = stream(&device);
    let id = first.id();
    let done = run(&device, &first, 10, None);
    drop(first);
    assert!(matches!(device.create_stream(), Err(DeviceError::StreamsExhausted { .. })));
    assert_eq!(run_dry(&device), [10]);
    assert_eq!(at(&done), Some(10));
    let second = stream(&device);
    assert_eq!(Some(second.id()), id.next_generation());
    drop(second);
    assert_eq!(stream(&device).id().generation, 2, "an idle stream frees its slot at once");
}

#[test]
fn recording_again_forgets_the_earlier_recording() {
    let device = device();
    let (slow, fast) = (stream(&device), stream(&device));
    let done = run(&device, &slow, 100, None);
    fast.record(&done).expect("room");
    assert_eq!(at(&done), Some(0));
    run_dry(&device);
    assert_eq!(at(&done), Some(0));
}

#[test]
fn the_signal_rings_for_completions_of_virtual_time() {
    let device = device();
    let stream = stream(&device);
    let done = run(&device, &stream, 10, None);
    time(&device).advance_to(Timestamp(10));
    device.signal().wait(None, Nanos::ZERO); // Would sleep for ever without the ring.
    assert_eq!(at(&done), Some(10));
}

/// One step of a random run.
#[derive(Clone, Debug)]
enum Step {
    Enqueue { stream: usize, cost: u64, extra: u64 },
    Advance { by: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let enqueue = (0..3_usize, 0..50_u64, 0..5_u64)
        .prop_map(|(stream, cost, extra)| Step::Enqueue { stream, cost, extra });
    let advance = (0..40_u64).prop_map(|by| Step::Advance { by });
    proptest::collection::vec(prop_oneof![enqueue, advance], 0..40)
}

/// The completion times the device gives, in the order of enqueuing.
fn simulated(steps: &[Step]) -> Vec<Option<u64>> {
    let device = device();
    let streams = [stream(&device), stream(&device), stream(&device)];
    let mut events = Vec::new();
    for step in steps {
        match *step {
            Step::Advance { by } => {
                let now = device.clock().now();
                time(&device).advance_to(now + Nanos(by));
            }
            Step::Enqueue { stream, cost, extra } => {
                let work = SimWork {
                    cost: Nanos(cost),
                    fault: Some(SimFault::Overrun { extra: Nanos(extra) }),
                };
                let event = device.create_event().expect("a live device");
                let stream = &streams[stream];
                // A full stream refuses the work, or takes the work and refuses the event.
                if stream.enqueue_sim(work).is_ok() {
                    match stream.record(&event) {
                        Ok(()) => events.push(Some(event)),
                        Err(_) => events.push(None),
                    }
                }
            }
        }
    }
    run_dry(&device);
    events.iter().map(|event| event.as_ref().and_then(at)).collect()
}

/// The slow, obvious twin: a stream is the sum of its costs from when it was last idle.
fn by_hand(steps: &[Step]) -> Vec<Option<u64>> {
    let (mut now, mut free_at, mut times) = (0, [0_u64; 3], Vec::new());
    for step in steps {
        match *step {
            Step::Advance { by } => now += by,
            Step::Enqueue { stream, cost, extra } => {
                free_at[stream] = free_at[stream].max(now) + cost + extra;
                times.push(Some(free_at[stream]));
            }
        }
    }
    times
}

/// When two streams go on that wait, behind 20 of their own work, for the mark of a stage and for an event
/// behind it: the mark comes at 10 and, of a stage that is launched once this one was seen to end, at 40.
fn waited(waits: SimWaits) -> [Option<u64>; 2] {
    let device = device();
    time(&device).set_waits(waits);
    let [stages, marked, plain] = [stream(&device), stream(&device), stream(&device)];
    let events = StageEvents::on(&device).expect("a live device");
    let stage = |stream: &CudaStream| -> Result<(), DeviceError> {
        stream.enqueue_sim(SimWork { cost: Nanos(10), fault: None })?;
        stream.mark(CopyMark::Uploaded)?;
        stream.enqueue_sim(SimWork { cost: Nanos(5), fault: None })
    };
    stages.between(&events, stage).expect("room");
    let behind = run(&device, &stages, 15, None);
    let goes_on = [(&marked, events.uploaded()), (&plain, &behind)].map(|(stream, event)| {
        stream.enqueue_sim(SimWork { cost: Nanos(20), fault: None }).expect("room");
        stream.wait_for(event).expect("room");
        let on = device.create_event().expect("a live device");
        stream.record(&on).expect("room");
        on
    });
    time(&device).advance_to(Timestamp(15));
    stages.between(&events, stage).expect("room");
    let _again = run(&device, &stages, 15, None);
    time(&device).advance_to(Timestamp(1_000));
    goes_on.map(|on| at(&on))
}

#[test]
fn a_wait_is_for_the_mark_that_was_the_last_one_where_waits_are_held() {
    assert_eq!(waited(SimWaits::Held), [Some(20), Some(30)]);
}

#[test]
fn waits_for_marks_go_over_to_the_next_where_the_device_has_it_so_and_no_others_do() {
    assert_eq!(waited(SimWaits::Moved), [Some(40), Some(30)]);
}

#[test]
fn waits_for_marks_are_passed_over_where_the_device_has_it_so_and_no_others_are() {
    let device = device();
    time(&device).set_waits(SimWaits::Passed);
    let [stages, other] = [stream(&device), stream(&device)];
    let events = StageEvents::on(&device).expect("a live device");
    let stage = |stream: &CudaStream| -> Result<(), DeviceError> {
        stream.enqueue_sim(SimWork { cost: Nanos(10), fault: None })?;
        stream.mark(CopyMark::Uploaded)
    };
    stages.between(&events, stage).expect("room");
    let goes_on = device.create_event().expect("a live device");
    other.wait_for(events.uploaded()).expect("room");
    other.record(&goes_on).expect("room");
    assert_eq!(at(&goes_on), Some(0));
    other.wait_for(events.ended()).expect("room");
    other.record(&goes_on).expect("room");
    time(&device).advance_to(Timestamp(100));
    assert_eq!(at(&goes_on), Some(10));
}

/// When waits go on for the marks of two stages of 10, of which the second begins at 10; asked at 5.
fn asked_before_and_after_the_begin(waits: SimWaits) -> [Option<u64>; 2] {
    let device = device();
    time(&device).set_waits(waits);
    let stages = stream(&device);
    let events = [(); 2].map(|()| StageEvents::on(&device).expect("a live device"));
    for events in &events {
        let stage = |stream: &CudaStream| -> Result<(), DeviceError> {
            stream.enqueue_sim(SimWork { cost: Nanos(10), fault: None })?;
            stream.mark(CopyMark::Uploaded)
        };
        stages.between(events, stage).expect("room");
    }
    time(&device).advance_to(Timestamp(5));
    let goes_on = events.each_ref().map(|events| {
        let (other, on) = (stream(&device), device.create_event().expect("a live device"));
        other.wait_for(events.uploaded()).expect("room");
        other.record(&on).expect("room");
        on
    });
    time(&device).advance_to(Timestamp(100));
    goes_on.map(|on| at(&on))
}

#[test]
fn waits_are_passed_over_for_the_one_kind_of_stage_that_the_device_has_it_so_for() {
    let asked = asked_before_and_after_the_begin;
    assert_eq!(asked(SimWaits::Held), [Some(10), Some(20)]);
    assert_eq!(asked(SimWaits::PassedAfterBegin), [Some(5), Some(20)]);
    assert_eq!(asked(SimWaits::PassedBeforeBegin), [Some(10), Some(5)]);
}

proptest! {
    #[test]
    fn completions_are_the_sums_of_costs(steps in steps()) {
        // Eight pieces of work fill a stream; runs that fill one are another test's business.
        let enqueued = |of: usize| {
            steps.iter().filter(|s| matches!(s, Step::Enqueue { stream, .. } if *stream == of)).count()
        };
        prop_assume!((0..3).all(|stream| enqueued(stream) <= 8));
        prop_assert_eq!(simulated(&steps), by_hand(&steps));
    }

    #[test]
    fn equal_inputs_give_equal_runs(steps in steps()) {
        prop_assert_eq!(simulated(&steps), simulated(&steps));
    }
}
