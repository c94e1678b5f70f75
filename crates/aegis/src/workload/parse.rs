//! From TOML to a [`Workload`], reporting all that is wrong on the way.
//!
//! The file is read top down in one pass: device and scheduler first, since a model's budget and
//! priority are judged against them. A part that is wrong does not stop the rest from being read;
//! what later checks need is kept in [`Facts`], which holds only what was read without a fault.

mod best_effort;
mod chain;
mod partition;
mod pressure;
mod scheduler;

use std::collections::BTreeMap;
use std::path::Path;

use aegis_cuda::{CompletionWait, DriverKind};
use aegis_sched::policy::PolicyKind;
use aegis_trace::{Bytes, Nanos};
use toml::de::DeTable;

use self::chain::Members;
use self::partition::Partitions;
use super::chain::fill_in;
use super::fault::{FaultKind, Findings, Quantity, Reported};
use super::reader::{At, Raw, Section, quoted};
use super::schema::{self, BackendKind};
use super::{
    Backend, Budget, Device, Driver, Model, ModelFile, OnnxModel, SimModel, SourceText, Span,
    TrtModel, TvmModel, WcetRule, Workload, WorkloadFaults,
};
use crate::environment::Property;

/// Parses the text of `source`.
pub(super) fn parse(source: SourceText) -> Result<Workload, WorkloadFaults> {
    let text = source.text.clone();
    let (root, broken) = DeTable::parse_recoverable(&text);
    let mut findings = Findings::default();
    for error in broken {
        let message = error.message().to_owned();
        let range = error.span().unwrap_or_default();
        findings.report(FaultKind::Syntax { message }, Span { start: range.start, end: range.end });
    }
    let folder = source.path.parent().unwrap_or(Path::new("")).to_owned();
    let (facts, members) = (Facts::default(), Members::default());
    let partitions = Partitions::default();
    let mut parser = Parser { folder: &folder, findings, facts, members, partitions };
    let workload = parser.workload(root.get_ref(), &source);
    match workload {
        Ok(workload) if parser.findings.is_empty() => Ok(workload),
        // `Reported` says that a fault was recorded, so there is one in both cases.
        Ok(_) | Err(Reported { .. }) => Err(parser.findings.located_in(source)),
    }
}

/// What a part of the file is judged against in another part.
#[derive(Default)]
struct Facts {
    core: Option<At<u32>>,
    driver: Option<At<DriverKind>>,
    memory: Option<At<Bytes>>,
    /// The span is `None` when the default applies.
    streams: Option<(u32, Option<Span>)>,
    policy: Option<At<PolicyKind>>,
    look_ahead: bool,
    uploads_ahead: bool,
    /// That of the model being read, which its partition may have for itself.
    own_policy: Option<At<PolicyKind>>,
    names: BTreeMap<String, Span>,
    max_suspended: Option<At<u32>>,
    /// Models of several stages so far that may be suspended.
    suspended: u32,
}

struct Parser<'p> {
    folder: &'p Path,
    findings: Findings,
    facts: Facts,
    members: Members,
    partitions: Partitions,
}

/// When a model runs.
struct Timing {
    period: Nanos,
    deadline: Nanos,
    deadline_stated: bool,
    jitter: Nanos,
}

