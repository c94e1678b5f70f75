//! Arenas, copies, and the two counts of memory.

use aegis_cuda::{DeviceError, TestKernels};
use aegis_trace::Bytes;

use crate::bench::{Bench, Outcome, require};

const BLOCK: Bytes = Bytes::from_mib(256);

pub(crate) fn limit_holds(bench: &Bench) -> Outcome {
    let device = bench.open()?;
    let rest = device.memory_limit() - device.reserved_memory();
    let arena = device.reserve_arena(rest)?;
    let refused = device.reserve_arena(Bytes(1)).expect_err("nothing is left");
    let is_full = matches!(refused, DeviceError::OutOfMemory { .. });
    require(is_full, || format!("one byte more: {refused}"))?;
    drop(arena);
    drop(device.reserve_arena(BLOCK)?);
    let small = bench.open_with(|config| config.memory_limit = Bytes::from_mib(1));
    let known = device.memory_use().context > Bytes::from_mib(1);
    require(small.is_err() == known, || "the context does not count against the limit".into())?;
    Ok(format!("{:?}", device.memory_use()))
}

pub(crate) fn copies_arrive(bench: &Bench) -> Outcome {
    let device = bench.open()?;
    let kernels = TestKernels::load(&device)?;
    let stream = device.create_stream()?;
    let arena = device.reserve_arena(Bytes(10_000))?;
    let mut buffer = arena.buffer(16..8208)?;
    let mut seen = vec![1_u8; 8192];
    buffer.read(0, &mut seen)?;
    require(seen.iter().all(|byte| *byte == 0), || "the arena is not zeroed".into())?;
    buffer.fill(7)?;
    buffer.write(100, &[1, 2, 3])?;
    buffer.read(98, &mut seen[..7])?;
    require(seen[..7] == [7, 7, 1, 2, 3, 7, 7], || format!("{:?}", &seen[..7]))?;
    let (mut source, mut back) = (device.host_buffer(8192)?, device.host_buffer(8192)?);
    require(source.is_pinned(), || "the pages are not locked".into())?;
    require(source.iter().all(|byte| *byte == 0), || "locked pages are not zeroed".into())?;
    source.iter_mut().zip(0_u8..=250).for_each(|(byte, value)| *byte = value);
    source[8191] = 99;
    kernels.round_trip(&stream, &source, &mut buffer, &mut back)?;
    require(*back == *source, || "the bytes did not come back".into())?;
    let beyond = buffer.write(8190, &[0; 3]);
    require(beyond.is_err(), || "a write past the end was taken".into())?;
    Ok(String::new())
}

pub(crate) fn count_follows(bench: &Bench) -> Outcome {
    let device = bench.open()?;
    let count = || device.driver_memory().ok_or("the driver tells no memory");
    let process = || Ok::<_, Box<dyn std::error::Error>>(count()?.process.ok_or("not told")?);
    let before = (process()?, device.reserved_memory());
    let arena = device.reserve_arena(BLOCK)?;
    let charge = device.charge_foreign(Bytes::from_mib(1))?;
    let with = (process()?, device.reserved_memory());
    require(with.1 - before.1 == BLOCK + charge.bytes(), || format!("ledger: {with:?}"))?;
    let grown = with.0.saturating_sub(before.0);
    require(grown >= BLOCK && grown <= BLOCK + Bytes::from_mib(16), || {
        format!("the driver's count grew by {grown} for an arena of {BLOCK}")
    })?;
    let (lines, driver) = (device.memory_use(), count()?);
    drop((arena, charge));
    require(device.reserved_memory() == before.1, || "the charges were not refunded".into())?;
    let after = process()?;
    require(after < with.0, || format!("{after} after {}", with.0))?;
    Ok(format!("with an arena of {BLOCK}: ledger {lines:?}\ndriver {driver:?}"))
}
