//! A model in its place on a GPU, and what it enqueues for a job.
//!
//! # While it is prepared
//! Preparation runs the model in its scratch, which other models share. So a model is bound only while
//! no job runs: before the start (the facade sees to that).
//!
//! # Captured stages
//! The graph of the first stage begins with the copies of the inputs, that of the last ends with those
//! of the outputs: a stage is one call of the driver, and no time of the processor lies within it.
//! They are captured with host buffers of the model's own and aimed at those of a job's slot when it
//! is launched. Where the copies end and begin is recorded, here as in a plain stage.
//!
//! # Inputs that go ahead
//! While another model's stage runs, the inputs of a job can be copied on a stream of their own
//! ([`Prepared::uploads_ahead`]); its first graph is then launched without its copies of inputs. The copies
//! are aimed at the job's slot all the same, so that what the driver remembers of them lives.
//!
//! # Plain stages
//! A stage that cannot be captured takes the orchestration thread for as long as its launches do, and
//! the heap. The events around a stage are recorded on the job's stream before its first copy, or before
//! its first launch where it has none, and behind everything: what they measure, in the profile and in
//! every job, holds the processor's launching too. The reason is in [`Prepared::remarks`]. One that is
//! [`Plain::Awaited`] runs on the stream that its runtime was made with: the job's own stream waits for
//! the end of the copies before it, and takes the copies after it, while the thread waits for the last
//! kernel. What that means:
//!
//! - Its cost is charged in full, the waiting included. The executor runs one stage at a time in any
//!   case, so its being blocked delays nobody by more than the stage that blocks it: the analysis stays
//!   as it is.
//! - The processor's time varies more than a graph's, and so does the cost.
//! - Nothing finds a stage that hangs: who would look is the thread that waits for it. Submissions
//!   wait in their queue meanwhile, and eviction and the stop wait too.
//!
//! # Invariants
//! 1. Stages of the model run one at a time, in the order of their job.
//! 2. The model holds the slot of its last job, its buffers and its graphs until the next job or the
//!    drop, so what is enqueued never outlives what it uses.
//! 3. Graphs and programs are dropped before the memory they were made in.
//! 4. Once it is prepared, its runtime gets no more memory ([`Programs::seal`]).

use std::sync::Arc;

use aegis_context::agreement::{Agreement, Outputs};
use aegis_context::chain::Chain;
use aegis_context::foreign::{Holding, Meter};
use aegis_context::slot::JobSlot;
use aegis_context::{BackendError, UploadsAhead};
use aegis_cuda::{CudaGraph, CudaStream, DeviceContext, DeviceError, interop};
use aegis_trace::StageIndex;

use crate::downloads::Downloads;
use crate::memory::Memory;
use crate::programs::{Plain, Programs};
use crate::transfer::fill_scratch;
use crate::trial::{self, Expected, Graphs, Verdict};
use crate::uploads::Uploads;

/// Plain runs before anything is captured: libraries choose, compile and load their kernels in the
/// first ones.
const WARM_UP_RUNS: usize = 3;
/// What scratch is filled with to see that nobody reads what another model left: as a number of any
/// width, not a number or minus one.
const POISON: u8 = 0xff;
/// What scratch is filled with for a network that reads what it did not write.
const CLEAN: u8 = 0;

/// Where and how a model is prepared.
#[derive(Clone, Debug)]
pub struct Setting<'a> {
    /// The device, or the partition of it that the model runs in.
    pub device: &'a DeviceContext,
    /// A stream of `device` that no job runs on.
    pub stream: &'a Arc<CudaStream>,
    /// The model's tensors.
    pub chain: &'a Chain,
    /// Why no stage is to be captured, if so.
    pub plain: Option<String>,
}

/// Why no stage of a model is captured whose workload wants none.
#[must_use]
pub fn not_wanted() -> String {
    "the workload asks for none (`graph = false`)".to_owned()
}

/// A model that is ready for jobs.
pub struct Prepared<P: Programs> {
    // In the order of dropping: what runs, then the memory it was made in.
    graphs: Vec<Option<CudaGraph>>,
    programs: P,
    job: Option<Arc<JobSlot>>,
    memory: Memory,
    uploads: Uploads,
    downloads: Downloads,
    preparation: Arc<CudaStream>,
    device: DeviceContext,
    remarks: Vec<String>,
    foreign: Option<Holding>,
}

impl<P: Programs> Prepared<P> {
    /// Makes the model by `make`, in the memory that comes with it; warms it up, captures its stages
    /// and checks the graphs. Blocks for all of that, allocates, and works on the GPU while no job may
    /// run there.
    ///
    /// # Errors
    /// [`BackendError`]: what `make` says; the runtime or the device fails. What its libraries keep all
    /// the same is charged to the device.
    pub fn new(
        setting: Setting<'_>,
        make: impl FnOnce() -> Result<(P, Memory), BackendError>,
    ) -> Result<Self, BackendError> {
        let meter = Meter::start(setting.device);
        let made = Self::make(setting, make).and_then(|mut prepared| {
            prepared.foreign = Some(meter.charge()?);
            Ok(prepared)
        });
        made.inspect_err(|_| meter.charge_failure()) // What it was made of is dropped by now.
    }

