//! What the machine says about itself is plausible, and reads back from JSON.

use aegis_cuda::{
    ComputeUnits, DeviceCapabilities, DeviceContext, DriverKind, HostConfig, SimConfig,
};
use aegis_trace::{Bytes, Clock, MonotonicClock, Nanos};

fn host() -> DeviceContext {
    let config = HostConfig {
        memory_limit: Bytes::from_mib(1),
        max_streams: 1,
        stream_depth: 1,
        spin: Nanos::ZERO,
        clock: MonotonicClock::start(),
    };
    DeviceContext::host(config).expect("the limits are not zero")
}

fn sim() -> DeviceContext {
    let config = SimConfig { memory_limit: Bytes::from_gib(8), max_streams: 1, stream_depth: 1 };
    DeviceContext::sim(config).expect("the limits are not zero")
}

#[test]
#[cfg(target_os = "linux")]
fn this_machine_is_described_plausibly() {
    let device = host();
    let capabilities = device.capabilities();
    assert_eq!((device.kind(), capabilities.driver()), (DriverKind::Host, DriverKind::Host));
    assert!(!capabilities.name().trim().is_empty());
    let total = capabilities.total_memory().expect("Linux tells");
    let available = capabilities.available_memory().expect("Linux tells");
    assert!(Bytes::from_mib(64) < total && total < Bytes::from_gib(1 << 14), "{total}");
    assert!(available <= total, "{available} of {total}");
    let Some(ComputeUnits::Cores { count, clock_khz }) = capabilities.compute_units() else {
        panic!("a processor has cores");
    };
    assert!((1..=8192).contains(&count));
    if let Some(khz) = clock_khz {
        assert!((50_000..10_000_000).contains(&khz), "{khz} kHz");
    }
    assert_eq!(capabilities.compute_capability(), None);
    assert_eq!(capabilities.memory_bandwidth_per_second(), None);
}

#[test]
fn a_simulated_device_has_what_it_was_given() {
    let device = sim();
    assert_eq!(device.capabilities().total_memory(), Some(Bytes::from_gib(8)));
    assert_eq!(device.capabilities().compute_units(), None);
    assert!(device.simulator().is_some());
    assert!(host().simulator().is_none());
}

#[test]
fn capabilities_read_back_from_json() {
    for device in [host(), sim()] {
        let text = serde_json::to_string(device.capabilities()).expect("plain data");
        let read: DeviceCapabilities = serde_json::from_str(&text).expect("just written");
        assert_eq!(&read, device.capabilities());
        assert!(text.contains(&format!("\"driver\":\"{}\"", device.kind())), "{text}");
    }
}

#[test]
fn the_clock_of_a_host_device_is_the_configured_one() {
    let clock = MonotonicClock::start();
    let config = HostConfig {
        memory_limit: Bytes::ZERO,
        max_streams: 1,
        stream_depth: 1,
        spin: Nanos::ZERO,
        clock,
    };
    let device = DeviceContext::host(config).expect("the limits are not zero");
    let (before, theirs, after) = (clock.now(), device.clock().now(), clock.now());
    assert!(before <= theirs && theirs <= after);
}
