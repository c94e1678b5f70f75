//! A model in its place on a GPU, and what it enqueues for a job.
//!
//! # While it is prepared
//! Preparation runs the model in its scratch, which other models share. So a model is bound only while
//! no job runs: before the start (the facade sees to that).
//!
//! # Plain stages
//! A stage that cannot be captured is enqueued by TVM kernel by kernel, on the job's own stream. That
//! takes the orchestration thread for as long as the launches do, and the heap: what the profile
//! measures, since the stage begins before the first of them. Whether its code waits for the stream
//! nobody knows, so nothing is to be enqueued behind others that way. The reason is in
//! [`Prepared::remarks`].
//!
//! # Captured stages
//! The graph of the first stage begins with the copies of the inputs, that of the last ends with those
//! of the outputs: a stage is one call of the driver, and no time of the processor lies within it.
//! They are captured with host buffers of the model's own and aimed at those of a job's slot when it
//! is launched.
//!
//! # Invariants
//! 1. Stages of the model run one at a time, in the order of their job.
//! 2. The model holds the slot of its last job, its buffers and its graphs until the next job or the
//!    drop, so what is enqueued never outlives what it uses.
//! 3. Graphs and programs are dropped before the memory they were made in.

use std::sync::Arc;

use aegis_context::agreement::{Agreement, Outputs};
use aegis_context::chain::Chain;
use aegis_context::context::error_line;
use aegis_context::foreign::Meter;
use aegis_context::slot::JobSlot;
use aegis_context::{BackendError, TensorSpec, sample};
use aegis_cuda::{
    CopyMark, CudaGraph, CudaStream, DeviceError, ForeignCharge, HostBuffer, interop,
};
use aegis_trace::{Bytes, StageIndex};

use super::Gpu;
use crate::engine::{SCRATCH, accept, runtime};
use crate::ffi::{self, Module, Program, on_stream};
use crate::manifest::Manifest;
use crate::place::{self, Copy, Memory, Named};

/// Plain runs before anything is captured: kernels are loaded in the first one.
const WARM_UP_RUNS: usize = 3;
/// What scratch is filled with to see that nobody reads what another model left: as a number of any
/// width, not a number or minus one.
const POISON: u8 = 0xff;
/// What scratch is filled with for a network that reads what it did not write.
const CLEAN: u8 = 0;

/// A model that is ready for jobs.
pub(crate) struct Prepared {
    // In the order of dropping: what runs, then the memory it was made in.
    stages: Vec<Stage>,
    job: Option<Arc<JobSlot>>,
    memory: Memory,
    copies_in: Vec<Copy>,
    copies_out: Vec<Copy>,
    /// What the graphs' copies were captured with: the example, and its outputs.
    staging: Staging,
    /// The outputs, for comparison.
    outputs: Vec<TensorSpec>,
    gpu: Gpu,
    /// What a reader of a report should know.
    pub(crate) remarks: Vec<String>,
    /// What its libraries took while it was bound.
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

impl Prepared {
    /// Puts the weights in their place, warms the programs up, captures them and checks the graphs.
    ///
    /// # Errors
    /// [`BackendError`]: the memory does not hold what was measured, TVM or the device fails.
    pub(crate) fn new(
        manifests: &[Manifest],
        chain: &Chain,
        modules: Vec<Module>,
        mut memory: Memory,
        gpu: &Gpu,
    ) -> Result<Self, BackendError> {
        gpu.enter()?;
        let meter = Meter::start(&gpu.device);
        let programs = place::programs(manifests, chain, modules, &mut memory)?;
        let stage = |program| Stage { graph: None, program };
        let copies_in = place::copies(chain, true);
        let copies_out = place::copies(chain, false);
        let staging = Staging::new(chain, &copies_in, &copies_out, gpu)?;
        let mut prepared = Self {
            stages: programs.into_iter().map(stage).collect(),
            job: None,
            memory,
            copies_in,
            copies_out,
            staging,
            outputs: chain.description().outputs,
            gpu: gpu.clone(),
            remarks: Vec::new(),
            foreign: Vec::new(),
        };
        prepared.prepare(chain)?;
        prepared.foreign = meter.charge()?;
        Ok(prepared)
    }