    fn make(
        setting: Setting<'_>,
        make: impl FnOnce() -> Result<(P, Memory), BackendError>,
    ) -> Result<Self, BackendError> {
        let Setting { device, stream, chain, plain } = setting;
        interop::make_current(device)?;
        let uploads = Uploads::new(chain, device)?;
        let downloads = Downloads::new(chain, device)?;
        let (programs, memory) = make()?; // Put in order at once, or they would be dropped in another.
        let mut prepared = Self {
            graphs: Vec::new(),
            programs,
            job: None,
            memory,
            uploads,
            downloads,
            preparation: Arc::clone(stream),
            device: device.clone(),
            remarks: Vec::new(),
            foreign: None,
        };
        prepared.prepare(plain)?;
        prepared.programs.seal();
        Ok(prepared)
    }

    fn prepare(&mut self, plain: Option<String>) -> Result<(), BackendError> {
        self.graphs.resize_with(self.programs.stages(), || None);
        self.memory.clear()?;
        self.uploads.write_example(&mut self.memory)?;
        for _ in 0..WARM_UP_RUNS {
            self.run_plain()?;
        }
        let expected = self.downloads.read(&mut self.memory)?;
        self.run_plain()?;
        let agreement = Agreement::of(&expected, &self.downloads.read(&mut self.memory)?);
        if agreement == Agreement::Close {
            self.remarks.push("its outputs differ in their last bits from run to run".to_owned());
        }
        let verdict = match plain {
            Some(reason) => Verdict::Refused(reason),
            None => self.try_graphs(&expected, agreement)?,
        };
        self.take_in(verdict, agreement);
        Ok(self.memory.clear()?)
    }

    fn run_plain(&mut self) -> Result<(), BackendError> {
        let Self { programs, memory, preparation, .. } = self;
        (0..programs.stages()).try_for_each(|stage| programs.run(stage, memory, preparation))
    }

    fn try_graphs(
        &mut self,
        outputs: &Outputs,
        agreement: Agreement,
    ) -> Result<Verdict, BackendError> {
        let specs = self.downloads.specs().to_vec();
        trial::run(self, Expected { specs: &specs, outputs, agreement })
    }

    /// Keeps the graphs or not, and says what a reader should know of it.
    fn take_in(&mut self, verdict: Verdict, plain: Agreement) {
        match verdict {
            Verdict::Trusted { agreement, clearing } => {
                if agreement != plain {
                    self.remarks.push(
                        "its graph's outputs differ in their last bits from those of the plain run"
                            .to_owned(),
                    );
                }
                if !clearing.is_empty() {
                    let stages: Vec<String> = clearing.iter().map(usize::to_string).collect();
                    let stages = stages.join(", ");
                    self.remarks.push(format!(
                        "stage {stages} reads scratch that it did not write, so its graph begins by \
                         clearing it"
                    ));
                }
            }
            Verdict::Refused(reason) => {
                self.graphs.fill_with(|| None);
                self.remarks.push(match P::PLAIN {
                    Plain::Launched => format!(
                        "it runs without a graph, launched kernel by kernel on the orchestration \
                         thread: {reason}"
                    ),
                    Plain::Awaited => format!(
                        "it runs without a graph: the orchestration thread launches it kernel by \
                         kernel and waits for its end, which its cost contains and no watchdog sees: \
                         {reason}"
                    ),
                });
            }
        }
    }

    /// Enqueues stage `index` of the job in `slot`. A captured stage is enqueued without waiting and
    /// without allocating; see the module for the others.
    ///
    /// # Errors
    /// [`BackendError`]: the stage did not begin, and nothing of it is on the stream.
    pub fn enqueue(
        &mut self,
        index: StageIndex,
        slot: &Arc<JobSlot>,
        stream: &CudaStream,
    ) -> Result<(), BackendError> {
        let stage = usize::from(index.0);
        if stage == 0 {
            self.job = Some(Arc::clone(slot));
        }
        match self.graphs.get(stage) {
            None => {
                Err(BackendError::Runtime { reason: format!("the model has no stage {index}") })
            }
            Some(Some(graph)) => Ok(self.launch(stage, graph, slot, stream, false)?),
            Some(None) => self.enqueue_plain(stage, slot, stream).inspect_err(|_| {
                // Copies and kernels may be on the stream already. That the stage did not begin means
                // that nothing of it is there; a stream that cannot be waited for is that of a lost
                // device.
                drop(stream.synchronize());
            }),
        }
    }

    /// Launches the graph of a stage for the job in `slot`, without its copies of inputs where they were
    /// `uploaded` ahead.
    fn launch(
        &self,
        stage: usize,
        graph: &CudaGraph,
        slot: &Arc<JobSlot>,
        stream: &CudaStream,
        uploaded: bool,
    ) -> Result<(), DeviceError> {
        if stage == 0 {
            self.uploads.aim(graph, slot)?;
            self.uploads.leave_out(graph, uploaded)?;
        }
        if stage + 1 == self.graphs.len() {
            self.downloads.aim(graph, slot)?;
        }
        stream.enqueue_graph(graph)
    }

