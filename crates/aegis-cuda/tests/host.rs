//! The CPU as the device: order, faults, limits and endings of streams and events.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use aegis_cuda::{
    CudaEvent, CudaStream, DeviceContext, DeviceError, DriverKind, EventStatus, HostConfig,
    HostWork, SimConfig, SimWork, WorkFault,
};
use aegis_trace::{Bytes, Category, MonotonicClock, Nanos, Timestamp};

fn config() -> HostConfig {
    HostConfig {
        memory_limit: Bytes::from_mib(1),
        max_streams: 2,
        stream_depth: 64,
        spin: Nanos::ZERO,
        clock: MonotonicClock::start(),
    }
}

fn device() -> DeviceContext {
    DeviceContext::host(config()).expect("the limits are not zero")
}

fn stream(device: &DeviceContext) -> CudaStream {
    device.create_stream().expect("a free stream")
}

fn event(device: &DeviceContext) -> CudaEvent {
    device.create_event().expect("a live device")
}

/// Work made of a closure.
struct Work<F>(F);

impl<F: Fn() -> Result<(), WorkFault> + Send + Sync> HostWork for Work<F> {
    fn run(&self) -> Result<(), WorkFault> {
        (self.0)()
    }
}

fn work(run: impl Fn() -> Result<(), WorkFault> + Send + Sync + 'static) -> Arc<dyn HostWork> {
    Arc::new(Work(run))
}

fn failing(category: Category, message: &'static str) -> Arc<dyn HostWork> {
    work(move || Err(WorkFault::new(category, message)))
}

/// Holds work back until the test opens it.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.open.lock().expect("nothing panics under the lock") = true;
        self.changed.notify_all();
    }

    /// Work that ends once the gate is open.
    fn work(self: &Arc<Self>) -> Arc<dyn HostWork> {
        let gate = Arc::clone(self);
        work(move || {
            let guard = gate.open.lock().expect("nothing panics under the lock");
            drop(gate.changed.wait_while(guard, |open| !*open).expect("as above"));
            Ok(())
        })
    }
}

/// Collects numbers in the order they come.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u32>>>);

impl Log {
    fn work(&self, number: u32) -> Arc<dyn HostWork> {
        let log = self.clone();
        work(move || {
            log.0.lock().expect("nothing panics under the lock").push(number);
            Ok(())
        })
    }

    fn taken(&self) -> Vec<u32> {
        self.0.lock().expect("nothing panics under the lock").clone()
    }
}

#[test]
fn work_of_one_stream_runs_in_the_order_it_came() {
    let device = device();
    let (stream, log) = (stream(&device), Log::default());
    for number in 0..50 {
        stream.enqueue_host(log.work(number)).expect("room for 64");
    }
    stream.synchronize().expect("no work fails");
    assert_eq!(log.taken(), (0..50).collect::<Vec<_>>());
}

#[test]
fn an_event_is_pending_until_the_work_before_it_is_done() {
    let device = device();
    let (stream, done, gate) = (stream(&device), event(&device), Arc::new(Gate::default()));
    stream.enqueue_host(gate.work()).expect("room");
    stream.record(&done).expect("room");
    let before = device.clock().now();
    assert_eq!(done.query().expect("no fault"), EventStatus::Pending);
    gate.open();
    let at = done.synchronize().expect("no fault");
    assert!(before <= at && at <= device.clock().now());
    assert_eq!(done.query().expect("no fault"), EventStatus::Complete { at });
}

#[test]
fn events_measure_the_work_between_them() {
    let device = device();
    let (stream, start, end) = (stream(&device), event(&device), event(&device));
    let clock = device.clock();
    let ticks = work(move || {
        let began = clock.now();
        while clock.now() < began + Nanos::from_micros(20) {}
        Ok(())
    });
    stream.record(&start).expect("room");
    stream.enqueue_host(ticks).expect("room");
    stream.record(&end).expect("room");
    end.synchronize().expect("no fault");
    assert!(end.elapsed_since(&start).expect("both complete") >= Nanos::from_micros(20));
    let reversed = start.elapsed_since(&end).expect_err("the start lies later");
    assert!(matches!(reversed, DeviceError::EventsOutOfOrder { .. }));
    assert_eq!(reversed.category(), Category::Permanent);
}

