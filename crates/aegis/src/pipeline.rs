//! From a workload file to a running system: what the program `aegis` does, as a library.

mod bare;
pub mod certificate;
#[cfg(feature = "fault-injection")]
mod fault;
mod measured;
mod plan;
pub mod poet;
mod source;
mod whole;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use aegis_context::ResourceBudget;
use aegis_cuda::DeviceCapabilities;
use aegis_sched::admission::Terms;
use aegis_sched::analysis;
use aegis_sched::analysis::counter_offer::Offer;
use aegis_sched::wcet::{Scenario, StageMonitor, WcetProfile};
use aegis_trace::{ModelId, Nanos, ServiceTerms};

pub use self::bare::{gpu_facts, host_capabilities, host_facts};
use self::plan::{Planned, Unkept, plan};
use self::source::{misplaced, source, stand_in};
use crate::bargain::Asked;
use crate::builder::{self, DeviceChoice, RuntimeBuilder};
use crate::chain::{ChainReport, Proved};
use crate::device_facts::{DeviceFacts, Question};
use crate::drive::{Driven, DrivenChain, Sources};
use crate::environment::Property;
use crate::error::Error;
use crate::evidence::{Evidence, EvidenceError, ModelEvidence, PartitionFingerprint};
use crate::handle::ModelHandle;
use crate::margin::{CounterOffer, Margins};
use crate::partition::PartitionSpec;
use crate::profile::{self, ProfileOptions, Subject};
use crate::runtime::Runtime;
use crate::source::LoadedModel;
use crate::workload::{
    Backend, BestEffort, Chain, ChainKind, Driver, Model, PERIOD_MAX, Partition, Server, Workload,
};

/// Events each thread can record between two drains, 50 ms apart.
const TRACE_CAPACITY: usize = 1 << 14;

/// A workload file with what belongs to it.
#[derive(Clone, Debug)]
pub struct Pipeline {
    workload: Workload,
    evidence_path: PathBuf,
    /// Asked once: opening a GPU takes tenths of a second.
    facts: OnceLock<DeviceFacts>,
}

/// A model that was admitted, or the reason it was not.
#[derive(Debug)]
pub struct Verdict {
    /// Its name.
    pub model: String,
    /// Its handle, or the error: [`Error::Refused`] with the inequality, or what kept it from
    /// being decided.
    pub outcome: Result<ModelHandle, Error>,
    /// The id by which a refusal and its offers know the model: its own, or where it was refused the
    /// one that it would have had.
    pub id: ModelId,
    /// The models beside which it was decided about, by id, and itself.
    pub names: BTreeMap<ModelId, String>,
    /// What would have been admitted instead; see [`Runtime::counter_offers`]. Empty where models
    /// trigger one another: what would help then is a question about all jitters at once.
    pub offers: Vec<CounterOffer>,
}

impl Verdict {
    /// A model that the plan does not keep.
    fn planned(model: &str, refused: Unkept, runtime: &Runtime) -> Self {
        let Unkept { why, explained, id, names } = refused;
        let outcome = Err(runtime.refuse(model, why, explained));
        Self { model: model.to_owned(), outcome, id, names, offers: Vec::new() }
    }
}

