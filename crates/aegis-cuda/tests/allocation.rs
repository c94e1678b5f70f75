//! What runs per inference allocates nothing, on the enqueuing thread and on the worker.
#![allow(unsafe_code)] // A counting allocator can only be written with it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aegis_cuda::{DeviceContext, EventStatus, HostConfig, HostWork, SimConfig, SimWork, WorkFault};
use aegis_trace::{Bytes, MonotonicClock, Nanos};

/// Counts the allocations of all threads. The tests of this file are one, so that no other test
/// allocates meanwhile.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY:
// 1. Every call goes to the system's allocator unchanged, which keeps the contract.
// 2. Counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY:
        // 1. The caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY:
        // 1. The caller keeps the contract of `dealloc`; `ptr` came from `System`.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Nothing;

impl HostWork for Nothing {
    fn run(&self) -> Result<(), WorkFault> {
        Ok(())
    }
}

/// The allocations of `rounds` rounds, after a few that may set something up.
fn allocations_of(mut round: impl FnMut()) -> u64 {
    for _ in 0..10 {
        round();
    }
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..1_000 {
        round();
    }
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

#[test]
fn a_round_of_enqueue_record_and_wait_allocates_nothing() {
    for spin in [Nanos::ZERO, Nanos::from_millis(10)] {
        let config = HostConfig {
            memory_limit: Bytes::ZERO,
            max_streams: 1,
            stream_depth: 2,
            spin,
            clock: MonotonicClock::start(),
        };
        let device = DeviceContext::host(config).expect("the limits are not zero");
        let stream = device.create_stream().expect("one stream");
        let event = device.create_event().expect("a live device");
        let work: Arc<dyn HostWork> = Arc::new(Nothing);
        let allocations = allocations_of(|| {
            stream.enqueue_host(Arc::clone(&work)).expect("an idle stream");
            stream.record(&event).expect("room for one more");
            while event.query().expect("no fault") == EventStatus::Pending {
                device.signal().wait(None, spin);
            }
            event.synchronize().expect("no fault");
            stream.synchronize().expect("no fault");
        });
        assert_eq!(allocations, 0, "polling for {spin}");
    }

    let config = SimConfig { memory_limit: Bytes::ZERO, max_streams: 1, stream_depth: 2 };
    let device = DeviceContext::sim(config).expect("the limits are not zero");
    let world = device.simulator().expect("the device is simulated");
    let stream = device.create_stream().expect("one stream");
    let event = device.create_event().expect("a live device");
    let allocations = allocations_of(|| {
        stream.enqueue_sim(SimWork { cost: Nanos(5), fault: None }).expect("an idle stream");
        stream.record(&event).expect("room for one more");
        world.advance_to(world.next_event().expect("the work ends"));
        assert!(matches!(event.query(), Ok(EventStatus::Complete { .. })));
    });
    assert_eq!(allocations, 0, "on the simulated device");
}
