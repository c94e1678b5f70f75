//! The memory that a model's stages work in: tensors with a name, scratch, and what it keeps.

use aegis_context::BackendError;
use aegis_context::named::{Named, Place};
use aegis_cuda::{DeviceBuffer, DeviceError, SharedRegion};
use aegis_memory::MemoryBinding;
use aegis_trace::TensorId;

/// Where everything of a model is.
#[derive(Debug)]
pub struct Memory {
    /// In the chain's order.
    named: Vec<Named>,
    regions: Regions,
    /// Weights and state; holds their addresses.
    kept: Option<DeviceBuffer>,
}

/// What is shared with other models.
#[derive(Debug)]
enum Regions {
    /// As it was bound, with the tensor that stands for the scratch.
    Bound(MemoryBinding, TensorId),
    /// While the model is measured, when nothing else is there.
    Measured(Option<SharedRegion>),
}

impl Memory {
    /// That of a bound model: `named` in the order of its chain, what `binding` still holds, of which
    /// `scratch` is the tensor that stands for scratch, and the buffer of what the model keeps.
    #[must_use]
    pub fn bound(
        named: Vec<Named>,
        binding: MemoryBinding,
        scratch: TensorId,
        kept: Option<DeviceBuffer>,
    ) -> Self {
        Self { named, regions: Regions::Bound(binding, scratch), kept }
    }

    /// That of a model while it is measured.
    #[must_use]
    pub fn measured(
        named: Vec<DeviceBuffer>,
        scratch: Option<SharedRegion>,
        kept: Option<DeviceBuffer>,
    ) -> Self {
        let named = named.into_iter().map(Named::Own).collect();
        Self { named, regions: Regions::Measured(scratch), kept }
    }

    /// The scratch of the model; `None` where no stage needs any.
    #[must_use]
    pub fn scratch(&self) -> Option<&SharedRegion> {
        match &self.regions {
            Regions::Bound(binding, scratch) => binding.region(*scratch),
            Regions::Measured(scratch) => scratch.as_ref(),
        }
    }

    /// The buffer of what the model keeps.
    #[must_use]
    pub fn kept(&self) -> Option<&DeviceBuffer> {
        self.kept.as_ref()
    }

    /// Where tensor `index` of the chain lies, which is called `name`.
    ///
    /// # Errors
    /// [`BackendError::BadBinding`], Permanent: a shared tensor is not in the binding.
    ///
    /// # Panics
    /// When there is no such tensor.
    pub fn place(&self, index: usize, name: &str) -> Result<Place<'_>, BackendError> {
        self.named[index].place(name, |id| match &self.regions {
            Regions::Bound(binding, _) => binding.region(id),
            Regions::Measured(_) => None,
        })
    }

    /// The buffer of tensor `index` of the chain, an input or output of the model or a carried tensor
    /// of its own.
    ///
    /// # Panics
    /// When there is no such tensor, or it is shared.
    pub fn own(&mut self, index: usize) -> &mut DeviceBuffer {
        self.named[index].own()
    }

    /// Whether tensor `index` of the chain has a buffer of the model's own, which the arena lends to
    /// nobody else, rather than a region that the plan lets others have.
    ///
    /// # Panics
    /// When there is no such tensor.
    #[must_use]
    pub fn is_own(&self, index: usize) -> bool {
        matches!(self.named[index], Named::Own(_))
    }

    /// Fills every named tensor of the model's own with zeros. Blocks until that is done.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub(crate) fn clear(&mut self) -> Result<(), DeviceError> {
        let mut all = self.named.iter_mut();
        all.try_for_each(|named| match named {
            Named::Own(buffer) => buffer.fill(0),
            Named::Shared(_) => Ok(()),
        })
    }
}
