//! The programs of a model in their place on a GPU.
//!
//! What is done with them (warm-up, capture, jobs) is the same for every runtime: `aegis_backend_gpu`.
//! TVM's own: its stream is set for the calling thread around each call, so a stage without a graph is
//! enqueued on the stream of its job ([`Plain::Launched`]).
//!
//! # Invariants
//! 1. Programs are dropped before the memory they were made in: [`Prepared`] declares them in that order,
//!    and while they are made they are the younger locals.

use aegis_backend_gpu::{Plain, Prepared, Programs, Setting, not_wanted};
use aegis_context::BackendError;
use aegis_context::chain::Chain;
use aegis_cuda::CudaStream;
use aegis_trace::Bytes;

use super::Gpu;
use crate::ffi::{Module, Program, ScratchRange, on_stream};
use crate::manifest::Manifest;
use crate::place::{self, Memory};
use crate::tensors::SCRATCH;

/// The programs of a model's stages, and the scratch that their runs are served from.
pub(crate) struct Machines {
    programs: Vec<Program>,
    scratch: ScratchRange,
    ordinal: u16,
}

/// Puts the weights in their place, makes the programs there and prepares the model for jobs.
///
/// # Errors
/// [`BackendError`]: the memory does not hold what was measured, TVM or the device fails. What its
/// libraries keep all the same is charged to the device.
pub(crate) fn prepare(
    manifests: &[Manifest],
    chain: &Chain,
    modules: Vec<Module>,
    memory: Memory,
    gpu: &Gpu,
) -> Result<Prepared<Machines>, BackendError> {
    let (device, stream) = (&gpu.device, &gpu.preparation);
    let plain = (!gpu.graph).then(not_wanted);
    Prepared::new(Setting { device, stream, chain, plain }, || {
        gpu.enter()?;
        let mut memory = memory; // Dropped after the programs, should one of them fail.
        let programs = place::programs(manifests, chain, modules, &mut memory)?;
        let Memory { scratch, named, weights, binding } = memory;
        let binding = binding.expect("a bound model has its binding");
        let memory = aegis_backend_gpu::Memory::bound(named, binding, SCRATCH, weights);
        Ok((Machines { programs, scratch, ordinal: gpu.ordinal }, memory))
    })
}

impl Machines {
    /// The furthest end of any block of scratch since the model was bound.
    pub(crate) fn scratch_used(&self) -> Bytes {
        self.scratch.high_water()
    }
}

impl Programs for Machines {
    const PLAIN: Plain = Plain::Launched;

    fn stages(&self) -> usize {
        self.programs.len()
    }

    fn enqueue(
        &mut self,
        stage: usize,
        _memory: &mut aegis_backend_gpu::Memory,
        stream: &CudaStream,
    ) -> Result<(), BackendError> {
        let Self { programs, scratch, ordinal } = self;
        let served = on_stream(stream, *ordinal, || programs[stage].run(scratch));
        served.and_then(|it| it).map_err(BackendError::runtime)?.accept()
    }

    fn run(
        &mut self,
        stage: usize,
        memory: &mut aegis_backend_gpu::Memory,
        stream: &CudaStream,
    ) -> Result<(), BackendError> {
        let enqueued = self.enqueue(stage, memory, stream);
        stream.synchronize()?;
        enqueued
    }
}
