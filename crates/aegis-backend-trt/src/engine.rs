//! A model of one or several engines: load, describe, bind, execute.
//!
//! Loading reads the engines in a free piece of the arena and runs them, which gives the model's
//! requirements: what the engines keep on the device, and the scratch that the library states.
//! Admission then plans the memory, and [`TrtBackend::bind`](RuntimeBackend::bind) reads them again in
//! the planned places.
//!
//! # Stages
//! Each engine is one stage. A tensor one stage gives and a later one takes, by name, is *carried*;
//! an input no earlier stage gives is an input of the model; an output no later stage takes is an
//! output of the model.
//!
//! # Invariants
//! 1. Every engine is dropped before the memory it was bound to.

use std::path::PathBuf;
use std::sync::Arc;

use aegis_backend_gpu::{Memory, Prepared};
use aegis_context::chain::Chain;
use aegis_context::foreign::Holding;
use aegis_context::named::Declared;
use aegis_context::slot::JobSlot;
use aegis_context::{BackendError, ModelDescription, RuntimeBackend, UploadsAhead};
use aegis_cuda::CudaStream;
use aegis_memory::{Lifespan, MemoryBinding, TensorClass, TensorLifetime};
use aegis_trace::{Bytes, StageIndex};

use crate::gpu::Gpu;
use crate::gpu::bound::{Engines, Request, prepare};
use crate::gpu::load::{Measured, measure};
use crate::library::{Library, RUNTIME};
use crate::tensors::{ALIGNMENT, FIRST_NAMED, PERSISTENT, ROOM, SCRATCH};

/// How to load a model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The serialised engine, or the engines of its stages in order.
    pub files: Vec<PathBuf>,
    /// What the model may take while it is measured.
    pub memory_limit: Bytes,
    /// The GPU it is to run on.
    pub gpu: Gpu,
}

/// One model on TensorRT.
pub struct TrtBackend {
    name: String,
    chain: Chain,
    description: ModelDescription,
    memory: Vec<TensorLifetime>,
    state: State,
    /// What its library took and keeps: charged to the device as long as the model lives. Declared
    /// after the state, which goes first.
    foreign: Option<Holding>,
}

/// Before and after the memory is known.
enum State {
    Measured {
        files: Vec<PathBuf>,
        gpu: Box<Gpu>,
        aux: Vec<Arc<CudaStream>>,
    },
    Bound(Box<Prepared<Engines>>),
    /// An earlier binding failed half way.
    Broken,
}

impl TrtBackend {
    /// Loads a model and measures what it needs. Blocks for as long as the library takes to read its
    /// engines, plus three runs; allocates, and works on the GPU while no job may run there.
    ///
    /// # Errors
    /// [`BackendError`]: `Library`, `File`, `BadModel`, `OtherVersion`, `OtherDevice`, `DynamicShape`,
    /// `UnsupportedType`, `BrokenChain`, `OutOfMemory`, `Runtime`, or `OutOfScratch` when it needs more
    /// than the limit or the arena has; all Permanent. `Device` for what the device says.
    pub fn load(options: &LoadOptions) -> Result<Self, BackendError> {
        let LoadOptions { files, memory_limit, gpu } = options;
        if files.is_empty() {
            let (path, reason) = ("a model of no files".into(), "it has no stage".into());
            return Err(BackendError::BadModel { path, reason });
        }
        let (measured, foreign) = measure(files, *memory_limit, gpu)?;
        let Measured { chain, weights, scratch, aux } = measured;
        let description = chain.description();
        let memory = requirements(&chain, description.stages, weights, scratch);
        let state = State::Measured { files: files.clone(), gpu: Box::new(gpu.clone()), aux };
        // A mock does without the library.
        let name = Library::get().map_or_else(|_| format!("{RUNTIME} mock"), Library::name);
        Ok(Self { name, chain, description, memory, state, foreign: Some(foreign) })
    }

    /// The nodes of each stage's graph: none for a stage without a graph, and no stages before the
    /// model is bound.
    #[must_use]
    pub fn graph_nodes(&self) -> Vec<Option<usize>> {
        match &self.state {
            State::Bound(prepared) => prepared.nodes(),
            State::Measured { .. } | State::Broken => Vec::new(),
        }
    }