impl Pipeline {
    /// Reads a workload file and checks that its model files are there.
    ///
    /// # Errors
    /// [`Error::Workload`] with every fault of the file; [`Error::WrongDriver`] when a model cannot
    /// run on the device it names; [`Error::Build`] when that device has less memory than it asks for.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::of(Workload::read(path)?)
    }

    /// The pipeline of a workload that was read before, perhaps with something changed: its evidence is
    /// that of the file which it names as its source.
    ///
    /// # Errors
    /// As [`Pipeline::open`].
    pub fn of(workload: Workload) -> Result<Self, Error> {
        workload.check_files()?;
        if let Some(misplaced) =
            workload.models.iter().find_map(|model| misplaced(model, &workload))
        {
            return Err(misplaced);
        }
        let evidence_path = workload.source.path.with_extension("evidence.json");
        let facts = OnceLock::new();
        let pipeline = Self { workload, evidence_path, facts };
        pipeline.check_memory()?;
        Ok(pipeline)
    }

    /// The workload.
    #[must_use]
    pub fn workload(&self) -> &Workload {
        &self.workload
    }

    /// Where the evidence of this workload lies: beside the file, `NAME.evidence.json`.
    #[must_use]
    pub fn evidence_path(&self) -> &Path {
        &self.evidence_path
    }

    /// Measures every model and writes the evidence. Blocks throughout.
    ///
    /// # Errors
    /// What [`profile::profile`] says, or [`Error::Evidence`] when the file cannot be written.
    pub fn profile(&self, progress: impl FnMut(usize, usize)) -> Result<Evidence, Error> {
        self.profile_under_load(&[], progress)
    }

    /// As [`Pipeline::profile`], and in each of `scenarios` besides taking turns.
    ///
    /// # Errors
    /// What [`profile::profile_under_load`] says, or [`Error::Evidence`] when the file cannot be written.
    pub fn profile_under_load(
        &self,
        scenarios: &[Scenario],
        progress: impl FnMut(usize, usize),
    ) -> Result<Evidence, Error> {
        let (subjects, options) = self.to_profile()?;
        // An unwritable place is better known before minutes of measuring than after.
        Evidence::probe(&self.evidence_path)?;
        let evidence = profile::profile_under_load(&subjects, &options, scenarios, progress)?;
        evidence.write(&self.evidence_path)?;
        Ok(evidence)
    }

    /// What is measured, and how.
    fn to_profile(&self) -> Result<(Vec<Subject>, ProfileOptions), Error> {
        if self.workload.device.driver == Driver::Sim {
            return Err(Error::NothingToProfile);
        }
        let subject = |model: &Model| Subject {
            name: model.name.clone(),
            source: source(model),
            partition: model.partition,
        };
        let subjects = self.workload.models.iter().map(subject).collect();
        let options = ProfileOptions {
            device: self.device_choice(),
            memory: self.workload.device.memory,
            partitions: self.workload.partitions.iter().map(spec).collect(),
            rounds: usize::try_from(self.workload.wcet.samples).unwrap_or(usize::MAX),
            spin: self.workload.scheduler.idle_spin,
            realtime: true,
            uploads_ahead: self.workload.overheads.uploads_ahead,
        };
        Ok((subjects, options))
    }

    /// Decides about every model in file order without loading any: each is stood in for by its
    /// evidence. The runtime that results holds the report, and runs nothing.
    ///
    /// # Errors
    /// [`Error::Evidence`] when evidence is missing or stale, [`Error::Device`].
    pub fn check(&self) -> Result<(Runtime, Vec<Verdict>), Error> {
        let evidence = self.evidence()?;
        let facts = self.facts()?;
        let plannable = facts.memory.map_or(self.workload.device.memory, |memory| memory.arena);
        let mut runtime = self.builder().sim(plannable).build()?;
        runtime.stand_for(&facts.granted);
        let verdict = |(model, planned): (&Model, Planned)| {
            let stand_in = stand_in(model, evidence_of(evidence.as_ref(), model));
            match planned {
                Planned::Ask(terms) => {
                    let loaded =
                        runtime.load_on(&model.name, &stand_in, self.partition_name(model));
                    let verdict = self.decided(model, loaded, &terms, Vec::new(), &runtime);
                    if let Some(measured) = evidence_of(evidence.as_ref(), model) {
                        runtime.annotate(verdict.id, &measured.prepared);
                    }
                    verdict
                }
                Planned::Refuse(refused) => Verdict::planned(&model.name, *refused, &runtime),
            }
        };
        let planned = self.planned(&self.profiles(evidence.as_ref()));
        let verdicts = self.workload.models.iter().zip(planned).map(verdict).collect();
        Ok((runtime, verdicts))
    }

    /// Loads and admits every model in file order on the workload's own device. `progress` is
    /// told the name of the model that is loaded next.
    ///
    /// # Errors
    /// [`Error::VirtualTime`] on a simulated device, [`Error::Evidence`] when evidence is missing or
    /// stale, [`Error::Load`], [`Error::Device`].
    pub fn admit(&self, progress: impl FnMut(&str)) -> Result<(Runtime, Vec<Verdict>), Error> {
        self.admit_prepared(progress, |_, loaded| Ok(loaded))
    }

    /// Loads, prepares and admits every model.
    fn admit_prepared(
        &self,
        mut progress: impl FnMut(&str),
        mut prepare: impl FnMut(&Runtime, LoadedModel) -> Result<LoadedModel, Error>,
    ) -> Result<(Runtime, Vec<Verdict>), Error> {
        if self.workload.device.driver == Driver::Sim {
            return Err(Error::VirtualTime);
        }
        let evidence = self.evidence()?;
        let (builder, memory) = (self.builder(), self.workload.device.memory);
        let builder = match self.workload.device.driver {
            Driver::Cuda { ordinal, wait } => {
                let libraries = builder::libraries(self.workload.models.len());
                builder.cuda(ordinal, wait, memory).libraries(libraries)
            }
            Driver::Host | Driver::Sim => builder.host(memory),
        };
        let runtime = builder.build()?;
        let mut verdicts = Vec::with_capacity(self.workload.models.len());
        let profiles = self.profiles(evidence.as_ref());
        let planned = self.planned(&profiles);
        let models = self.workload.models.iter().zip(planned).zip(&profiles);
        for ((model, planned), profile) in models {
            progress(&model.name);
            let terms = match planned {
                Planned::Ask(terms) => terms,
                Planned::Refuse(refused) => {
                    verdicts.push(Verdict::planned(&model.name, *refused, &runtime));
                    continue;
                }
            };
            let evidence = evidence_of(evidence.as_ref(), model);
            let partition = self.partition_name(model);
            let loaded = runtime.load_on(&model.name, &source(model), partition)?;
            let loaded = prepare(&runtime, loaded)?;
            if !self.workload.wcet.accept.contains(&Property::Runtime) {
                same_runtime(model, evidence, &loaded.runtime_name())?;
            }
            let monitors = profile.as_ref().map_or_else(Vec::new, WcetProfile::monitors);
            verdicts.push(self.decided(model, Ok(loaded), &terms, monitors, &runtime));
        }
        Ok((runtime, verdicts))
    }

    /// Admits what was loaded, and bargains for it where it is refused.
    fn decided(
        &self,
        model: &Model,
        loaded: Result<LoadedModel, Error>,
        terms: &Terms,
        monitors: Vec<StageMonitor>,
        runtime: &Runtime,
    ) -> Verdict {
        let partition = self.partition_name(model);
        let (id, mut names) = (runtime.next_id(partition), runtime.names());
        names.insert(id, model.name.clone());
        let asked = loaded.as_ref().ok().map(|loaded| Asked::of(loaded, terms));
        let outcome = loaded.and_then(|loaded| runtime.admit_watched(loaded, terms, monitors));
        let offers = match (&outcome, asked) {
            (Err(Error::Refused { refusal, .. }), Some(asked)) if !self.has_triggers() => {
                let keeps = model.deadline_stated;
                let asked = if keeps { asked.keeping_deadline() } else { asked };
                runtime.counter_offers(&asked, refusal)
            }
            _ => Vec::new(),
        };
        // More than that cannot be written in the file.
        let is_too_long = |offer: &CounterOffer| match offer.offer {
            Offer::Period { period: time } | Offer::Deadline { deadline: time } => {
                time > PERIOD_MAX
            }
            _ => false,
        };
        let offers = offers.into_iter().filter(|offer| !is_too_long(offer)).collect();
        Verdict { model: model.name.clone(), outcome, id, names, offers }
    }

    /// What is proved of each chain in the set that was admitted, in file order.
    #[must_use]
    pub fn chains(&self, runtime: &Runtime, verdicts: &[Verdict]) -> Vec<ChainReport> {
        let chains = self.workload.chains.iter();
        chains.map(|chain| self.chain(chain, runtime, verdicts)).collect()
    }

    fn chain(&self, chain: &Chain, runtime: &Runtime, verdicts: &[Verdict]) -> ChainReport {
        let Chain { name, kind, deadline, max_age, .. } = chain.clone();
        let models = chain.models.iter().map(|place| self.workload.models[*place].name.clone());
        let (models, refused): (Vec<_>, _) = (models.collect(), Vec::new());
        let (bound, slack, age) = (None, None, None);
        let asked =
            ChainReport { name, kind, models, bound, deadline, slack, age, max_age, refused };
        let handle = |place: &usize| verdicts.get(*place)?.outcome.as_ref().ok();
        if let Some(gone) = chain.models.iter().position(|place| handle(place).is_none()) {
            let model = asked.models[gone].clone();
            return ChainReport::without(asked, model);
        }
        let ids: Vec<_> = chain.models.iter().filter_map(handle).map(ModelHandle::id).collect();
        let proved = match kind {
            ChainKind::Triggered => runtime.bound(ids[ids.len() - 1]).map(Proved::end_to_end),
            ChainKind::Sampled => {
                let last = &self.workload.models[chain.models[ids.len() - 1]];
                runtime.reaction(ids).map(|bound| Proved::sampled(bound, last.period))
            }
        };
        ChainReport::promised(asked, proved.expect("an admitted model has a bound"))
    }

    /// How far what was admitted is from the edge, in each partition that has models. Where models
    /// trigger one another, the jitters that they inherit move along.
    ///
    /// Costs some hundred analyses of the whole set.
    #[must_use]
    pub fn margins(&self, runtime: &Runtime, verdicts: &[Verdict]) -> Vec<Margins> {
        if !self.has_triggers() {
            return runtime.margins();
        }
        let id = |place: &usize| Some(verdicts.get(*place)?.outcome.as_ref().ok()?.id());
        let triggered =
            self.workload.chains.iter().filter(|chain| chain.kind == ChainKind::Triggered);
        let members = triggered.map(|chain| chain.models.iter().filter_map(id).collect::<Vec<_>>());
        let chains: Vec<_> =
            members.filter_map(|ids| analysis::chain::Chain::new(ids).ok()).collect();
        let jitter = |model: ModelId| {
            let place = (0..verdicts.len()).find(|place| id(place) == Some(model))?;
            let model = &self.workload.models[place];
            model.best_effort.is_none().then_some(model.jitter)
        };
        runtime.margins_chained(&chains, jitter)
    }

    /// Whether models trigger one another. Then [`Runtime::margins`], [`Runtime::sensitivities`] and
    /// [`Runtime::counter_offers`], which take all jitters as given, say too much.
    #[must_use]
    pub fn has_triggers(&self) -> bool {
        self.workload.chains.iter().any(|chain| chain.kind == ChainKind::Triggered)
    }

    /// The load of this workload for its admitted models.
    ///
    /// A triggered chain runs if all of its members were admitted. Otherwise nothing triggers them, and
    /// of its members only the first runs.
    #[must_use]
    pub fn load(&self, verdicts: &[Verdict]) -> Sources {
        let driven = |place: &usize| {
            let model = &self.workload.models[*place];
            let handle = verdicts.get(*place)?.outcome.as_ref().ok()?.clone();
            let driven = Driven::with_sample_inputs(handle, model.period);
            let driven = driven.released_within(model.jitter);
            Some(if model.best_effort.is_some() { driven.best_effort() } else { driven })
        };
        let mut alone = vec![true; self.workload.models.len()];
        let mut chains = Vec::new();
        let triggered = |chain: &&Chain| chain.kind == ChainKind::Triggered;
        for chain in self.workload.chains.iter().filter(triggered) {
            chain.models[1..].iter().for_each(|place| alone[*place] = false);
            let members: Option<Vec<Driven>> = chain.models.iter().map(driven).collect();
            let Some(members) = members else { continue };
            alone[chain.models[0]] = false;
            let (name, deadline) = (chain.name.clone(), chain.deadline);
            chains.push(DrivenChain { name, members, deadline });
        }
        let places = (0..alone.len()).filter(|place| alone[*place]);
        Sources { models: places.filter_map(|place| driven(&place)).collect(), chains }
    }

    /// What the device of this workload is and has.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn device(&self) -> Result<DeviceCapabilities, Error> {
        self.facts().map(|facts| facts.capabilities.clone())
    }

    /// What else was found of it: how its memory limit divides, what it grants each partition, how it
    /// is set. The device is opened by the first call, which blocks, and asked no more.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn facts(&self) -> Result<&DeviceFacts, Error> {
        if let Some(facts) = self.facts.get() {
            return Ok(facts);
        }
        let Workload { device, partitions, models, .. } = &self.workload;
        let facts = DeviceFacts::ask(&Question {
            choice: self.device_choice(),
            memory_limit: device.memory,
            partitions: &partitions.iter().map(spec).collect::<Vec<_>>(),
            models: models.len(),
        })?;
        Ok(self.facts.get_or_init(|| facts))
    }

    /// A device cannot lend more memory than it has.
    fn check_memory(&self) -> Result<(), Error> {
        let asked = self.workload.device.memory;
        if self.workload.device.driver != Driver::Host {
            // A simulated device has what it is given, and a GPU is not started to ask it.
            return Ok(());
        }
        match host_capabilities()?.total_memory() {
            Some(total) if asked > total => {
                let fault = format!("[device] memory is {asked}, and the device has {total}");
                Err(Error::Build { faults: vec![fault] })
            }
            _ => Ok(()),
        }
    }

    /// Where a model runs, and what runs beside it.
    fn partition_of(&self, model: &Model, granted: &[Option<u32>]) -> Option<PartitionFingerprint> {
        let Partition { name, sms, .. } = self.workload.partition_of(model)?.clone();
        let models = self.workload.models.iter();
        let elsewhere = models.filter(|other| other.partition != model.partition);
        let busy = elsewhere.map(|other| other.name.clone()).collect();
        let granted = model.partition.and_then(|place| *granted.get(place)?);
        Some(PartitionFingerprint::new(name, sms, busy).granted(granted))
    }

    /// The name of the partition that a model runs in.
    fn partition_name(&self, model: &Model) -> Option<&str> {
        self.workload.partition_of(model).map(|of| of.name.as_str())
    }

    fn device_choice(&self) -> DeviceChoice {
        match self.workload.device.driver {
            Driver::Host => DeviceChoice::Host,
            Driver::Sim => DeviceChoice::Sim,
            Driver::Cuda { ordinal, wait } => DeviceChoice::Cuda { ordinal, wait },
        }
    }

    fn builder(&self) -> RuntimeBuilder {
        let Workload { device, scheduler, partitions, models, .. } = &self.workload;
        let builder = Runtime::builder();
        let builder = device.pressure.into_iter().fold(builder, RuntimeBuilder::pressure);
        let limit = scheduler.max_suspended;
        let builder = limit.into_iter().fold(builder, RuntimeBuilder::max_suspended);
        let builder = partitions.iter().map(spec).fold(builder, RuntimeBuilder::partition);
        let builder = scheduler.core.into_iter().fold(builder, RuntimeBuilder::core);
        builder
            .streams(device.streams)
            .policy(scheduler.policy)
            .queue_depth(usize::try_from(scheduler.queue_depth).unwrap_or(usize::MAX))
            .max_models(u16::try_from(models.len()).unwrap_or(u16::MAX))
            .overrun(scheduler.overrun)
            .overheads(self.workload.overheads)
            .trace_capacity(TRACE_CAPACITY)
            .spin(scheduler.idle_spin)
            .realtime(true)
    }

    /// What the evidence of a model says under the rule of this workload.
    #[must_use]
    pub fn wcet(&self, evidence: &ModelEvidence) -> WcetProfile {
        evidence.profile(self.workload.wcet.cost_rule())
    }

    /// What the evidence says of each model, in file order; `None` for one that needs none.
    fn profiles(&self, evidence: Option<&Evidence>) -> Vec<Option<WcetProfile>> {
        let models = self.workload.models.iter();
        models.map(|model| evidence_of(evidence, model).map(|found| self.wcet(found))).collect()
    }

    /// What is done about each model, with the terms on which it asks for admission.
    fn planned(&self, profiles: &[Option<WcetProfile>]) -> Vec<Planned> {
        plan(&self.workload, self.terms_asked(profiles), self.has_triggers())
    }

    /// What each model asks for, whatever triggers it.
    fn terms_asked(&self, profiles: &[Option<WcetProfile>]) -> Vec<Terms> {
        let models = self.workload.models.iter().zip(profiles);
        models.map(|(model, profile)| self.terms(model, profile.as_ref())).collect()
    }

    fn terms(&self, model: &Model, profile: Option<&WcetProfile>) -> Terms {
        let margin = self.workload.wcet.margin_percent;
        let costs = match (&model.backend, profile) {
            // On the host a declared stage is a busy loop, which the machine can only make longer.
            (Backend::Sim(sim), _) if self.workload.device.driver == Driver::Host => {
                sim.stages.iter().map(|cost| with_margin(*cost, margin)).collect()
            }
            (Backend::Sim(sim), _) => sim.stages.clone(),
            (Backend::Onnx(_) | Backend::Tvm(_) | Backend::Trt(_), Some(profile)) => {
                profile.costs()
            }
            (Backend::Onnx(_) | Backend::Tvm(_) | Backend::Trt(_), None) => {
                unreachable!("evidence was checked for every real model")
            }
        };
        Terms {
            service: service(model),
            costs,
            may_be_suspended: model.suspend,
            budget: ResourceBudget {
                memory: model.budget.memory.unwrap_or(self.workload.device.memory),
                streams: model.budget.streams.unwrap_or(1),
                compute: model.budget.compute.unwrap_or(Nanos::MAX),
            },
            slots: usize::try_from(model.slots).unwrap_or(usize::MAX),
        }
    }
}

