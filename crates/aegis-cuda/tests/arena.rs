//! Arenas: limits, ranges, overlaps, and what the bytes hold.

use std::ops::Range;

use aegis_cuda::memory::{ARENA_ALIGNMENT, ClaimKind};
use aegis_cuda::{DeviceArena, DeviceContext, DeviceError, SimConfig, interop};
use aegis_trace::{Bytes, Category};
use expect_test::{Expect, expect};
use proptest::prelude::*;

fn device(memory_limit: Bytes) -> DeviceContext {
    let config = SimConfig { memory_limit, max_streams: 1, stream_depth: 1 };
    DeviceContext::sim(config).expect("the limits are not zero")
}

fn arena(size: u64) -> DeviceArena {
    device(Bytes(size)).reserve_arena(Bytes(size)).expect("within the limit")
}

#[track_caller]
fn refused<T>(result: Result<T, DeviceError>, text: Expect) {
    let error = result.map(|_| ()).expect_err("a refusal");
    text.assert_eq(&error.to_string());
    assert_eq!(error.category(), Category::Permanent);
}

#[test]
fn the_live_arenas_stay_within_the_limit() {
    let device = device(Bytes::from_mib(8));
    let first = device.reserve_arena(Bytes::from_mib(6)).expect("within the limit");
    refused(
        device.reserve_arena(Bytes::from_mib(3)),
        expect!["out of memory: 3 MiB requested with 6 MiB of 8 MiB reserved"],
    );
    refused(
        device.reserve_arena(Bytes(u64::MAX)),
        expect!["out of memory: 17179869183.999 GiB requested with 6 MiB of 8 MiB reserved"],
    );
    let second = device.reserve_arena(Bytes::from_mib(2)).expect("exactly the limit");
    assert_eq!(device.reserved_memory(), Bytes::from_mib(8));
    drop((first, second));
    assert_eq!(device.reserved_memory(), Bytes::ZERO);
}

#[test]
fn an_arena_lives_as_long_as_anything_carved_from_it() {
    let device = device(Bytes(4096));
    let arena = device.reserve_arena(Bytes(4096)).expect("within the limit");
    let (buffer, region) =
        (arena.buffer(0..16).expect("free"), arena.region(16..32).expect("free"));
    drop(arena);
    assert_eq!(device.reserved_memory(), Bytes(4096));
    drop(buffer);
    assert_eq!(device.reserved_memory(), Bytes(4096));
    drop(region);
    assert_eq!(device.reserved_memory(), Bytes::ZERO);
}

#[test]
fn a_simulated_device_may_be_larger_than_the_machine() {
    let size = Bytes::from_gib(200);
    let arena = device(size).reserve_arena(size).expect("address space is plenty");
    let mut last = arena.buffer(size.0 - 8..size.0).expect("free");
    last.write(0, &[1; 8]).expect("within");
}

#[test]
fn memory_the_system_has_no_addresses_for_is_refused() {
    let device = device(Bytes(u64::MAX));
    for size in [u64::MAX, 1 << 62] {
        let error = device.reserve_arena(Bytes(size)).expect_err("no machine has it");
        assert!(matches!(error, DeviceError::Os { call: "mmap", .. }), "{error}");
        assert_eq!(device.reserved_memory(), Bytes::ZERO, "the charge is refunded");
    }
}

#[test]
fn an_arena_begins_zeroed_and_aligned() {
    let arena = arena(3 * 4096 + 5);
    assert_eq!(arena.size(), Bytes(3 * 4096 + 5));
    let buffer = arena.buffer(0..3 * 4096 + 5).expect("free");
    let mut bytes = vec![0xff; 3 * 4096 + 5];
    buffer.read(0, &mut bytes).expect("within");
    assert!(bytes.iter().all(|byte| *byte == 0));
    let address = interop::buffer_ptr(&buffer).addr().get();
    assert!(address.is_multiple_of(ARENA_ALIGNMENT.as_usize()));
}

#[test]
fn buffers_refuse_to_overlap_anything_and_regions_only_buffers() {
    let arena = arena(100);
    let (_buffer, _region) =
        (arena.buffer(10..20).expect("free"), arena.region(40..60).expect("free"));
    refused(arena.buffer(19..30), expect!["bytes 19 to 30 overlap the buffer at 10 to 20"]);
    refused(arena.buffer(59..61), expect!["bytes 59 to 61 overlap the shared region at 40 to 60"]);
    refused(arena.region(0..100), expect!["bytes 0 to 100 overlap the buffer at 10 to 20"]);
    let _overlapping = arena.region(50..100).expect("regions share");
    let _equal = arena.region(40..60).expect("regions share");
    let _adjacent = [arena.buffer(0..10).expect("free"), arena.buffer(20..40).expect("free")];
    let held = arena.buffer(10..11).expect_err("held");
    assert!(matches!(held, DeviceError::Overlap { held_as: ClaimKind::Buffer, .. }));
}