#[test]
fn a_fault_reaches_the_next_event_and_nothing_else() {
    let device = device();
    let (sick, well) = (stream(&device), stream(&device));
    let (before, after, later, elsewhere) =
        (event(&device), event(&device), event(&device), event(&device));
    let log = Log::default();
    sick.record(&before).expect("room");
    sick.enqueue_host(failing(Category::Permanent, "bad shape")).expect("room");
    sick.enqueue_host(failing(Category::Transient, "again")).expect("room");
    sick.enqueue_host(log.work(1)).expect("room");
    sick.record(&after).expect("room");
    sick.record(&later).expect("room");
    well.enqueue_host(log.work(2)).expect("room");
    well.record(&elsewhere).expect("room");

    before.synchronize().expect("recorded before the fault");
    later.synchronize().expect("the fault was reported by the event before");
    elsewhere.synchronize().expect("another stream");
    for _ in 0..2 {
        let error = after.query().expect_err("the work before it failed");
        assert_eq!(error.category(), Category::Permanent);
        assert_eq!(error.to_string(), "work on s0 failed, and so did one piece after it");
        let DeviceError::Work { stream, further, cause } = error else {
            panic!("not a fault of work: {error}");
        };
        assert_eq!((stream, further, &*cause.message), (sick.id(), 1, "bad shape"));
    }
    assert_eq!(log.taken().len(), 2, "work after a fault runs");
}

#[test]
fn a_panic_in_work_is_its_fault_and_the_stream_lives_on() {
    let device = device();
    let (stream, done) = (stream(&device), event(&device));
    let texts = [
        (work(|| panic!("static")), "panicked: static"),
        (work(|| panic!("{}", String::from("formatted"))), "panicked: formatted"),
        (work(|| std::panic::panic_any(7_u8)), "panicked: no message"),
    ];
    for (panics, text) in texts {
        stream.enqueue_host(panics).expect("room");
        stream.record(&done).expect("room");
        let error = done.synchronize().expect_err("the work panicked");
        assert_eq!(error.category(), Category::Permanent);
        let DeviceError::Work { cause, .. } = error else { panic!("not a fault: {error}") };
        assert_eq!(&*cause.message, text);
    }
    stream.record(&done).expect("room");
    done.synchronize().expect("nothing failed since");
}

#[test]
fn work_that_panics_when_dropped_does_not_take_the_worker_with_it() {
    struct Grenade;
    impl HostWork for Grenade {
        fn run(&self) -> Result<(), WorkFault> {
            Ok(())
        }
    }
    impl Drop for Grenade {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    let device = device();
    let stream = stream(&device);
    stream.enqueue_host(Arc::new(Grenade)).expect("room");
    let error = stream.synchronize().expect_err("the drop panicked");
    assert!(matches!(error, DeviceError::Work { .. }));
    stream.synchronize().expect("the worker lives");
}

#[test]
fn a_full_stream_refuses_and_takes_again_once_work_is_done() {
    let device = DeviceContext::host(HostConfig { stream_depth: 3, ..config() }).expect("limits");
    let (stream, done, refused) = (stream(&device), event(&device), event(&device));
    let (gate, log) = (Arc::new(Gate::default()), Log::default());
    for round in 0..100 {
        let gate = if round == 0 { Arc::clone(&gate) } else { Arc::default() };
        stream.enqueue_host(gate.work()).expect("an empty stream");
        stream.enqueue_host(log.work(round)).expect("room for two more");
        stream.record(&done).expect("room for one more");
        let full = stream.enqueue_host(log.work(1_000)).expect_err("three are unfinished");
        assert_eq!(full.to_string(), "s0 is full with 3 unfinished entries");
        assert_eq!(full.category(), Category::Transient);
        let full = stream.record(&refused).expect_err("three are unfinished");
        assert!(matches!(full, DeviceError::StreamFull { .. }));
        let untouched = refused.query().expect_err("the refusal left it as it was");
        assert!(matches!(untouched, DeviceError::EventNotRecorded));
        gate.open();
        // Who saw the completion finds room, without waiting for anything else.
        done.synchronize().expect("no fault");
    }
    assert_eq!(log.taken(), (0..100).collect::<Vec<_>>());
}

#[test]
fn synchronising_a_full_stream_waits_for_it() {
    let device = DeviceContext::host(HostConfig { stream_depth: 1, ..config() }).expect("limits");
    let (stream, gate) = (stream(&device), Arc::new(Gate::default()));
    stream.enqueue_host(gate.work()).expect("an empty stream");
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| stream.synchronize().expect("no fault"));
        }
        gate.open();
    });
}

#[test]
fn synchronising_reports_a_fault_no_event_has_reported() {
    let device = device();
    let stream = stream(&device);
    stream.enqueue_host(failing(Category::Transient, "busy")).expect("room");
    let error = stream.synchronize().expect_err("the work failed");
    assert_eq!(error.category(), Category::Transient);
    stream.synchronize().expect("it was reported");
}

