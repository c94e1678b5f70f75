//! A model in its place on a GPU, and what it enqueues for a job.
//!
//! # While it is prepared
//! Preparation runs the model in its scratch, which other models share. So a model is bound only while
//! no job runs: before the start (the facade sees to that).
//!
//! # Plain stages
//! A stage that cannot be captured is run by ONNX Runtime itself, on the stream its session was made
//! with: the job's own stream waits for the end of the copies before it, and takes the copies after it.
//! The orchestration thread of the partition launches kernel by kernel and waits for the last, and
//! allocates from the heap. The reason is in [`Prepared::remarks`]. What that means:
//!
//! - Its cost is charged in full. The events around a stage are recorded on the job's stream before the
//!   first copy, or before it is run where it has none, and behind everything; so what they measure, in
//!   the profile and in every job, holds the processor's launching and waiting too. The executor runs
//!   one stage at a time in any case, so its being blocked delays nobody by more than the stage that
//!   blocks it: the analysis stays as it is.
//! - The processor's time varies more than a graph's, and so does the cost.
//! - Nothing finds a stage that hangs: who would look is the thread that waits for it. Submissions
//!   wait in their queue meanwhile, and eviction and the stop wait too.
//!
//! # Captured stages
//! The graph of the first stage begins with the copies of the inputs, that of the last ends with those
//! of the outputs: a stage is one call of the driver, and no time of the processor lies within it.
//! They are captured with host buffers of the model's own and aimed at those of a job's slot when it
//! is launched. Where the copies end and begin is recorded, here as in a plain stage.
//!
//! # Invariants
//! 1. Stages of the model run one at a time, in the order of their job.
//! 2. The model holds the slot of its last job, its buffers and its graphs until the next job or the
//!    drop, so what is enqueued never outlives what it uses.
//! 3. Sessions and graphs are dropped before the memory they were made in.

use std::path::PathBuf;
use std::sync::Arc;

use aegis_context::agreement::{Agreement, Outputs};
use aegis_context::chain::{Chain, Role};
use aegis_context::foreign::Meter;
use aegis_context::slot::JobSlot;
use aegis_context::{BackendError, TensorSpec, sample};
use aegis_cuda::{
    CopyMark, CudaGraph, CudaStream, DeviceBuffer, DeviceError, ForeignCharge, HostBuffer, interop,
};
use aegis_memory::MemoryBinding;
use aegis_trace::{Bytes, StageIndex};

use super::Gpu;
use super::load::{range_of, sessions};
use crate::engine::{Named, SCRATCH, accept, missing, place_of, runtime};
use crate::ffi::{self, Binding, DeviceRange, PlaceMemory};
use crate::library::Library;

/// Plain runs before anything is captured: libraries choose their kernels in the first ones.
const WARM_UP_RUNS: usize = 3;
/// What scratch is filled with to see that nobody reads what another model left: as a number of any
/// width, not a number or minus one.
const POISON: u8 = 0xff;
/// What scratch is filled with for a network that reads what it did not write.
const CLEAN: u8 = 0;

/// What is needed to bind a measured model.
pub(crate) struct Request<'a> {
    pub(crate) library: &'a Library,
    pub(crate) files: &'a [PathBuf],
    pub(crate) gpu: &'a Gpu,
    pub(crate) chain: &'a Chain,
    /// Why nothing is to be captured, if so.
    pub(crate) plain: Option<String>,
}

/// A model that is ready for jobs.
pub(crate) struct Prepared {
    // In the order of dropping: what runs, then the memory it was made in.
    stages: Vec<Stage>,
    scratch: DeviceRange,
    job: Option<Arc<JobSlot>>,
    memory: Memory,
    copies_in: Vec<Copy>,
    copies_out: Vec<Copy>,
    /// What the graphs' copies were captured with: the example, and its outputs.
    staging: Staging,
    preparation: Arc<CudaStream>,
    gpu: Gpu,
    /// What a reader of a report should know.
    pub(crate) remarks: Vec<String>,
    /// What its libraries took while it was bound.
    pub(crate) foreign: Vec<ForeignCharge>,
}

/// One stage: its session, and its graph where it has one.
struct Stage {
    graph: Option<CudaGraph>,
    binding: Binding,
}

/// The model's part of the arena.
struct Memory {
    named: Vec<Named>,
    /// Keeps the regions.
    binding: MemoryBinding,
    _weights: DeviceBuffer,
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
    /// Makes the sessions in their place, warms them up, captures them and checks the graphs.
    ///
    /// # Errors
    /// [`BackendError`]: the memory does not hold what was measured, the runtime or the device fails.
    /// What its libraries keep all the same is charged to the device.
    pub(crate) fn new(
        request: Request<'_>,
        named: Vec<Named>,
        weights: DeviceBuffer,
        binding: MemoryBinding,
    ) -> Result<Self, BackendError> {
        let meter = Meter::start(&request.gpu.device);
        let made = Self::make(request, named, weights, binding).and_then(|mut prepared| {
            prepared.foreign = meter.charge()?;
            Ok(prepared)
        });
        made.inspect_err(|_| meter.charge_failure()) // Its sessions are dropped by now.
    }

