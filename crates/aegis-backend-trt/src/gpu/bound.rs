//! A model in its place on a GPU, and what it enqueues for a job.
//!
//! # While it is prepared
//! Preparation runs the model in its scratch, which other models share. So a model is bound only while
//! no job runs: before the start (the facade sees to that).
//!
//! # Plain stages
//! A stage that cannot be captured is enqueued by the library, kernel by kernel, on the stream of its
//! job. That takes the orchestration thread for as long as the launches do, which the profile measures,
//! since the stage begins before the first of them. Whether the library waits for the stream nobody
//! knows, so nothing is to be enqueued behind others that way. The reason is in [`Prepared::remarks`].
//!
//! # Captured stages
//! The graph of the first stage begins with the copies of the inputs, that of the last ends with those
//! of the outputs: a stage is one call of the driver, and no time of the processor lies within it.
//! They are captured with host buffers of the model's own and aimed at those of a job's slot when it
//! is launched.
//!
//! # Invariants
//! 1. Stages of the model run one at a time, in the order of their job.
//! 2. The model holds the slot of its last job, its buffers, streams and graphs until the next job or
//!    the drop, so what is enqueued never outlives what it uses.
//! 3. Graphs and engines are dropped before the memory they were made in.
//! 4. Once it is prepared, no request for memory is served.

use std::path::PathBuf;
use std::sync::Arc;

use aegis_context::agreement::{Agreement, Outputs};
use aegis_context::chain::{Chain, Role};
use aegis_context::foreign::Meter;
use aegis_context::slot::JobSlot;
use aegis_context::{BackendError, TensorSpec, sample};
use aegis_cuda::{
    CopyMark, CudaGraph, CudaStream, DeviceError, ForeignCharge, HostBuffer, interop,
};
use aegis_trace::{Bytes, StageIndex};

use super::Gpu;
use super::load::{judge, read_all, run};
use super::memory::{Memory, Named};
use super::program::Program;
use crate::ffi;
use crate::persistent::Persistent;

/// Plain runs before anything is captured: the library compiles its kernels in the first ones.
const WARM_UP_RUNS: usize = 3;
/// What scratch is filled with to see that nobody reads what another model left: as a number of any
/// width, not a number or minus one.
const POISON: u8 = 0xff;
/// What scratch is filled with for a network that reads what it did not write.
const CLEAN: u8 = 0;

/// What is needed to bind a measured model.
pub(crate) struct Request<'a> {
    pub(crate) files: &'a [PathBuf],
    pub(crate) gpu: &'a Gpu,
    pub(crate) chain: &'a Chain,
    pub(crate) aux: &'a [Arc<CudaStream>],
}

/// A model that is ready for jobs.
pub(crate) struct Prepared {
    // In the order of dropping: what runs, then the memory it was made in.
    stages: Vec<Stage>,
    job: Option<Arc<JobSlot>>,
    memory: Memory,
    range: Arc<Persistent>,
    copies_in: Vec<Copy>,
    copies_out: Vec<Copy>,
    /// What the graphs' copies were captured with: the example, and its outputs.
    staging: Staging,
    gpu: Gpu,
    _aux: Vec<Arc<CudaStream>>,
    /// What a reader of a report should know.
    pub(crate) remarks: Vec<String>,
    /// What its library took while it was bound.
    pub(crate) foreign: Vec<ForeignCharge>,
}

/// One stage: its program, and its graph where it has one.
struct Stage {
    graph: Option<CudaGraph>,
    program: Program,
}

/// Host buffers in the place of a slot's while there is no job; in the order of the copies.
struct Staging {
    inputs: Vec<HostBuffer>,
    outputs: Vec<HostBuffer>,
}

/// A copy between a slot's buffer and a bound one.
#[derive(Clone, Copy, Debug)]
struct Copy {
    slot: usize,
    tensor: usize,
}