    /// How its inputs go ahead of a job's first stage: where that is captured, there are inputs, and all
    /// of them go to buffers of the model's own, which no other model's stage touches.
    pub fn uploads_ahead(&mut self) -> Option<&mut dyn UploadsAhead> {
        let is_captured = matches!(self.graphs.first(), Some(Some(_)));
        if is_captured && self.uploads.can_go_ahead(&self.memory) { Some(self) } else { None }
    }

    /// Enqueues the copies of a stage without a graph, and its run between them.
    fn enqueue_plain(
        &mut self,
        stage: usize,
        slot: &Arc<JobSlot>,
        stream: &CudaStream,
    ) -> Result<(), BackendError> {
        let Self { programs, memory, uploads, downloads, preparation, device, .. } = self;
        if stage == 0 {
            uploads.enqueue(stream, memory, slot)?;
        }
        // What a runtime enqueues is no entry of the stream, so the stage begins here also where it has
        // no copies, and not once it has run.
        interop::open_stage(stream)?;
        interop::make_current(device)?;
        match P::PLAIN {
            Plain::Launched => programs.enqueue(stage, memory, stream)?,
            Plain::Awaited => {
                stream.synchronize()?; // The inputs are there before another stream reads them.
                programs.run(stage, memory, preparation)?;
            }
        }
        if stage + 1 == programs.stages() {
            downloads.enqueue(stream, memory, slot)?;
        }
        Ok(())
    }

    /// Whether every stage is a graph: what one that is not may wait for, nobody knows.
    #[must_use]
    pub fn is_captured(&self) -> bool {
        self.graphs.iter().all(Option::is_some)
    }

    /// The nodes of each stage's graph; none where it has none. For tests and reports.
    #[must_use]
    pub fn nodes(&self) -> Vec<Option<usize>> {
        self.graphs.iter().map(|graph| graph.as_ref().map(CudaGraph::nodes)).collect()
    }

    /// What a reader of a report should know.
    #[must_use]
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// What its libraries took while it was bound, for the one who owns the model: it is settled when
    /// the model is dropped, which is the owner's to order. `None` from the second call on.
    #[must_use]
    pub fn take_foreign(&mut self) -> Option<Holding> {
        self.foreign.take()
    }

    /// The stages as their runtime made them.
    #[must_use]
    pub fn programs(&self) -> &P {
        &self.programs
    }
}

impl<P: Programs> UploadsAhead for Prepared<P> {
    fn upload(&mut self, slot: &Arc<JobSlot>, stream: &CudaStream) -> Result<(), BackendError> {
        Ok(self.uploads.enqueue(stream, &mut self.memory, slot)?)
    }

    fn enqueue_uploaded(
        &mut self,
        slot: &Arc<JobSlot>,
        stream: &CudaStream,
    ) -> Result<(), BackendError> {
        let Some(Some(graph)) = self.graphs.first() else {
            let reason = "inputs went ahead of a stage that is not captured".to_owned();
            return Err(BackendError::Runtime { reason });
        };
        self.job = Some(Arc::clone(slot));
        Ok(self.launch(0, graph, slot, stream, true)?)
    }
}

impl<P: Programs> Drop for Prepared<P> {
    fn drop(&mut self) {
        // Runtimes look for their GPU on the thread that drops their objects. Where that cannot be said
        // to them, the device is lost, and with it what there was to free.
        drop(interop::make_current(&self.device));
    }
}

impl<P: Programs> Graphs for Prepared<P> {
    fn stages(&self) -> usize {
        self.programs.stages()
    }

    fn capture(&mut self, clearing: &[bool]) -> Result<(), BackendError> {
        let Self { graphs, programs, memory, uploads, downloads, preparation, .. } = self;
        let last = graphs.len() - 1;
        for (stage, (graph, clears)) in graphs.iter_mut().zip(clearing).enumerate() {
            let captured = preparation.capture_stage(|stream| -> Result<(), BackendError> {
                if stage == 0 {
                    uploads.capture(stream, memory)?;
                }
                if let Some(scratch) = memory.scratch().filter(|_| *clears) {
                    fill_scratch(stream, scratch, CLEAN)?;
                }
                programs.enqueue(stage, memory, stream)?;
                if stage == last {
                    downloads.capture(stream, memory)?;
                }
                Ok(())
            })?;
            *graph = Some(captured);
        }
        Ok(())
    }

    fn settle(&mut self) -> Result<(), BackendError> {
        Ok(self.preparation.synchronize()?)
    }

    fn replay(&mut self, poisoned: bool) -> Result<Outputs, BackendError> {
        let Self { graphs, memory, downloads, preparation, .. } = self;
        downloads.fill(memory, POISON)?;
        for graph in graphs.iter() {
            if let Some(scratch) = memory.scratch().filter(|_| poisoned) {
                fill_scratch(preparation, scratch, POISON)?;
            }
            preparation.enqueue_graph(graph.as_ref().expect("every stage was captured"))?;
            preparation.synchronize()?;
        }
        Ok(downloads.read(memory)?)
    }
}
