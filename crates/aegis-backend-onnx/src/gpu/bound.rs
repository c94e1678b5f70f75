//! The sessions of a model in their place on a GPU.
//!
//! What is done with them (warm-up, capture, jobs) is the same for every runtime: `aegis_backend_gpu`.
//! ONNX Runtime's own: a session runs on the stream that it was made with, so a stage without a graph is
//! run there while the thread waits ([`Plain::Awaited`]).
//!
//! # Invariants
//! 1. Sessions are dropped before the memory they were made in: [`Prepared`] declares them in that order,
//!    and while they are made they are the younger locals.

use std::path::PathBuf;
use std::sync::Arc;

use aegis_backend_gpu::{Memory, Plain, Prepared, Programs, Setting};
use aegis_context::BackendError;
use aegis_context::chain::Chain;
use aegis_cuda::{CudaStream, interop};
use aegis_trace::Bytes;

use super::Gpu;
use super::load::{range_of, sessions};
use crate::ffi::{self, Binding, DeviceRange, Place};
use crate::library::Library;
use crate::tensors::place_of;

/// What is needed to bind a measured model.
pub(crate) struct Request<'a> {
    pub(crate) library: &'a Library,
    pub(crate) files: &'a [PathBuf],
    pub(crate) gpu: &'a Gpu,
    pub(crate) chain: &'a Chain,
    /// Why nothing is to be captured, if so.
    pub(crate) plain: Option<String>,
}

/// The sessions of a model's stages, bound, and the scratch that their runs are served from.
pub(crate) struct Sessions {
    stages: Vec<Binding>,
    scratch: DeviceRange,
}

/// Makes the sessions of a model in `memory` and prepares it for jobs.
///
/// # Errors
/// [`BackendError`]: the memory does not hold what was measured, the runtime or the device fails.
/// What its libraries keep all the same is charged to the device.
pub(crate) fn prepare(
    request: &Request<'_>,
    memory: Memory,
) -> Result<Prepared<Sessions>, BackendError> {
    let Request { gpu, chain, plain, .. } = request;
    let (device, stream, plain) = (&gpu.device, &gpu.preparation, plain.clone());
    Prepared::new(Setting { device, stream, chain, plain }, || {
        let memory = memory; // Dropped after the sessions, should one of them fail.
        let sessions = Sessions::make(request, &memory)?;
        Ok((sessions, memory))
    })
}

impl Sessions {
    fn make(request: &Request<'_>, memory: &Memory) -> Result<Self, BackendError> {
        let Request { library, files, gpu, chain, plain } = request;
        let provider = gpu.provider(plain.is_some())?;
        let mut weights = memory.kept().map_or_else(|| DeviceRange::new(0, 0), range_of);
        let loaded = sessions(library, files, &provider, &mut weights)?;
        let kind =
            library.environment().device_memory(gpu.ordinal).map_err(BackendError::runtime)?;
        let mut stages = Vec::with_capacity(loaded.len());
        for (index, stage) in loaded.into_iter().enumerate() {
            let takes = places(chain, &chain.takes[index], memory)?;
            let gives = places(chain, &chain.gives[index], memory)?;
            let binding = Binding::new(kind, stage.session, Arc::new(()), &takes, &gives);
            let binding = binding.map_err(BackendError::runtime)?;
            binding.only_enqueue().map_err(BackendError::runtime)?;
            stages.push(binding);
        }
        let scratch = match memory.scratch() {
            Some(region) => {
                let start = interop::region_ptr(region).addr().get();
                DeviceRange::new(start, Bytes(region.len()).as_usize())
            }
            None => DeviceRange::new(0, 0),
        };
        Ok(Self { stages, scratch })
    }

    /// The furthest end of any block of scratch since the model was bound.
    pub(crate) fn scratch_used(&self) -> Bytes {
        self.scratch.high_water()
    }
}

impl Programs for Sessions {
    const PLAIN: Plain = Plain::Awaited;

    fn stages(&self) -> usize {
        self.stages.len()
    }

    /// Only while `stream`, the one of the sessions, is being captured.
    fn enqueue(
        &mut self,
        stage: usize,
        _memory: &mut Memory,
        stream: &CudaStream,
    ) -> Result<(), BackendError> {
        let Self { stages, scratch } = self;
        let served = ffi::while_capturing(|| stages[stage].enqueue(scratch, stream));
        served.map_err(BackendError::runtime)?.accept()
    }

    fn run(
        &mut self,
        stage: usize,
        _memory: &mut Memory,
        stream: &CudaStream,
    ) -> Result<(), BackendError> {
        let served =
            self.stages[stage].enqueue(&mut self.scratch, stream).map_err(BackendError::runtime)?;
        let ended = stream.synchronize();
        served.accept()?;
        Ok(ended?)
    }
}

fn places<'a>(
    chain: &'a Chain,
    tensors: &[usize],
    memory: &'a Memory,
) -> Result<Vec<Place<'a>>, BackendError> {
    let place = |index: &usize| {
        let memory = memory.place(*index, &chain.tensors[*index].spec.name)?;
        place_of(chain, *index, memory)
    };
    tensors.iter().map(place).collect()
}
