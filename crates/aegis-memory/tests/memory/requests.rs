//! Requests to test with: random ones, and short names for literal ones.

use aegis_cuda::{DeviceArena, DeviceContext, HostConfig, SimConfig};
use aegis_memory::{Lifespan, ModelMemory, PlanRequest, TensorClass, TensorLifetime};
use aegis_trace::{Bytes, ModelId, MonotonicClock, Nanos, PartitionId, TensorId};
use proptest::prelude::*;

/// Every alignment that [`models`] draws divides it.
pub(crate) const COARSEST: u64 = 512;

/// More than any request of [`models`] can need, and a multiple of every alignment.
pub(crate) const AMPLE: Bytes = Bytes::from_mib(1);

pub(crate) fn span(start: u32, end: u32) -> Lifespan {
    Lifespan::new(start, end).expect("not empty")
}

/// A tensor aligned to 256 bytes.
pub(crate) fn tensor(
    index: u16,
    class: TensorClass,
    steps: (u32, u32),
    size: u64,
) -> TensorLifetime {
    TensorLifetime {
        tensor: TensorId::first(index),
        class,
        span: span(steps.0, steps.1),
        size: Bytes(size),
        alignment: 256,
    }
}

pub(crate) fn model(index: u16, tensors: Vec<TensorLifetime>) -> ModelMemory {
    ModelMemory { model: ModelId::first(index), partition: PartitionId::WHOLE, tensors }
}

/// A model with one block of weights and one of scratch, either of which may be empty.
pub(crate) fn simple(index: u16, weights: u64, scratch: u64) -> ModelMemory {
    let blocks = [
        tensor(0, TensorClass::Persistent, (0, 1), weights),
        tensor(1, TensorClass::Scratch, (0, 1), scratch),
    ];
    model(index, blocks.into_iter().filter(|block| block.size > Bytes::ZERO).collect())
}

/// Nothing is fixed.
pub(crate) fn request(capacity: Bytes, models: Vec<ModelMemory>) -> PlanRequest {
    PlanRequest { capacity, models, fixed: Vec::new() }
}

pub(crate) fn arena(size: Bytes) -> DeviceArena {
    let config = SimConfig { memory_limit: size, max_streams: 1, stream_depth: 1 };
    let device = DeviceContext::sim(config).expect("a valid configuration");
    device.reserve_arena(size).expect("no more than the limit")
}

/// As [`arena`], in the memory of this machine.
pub(crate) fn real_arena(size: Bytes) -> DeviceArena {
    let config = HostConfig {
        memory_limit: size,
        max_streams: 1,
        stream_depth: 1,
        spin: Nanos::ZERO,
        clock: MonotonicClock::start(),
    };
    let device = DeviceContext::host(config).expect("a valid configuration");
    device.reserve_arena(size).expect("no more than the limit")
}

pub(crate) fn class() -> impl Strategy<Value = TensorClass> {
    prop_oneof![
        2 => Just(TensorClass::Persistent),
        1 => Just(TensorClass::Io),
        1 => Just(TensorClass::Carried),
        4 => Just(TensorClass::Scratch),
    ]
}

/// A model of up to twelve tensors with mixed alignments and odd sizes.
pub(crate) fn memory(index: u16) -> impl Strategy<Value = ModelMemory> {
    let one = (class(), 0u32..8, 1u32..5, 1u64..3000, 0u32..10);
    prop::collection::vec(one, 0..=12).prop_map(move |drawn| {
        let tensor = |(id, (class, start, steps, size, shift)): (u16, (_, u32, u32, u64, u32))| {
            let alignment = 1 << shift;
            TensorLifetime { alignment, ..tensor(id, class, (start, start + steps), size) }
        };
        model(index, (0..).zip(drawn).map(tensor).collect())
    })
}

/// One to four models.
pub(crate) fn models() -> impl Strategy<Value = Vec<ModelMemory>> {
    (1u16..=4).prop_flat_map(|count| (0..count).map(memory).collect::<Vec<_>>())
}
