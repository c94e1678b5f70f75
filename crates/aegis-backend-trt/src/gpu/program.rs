//! What executes a stage: an engine of the library, or in tests a mock of one.

use std::path::Path;
use std::sync::Arc;

use aegis_backend_gpu::Memory;
use aegis_context::BackendError;
use aegis_context::chain::Chain;
use aegis_context::named::Place;
use aegis_cuda::{CudaStream, interop};
use aegis_trace::Bytes;

use super::Gpu;
use crate::facts::EngineFacts;
use crate::ffi::{Addresses, Engine};
use crate::library::Library;
#[cfg(feature = "mock")]
use crate::mock::MockEngine;
use crate::persistent::Persistent;

/// One stage, read.
pub(super) enum Program {
    /// The library's.
    Real(Box<Engine>),
    /// One that copies.
    #[cfg(feature = "mock")]
    Mock(Box<MockEngine>),
}

impl Program {
    /// Reads the plan in `file`, with what it keeps on the device in `range`.
    ///
    /// # Errors
    /// [`BackendError`]: the file cannot be read, or the library refuses it.
    pub(super) fn read(
        file: &Path,
        gpu: &Gpu,
        range: &Arc<Persistent>,
    ) -> Result<Self, BackendError> {
        let path = file.display().to_string();
        let plan = std::fs::read(file)
            .map_err(|cause| BackendError::File { path: path.clone(), cause })?;
        #[cfg(feature = "mock")]
        if let Some(mock) = MockEngine::read(&path, &plan, gpu, range)? {
            return Ok(Self::Mock(Box::new(mock)));
        }
        gpu.make_current()?;
        Library::get()?;
        Ok(Self::Real(Box::new(Engine::read(&path, &plan, Some(range))?)))
    }

    pub(super) fn facts(&mut self) -> Result<EngineFacts, BackendError> {
        match self {
            Self::Real(engine) => engine.facts(),
            #[cfg(feature = "mock")]
            Self::Mock(mock) => Ok(mock.facts()),
        }
    }

    /// Tells stage `stage` where everything is in `memory`, which the caller keeps for as long as the
    /// program may run.
    pub(super) fn place(
        &mut self,
        memory: &Memory,
        chain: &Chain,
        stage: usize,
        aux: &[Arc<CudaStream>],
    ) -> Result<(), BackendError> {
        let tensors = addresses(memory, chain, stage)?;
        let scratch = memory.scratch().map_or((0, Bytes::ZERO), |region| {
            (interop::region_ptr(region).addr().get(), Bytes(region.len()))
        });
        let addresses = Addresses { tensors, scratch, aux };
        match self {
            Self::Real(engine) => engine.place(&addresses),
            #[cfg(feature = "mock")]
            Self::Mock(mock) => {
                mock.place(chain, stage, &addresses);
                Ok(())
            }
        }
    }

    /// Enqueues one execution on `stream`, in `memory`, where it was placed.
    #[cfg_attr(
        not(feature = "mock"),
        expect(unused_variables, reason = "the engine knows its addresses")
    )]
    pub(super) fn enqueue(
        &mut self,
        stream: &CudaStream,
        memory: &mut Memory,
    ) -> Result<(), BackendError> {
        match self {
            Self::Real(engine) => engine.enqueue(stream),
            #[cfg(feature = "mock")]
            Self::Mock(mock) => mock.enqueue(stream, memory),
        }
    }
}

/// The names and addresses of what stage `stage` takes and gives.
fn addresses<'a>(
    memory: &Memory,
    chain: &'a Chain,
    stage: usize,
) -> Result<Vec<(&'a str, usize)>, BackendError> {
    let address = |index: &usize| {
        let name = chain.tensors[*index].spec.name.as_str();
        let first = match memory.place(*index, name)? {
            Place::Own(buffer) => interop::buffer_ptr(buffer),
            Place::Shared(region) => interop::region_ptr(region),
        };
        Ok((name, first.addr().get()))
    };
    chain.takes[stage].iter().chain(&chain.gives[stage]).map(address).collect()
}
