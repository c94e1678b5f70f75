//! Typed views: what goes in comes out, and nothing past the end.

use aegis_cuda::DeviceBuffer;
use aegis_memory::{Element, MemoryOrchestrator, TensorView, ViewError};
use aegis_trace::{Bytes, ModelId, TensorId};
use proptest::prelude::*;

use crate::requests::{arena, real_arena, simple};

fn round_trip<E: Element + PartialEq + std::fmt::Debug>(at: u64, elements: &[E], zero: E) {
    let arena = arena(Bytes(1 << 17));
    let mut buffer = arena.buffer(64..64 + (1 << 16)).expect("free");
    let mut view = TensorView::of(&mut buffer).expect("even");
    assert_eq!(view.len(), (1 << 16) / E::SIZE as u64);
    let fits = (at + elements.len() as u64) * E::SIZE as u64 <= 1 << 16;
    assert_eq!(view.write(at, elements).is_ok(), fits);
    let mut back = vec![zero; elements.len()];
    assert_eq!(view.read(at, &mut back).is_ok(), fits);
    if fits {
        assert_eq!(back, elements);
    }
    if at > 0 {
        let mut before = [zero];
        view.read(at.min(view.len()) - 1, &mut before).expect("inside");
        assert_eq!(before, [zero], "nothing was written before");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_is_written_is_read_back_and_nothing_else_is_touched(
        at in 0u64..9_000,
        elements in prop::collection::vec(1i64..i64::MAX, 0..1_500),
    ) {
        round_trip(at, &elements, 0);
        let halves: Vec<_> = elements.iter().map(|n| u16::try_from(n % 65_536).expect("small")).collect();
        round_trip(at, &halves, 0);
        let floats: Vec<_> = halves.iter().map(|n| f32::from(*n)).collect();
        round_trip(at, &floats, 0.0);
    }
}

#[test]
fn a_buffer_of_half_an_element_has_no_view() {
    let arena = arena(Bytes(4096));
    let mut odd = arena.buffer(0..6).expect("free");
    let error = TensorView::<f32>::of(&mut odd).expect_err("six bytes");
    assert_eq!(error, ViewError::Uneven { offset: 0, length: 6, size: 4 });
    let mut shifted = arena.buffer(18..26).expect("free");
    assert!(TensorView::<f64>::of(&mut shifted).is_err());
    assert_eq!(TensorView::<u16>::of(&mut shifted).expect("even").len(), 4);
}

#[test]
fn numbers_that_overflow_are_past_the_end() {
    let arena = arena(Bytes(4096));
    let mut buffer = arena.buffer(0..4096).expect("free");
    let mut view = TensorView::<u64>::of(&mut buffer).expect("even");
    assert!(view.write(u64::MAX, &[1]).is_err());
    assert!(view.read(u64::MAX / 8 + 1, &mut [0]).is_err());
    assert!(view.write(512, &[]).is_ok(), "nothing at the end is inside");
}

/// A runtime that keeps a sum from job to job. One that does not clear it first seems to work where
/// memory happens to be zero, and is a tenant too late where another has been there.
fn sum_of_a_job(state: &mut DeviceBuffer, clears: bool, input: f32) -> f32 {
    let mut state = TensorView::<f32>::of(state).expect("even");
    if clears {
        state.write(0, &[0.0]).expect("inside");
    }
    let mut sum = [0.0];
    state.read(0, &mut sum).expect("inside");
    sum[0] += input;
    state.write(0, &sum).expect("inside");
    sum[0]
}

#[test]
#[cfg(debug_assertions)]
fn a_runtime_that_reads_what_it_did_not_write_is_caught() {
    let mut orchestrator = MemoryOrchestrator::new(real_arena(Bytes(4096)));
    let mut first_sum = |model: u16, clears: bool| {
        let planned = orchestrator.plan(simple(model, 64, 0)).expect("it fits");
        let mut binding = orchestrator.bind(planned).expect("nothing is bound");
        let mut state = binding.buffer(TensorId::first(0)).expect("the only one");
        let sum = sum_of_a_job(&mut state, clears, 1.5);
        drop((binding, state));
        orchestrator.release(ModelId::first(model)).expect("dropped");
        sum
    };
    assert!(first_sum(0, false).is_nan(), "fresh memory is not taken for zeros");
    assert!((first_sum(1, true) - 1.5).abs() < f32::EPSILON);
    assert!(first_sum(2, false).is_nan(), "nor is what the tenant before has left");
}