    fn make(
        request: Request<'_>,
        named: Vec<Named>,
        weights: DeviceBuffer,
        binding: MemoryBinding,
    ) -> Result<Self, BackendError> {
        let Request { library, files, gpu, chain, plain } = request;
        let provider = gpu.provider(plain.is_some())?;
        let loaded = sessions(library, files, &provider, &mut range_of(&weights))?;
        let memory = Memory { named, binding, _weights: weights };
        let kind = library.environment().device_memory(gpu.ordinal).map_err(runtime)?;
        let mut stages = Vec::with_capacity(loaded.len());
        for (index, stage) in loaded.into_iter().enumerate() {
            let place = |index: &usize| place_of(chain, *index, memory.place(chain, *index)?);
            let takes: Vec<_> = chain.takes[index].iter().map(place).collect::<Result<_, _>>()?;
            let gives: Vec<_> = chain.gives[index].iter().map(place).collect::<Result<_, _>>()?;
            let binding = Binding::new(kind, stage.session, Arc::new(()), &takes, &gives);
            let binding = binding.map_err(runtime)?;
            binding.only_enqueue().map_err(runtime)?;
            stages.push(Stage { graph: None, binding });
        }
        let scratch = match memory.binding.region(SCRATCH) {
            Some(region) => {
                let start = interop::region_ptr(region).addr().get();
                DeviceRange::new(start, Bytes(region.len()).as_usize())
            }
            None => DeviceRange::new(0, 0),
        };
        let copies = |inputs: bool| copies(chain, inputs);
        let staged = |inputs: bool| -> Result<Vec<HostBuffer>, DeviceError> {
            let sizes = specs(chain, inputs).into_iter().map(|spec| spec.bytes());
            sizes.map(|bytes| gpu.device.host_buffer(bytes)).collect()
        };
        let staging = Staging { inputs: staged(true)?, outputs: staged(false)? };
        let mut prepared = Self {
            stages,
            scratch,
            job: None,
            memory,
            copies_in: copies(true),
            copies_out: copies(false),
            staging,
            preparation: Arc::clone(&gpu.preparation),
            gpu: gpu.clone(),
            remarks: Vec::new(),
            foreign: Vec::new(),
        };
        prepared.prepare(chain, plain)?;
        Ok(prepared)
    }

