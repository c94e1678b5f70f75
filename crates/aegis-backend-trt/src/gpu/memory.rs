//! The memory that a model's stages work in: tensors with a name, and scratch.

use aegis_context::BackendError;
use aegis_context::chain::Chain;
use aegis_cuda::{DeviceBuffer, SharedRegion, interop};
use aegis_memory::MemoryBinding;
use aegis_trace::{Bytes, TensorId};

use crate::engine::{SCRATCH, missing};

/// The memory of a tensor with a name.
#[derive(Debug)]
pub(crate) enum Named {
    /// The model's own.
    Own(DeviceBuffer),
    /// A region of the binding: a carried tensor of a model that is never suspended.
    Shared(TensorId),
}

/// Where everything of a model is.
pub(crate) struct Memory {
    /// In the chain's order.
    pub(crate) named: Vec<Named>,
    pub(crate) regions: Regions,
    /// What the engines keep; holds their addresses.
    pub(crate) _weights: DeviceBuffer,
}

/// What is shared with other models.
pub(crate) enum Regions {
    /// As it was bound.
    Bound(MemoryBinding),
    /// While the model is measured, when nothing else is there.
    Measured(Option<SharedRegion>),
}

impl Named {
    /// The buffer of an input or output, which are never shared.
    pub(crate) fn own(&mut self) -> &mut DeviceBuffer {
        match self {
            Self::Own(buffer) => buffer,
            Self::Shared(tensor) => unreachable!("{tensor} is carried, and nothing copies it"),
        }
    }
}

impl Regions {
    fn region(&self, tensor: TensorId) -> Option<&SharedRegion> {
        match self {
            Self::Bound(binding) => binding.region(tensor),
            Self::Measured(scratch) => scratch.as_ref().filter(|_| tensor == SCRATCH),
        }
    }
}

impl Memory {
    /// The scratch of the model; none where no stage needs any.
    pub(crate) fn scratch(&self) -> Option<&SharedRegion> {
        self.regions.region(SCRATCH)
    }

    /// The address and length of the scratch.
    pub(crate) fn scratch_range(&self) -> (usize, Bytes) {
        self.scratch().map_or((0, Bytes::ZERO), |region| {
            (interop::region_ptr(region).addr().get(), Bytes(region.len()))
        })
    }

    /// The names and addresses of what stage `stage` takes and gives.
    ///
    /// # Errors
    /// [`BackendError::BadBinding`]: a shared tensor is not in the binding.
    pub(crate) fn addresses<'a>(
        &self,
        chain: &'a Chain,
        stage: usize,
    ) -> Result<Vec<(&'a str, usize)>, BackendError> {
        let address = |index: &usize| {
            let name = chain.tensors[*index].spec.name.as_str();
            let address = match &self.named[*index] {
                Named::Own(buffer) => interop::buffer_ptr(buffer).addr().get(),
                Named::Shared(id) => {
                    let region = self.regions.region(*id).ok_or_else(|| missing(name))?;
                    interop::region_ptr(region).addr().get()
                }
            };
            Ok((name, address))
        };
        chain.takes[stage].iter().chain(&chain.gives[stage]).map(address).collect()
    }
}