#[test]
fn recording_again_forgets_the_earlier_recording() {
    let device = device();
    let (held, free) = (stream(&device), stream(&device));
    let (done, gate) = (event(&device), Arc::new(Gate::default()));
    held.enqueue_host(gate.work()).expect("room");
    held.record(&done).expect("room");
    free.record(&done).expect("room");
    let at = done.synchronize().expect("the second stream is idle");
    gate.open();
    held.synchronize().expect("no fault");
    assert_eq!(done.query().expect("no fault"), EventStatus::Complete { at });
}

#[test]
fn an_event_without_a_recording_has_nothing_to_tell() {
    let device = device();
    let event = event(&device);
    for error in [event.query().map(|_| ()), event.synchronize().map(|_| ())] {
        let error = error.expect_err("never recorded");
        assert!(matches!(error, DeviceError::EventNotRecorded));
        assert_eq!(error.category(), Category::Permanent);
    }
}

#[test]
fn devices_do_not_share_events() {
    let (ours, theirs) = (device(), device());
    let (mine, foreign) = (event(&ours), event(&theirs));
    let error = stream(&ours).record(&foreign).expect_err("of another device");
    assert!(matches!(error, DeviceError::ForeignEvent));
    let error = mine.elapsed_since(&foreign).expect_err("of another device");
    assert!(matches!(error, DeviceError::ForeignEvent));
}

#[test]
fn each_driver_refuses_the_work_of_the_other() {
    let host = stream(&device());
    let error = host.enqueue_sim(SimWork { cost: Nanos(1), fault: None }).expect_err("host");
    assert_eq!(error.to_string(), "this needs the sim driver, the device runs on host");
    assert_eq!(error.category(), Category::Permanent);

    let config = SimConfig { memory_limit: Bytes::ZERO, max_streams: 1, stream_depth: 1 };
    let sim = DeviceContext::sim(config).expect("the limits are not zero");
    assert_eq!(sim.kind(), DriverKind::Sim);
    let error = stream(&sim).enqueue_host(Log::default().work(0)).expect_err("sim");
    assert_eq!(error.to_string(), "this needs the host driver, the device runs on sim");
}

#[test]
fn streams_are_limited_and_their_ids_never_return() {
    let device = device();
    let (first, second) = (stream(&device), stream(&device));
    let error = device.create_stream().expect_err("two live");
    assert_eq!(error.to_string(), "all 2 streams of the device are in use");
    assert_eq!(error.category(), Category::Transient);
    let id = first.id();
    drop(first);
    assert_eq!(Some(stream(&device).id()), id.next_generation());
    assert_eq!(second.id().index, 1);
}

#[test]
fn impossible_limits_are_refused() {
    let check = |config: HostConfig, text: &str| {
        let error = DeviceContext::host(config).expect_err("an impossible limit");
        assert_eq!((error.to_string().as_str(), error.category()), (text, Category::Permanent));
    };
    check(HostConfig { max_streams: 0, ..config() }, "`max_streams` must not be zero");
    check(HostConfig { stream_depth: 0, ..config() }, "`stream_depth` must not be zero");
    check(HostConfig { stream_depth: 65_537, ..config() }, "`stream_depth` exceeds 65536");
}

#[test]
fn dropping_a_stream_finishes_its_queue() {
    let device = device();
    let (stream, done, log) = (stream(&device), event(&device), Log::default());
    let gate = Arc::new(Gate::default());
    stream.enqueue_host(gate.work()).expect("room");
    for number in 0..10 {
        stream.enqueue_host(log.work(number)).expect("room");
    }
    stream.record(&done).expect("room");
    gate.open();
    drop(stream);
    assert_eq!(log.taken().len(), 10);
    assert!(matches!(done.query(), Ok(EventStatus::Complete { .. })));
}

#[test]
fn work_may_drop_its_own_stream_but_not_wait_for_it() {
    let device = DeviceContext::host(HostConfig { max_streams: 1, ..config() }).expect("limits");
    let stream = Arc::new(Mutex::new(None::<CudaStream>));
    let refused = Arc::new(AtomicBool::new(false));
    let done = event(&device);
    let closes = {
        let (stream, refused) = (Arc::clone(&stream), Arc::clone(&refused));
        work(move || {
            let own = stream.lock().expect("no panic under it").take().expect("put there before");
            let waiting = own.synchronize().expect_err("it would wait for itself");
            refused.store(matches!(waiting, DeviceError::StillPending), Ordering::Relaxed);
            Ok(())
        })
    };
    {
        let mut place = stream.lock().expect("no panic under it");
        let own = place.insert(device.create_stream().expect("one stream"));
        own.enqueue_host(closes).expect("room");
        own.record(&done).expect("room");
    }
    done.synchronize().expect("the queue is finished after the drop");
    assert!(refused.load(Ordering::Relaxed));
    // The worker gives the slot back when it ends, which is soon, but not before the event.
    while device.create_stream().is_err() {
        std::thread::yield_now();
    }
}