    fn prepare(&mut self, chain: &Chain, plain: Option<String>) -> Result<(), BackendError> {
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
        let refused = match plain {
            Some(reason) => Some(reason),
            None => self.capture_checked(chain, agreement, &expected)?,
        };
        if let Some(reason) = refused {
            self.stages.iter_mut().for_each(|stage| stage.graph = None);
            self.remarks.push(format!(
                "it runs without a graph: the orchestration thread launches it kernel by kernel and \
                 waits for its end, which its cost contains and no watchdog sees: {reason}"
            ));
        }
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
        chain: &Chain,
        agreement: Agreement,
        expected: &Outputs,
    ) -> Result<Option<String>, BackendError> {
        let none = vec![false; self.stages.len()];
        if let Err(error) = self.capture(&none) {
            self.preparation.synchronize()?; // A lost device ends the attempt.
            return Ok(Some(aegis_context::context::error_line(&error).to_string()));
        }
        let specs = specs(chain, false);
        let Some(agreement) = agreement.at_most(&specs, expected, &self.replay(chain, None)?)
        else {
            return Ok(Some(
                "the captured graph gives other outputs than the plain run".to_owned(),
            ));
        };
        let agrees = |model: &mut Self, poison| -> Result<bool, BackendError> {
            Ok(agreement.holds(&specs, expected, &model.replay(chain, poison)?))
        };
        if agreement == Agreement::Close && self.remarks.is_empty() {
            self.remarks.push(
                "its graph's outputs differ in their last bits from those of the plain run"
                    .to_owned(),
            );
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
        let Self { stages, scratch, memory, preparation, copies_in, copies_out, staging, .. } =
            self;
        let last = stages.len() - 1;
        for (index, (stage, fill)) in stages.iter_mut().zip(fills).enumerate() {
            let Stage { graph, binding } = stage;
            let captured = preparation.capture_stage(|stream| -> Result<(), BackendError> {
                if index == 0 {
                    for (copy, source) in copies_in.iter().zip(&staging.inputs) {
                        ffi::copy_in(stream, source, memory.named[copy.tensor].own())?;
                    }
                    mark(stream, copies_in, CopyMark::Uploaded)?;
                }
                if *fill {
                    ffi::fill_scratch(stream, &memory.binding, SCRATCH, CLEAN)?;
                }
                accept(
                    ffi::while_capturing(|| binding.enqueue(scratch, stream)).map_err(runtime)?,
                )?;
                if index == last {
                    mark(stream, copies_out, CopyMark::Downloading)?;
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

    /// Launches all graphs, each in scratch full of `poison` if there is one; gives the outputs.
    fn replay(&mut self, chain: &Chain, poison: Option<u8>) -> Result<Outputs, BackendError> {
        for copy in &self.copies_out {
            self.memory.named[copy.tensor].own().fill(POISON)?;
        }
        for stage in &self.stages {
            if let Some(poison) = poison {
                ffi::fill_scratch(&self.preparation, &self.memory.binding, SCRATCH, poison)?;
            }
            let graph = stage.graph.as_ref().expect("every stage was captured");
            self.preparation.enqueue_graph(graph)?;
            self.preparation.synchronize()?;
        }
        self.outputs(chain)
    }

    fn run_plain(&mut self) -> Result<(), BackendError> {
        (0..self.stages.len()).try_for_each(|stage| self.run_stage(stage))
    }

    /// Runs one stage by ONNX Runtime and waits for its end.
    fn run_stage(&mut self, stage: usize) -> Result<(), BackendError> {
        interop::make_current(&self.gpu.device)?;
        let served = self.stages[stage].binding.enqueue(&mut self.scratch, &self.preparation);
        let served = served.map_err(runtime)?;
        let ended = self.preparation.synchronize();
        accept(served)?;
        Ok(ended?)
    }

    fn fill_inputs(&mut self, chain: &Chain) -> Result<(), BackendError> {
        for named in &mut self.memory.named {
            if let Named::Own(buffer) = named {
                buffer.fill(0)?;
            }
        }
        for (copy, staged) in self.copies_in.iter().zip(&mut self.staging.inputs) {
            let bytes = sample::bytes(&chain.tensors[copy.tensor].spec);
            self.memory.named[copy.tensor].own().write(0, &bytes)?;
            staged.copy_from_slice(&bytes);
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
            None => self.enqueue_plain(stage, slot, stream).inspect_err(|_| {
                // A copy may be on the stream already. That the stage did not begin means that nothing
                // of it is there; a stream that cannot be waited for is that of a lost device.
                drop(stream.synchronize());
            }),
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

    /// Enqueues the copies of a stage without a graph, and runs it between them.
    fn enqueue_plain(
        &mut self,
        stage: usize,
        slot: &Arc<JobSlot>,
        stream: &CudaStream,
    ) -> Result<(), BackendError> {
        if stage == 0 {
            for copy in &self.copies_in {
                let io = slot.io();
                ffi::copy_in(
                    stream,
                    &io.inputs()[copy.slot],
                    self.memory.named[copy.tensor].own(),
                )?;
            }
            mark(stream, &self.copies_in, CopyMark::Uploaded)?;
        }
        // Also a stage without copies begins here, and not once it has run on its session's stream.
        interop::open_stage(stream)?;
        stream.synchronize()?; // The inputs are there before another stream reads them.
        self.run_stage(stage)?;
        if stage + 1 == self.stages.len() {
            mark(stream, &self.copies_out, CopyMark::Downloading)?;
            for copy in &self.copies_out {
                let io = slot.io();
                ffi::copy_out(
                    stream,
                    self.memory.named[copy.tensor].own(),
                    &io.outputs()[copy.slot],
                )?;
            }
        }
        Ok(())
    }

    /// Whether every stage is a graph: running one that is not waits for the stream.
    pub(crate) fn is_captured(&self) -> bool {
        self.stages.iter().all(|stage| stage.graph.is_some())
    }

    /// The furthest end of any block of scratch since the model was bound.
    pub(crate) fn scratch_used(&self) -> Bytes {
        self.scratch.high_water()
    }

    /// The nodes of each stage's graph; none where it has none. For tests and reports.
    pub(crate) fn nodes(&self) -> Vec<Option<usize>> {
        self.stages.iter().map(|stage| stage.graph.as_ref().map(CudaGraph::nodes)).collect()
    }
}

impl Memory {
    fn place(&self, chain: &Chain, index: usize) -> Result<PlaceMemory<'_>, BackendError> {
        match &self.named[index] {
            Named::Own(buffer) => Ok(PlaceMemory::Own(buffer)),
            Named::Shared(id) => {
                let name = &chain.tensors[index].spec.name;
                let region = self.binding.region(*id).ok_or_else(|| missing(name))?;
                Ok(PlaceMemory::Shared(region))
            }
        }
    }
}

/// Says on which side of here the stage's `copies` lie, if there are any.
fn mark(stream: &CudaStream, copies: &[Copy], mark: CopyMark) -> Result<(), DeviceError> {
    if copies.is_empty() { Ok(()) } else { stream.mark(mark) }
}

fn copies(chain: &Chain, inputs: bool) -> Vec<Copy> {
    let copy = |(tensor, role): (usize, Role)| match role {
        Role::Input(slot) if inputs => Some(Copy { slot, tensor }),
        Role::Output(slot) if !inputs => Some(Copy { slot, tensor }),
        Role::Input(_) | Role::Output(_) | Role::Carried => None,
    };
    chain.tensors.iter().map(|named| named.role).enumerate().filter_map(copy).collect()
}

fn specs(chain: &Chain, inputs: bool) -> Vec<TensorSpec> {
    let copies = copies(chain, inputs);
    copies.iter().map(|copy| chain.tensors[copy.tensor].spec.clone()).collect()
}
