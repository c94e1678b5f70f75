//! The memory of a model's tensors with a name, as a binding gives it.
//!
//! Every backend declares its tensors, is bound to memory for them, and has to see that it was given
//! what it declared. [`Declared`] does that for all of them, so a binding that does not fit is refused
//! in the same words whatever the runtime.

use aegis_cuda::{DeviceBuffer, SharedRegion};
use aegis_memory::{MemoryBinding, TensorLifetime};
use aegis_trace::{Bytes, TensorId};

use crate::chain::{Chain, ChainTensor, Role};
use crate::error::BackendError;

/// The memory of a tensor with a name.
#[derive(Debug)]
pub enum Named {
    /// The model's own.
    Own(DeviceBuffer),
    /// A region of the binding: a carried tensor of a model that is never suspended.
    Shared(TensorId),
}

/// Where the memory of a tensor is.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// In a buffer of the model's own.
    Own(&'a DeviceBuffer),
    /// In a region shared with what is never live together with it.
    Shared(&'a SharedRegion),
}

impl Place<'_> {
    /// How many bytes are there.
    #[must_use]
    pub fn bytes(self) -> Bytes {
        Bytes(match self {
            Self::Own(buffer) => buffer.len(),
            Self::Shared(region) => region.len(),
        })
    }
}

impl Named {
    /// Where it is, for the tensor called `name`, with the shared regions as `region` has them.
    ///
    /// # Errors
    /// [`BackendError::BadBinding`], Permanent: it is shared, and `region` has none for it.
    pub fn place<'a>(
        &'a self,
        name: &str,
        region: impl FnOnce(TensorId) -> Option<&'a SharedRegion>,
    ) -> Result<Place<'a>, BackendError> {
        match self {
            Self::Own(buffer) => Ok(Place::Own(buffer)),
            Self::Shared(id) => region(*id).map(Place::Shared).ok_or_else(|| missing(name)),
        }
    }

    /// The buffer of an input or output, which are never shared.
    ///
    /// # Panics
    /// For a carried tensor that is shared: nothing copies it.
    pub fn own(&mut self) -> &mut DeviceBuffer {
        match self {
            Self::Own(buffer) => buffer,
            Self::Shared(tensor) => unreachable!("{tensor} is carried, and nothing copies it"),
        }
    }
}

/// What a model declared that it needs.
#[derive(Clone, Copy, Debug)]
pub struct Declared<'a>(pub &'a [TensorLifetime]);

impl Declared<'_> {
    /// The declared size of `tensor`; `None` where it was not declared. O(n) in the declared tensors.
    #[must_use]
    pub fn size(&self, tensor: TensorId) -> Option<Bytes> {
        self.0.iter().find(|need| need.tensor == tensor).map(|need| need.size)
    }

    /// The scratch `tensor` in `binding`, as large as was declared; `None` where none was.
    ///
    /// # Errors
    /// [`BackendError::BadBinding`], Permanent: it is missing or too small.
    pub fn scratch<'b>(
        &self,
        tensor: TensorId,
        binding: &'b MemoryBinding,
    ) -> Result<Option<&'b SharedRegion>, BackendError> {
        let Some(needed) = self.size(tensor) else { return Ok(None) };
        let region = binding.region(tensor).ok_or_else(|| missing("scratch"))?;
        check_size("scratch", Bytes(region.len()), needed)?;
        Ok(Some(region))
    }

    /// Takes the buffer of `tensor`, which is called `name`, out of `binding`: as large as was declared.
    ///
    /// # Errors
    /// As [`Declared::scratch`].
    pub fn buffer(
        &self,
        tensor: TensorId,
        name: &str,
        binding: &mut MemoryBinding,
    ) -> Result<DeviceBuffer, BackendError> {
        let buffer = binding.buffer(tensor).ok_or_else(|| missing(name))?;
        check_size(name, Bytes(buffer.len()), self.size(tensor).unwrap_or(Bytes::ZERO))?;
        Ok(buffer)
    }

    /// Takes the memory of all named tensors of `chain`, numbered from `first`, out of `binding`, in the
    /// chain's order. What is carried may have become scratch, where the model is never suspended.
    ///
    /// # Errors
    /// As [`Declared::scratch`].
    pub fn named(
        &self,
        chain: &Chain,
        first: u16,
        binding: &mut MemoryBinding,
    ) -> Result<Vec<Named>, BackendError> {
        let take = |(number, tensor): (u16, &ChainTensor)| {
            let (id, name) = (TensorId::first(number), &tensor.spec.name);
            if let Some(region) = binding.region(id).filter(|_| tensor.role == Role::Carried) {
                check_size(name, Bytes(region.len()), self.size(id).unwrap_or(Bytes::ZERO))?;
                return Ok(Named::Shared(id));
            }
            self.buffer(id, name, binding).map(Named::Own)
        };
        (first..).zip(&chain.tensors).map(take).collect()
    }
}

/// What a binding without a place for `tensor` is refused with.
#[must_use]
pub fn missing(tensor: &str) -> BackendError {
    BackendError::BadBinding { reason: format!("`{tensor}` has no place in it") }
}

