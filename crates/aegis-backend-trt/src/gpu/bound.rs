//! The engines of a model in their place on a GPU.
//!
//! What is done with them (warm-up, capture, jobs) is the same for every runtime: `aegis_backend_gpu`.
//! TensorRT's own: it is told a stream with each run, so a stage without a graph is enqueued on the
//! stream of its job ([`Plain::Launched`]); and what it keeps is served from a range that is sealed once
//! the model is prepared.
//!
//! # Invariants
//! 1. Engines are dropped before the memory and the streams they were given: [`Prepared`] and [`Engines`]
//!    declare them in that order, and while they are made they are the younger locals.
//! 2. Once the model is prepared, no request for memory is served.

use std::path::PathBuf;
use std::sync::Arc;

use aegis_backend_gpu::{Memory, Plain, Prepared, Programs, Setting, not_wanted};
use aegis_context::BackendError;
use aegis_context::chain::Chain;
use aegis_context::named::missing;
use aegis_cuda::{CudaStream, interop};
use aegis_trace::Bytes;

use super::Gpu;
use super::load::{judge, read_all, run};
use super::program::Program;
use crate::persistent::Persistent;

/// What is needed to bind a measured model.
pub(crate) struct Request<'a> {
    pub(crate) files: &'a [PathBuf],
    pub(crate) gpu: &'a Gpu,
    pub(crate) chain: &'a Chain,
    pub(crate) aux: &'a [Arc<CudaStream>],
}

/// The engines of a model's stages, and what they keep and run with.
pub(crate) struct Engines {
    programs: Vec<Program>,
    range: Arc<Persistent>,
    _aux: Vec<Arc<CudaStream>>,
}

/// Reads the engines in their place and prepares the model for jobs.
///
/// # Errors
/// [`BackendError`]: the memory does not hold what was measured, the library or the device fails. What
/// the library keeps all the same is charged to the device.
pub(crate) fn prepare(
    request: &Request<'_>,
    memory: Memory,
) -> Result<Prepared<Engines>, BackendError> {
    let Request { gpu, chain, .. } = request;
    let (device, stream) = (&gpu.device, &gpu.preparation);
    let plain = (!gpu.graph).then(not_wanted);
    Prepared::new(Setting { device, stream, chain, plain }, || {
        let memory = memory; // Dropped after the engines, should one of them fail.
        let engines = Engines::read(request, &memory)?;
        Ok((engines, memory))
    })
}

impl Engines {
    fn read(request: &Request<'_>, memory: &Memory) -> Result<Self, BackendError> {
        let Request { files, gpu, chain, aux } = request;
        gpu.make_current()?;
        let kept = memory.kept().ok_or_else(|| missing("weights"))?;
        let first = interop::buffer_ptr(kept).addr().get() as u64;
        let range = Arc::new(Persistent::new(first, Bytes(kept.len())));
        let mut programs = read_all(files, gpu, &range)?;
        for (stage, program) in programs.iter_mut().enumerate() {
            program.place(memory, chain, stage, aux)?;
        }
        Ok(Self { programs, range, _aux: aux.to_vec() })
    }
}

impl Programs for Engines {
    const PLAIN: Plain = Plain::Launched;

    fn stages(&self) -> usize {
        self.programs.len()
    }

    fn enqueue(
        &mut self,
        stage: usize,
        memory: &mut Memory,
        stream: &CudaStream,
    ) -> Result<(), BackendError> {
        judge(self.programs[stage].enqueue(stream, memory), &self.range)
    }

    fn run(
        &mut self,
        stage: usize,
        memory: &mut Memory,
        stream: &CudaStream,
    ) -> Result<(), BackendError> {
        run(&mut self.programs[stage], memory, &self.range, stream)
    }

    fn seal(&mut self) {
        self.range.seal();
    }
}