    /// Takes the model's memory out of `binding`, and sees that everything is as large as was
    /// declared.
    fn take(&self, mut binding: MemoryBinding) -> Result<Memory, BackendError> {
        let declared = Declared(&self.memory);
        declared.scratch(SCRATCH, &binding)?;
        let kept = declared.buffer(PERSISTENT, "weights", &mut binding)?;
        let named = declared.named(&self.chain, FIRST_NAMED, &mut binding)?;
        Ok(Memory::bound(named, binding, SCRATCH, Some(kept)))
    }
}

/// Before the fields go, in their order.
impl Drop for TrtBackend {
    fn drop(&mut self) {
        if let Some(foreign) = &mut self.foreign {
            foreign.leave();
        }
    }
}

impl RuntimeBackend for TrtBackend {
    fn runtime_name(&self) -> String {
        self.name.clone()
    }

    fn description(&self) -> &ModelDescription {
        &self.description
    }

    fn memory(&self) -> &[TensorLifetime] {
        &self.memory
    }

    fn foreign_memory(&self) -> Bytes {
        self.foreign.as_ref().map_or(Bytes::ZERO, Holding::bytes)
    }

    fn remarks(&self) -> &[String] {
        match &self.state {
            State::Bound(prepared) => prepared.remarks(),
            State::Measured { .. } | State::Broken => &[],
        }
    }

    fn bind(&mut self, binding: MemoryBinding) -> Result<(), BackendError> {
        match &self.state {
            State::Measured { .. } => {}
            State::Bound(_) => return Err(unbindable("the model is bound already")),
            State::Broken => return Err(unbindable("an earlier binding failed")),
        }
        let memory = self.take(binding)?; // Where this fails, another binding may fit.
        let State::Measured { files, gpu, aux } = std::mem::replace(&mut self.state, State::Broken)
        else {
            unreachable!("it was measured a moment ago")
        };
        let request = Request { files: &files, gpu: &gpu, chain: &self.chain, aux: &aux };
        let mut prepared = prepare(&request, memory)?;
        let held = self.foreign.as_mut().expect("it was measured");
        prepared.take_foreign().into_iter().for_each(|bound| held.join(bound));
        self.state = State::Bound(Box::new(prepared));
        Ok(())
    }

    fn enqueues_behind(&self) -> bool {
        match &self.state {
            State::Bound(prepared) => prepared.is_captured(),
            State::Measured { .. } | State::Broken => false, // Nothing is enqueued.
        }
    }

    fn uploads_ahead(&mut self) -> Option<&mut dyn UploadsAhead> {
        match &mut self.state {
            State::Bound(prepared) => prepared.uploads_ahead(),
            State::Measured { .. } | State::Broken => None,
        }
    }

    fn enqueue(
        &mut self,
        stage: StageIndex,
        slot: &Arc<JobSlot>,
        stream: &CudaStream,
    ) -> Result<(), BackendError> {
        match &mut self.state {
            State::Bound(prepared) => prepared.enqueue(stage, slot, stream),
            State::Measured { .. } | State::Broken => Err(unbindable("the model is not bound")),
        }
    }
}

/// The lifetimes of everything: the two totals first, then every tensor with a name.
fn requirements(chain: &Chain, stages: u16, kept: Bytes, scratch: Bytes) -> Vec<TensorLifetime> {
    let span = Lifespan::new(0, u32::from(stages)).expect("a stage at least");
    let total =
        |tensor, class, size| TensorLifetime { tensor, class, span, size, alignment: ALIGNMENT };
    let mut all = vec![total(PERSISTENT, TensorClass::Persistent, kept)];
    if scratch > Bytes::ZERO {
        all.push(total(SCRATCH, TensorClass::Scratch, scratch));
    }
    all.extend(chain.lifetimes(FIRST_NAMED, ROOM));
    all
}

fn unbindable(reason: &str) -> BackendError {
    BackendError::BadBinding { reason: reason.to_owned() }
}