impl Prepared {
    /// Reads the engines in their place, warms them up, captures them and checks the graphs.
    ///
    /// # Errors
    /// [`BackendError`]: the memory does not hold what was measured, the library or the device fails.
    pub(crate) fn new(request: &Request<'_>, memory: Memory) -> Result<Self, BackendError> {
        let Request { files, gpu, chain, aux } = request;
        gpu.make_current()?;
        let meter = Meter::start(&gpu.device);
        let weights = &memory._weights;
        let first = interop::buffer_ptr(weights).addr().get() as u64;
        let range = Arc::new(Persistent::new(first, Bytes(weights.len())));
        let mut stages = Vec::with_capacity(files.len());
        for (index, mut program) in read_all(files, gpu, &range)?.into_iter().enumerate() {
            program.place(&memory, chain, index, aux)?;
            stages.push(Stage { graph: None, program });
        }
        let copies_in = copies(chain, Direction::In);
        let copies_out = copies(chain, Direction::Out);
        let staging = Staging::new(chain, &copies_in, &copies_out, gpu)?;
        let mut prepared = Self {
            stages,
            job: None,
            memory,
            range,
            copies_in,
            copies_out,
            staging,
            gpu: (*gpu).clone(),
            _aux: aux.to_vec(),
            remarks: Vec::new(),
            foreign: Vec::new(),
        };
        prepared.prepare(chain)?;
        prepared.range.seal();
        prepared.foreign = meter.charge()?;
        Ok(prepared)
    }

    fn prepare(&mut self, chain: &Chain) -> Result<(), BackendError> {
        self.fill_inputs(chain)?;
        for _ in 0..WARM_UP_RUNS {
            self.run_plain()?;
        }
        let expected = self.outputs(chain)?;
        self.run_plain()?;
        let agreement = Agreement::of(&expected, &self.outputs(chain)?);
        if agreement == Agreement::Close {
            self.remarks.push("its outputs differ in their last bits from run to run".to_owned());
        }
        let refused = if self.gpu.graph {
            self.capture_checked(chain, agreement, &expected)?
        } else {
            Some("the workload asks for none (`graph = false`)".to_owned())
        };
        if let Some(reason) = refused {
            self.stages.iter_mut().for_each(|stage| stage.graph = None);
            self.remarks.push(format!(
                "it runs without a graph, launched kernel by kernel on the orchestration thread: {reason}"
            ));
        }
        self.clear()
    }

    /// Captures all stages and sees that the graphs give `expected`; else says why not.
    fn capture_checked(
        &mut self,
        chain: &Chain,
        agreement: Agreement,
        expected: &Outputs,
    ) -> Result<Option<String>, BackendError> {
        let none = vec![false; self.stages.len()];
        if let Err(error) = self.capture(&none) {
            self.gpu.preparation.synchronize()?; // A lost device ends the attempt.
            return Ok(Some(aegis_context::context::error_line(&error).to_string()));
        }
        let specs = specs(chain);
        let agrees = |model: &mut Self, poison| -> Result<bool, BackendError> {
            Ok(agreement.holds(&specs, expected, &model.replay(chain, poison)?))
        };
        if !agrees(self, None)? {
            return Ok(Some(
                "the captured graph gives other outputs than the plain run".to_owned(),
            ));
        }
        if agrees(self, Some(POISON))? {
            return Ok(None);
        }
        let one = (0..self.stages.len()).map(|index| {
            let mut fills = none.clone();
            fills[index] = true;
            fills
        });
        for fills in one.chain([vec![true; self.stages.len()]]) {
            self.capture(&fills)?;
            if agrees(self, Some(POISON))? {
                let stages: Vec<String> =
                    (0..fills.len()).filter(|it| fills[*it]).map(|it| it.to_string()).collect();
                self.remarks.push(format!(
                    "stage {} reads scratch that it did not write, so its graph begins by clearing it",
                    stages.join(", ")
                ));
                return Ok(None);
            }
        }
        Ok(Some("its outputs depend on what was in its scratch, even when cleared".to_owned()))
    }