/// A partition of a workload as the builder takes it.
fn spec(partition: &Partition) -> PartitionSpec {
    let Partition { name, sms, policy, core } = partition.clone();
    PartitionSpec { name, sms, policy, core }
}

/// What a model of a workload asks to be promised.
fn service(model: &Model) -> ServiceTerms {
    let Model { period, deadline, jitter, .. } = *model;
    match model.best_effort {
        None => {
            let priority = model.priority.unwrap_or(0);
            ServiceTerms::Guaranteed { period, deadline, jitter, priority }
        }
        Some(BestEffort::Background) => ServiceTerms::Background,
        Some(BestEffort::Server(Server { budget, period, priority })) => {
            ServiceTerms::Server { budget, period, priority: priority.unwrap_or(0) }
        }
    }
}

fn needs_evidence(model: &Model) -> bool {
    matches!(model.backend, Backend::Onnx(_) | Backend::Tvm(_) | Backend::Trt(_))
}

fn evidence_of<'e>(evidence: Option<&'e Evidence>, model: &Model) -> Option<&'e ModelEvidence> {
    evidence?.models.get(&model.name).filter(|_| needs_evidence(model))
}

fn same_runtime(
    model: &Model,
    evidence: Option<&ModelEvidence>,
    here: &str,
) -> Result<(), EvidenceError> {
    match evidence {
        Some(evidence) if evidence.runtime != here => Err(EvidenceError::OtherRuntime {
            model: model.name.clone(),
            measured: evidence.runtime.clone(),
            here: here.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// `cost` plus `percent`, rounded up.
fn with_margin(cost: Nanos, percent: u32) -> Nanos {
    let more = (u128::from(cost.as_nanos()) * u128::from(percent)).div_ceil(100);
    cost.saturating_add(Nanos(u64::try_from(more).unwrap_or(u64::MAX)))
}