#[test]
fn a_range_is_free_again_once_all_its_holders_are_gone() {
    let arena = arena(100);
    drop(arena.buffer(0..50).expect("free"));
    let (first, second) = (arena.region(0..50).expect("free"), arena.region(0..50).expect("free"));
    drop(first);
    assert!(arena.buffer(0..50).is_err());
    drop(second);
    assert!(arena.buffer(0..50).is_ok());
}

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "a reversed range is what is refused")]
fn ranges_outside_the_arena_are_refused() {
    let arena = arena(100);
    refused(arena.buffer(90..101), expect!["bytes 90 to 101 lie outside the 100 B available"]);
    refused(arena.region(101..101), expect!["bytes 101 to 101 lie outside the 100 B available"]);
    refused(arena.region(20..10), expect!["bytes 20 to 10 lie outside the 100 B available"]);
    refused(
        arena.buffer(0..u64::MAX),
        expect!["bytes 0 to 18446744073709551615 lie outside the 100 B available"],
    );
}

#[test]
fn empty_ranges_overlap_nothing() {
    let empty = arena(0);
    assert!(empty.buffer(0..0).expect("nothing").is_empty());
    let arena = arena(100);
    let _buffer = arena.buffer(0..100).expect("free");
    for range in [0..0, 50..50, 100..100] {
        let mut nothing = arena.buffer(range.clone()).expect("nothing");
        nothing.fill(1).expect("no driver to refuse");
        nothing.write(0, &[]).expect("nothing");
        assert!(nothing.write(0, &[1]).is_err());
        assert!(arena.region(range).expect("nothing").is_empty());
    }
}

#[test]
fn a_buffer_holds_what_was_written_and_refuses_the_rest() {
    let arena = arena(100);
    let mut left = arena.buffer(0..10).expect("free");
    let mut right = arena.buffer(10..20).expect("free");
    left.fill(1).expect("no driver to refuse");
    right.fill(2).expect("no driver to refuse");
    left.write(7, &[5, 6, 7]).expect("within");
    let mut bytes = [0; 10];
    left.read(0, &mut bytes).expect("within");
    assert_eq!(bytes, [1, 1, 1, 1, 1, 1, 1, 5, 6, 7]);
    right.read(0, &mut bytes).expect("within");
    assert_eq!(bytes, [2; 10]);
    refused(left.write(8, &[0; 3]), expect!["bytes 8 to 11 lie outside the 10 B available"]);
    refused(left.read(11, &mut []), expect!["bytes 11 to 11 lie outside the 10 B available"]);
    let far = left.write(u64::MAX, &[0; 3]).expect_err("outside");
    assert!(matches!(far, DeviceError::OutOfRange { .. }));
    assert_eq!((left.offset(), left.len(), right.offset()), (0, 10, 10));
}

#[test]
fn the_next_owner_of_a_range_finds_the_last_ones_bytes() {
    let arena = arena(100);
    arena.buffer(0..10).expect("free").fill(9).expect("no driver to refuse");
    let mut bytes = [0; 2];
    arena.buffer(8..12).expect("free").read(0, &mut bytes).expect("within");
    assert_eq!(bytes, [9, 9]);
}

#[test]
fn views_point_to_their_place_in_the_arena() {
    let arena = arena(100);
    let (buffer, region) =
        (arena.buffer(0..32).expect("free"), arena.region(64..96).expect("free"));
    let distance =
        interop::region_ptr(&region).addr().get() - interop::buffer_ptr(&buffer).addr().get();
    assert_eq!((distance, region.offset(), region.len()), (64, 64, 32));
}

#[test]
fn buffers_move_between_threads() {
    let arena = arena(100);
    let mut buffer = arena.buffer(0..10).expect("free");
    let buffer = std::thread::spawn(move || {
        buffer.fill(3).expect("no driver to refuse");
        buffer
    })
    .join()
    .expect("filling does not panic");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut bytes = [0; 10];
                buffer.read(0, &mut bytes).expect("within");
                assert_eq!(bytes, [3; 10]);
            });
        }
    });
}

/// What a claim would take, byte by byte.
fn meets(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.clone().any(|byte| b.contains(&byte))
}

proptest! {
    /// Against the definition: a request is granted unless a byte of it is held by someone that it
    /// may not share with.
    #[test]
    fn claims_are_granted_exactly_where_no_byte_forbids_it(
        requests in proptest::collection::vec((0..24_u64, 0..8_u64, any::<bool>(), any::<bool>()), 0..30)
    ) {
        let arena = arena(24);
        let (mut buffers, mut regions) = (Vec::new(), Vec::new());
        for (start, length, exclusive, release) in requests {
            let range = start..(start + length).min(24);
            let held_by_buffer = buffers.iter().any(|(_, held)| meets(&range, held));
            let held_by_region = regions.iter().any(|(_, held)| meets(&range, held));
            if exclusive {
                let granted = arena.buffer(range.clone());
                prop_assert_eq!(granted.is_ok(), !held_by_buffer && !held_by_region);
                buffers.extend(granted.ok().map(|buffer| (buffer, range)));
            } else {
                let granted = arena.region(range.clone());
                prop_assert_eq!(granted.is_ok(), !held_by_buffer);
                regions.extend(granted.ok().map(|region| (region, range)));
            }
            if release {
                buffers.pop();
                regions.pop();
            }
        }
    }
}
