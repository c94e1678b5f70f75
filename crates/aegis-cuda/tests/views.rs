//! A split device: views that share memory and losses, and nothing else.

use std::time::{Duration, Instant};

use aegis_cuda::{
    DeviceContext, DeviceError, EventStatus, HostConfig, PartitionShare, SimConfig, SimFault,
    SimWork,
};
use aegis_trace::{Bytes, MonotonicClock, Nanos, Timestamp};

const SHARES: [PartitionShare; 2] = [PartitionShare { sms: 3 }, PartitionShare { sms: 1 }];

fn host() -> DeviceContext {
    let config = HostConfig {
        memory_limit: Bytes::from_mib(1),
        max_streams: 2,
        stream_depth: 4,
        spin: Nanos::ZERO,
        clock: MonotonicClock::start(),
    };
    DeviceContext::host(config).expect("the limits are not zero")
}

fn sim() -> DeviceContext {
    let config = SimConfig { memory_limit: Bytes::from_mib(1), max_streams: 2, stream_depth: 4 };
    DeviceContext::sim(config).expect("the limits are not zero")
}

#[test]
fn views_share_one_limit_and_have_streams_of_their_own() {
    for device in [host(), sim()] {
        let views = device.split(&SHARES).expect("valid shares");
        let got: Vec<_> = views.iter().map(|view| view.capabilities().partition()).collect();
        assert_eq!(got, [Some(3), Some(1)]);
        let held = views[0].charge_foreign(Bytes::from_mib(1)).expect("within the limit");
        assert!(matches!(views[1].reserve_arena(Bytes(1)), Err(DeviceError::OutOfMemory { .. })));
        assert_eq!(device.memory_use().foreign, held.bytes());
        drop(held);
        assert_eq!(device.reserved_memory(), Bytes::ZERO);
        let streams: Vec<_> =
            views.iter().map(|view| view.create_stream().expect("a stream each")).collect();
        assert_ne!(streams[0].id(), streams[1].id());
        let foreign = views[1].create_event().expect("an event");
        assert!(matches!(streams[0].record(&foreign), Err(DeviceError::ForeignEvent)));
    }
}

#[test]
fn shares_of_nothing_and_splits_of_splits_are_refused() {
    for device in [host(), sim()] {
        assert!(matches!(device.split(&[]), Err(DeviceError::Config { .. })));
        let nothing = [PartitionShare { sms: 0 }];
        assert!(matches!(device.split(&nothing), Err(DeviceError::Config { .. })));
        let views = device.split(&SHARES).expect("valid shares");
        assert!(matches!(views[0].split(&SHARES), Err(DeviceError::Config { .. })));
    }
}

#[test]
fn simulated_views_are_worlds_of_their_own() {
    let views = sim().split(&SHARES).expect("valid shares");
    let [left, right] = [&views[0], &views[1]];
    let (stream, done) = (left.create_stream().expect("one"), left.create_event().expect("one"));
    let work = SimWork { cost: Nanos(10), fault: Some(SimFault::DeviceLost) };
    stream.enqueue_sim(work).expect("room");
    stream.record(&done).expect("room");
    let other = right.simulator().expect("simulated");
    other.advance_to(Timestamp(1_000));
    assert_eq!(done.query().expect("not lost yet"), EventStatus::Pending);
    left.simulator().expect("simulated").advance_to(Timestamp(10));
    assert!(matches!(done.query(), Err(DeviceError::DeviceLost { .. })));
    right.create_stream().expect("the other world lives");
}

#[test]
fn waiting_for_a_device_ends_at_a_ring_and_at_its_time() {
    for device in [host(), sim()] {
        device.signal().notify();
        device.wait(None, Nanos::ZERO);
        let soon = Instant::now() + Duration::from_millis(1);
        device.wait(Some(soon), Nanos::ZERO);
        assert!(Instant::now() >= soon);
    }
}

#[test]
fn what_only_a_gpu_has_is_refused_elsewhere() {
    for device in [host(), sim()] {
        let stream = device.create_stream().expect("a stream");
        let captured = stream.capture(|_| Ok::<_, DeviceError>(()));
        assert!(matches!(captured, Err(DeviceError::WrongDriver { .. })));
        assert_eq!((device.driver_memory(), device.health()), (None, None));
        assert!(!device.host_buffer(4).expect("ordinary memory").is_pinned());
    }
}