#[test]
fn a_fatal_fault_loses_the_device_for_good() {
    let device = device();
    let (sick, well) = (stream(&device), stream(&device));
    let (early, late, elsewhere) = (event(&device), event(&device), event(&device));
    let (log, gate) = (Log::default(), Arc::new(Gate::default()));
    sick.record(&early).expect("room");
    let at = early.synchronize().expect("nothing failed yet");
    well.enqueue_host(gate.work()).expect("room");
    well.enqueue_host(log.work(1)).expect("room");
    well.record(&elsewhere).expect("room");
    sick.enqueue_host(failing(Category::Fatal, "sticky error")).expect("room");
    // The device may be lost before the event is recorded; it is lost either way.
    let recorded = sick.record(&late);
    let error = recorded.and_then(|()| late.synchronize()).expect_err("the device is lost");
    assert_eq!(error.category(), Category::Fatal);
    assert!(error.to_string().ends_with("by work on s0: sticky error"), "{error}");

    assert_eq!(early.query().expect("it came before"), EventStatus::Complete { at });
    let is_lost = |result: Result<(), DeviceError>| {
        let error = result.expect_err("the device is lost");
        assert!(matches!(error, DeviceError::DeviceLost { .. }), "{error}");
    };
    is_lost(elsewhere.query().map(|_| ()));
    gate.open();
    is_lost(elsewhere.synchronize().map(|_| ()));
    is_lost(well.enqueue_host(log.work(2)));
    is_lost(well.record(&late));
    is_lost(well.synchronize());
    is_lost(device.create_event().map(|_| ()));
    is_lost(device.create_stream().map(|_| ()));
    is_lost(device.reserve_arena(Bytes(1)).map(|_| ()));
    assert!(log.taken().is_empty(), "nothing starts on a lost device");
}

#[test]
fn the_signal_rings_for_every_completion() {
    for spin in [Nanos::ZERO, Nanos::from_micros(50)] {
        let device = DeviceContext::host(HostConfig { spin, ..config() }).expect("limits");
        let streams = [stream(&device), stream(&device)];
        let events = [event(&device), event(&device)];
        let runs = Arc::new(AtomicU32::new(0));
        for round in 1..=500 {
            for (stream, event) in streams.iter().zip(&events) {
                let runs = Arc::clone(&runs);
                let count = work(move || {
                    runs.fetch_add(1, Ordering::Relaxed);
                    Ok(())
                });
                stream.enqueue_host(count).expect("the stream is idle");
                stream.record(event).expect("the stream is idle");
            }
            let pending =
                |event: &CudaEvent| event.query().expect("no fault") == EventStatus::Pending;
            // A lost ring would leave this asleep for ever.
            while events.iter().any(pending) {
                device.signal().wait(None, spin);
            }
            assert_eq!(runs.load(Ordering::Relaxed), 2 * round);
        }
    }
}

#[test]
fn several_threads_may_enqueue_on_one_stream() {
    let device = device();
    let (stream, log) = (stream(&device), Log::default());
    std::thread::scope(|scope| {
        for number in 0..4 {
            let (stream, log) = (&stream, &log);
            scope.spawn(move || {
                for _ in 0..200 {
                    while let Err(error) = stream.enqueue_host(log.work(number)) {
                        assert_eq!(error.category(), Category::Transient, "{error}");
                        std::thread::yield_now();
                    }
                }
            });
        }
    });
    stream.synchronize().expect("no fault");
    assert_eq!(log.taken().len(), 800);
}

#[test]
fn many_threads_may_wait_for_one_event() {
    let device = device();
    let (stream, done, gate) = (stream(&device), event(&device), Arc::new(Gate::default()));
    stream.enqueue_host(gate.work()).expect("room");
    stream.record(&done).expect("room");
    let seen: Vec<Timestamp> = std::thread::scope(|scope| {
        let waiters: Vec<_> =
            (0..4).map(|_| scope.spawn(|| done.synchronize().expect("no fault"))).collect();
        gate.open();
        waiters.into_iter().map(|waiter| waiter.join().expect("no panic")).collect()
    });
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
}