    fn prepare(&mut self, chain: &Chain) -> Result<(), BackendError> {
        self.clear()?;
        place::fill_inputs(chain, &mut self.memory.named)?;
        for _ in 0..WARM_UP_RUNS {
            self.run_plain()?;
        }
        let expected = self.read_outputs()?;
        self.run_plain()?;
        let agreement = Agreement::of(&expected, &self.read_outputs()?);
        if agreement == Agreement::Close {
            self.remarks.push("its outputs differ in their last bits from run to run".to_owned());
        }
        let refused = if self.gpu.graph {
            self.capture_checked(agreement, &expected)?
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

    fn clear(&mut self) -> Result<(), BackendError> {
        for named in &mut self.memory.named {
            if let Named::Own(buffer) = named {
                buffer.fill(0)?;
            }
        }
        Ok(())
    }

    /// Captures all stages and sees that the graphs give `expected`; else says why not.
    fn capture_checked(
        &mut self,
        agreement: Agreement,
        expected: &Outputs,
    ) -> Result<Option<String>, BackendError> {
        if let Err(error) = self.capture(None) {
            self.gpu.preparation.synchronize()?; // A lost device ends the attempt.
            return Ok(Some(error_line(&error).to_string()));
        }
        if !self.agrees(agreement, expected, None)? {
            let reason = "the captured graph gives other outputs than the plain run";
            return Ok(Some(reason.to_owned()));
        }
        if self.agrees(agreement, expected, Some(POISON))? {
            return Ok(None);
        }
        self.capture(Some(CLEAN))?;
        if self.agrees(agreement, expected, Some(POISON))? {
            let remark =
                "it reads scratch that it did not write, so its graphs begin by clearing it";
            self.remarks.push(remark.to_owned());
            return Ok(None);
        }
        Ok(Some("its outputs depend on what was in its scratch, even when cleared".to_owned()))
    }

    /// Captures every stage, with the scratch filled first if `fill` says with what.
    fn capture(&mut self, fill: Option<u8>) -> Result<(), BackendError> {
        let Self { stages, memory, gpu, copies_in, copies_out, staging, .. } = self;
        let last = stages.len() - 1;
        for (index, Stage { graph, program }) in stages.iter_mut().enumerate() {
            let captured = gpu.preparation.capture_stage(|stream| -> Result<(), BackendError> {
                if index == 0 {
                    for (copy, source) in copies_in.iter().zip(&staging.inputs) {
                        ffi::copy_in(stream, source, memory.named[copy.tensor].own())?;
                    }
                    if !copies_in.is_empty() {
                        stream.mark(CopyMark::Uploaded)?;
                    }
                }
                let Memory { scratch, binding, .. } = &mut *memory;
                let region = binding.as_ref().and_then(|binding| binding.region(SCRATCH));
                if let (Some(byte), Some(region)) = (fill, region) {
                    ffi::fill_scratch(stream, region, byte)?;
                }
                let served = on_stream(stream, gpu.ordinal, || program.run(scratch));
                accept(served.and_then(|it| it).map_err(runtime)?)?;
                if index == last {
                    if !copies_out.is_empty() {
                        stream.mark(CopyMark::Downloading)?;
                    }
                    for (copy, target) in copies_out.iter().zip(&staging.outputs) {
                        ffi::copy_out(stream, memory.named[copy.tensor].own(), target)?;
                    }
                }
                Ok(())
            })?;
            *graph = Some(captured);
        }
        Ok(())
    }

    /// Launches all graphs, each in scratch full of `poison` if there is one, and compares the outputs.
    fn agrees(
        &mut self,
        agreement: Agreement,
        expected: &Outputs,
        poison: Option<u8>,
    ) -> Result<bool, BackendError> {
        for copy in &self.copies_out {
            self.memory.named[copy.tensor].own().fill(POISON)?;
        }
        let region = self.memory.binding.as_ref().and_then(|binding| binding.region(SCRATCH));
        for stage in &self.stages {
            if let (Some(poison), Some(region)) = (poison, region) {
                ffi::fill_scratch(&self.gpu.preparation, region, poison)?;
            }
            let graph = stage.graph.as_ref().expect("every stage was captured");
            self.gpu.preparation.enqueue_graph(graph)?;
            self.gpu.preparation.synchronize()?;
        }
        let found = self.read_outputs()?;
        Ok(agreement.holds(&self.outputs, expected, &found))
    }

    fn run_plain(&mut self) -> Result<(), BackendError> {
        let Self { stages, memory, gpu, .. } = self;
        for stage in stages {
            let run = || stage.program.run(&mut memory.scratch);
            let served = on_stream(&gpu.preparation, gpu.ordinal, run).and_then(|it| it);
            gpu.preparation.synchronize()?;
            accept(served.map_err(runtime)?)?;
        }
        Ok(())
    }

    fn read_outputs(&mut self) -> Result<Outputs, BackendError> {
        let mut outputs = Vec::with_capacity(self.copies_out.len());
        for (copy, spec) in self.copies_out.iter().zip(&self.outputs) {
            let mut bytes = vec![0; spec.bytes()];
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
            return Err(runtime(format!("the model has no stage {index}")));
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
        let Self { stages, memory, gpu, copies_in, copies_out, .. } = self;
        let io = slot.io();
        if stage == 0 {
            for copy in &*copies_in {
                ffi::copy_in(stream, &io.inputs()[copy.slot], memory.named[copy.tensor].own())?;
            }
            if !copies_in.is_empty() {
                stream.mark(CopyMark::Uploaded)?;
            }
        }
        interop::open_stage(stream)?; // What TVM enqueues is no entry of the stream.
        gpu.enter()?;
        let run = || stages[stage].program.run(&mut memory.scratch);
        let served = on_stream(stream, gpu.ordinal, run).and_then(|it| it);
        accept(served.map_err(runtime)?)?;
        if stage == last {
            if !copies_out.is_empty() {
                stream.mark(CopyMark::Downloading)?;
            }
            for copy in &*copies_out {
                ffi::copy_out(stream, memory.named[copy.tensor].own(), &io.outputs()[copy.slot])?;
            }
        }
        Ok(())
    }

    /// Whether every stage is a graph: what the code of one that is not may wait for, nobody knows.
    pub(crate) fn is_captured(&self) -> bool {
        self.stages.iter().all(|stage| stage.graph.is_some())
    }

    /// The furthest end of any block of scratch since the model was bound.
    pub(crate) fn scratch_used(&self) -> Bytes {
        self.memory.scratch.high_water()
    }

    /// The nodes of each stage's graph; none where it has none. For tests and reports.
    pub(crate) fn nodes(&self) -> Vec<Option<usize>> {
        self.stages.iter().map(|stage| stage.graph.as_ref().map(CudaGraph::nodes)).collect()
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