    /// Captures every stage; those of `fills` clear their scratch first.
    fn capture(&mut self, fills: &[bool]) -> Result<(), BackendError> {
        self.gpu.make_current()?;
        let Self { stages, memory, gpu, range, copies_in, copies_out, staging, .. } = self;
        let last = stages.len() - 1;
        for (index, (stage, fill)) in stages.iter_mut().zip(fills).enumerate() {
            let Stage { graph, program } = stage;
            let captured = gpu.preparation.capture_stage(|stream| -> Result<(), BackendError> {
                if index == 0 {
                    for (copy, source) in copies_in.iter().zip(&staging.inputs) {
                        ffi::copy_in(stream, source, memory.named[copy.tensor].own())?;
                    }
                    if !copies_in.is_empty() {
                        stream.mark(CopyMark::Uploaded)?;
                    }
                }
                if let Some(scratch) = memory.scratch().filter(|_| *fill) {
                    ffi::fill_scratch(stream, scratch, CLEAN)?;
                }
                judge(program.enqueue(stream, memory), range)?;
                if index == last {
                    if !copies_out.is_empty() {
                        stream.mark(CopyMark::Downloading)?;
                    }
                    for (copy, target) in copies_out.iter().zip(&mut staging.outputs) {
                        ffi::copy_out(stream, memory.named[copy.tensor].own(), target)?;
                    }
                }
                Ok(())
            })?;
            *graph = Some(captured);
        }
        Ok(())
    }

    /// Launches all graphs, each in scratch full of `poison` if there is one; gives the outputs.
    fn replay(&mut self, chain: &Chain, poison: Option<u8>) -> Result<Outputs, BackendError> {
        for copy in &self.copies_out {
            self.memory.named[copy.tensor].own().fill(POISON)?;
        }
        for stage in &self.stages {
            if let (Some(poison), Some(scratch)) = (poison, self.memory.scratch()) {
                ffi::fill_scratch(&self.gpu.preparation, scratch, poison)?;
            }
            let graph = stage.graph.as_ref().expect("every stage was captured");
            self.gpu.preparation.enqueue_graph(graph)?;
            self.gpu.preparation.synchronize()?;
        }
        self.outputs(chain)
    }

    fn run_plain(&mut self) -> Result<(), BackendError> {
        let Self { stages, memory, gpu, range, .. } = self;
        stages.iter_mut().try_for_each(|stage| run(&mut stage.program, gpu, memory, range))
    }

    fn clear(&mut self) -> Result<(), BackendError> {
        for named in &mut self.memory.named {
            if let Named::Own(buffer) = named {
                buffer.fill(0)?;
            }
        }
        Ok(())
    }

    fn fill_inputs(&mut self, chain: &Chain) -> Result<(), BackendError> {
        self.clear()?;
        for copy in &self.copies_in {
            let bytes = sample::bytes(&chain.tensors[copy.tensor].spec);
            self.memory.named[copy.tensor].own().write(0, &bytes)?;
        }
        Ok(())
    }

    fn outputs(&mut self, chain: &Chain) -> Result<Outputs, BackendError> {
        let mut outputs = Vec::with_capacity(self.copies_out.len());
        for copy in &self.copies_out {
            let mut bytes = vec![0; chain.tensors[copy.tensor].spec.bytes()];
            self.memory.named[copy.tensor].own().read(0, &mut bytes)?;
            outputs.push(bytes);
        }
        Ok(outputs)
    }

    /// Enqueues stage `index` of the job in `slot`. A captured stage is enqueued without waiting and
    /// without allocating; see the module for the others.
    ///
    /// # Errors
    /// [`BackendError`]: the stage did not begin.
    pub(crate) fn enqueue(
        &mut self,
        index: StageIndex,
        slot: &Arc<JobSlot>,
        stream: &CudaStream,
    ) -> Result<(), BackendError> {
        let stage = usize::from(index.0);
        if stage >= self.stages.len() {
            let reason = format!("the model has no stage {index}");
            return Err(BackendError::Runtime { reason });
        }
        if stage == 0 {
            self.job = Some(Arc::clone(slot));
        }
        match &self.stages[stage].graph {
            Some(graph) => {
                self.aim(stage, graph, slot)?;
                Ok(stream.enqueue_graph(graph)?)
            }
            None => self.enqueue_plain(stage, slot, stream),
        }
    }