fn check_size(tensor: &str, given: Bytes, needed: Bytes) -> Result<(), BackendError> {
    if given >= needed {
        return Ok(());
    }
    let reason = format!("`{tensor}` needs {needed} and was given {given}");
    Err(BackendError::BadBinding { reason })
}

#[cfg(test)]
mod tests {
    use aegis_cuda::{DeviceArena, DeviceContext, SimConfig};
    use aegis_memory::{Lifespan, MemoryOrchestrator, ModelMemory, TensorClass};
    use aegis_trace::{ModelId, PartitionId};

    use super::*;
    use crate::chain::{Room, StageFace};
    use crate::description::{DType, TensorSpec};

    const SCRATCH: TensorId = TensorId::first(1);
    const ROOM: Room = Room { alignment: 256, padding: Bytes::ZERO };

    /// Two stages with `a` between them, and what they declare: scratch, then `x`, `a` and `y`.
    fn model() -> (Chain, Vec<TensorLifetime>) {
        let spec = |name: &str| TensorSpec { name: name.into(), dtype: DType::F32, shape: vec![8] };
        let (x, a, y) = (spec("x"), spec("a"), spec("y"));
        let one = |spec: &TensorSpec| vec![spec.clone()];
        let (first, second) = ((one(&x), one(&a)), (one(&a), one(&y)));
        let face = |(inputs, outputs)| StageFace { inputs, outputs };
        let faces = [face((&first.0, &first.1)), face((&second.0, &second.1))];
        let chain = Chain::link(&faces).expect("they fit together");
        let span = Lifespan::new(0, 2).expect("two stages");
        let (class, size) = (TensorClass::Scratch, Bytes(1000));
        let mut declared =
            vec![TensorLifetime { tensor: SCRATCH, class, span, size, alignment: 256 }];
        declared.extend(chain.lifetimes(2, ROOM));
        (chain, declared)
    }

    fn arena() -> DeviceArena {
        let memory_limit = Bytes::from_kib(64);
        let config = SimConfig { memory_limit, max_streams: 1, stream_depth: 1 };
        let device = DeviceContext::sim(config).expect("limits are stated");
        device.reserve_arena(memory_limit).expect("address space")
    }

    /// What a plan for `tensors` binds.
    fn binding(tensors: Vec<TensorLifetime>) -> MemoryBinding {
        let mut memory = MemoryOrchestrator::new(arena());
        let (model, partition) = (ModelId::first(0), PartitionId::WHOLE);
        let planned = memory.plan(ModelMemory { model, partition, tensors }).expect("it fits");
        memory.bind(planned).expect("nothing else is bound")
    }

    #[test]
    fn what_was_declared_is_taken_in_the_order_of_the_chain() {
        let (chain, tensors) = model();
        let mut binding = binding(tensors.clone());
        let declared = Declared(&tensors);
        let scratch = declared.scratch(SCRATCH, &binding).expect("it is there");
        assert!(scratch.is_some_and(|region| region.len() >= 1000));
        let mut named = declared.named(&chain, 2, &mut binding).expect("all are there");
        assert_eq!(named.len(), 3);
        assert!(named.iter_mut().all(|tensor| tensor.own().len() >= 32));
        let again = declared.named(&chain, 2, &mut binding).expect_err("taken already");
        assert!(again.to_string().contains("`x` has no place in it"), "{again}");
    }

    #[test]
    fn a_carried_tensor_may_be_a_region_and_an_input_may_not() {
        let (chain, mut tensors) = model();
        tensors[2].class = TensorClass::Scratch; // `a`.
        let mut both = binding(tensors.clone());
        let named = Declared(&tensors).named(&chain, 2, &mut both).expect("all are there");
        assert!(matches!(named[1], Named::Shared(id) if id == TensorId::first(3)));
        let place = named[1].place("a", |id| both.region(id)).expect("the binding keeps it");
        assert!(matches!(place, Place::Shared(_)) && place.bytes() >= Bytes(32), "{place:?}");
        let nowhere = named[1].place("a", |_| None).expect_err("nobody keeps it");
        assert!(nowhere.to_string().contains("`a` has no place in it"), "{nowhere}");
        tensors[1].class = TensorClass::Scratch; // `x`.
        let error = Declared(&tensors).named(&chain, 2, &mut binding(tensors.clone()));
        let error = error.expect_err("an input is the model's own");
        assert!(error.to_string().contains("`x` has no place in it"), "{error}");
    }

    #[test]
    fn what_is_too_small_is_refused_with_both_sizes() {
        let (chain, tensors) = model();
        let mut small = tensors.clone();
        for need in &mut small {
            need.size = Bytes(16);
        }
        let declared = Declared(&tensors);
        let mut binding = binding(small);
        let error = declared.scratch(SCRATCH, &binding).expect_err("1000 bytes were declared");
        assert_eq!(
            error.to_string(),
            "the memory binding does not fit the model: `scratch` needs 1000 B and was given 16 B"
        );
        let error = declared.named(&chain, 2, &mut binding).expect_err("32 bytes were declared");
        assert!(error.to_string().contains("`x` needs 32 B and was given 16 B"), "{error}");
        assert_eq!(declared.size(TensorId::first(9)), None);
    }
}