impl Parser<'_> {
    fn workload(
        &mut self,
        entries: &DeTable<'_>,
        source: &SourceText,
    ) -> Result<Workload, Reported> {
        let top = Section::open(&schema::TOP, entries, Span::default(), &mut self.findings);
        let device = self.device(&top);
        let scheduler = self.scheduler(&top);
        let overheads = self.overheads(&top);
        let wcet = self.wcet(&top);
        let partitions = self.partitions(&top);
        let models = self.models(&top);
        let chains = self.chains(&top);
        let (mut models, chains, overheads) = (models?, chains?, overheads?);
        self.check_empty_partitions();
        fill_in(&mut models, &self.members.stated, &chains, &overheads);
        Ok(Workload {
            source: source.clone(),
            device: device?,
            scheduler: scheduler?,
            overheads,
            wcet: wcet?,
            partitions: partitions?,
            models,
            chains,
        })
    }

    fn device(&mut self, top: &Section<'_>) -> Result<Device, Reported> {
        let table = self.required_table(top, "device", &schema::DEVICE)?;
        let found = &mut self.findings;
        let kind = table.required(found, "driver", |raw| raw.one_of(schema::DRIVERS));
        let ordinals = 0..=u32::from(super::ORDINAL_MAX);
        let ordinal = table.optional(found, "ordinal", |raw| raw.count(ordinals));
        let wait = table.optional(found, "wait", |raw| raw.one_of(schema::WAITS));
        let memory = table.required(found, "memory", |raw| raw.size(schema::LIMITS));
        let streams = table.optional(found, "streams", |raw| raw.count(1..=super::STREAMS_MAX));
        self.facts.driver = kind.ok();
        self.refuse_gpu_keys(&table);
        self.facts.memory = memory.ok();
        self.facts.streams = match streams {
            Ok(Some(At { value, span })) => Some((value, Some(span))),
            Ok(None) => Some((super::STREAMS_DEFAULT, None)),
            Err(Reported { .. }) => None,
        };
        let pressure = self.pressure(&table);
        let driver = match kind?.value {
            DriverKind::Host => Driver::Host,
            DriverKind::Cuda => Driver::Cuda {
                ordinal: u16::try_from(or_default(ordinal?, 0)).unwrap_or(super::ORDINAL_MAX),
                wait: or_default(wait?, CompletionWait::Spin),
            },
            _ => Driver::Sim,
        };
        Ok(Device {
            driver,
            memory: memory?.value,
            streams: or_default(streams?, super::STREAMS_DEFAULT),
            pressure: pressure?,
        })
    }

    /// Reports keys that only a GPU has, of another device.
    fn refuse_gpu_keys(&mut self, table: &Section<'_>) {
        let Some(At { value: kind, span: stated }) = self.facts.driver else { return };
        for key in ["ordinal", "wait"] {
            if let (false, Some(span)) = (kind == DriverKind::Cuda, table.place_of(key)) {
                let fault = FaultKind::NotForDriver { key, driver: kind };
                self.findings.report_with(fault, span, Some((stated, "the driver")));
            }
        }
    }

    fn wcet(&mut self, top: &Section<'_>) -> Result<WcetRule, Reported> {
        let found = &mut self.findings;
        let Some(table) = top.table(found, "wcet", &schema::WCET)? else {
            return Ok(WcetRule::default());
        };
        let samples = table.optional(found, "samples", |raw| raw.count(1..=super::SAMPLES_MAX));
        let margins = 0..=super::MARGIN_PERCENT_MAX;
        let margin_percent = table.optional(found, "margin_percent", |raw| raw.count(margins));
        let method = table.optional(found, "method", |raw| raw.one_of(schema::METHODS));
        let coverage = table.optional(found, "coverage", Raw::share);
        let confidence = table.optional(found, "confidence", Raw::share);
        let unclaimed = table.optional(found, "unclaimed", |raw| raw.one_of(schema::UNCLAIMED));
        let accept = table.optional(found, "accept", |raw| {
            let elements = raw.elements(schema::PROPERTIES, &schema::PROPERTY)?;
            elements.iter().map(|raw| raw.one_of(Property::NAMES)).collect::<Result<Vec<_>, _>>()
        });
        let default = WcetRule::default();
        let method = or_default(method?, default.method);
        let (coverage, confidence) = (coverage?, confidence?);
        let claim = [("coverage", coverage.is_some()), ("confidence", confidence.is_some())];
        let is_margin = method == default.method;
        let stated = claim.into_iter().filter(|(_, stated)| *stated && is_margin);
        let coverage = or_default(coverage, default.coverage);
        let confidence = or_default(confidence, default.confidence);
        Ok(WcetRule {
            samples: or_default(samples?, WcetRule::samples_for(method, coverage, confidence)),
            margin_percent: or_default(margin_percent?, default.margin_percent),
            method,
            coverage,
            confidence,
            unclaimed: or_default(unclaimed?, default.unclaimed),
            accept: or_default(accept?, default.accept),
            unread: stated.map(|(key, _)| key).collect(),
        })
    }

    fn models(&mut self, top: &Section<'_>) -> Result<Vec<Model>, Reported> {
        let expected = "an array of tables, each [[model]]";
        let tables = top
            .optional(&mut self.findings, "model", |raw| raw.array(expected, &schema::ONE_MODEL))?;
        let tables = tables.map(|tables| tables.value).unwrap_or_default();
        if tables.is_empty() {
            let report = || self.findings.report(FaultKind::NoModels, top.header());
            return Err(top.misspelt("model").unwrap_or_else(report));
        }
        if let Some(surplus) = tables.get(super::MODELS_MAX) {
            let kind = FaultKind::TooManyModels { found: tables.len(), most: super::MODELS_MAX };
            self.findings.report(kind, surplus.span);
        }
        // All are read before the first fault is returned.
        let models: Vec<_> = tables.iter().map(|raw| self.model(raw)).collect();
        models.into_iter().collect()
    }

    fn model(&mut self, raw: &Raw<'_>) -> Result<Model, Reported> {
        let At { value, span } = raw.read(&mut self.findings, Raw::table)?;
        let table = Section::open(&schema::MODEL, value, span, &mut self.findings);
        let name = self.name(&table);
        let partition = self.partition_of(&table);
        let backend = self.backend(&table);
        let suspend = self.suspend(&table, backend.as_ref().ok());
        let period = self.period(&table);
        let best_effort = self.best_effort(&table);
        let timing = self.timing(&table, period);
        self.members.add(&table, &name, &best_effort, &period, &partition);
        let priority = match best_effort {
            Ok(Some(_)) => Ok(None),
            Ok(None) => self.priority(&table),
            // Whether a priority is needed is not known.
            Err(reported) => Err(reported),
        };
        let slots = 1..=super::SLOTS_MAX;
        let slots = table.optional(&mut self.findings, "slots", |raw| raw.count(slots));
        let budget = self.budget(&table, period);
        let Timing { period, deadline, deadline_stated, jitter } = timing?;
        Ok(Model {
            name: name?,
            partition: partition?,
            backend: backend?,
            best_effort: best_effort?,
            period,
            deadline,
            deadline_stated,
            jitter,
            priority: priority?,
            slots: or_default(slots?, super::SLOTS_DEFAULT),
            suspend: suspend?,
            budget: budget?,
        })
    }

    /// Whether the model may be suspended. One more than the file allows is a fault.
    fn suspend(
        &mut self,
        table: &Section<'_>,
        backend: Option<&Backend>,
    ) -> Result<bool, Reported> {
        let stated = table.optional(&mut self.findings, "suspend", Raw::flag)?;
        let is_staged = backend.is_some_and(|backend| backend.stage_count() > 1);
        if !or_default(stated, true) || !is_staged {
            return Ok(or_default(stated, true));
        }
        self.facts.suspended += 1;
        let limit = self.facts.max_suspended.filter(|limit| self.facts.suspended > limit.value);
        let Some(At { value: most, span: related }) = limit else { return Ok(true) };
        let place = stated.map_or(table.header(), |stated| stated.span);
        let kind = FaultKind::TooManySuspended { found: self.facts.suspended, most };
        Err(self.findings.report_with(kind, place, Some((related, "the limit"))))
    }

    fn name(&mut self, table: &Section<'_>) -> Result<String, Reported> {
        let At { value, span } = table.required(&mut self.findings, "name", model_name)?;
        match self.facts.names.get(value) {
            Some(first) => {
                let kind = FaultKind::DuplicateName { name: value.to_owned() };
                Err(self.findings.report_with(kind, span, Some((*first, "first used here"))))
            }
            None => {
                self.facts.names.insert(value.to_owned(), span);
                Ok(value.to_owned())
            }
        }
    }

    fn period(&mut self, table: &Section<'_>) -> Result<At<Nanos>, Reported> {
        table.required(&mut self.findings, "period", |raw| raw.time(schema::PERIODS))
    }

    fn timing(
        &mut self,
        table: &Section<'_>,
        period: Result<At<Nanos>, Reported>,
    ) -> Result<Timing, Reported> {
        let found = &mut self.findings;
        let deadline = table.optional(found, "deadline", |raw| raw.time(schema::PERIODS));
        let jitter = table.optional(found, "jitter", |raw| raw.time(schema::JITTERS));
        let jitter = jitter.and_then(|jitter| self.within_period("jitter", jitter, period));
        let (period, deadline) = (period?.value, deadline?);
        Ok(Timing {
            period,
            deadline_stated: deadline.is_some(),
            deadline: or_default(deadline, period),
            jitter: or_default(jitter?, Nanos::ZERO),
        })
    }

    /// `time` itself, unless it is longer than the period.
    fn within_period(
        &mut self,
        key: &'static str,
        time: Option<At<Nanos>>,
        period: Result<At<Nanos>, Reported>,
    ) -> Result<Option<At<Nanos>>, Reported> {
        let (Some(stated), Ok(period)) = (time, period) else { return Ok(time) };
        if stated.value <= period.value {
            return Ok(time);
        }
        let kind = FaultKind::AbovePeriod { key, found: stated.value, period: period.value };
        let related = Some((period.span, "the period"));
        Err(self.findings.report_with(kind, stated.span, related))
    }

    fn priority(&mut self, table: &Section<'_>) -> Result<Option<u32>, Reported> {
        let all = 0..=u32::MAX;
        let priority = table.optional(&mut self.findings, "priority", |raw| raw.count(all))?;
        if let Some(reported) = table.misspelt("priority") {
            return Err(reported);
        }
        match self.facts.own_policy {
            Some(At { value: PolicyKind::Priority, span }) if priority.is_none() => {
                let related = Some((span, "needed by this policy"));
                let kind = FaultKind::MissingPriority;
                Err(self.findings.report_with(kind, table.header(), related))
            }
            _ => Ok(priority.map(|priority| priority.value)),
        }
    }

    fn backend(&mut self, table: &Section<'_>) -> Result<Backend, Reported> {
        let read = |raw: &Raw<'_>| raw.one_of(schema::BACKENDS);
        match table.required(&mut self.findings, "backend", read) {
            Ok(At { value: BackendKind::Onnx, span }) => {
                self.refuse_keys(table, &["sim"], ("onnx", span));
                self.onnx(table).map(Backend::Onnx)
            }
            Ok(At { value: BackendKind::Tvm, span }) => {
                self.refuse_keys(table, &["sim", "threads", "tf32"], ("tvm", span));
                self.tvm(table).map(Backend::Tvm)
            }
            Ok(At { value: BackendKind::Trt, span }) => {
                self.refuse_keys(table, &["sim", "threads", "tf32"], ("trt", span));
                self.trt(table).map(Backend::Trt)
            }
            Ok(At { value: BackendKind::Sim, span }) => {
                self.refuse_keys(
                    table,
                    &["path", "stages", "threads", "tf32", "graph"],
                    ("sim", span),
                );
                self.sim(table).map(Backend::Sim)
            }
            Err(reported) => {
                self.check_stated_stages(table);
                Err(reported)
            }
        }
    }

    /// Reports what is wrong with the stages of a model whose backend is not known.
    fn check_stated_stages(&mut self, table: &Section<'_>) {
        let is_stated = |key: &&str| table.place_of(key).is_some();
        if is_stated(&"sim") {
            // Only the faults matter: without a backend there is nothing to build.
            let _: Result<SimModel, Reported> = self.sim(table);
        }
        if ["path", "stages"].iter().any(is_stated) {
            let _: Result<OnnxModel, Reported> = self.onnx(table);
        }
    }

    /// Reports the `keys` that are stated although the backend of this name does not have them.
    fn refuse_keys(
        &mut self,
        table: &Section<'_>,
        keys: &[&'static str],
        (backend, stated): (&'static str, Span),
    ) {
        for key in keys {
            if let Some(span) = table.place_of(key) {
                let kind = FaultKind::WrongBackend { key, backend };
                self.findings.report_with(kind, span, Some((stated, "the backend")));
            }
        }
    }

    fn onnx(&mut self, table: &Section<'_>) -> Result<OnnxModel, Reported> {
        let stages = self.stage_files(table);
        let threads = 1..=super::THREADS_MAX;
        let threads = table.optional(&mut self.findings, "threads", |raw| raw.count(threads));
        let tf32 = table.optional(&mut self.findings, "tf32", Raw::flag);
        let graph = table.optional(&mut self.findings, "graph", Raw::flag);
        Ok(OnnxModel {
            stages: stages?,
            threads: or_default(threads?, super::THREADS_DEFAULT),
            tf32: or_default(tf32?, true),
            graph: or_default(graph?, true),
        })
    }

    fn tvm(&mut self, table: &Section<'_>) -> Result<TvmModel, Reported> {
        let stages = self.stage_files(table);
        let graph = table.optional(&mut self.findings, "graph", Raw::flag);
        Ok(TvmModel { stages: stages?, graph: or_default(graph?, true) })
    }

    fn trt(&mut self, table: &Section<'_>) -> Result<TrtModel, Reported> {
        let stages = self.stage_files(table);
        let graph = table.optional(&mut self.findings, "graph", Raw::flag);
        Ok(TrtModel { stages: stages?, graph: or_default(graph?, true) })
    }

    fn stage_files(&mut self, table: &Section<'_>) -> Result<Vec<ModelFile>, Reported> {
        let found = &mut self.findings;
        let path = table.raw("path").map(|raw| raw.read(found, file_path));
        let stages = table.raw("stages").map(|raw| self.list(&raw, &schema::STAGE_FILE, file_path));
        match (path, stages) {
            (Some(path), None) => Ok(vec![self.file(path?)]),
            (None, Some(stages)) => Ok(stages?.into_iter().map(|path| self.file(path)).collect()),
            (Some(_), Some(_)) => {
                let path = table.place_of("path").map(|span| (span, "one stage"));
                let span = table.place_of("stages").unwrap_or(table.header());
                Err(self.findings.report_with(FaultKind::PathAndStages, span, path))
            }
            (None, None) => {
                let misspelt = table.misspelt("path").or_else(|| table.misspelt("stages"));
                let kind = FaultKind::NeitherPathNorStages;
                Err(misspelt.unwrap_or_else(|| self.findings.report(kind, table.header())))
            }
        }
    }

    fn file(&self, path: At<&str>) -> ModelFile {
        ModelFile { path: self.folder.join(path.value), span: path.span }
    }

    /// The elements of a list of stages, each a value for `key` as `read` understands it.
    fn list<'t, T>(
        &mut self,
        list: &Raw<'t>,
        key: &'static schema::Key,
        read: impl Fn(&Raw<'t>) -> Result<T, FaultKind>,
    ) -> Result<Vec<At<T>>, Reported> {
        let elements =
            list.read(&mut self.findings, |raw| raw.elements(schema::STAGES, key))?.value;
        let read: Vec<_> =
            elements.iter().map(|element| element.read(&mut self.findings, &read)).collect();
        read.into_iter().collect()
    }

    fn sim(&mut self, table: &Section<'_>) -> Result<SimModel, Reported> {
        let sim = self.required_table(table, "sim", &schema::SIM)?;
        let stages = sim.required(&mut self.findings, "stages", |raw| Ok(*raw));
        let cost = |raw: &Raw<'_>| raw.time(schema::COSTS);
        let stages = stages.and_then(|stages| self.list(&stages.value, &schema::STAGE_COST, cost));
        let found = &mut self.findings;
        let persistent = sim.optional(found, "persistent", |raw| raw.size(schema::NEEDS));
        let scratch = sim.optional(found, "scratch", |raw| raw.size(schema::NEEDS));
        let carried = sim.optional(found, "carried", |raw| raw.size(schema::NEEDS));
        Ok(SimModel {
            stages: stages?.into_iter().map(|stage| stage.value).collect(),
            persistent: or_default(persistent?, Bytes::ZERO),
            scratch: or_default(scratch?, Bytes::ZERO),
            carried: or_default(carried?, Bytes::ZERO),
        })
    }

    fn budget(
        &mut self,
        table: &Section<'_>,
        period: Result<At<Nanos>, Reported>,
    ) -> Result<Budget, Reported> {
        let found = &mut self.findings;
        let Some(budget) = table.table(found, "budget", &schema::BUDGET)? else {
            return Ok(Budget::default());
        };
        let memory = budget.optional(found, "memory", |raw| raw.size(schema::LIMITS));
        let streams = budget.optional(found, "streams", |raw| raw.count(1..=super::STREAMS_MAX));
        let compute = budget.optional(found, "compute", |raw| raw.time(schema::COSTS));
        let limit = self.facts.memory.map(|limit| (limit.value, Some(limit.span)));
        let memory = memory.and_then(|memory| self.within_device("memory", memory, limit));
        let limit = self.facts.streams;
        let streams = streams.and_then(|streams| self.within_device("streams", streams, limit));
        let compute = compute.and_then(|compute| self.within_period("compute", compute, period));
        Ok(Budget {
            memory: memory?.map(|memory| memory.value),
            streams: streams?.map(|streams| streams.value),
            compute: compute?.map(|compute| compute.value),
        })
    }

    /// `budget` itself, unless the device is known to have less.
    fn within_device<T: Copy + PartialOrd + Into<Quantity>>(
        &mut self,
        key: &'static str,
        budget: Option<At<T>>,
        limit: Option<(T, Option<Span>)>,
    ) -> Result<Option<At<T>>, Reported> {
        let (Some(stated), Some((limit, span))) = (budget, limit) else { return Ok(budget) };
        if stated.value <= limit {
            return Ok(budget);
        }
        let (found, limit) = (stated.value.into(), limit.into());
        let kind = FaultKind::BudgetAboveDevice { key, found, limit };
        let related = span.map(|span| (span, "the device"));
        Err(self.findings.report_with(kind, stated.span, related))
    }

    /// The table under `key`; that there is none is a fault.
    fn required_table<'t>(
        &mut self,
        section: &Section<'t>,
        key: &'static str,
        schema: &'static schema::Table,
    ) -> Result<Section<'t>, Reported> {
        let table = section.table(&mut self.findings, key, schema)?;
        table.ok_or_else(|| {
            let kind = FaultKind::MissingTable { table: schema.name };
            let report = || self.findings.report(kind, section.header());
            section.misspelt(key).unwrap_or_else(report)
        })
    }
}

/// The value as stated, or what stands for it.
fn or_default<T>(stated: Option<At<T>>, default: T) -> T {
    stated.map_or(default, |stated| stated.value)
}

/// Text that may name a model.
fn model_name<'t>(raw: &Raw<'t>) -> Result<&'t str, FaultKind> {
    let text = raw.text()?;
    let is_allowed = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    let fits = (1..=super::NAME_CHARS_MAX).contains(&text.len());
    if fits && text.bytes().all(is_allowed) {
        Ok(text)
    } else {
        Err(FaultKind::BadName { found: quoted(text) })
    }
}

/// Text that may name a file.
fn file_path<'t>(raw: &Raw<'t>) -> Result<&'t str, FaultKind> {
    let text = raw.text()?;
    if text.is_empty() { Err(FaultKind::EmptyPath) } else { Ok(text) }
}