    /// Makes the copies of a stage's graph those of the job in `slot`.
    fn aim(&self, stage: usize, graph: &CudaGraph, slot: &Arc<JobSlot>) -> Result<(), DeviceError> {
        if stage == 0 {
            for (copy, staged) in self.copies_in.iter().zip(&self.staging.inputs) {
                ffi::aim_input(graph, staged, slot, copy.slot)?;
            }
        }
        if stage + 1 == self.stages.len() {
            for (copy, staged) in self.copies_out.iter().zip(&self.staging.outputs) {
                ffi::aim_output(graph, staged, slot, copy.slot)?;
            }
        }
        Ok(())
    }

    /// Enqueues a stage without a graph kernel by kernel, and its copies.
    fn enqueue_plain(
        &mut self,
        stage: usize,
        slot: &Arc<JobSlot>,
        stream: &CudaStream,
    ) -> Result<(), BackendError> {
        let last = self.stages.len() - 1;
        let Self { stages, memory, gpu, range, copies_in, copies_out, .. } = self;
        if stage == 0 {
            let io = slot.io();
            for copy in &*copies_in {
                ffi::copy_in(stream, &io.inputs()[copy.slot], memory.named[copy.tensor].own())?;
            }
            if !copies_in.is_empty() {
                stream.mark(CopyMark::Uploaded)?;
            }
        }
        interop::open_stage(stream)?; // What the library enqueues is no entry of the stream.
        gpu.make_current()?;
        judge(stages[stage].program.enqueue(stream, memory), range)?;
        if stage == last {
            if !copies_out.is_empty() {
                stream.mark(CopyMark::Downloading)?;
            }
            let mut io = slot.io();
            for copy in &*copies_out {
                ffi::give_output(stream, memory.named[copy.tensor].own(), &mut io, copy.slot)?;
            }
        }
        Ok(())
    }

    /// Whether every stage is a graph: what one that is not may wait for, nobody knows.
    pub(crate) fn is_captured(&self) -> bool {
        self.stages.iter().all(|stage| stage.graph.is_some())
    }

    /// The nodes of each stage's graph; none where it has none. For tests and reports.
    pub(crate) fn nodes(&self) -> Vec<Option<usize>> {
        self.stages.iter().map(|stage| stage.graph.as_ref().map(CudaGraph::nodes)).collect()
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // The library looks for its GPU on the thread that drops its objects. Where that cannot be
        // said to it, the device is lost, and with it what there was to free.
        drop(self.gpu.make_current());
    }
}

impl Staging {
    /// Buffers for all copies, those of the inputs filled with the example.
    fn new(
        chain: &Chain,
        copies_in: &[Copy],
        copies_out: &[Copy],
        gpu: &Gpu,
    ) -> Result<Self, DeviceError> {
        let buffer = |copy: &Copy| {
            let spec = &chain.tensors[copy.tensor].spec;
            gpu.device.host_buffer(spec.bytes()).map(|buffer| (spec, buffer))
        };
        let example = |copy: &Copy| -> Result<HostBuffer, DeviceError> {
            let (spec, mut buffer) = buffer(copy)?;
            buffer.copy_from_slice(&sample::bytes(spec));
            Ok(buffer)
        };
        let inputs = copies_in.iter().map(example).collect::<Result<_, _>>()?;
        let outputs = copies_out.iter().map(|copy| buffer(copy).map(|it| it.1));
        Ok(Self { inputs, outputs: outputs.collect::<Result<_, _>>()? })
    }
}

/// Which way a copy between slot and model goes.
#[derive(Clone, Copy, Debug)]
enum Direction {
    In,
    Out,
}

fn copies(chain: &Chain, direction: Direction) -> Vec<Copy> {
    let copy = |(tensor, role): (usize, Role)| match (role, direction) {
        (Role::Input(slot), Direction::In) | (Role::Output(slot), Direction::Out) => {
            Some(Copy { slot, tensor })
        }
        (Role::Input(_) | Role::Output(_) | Role::Carried, _) => None,
    };
    chain.tensors.iter().map(|named| named.role).enumerate().filter_map(copy).collect()
}

fn specs(chain: &Chain) -> Vec<TensorSpec> {
    let copies = copies(chain, Direction::Out);
    copies.iter().map(|copy| chain.tensors[copy.tensor].spec.clone()).collect()
}
