//! Faults in a running workload: what each costs its model, and that it costs the others nothing.
//!
//! ```text
//!   over-budget   a model whose budget does not hold it      refused, with numbers; the others run
//!   bad-model     a file that is no network any more         refused, with the reason; the others run
//!   request       a runtime asks for more than its scratch   refused, with numbers; its model is fenced
//!   overrun       a job holds the device far too long        found, charged to its model; others in time
//!   hang          a job holds the device for seconds         found by the watchdog; others go on after it
//!   illegal       a write to an address that nobody has      Fatal for all; a clean end and a whole trace
//! ```
//! Each is a run of its own in a process of its own, since the last ends the process's device. A few
//! models of the workload run at their rates; a third into the run the fault comes. The longest overrun
//! that costs nobody a deadline is no guess: the margin of the set says it, and nine tenths of it are used.
//!
//! # Invariants
//! 1. The run is judged by its trace, read back from the file ([`crate::readback`]), and by the errors that
//!    callers were given.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aegis::drive::Load;
use aegis::{
    Bytes, Category, Error, FaultSwitch, InjectedFault, ModelId, ModelSource, Nanos, Pipeline,
    Runtime, TracePump, TraceSink, Verdict,
};
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::costs;
use crate::headline::driver_of;
use crate::readback::{ReadBack, Told};
use crate::setting::Setting;
use crate::variant::{self, Change, Models};

/// How many models run.
const MODELS: usize = 8;
/// A budget that holds no network.
const TOO_LITTLE: &str = "64KiB";
/// What a runtime asks for.
const REQUESTED: Bytes = Bytes::from_gib(1);
/// Twice as long as the watchdog waits.
const HANG: Nanos = Nanos::from_secs(2);
/// How long jobs may take to end once nothing is submitted any more.
const DRAIN: Duration = Duration::from_millis(500);
/// The model with the fault where it never came to have an id: no workload has as many.
const NOBODY: ModelId = ModelId::first(u16::MAX);

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Fault {
    OverBudget,
    BadModel,
    Request,
    Overrun,
    Hang,
    Illegal,
}

impl Fault {
    pub(crate) const ALL: [Self; 6] =
        [Self::OverBudget, Self::BadModel, Self::Request, Self::Overrun, Self::Hang, Self::Illegal];

    /// As it is called on the command line and in names of files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OverBudget => "over-budget",
            Self::BadModel => "bad-model",
            Self::Request => "request",
            Self::Overrun => "overrun",
            Self::Hang => "hang",
            Self::Illegal => "illegal",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What came of one fault.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Suffered {
    pub setting: Setting,
    pub fault: Fault,
    /// The model that had it.
    pub victim: String,
    /// What it was told, or what the trace says of it.
    pub said: String,
    /// Events in the trace.
    pub events: u64,
    /// Jobs of the others that completed.
    pub others_completed: u64,
    /// Deadlines that the others missed.
    pub others_missed: u64,
    pub checks: Vec<Check>,
}

/// Something that must be so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Check {
    pub what: String,
    pub holds: bool,
}

impl Suffered {
    /// Whether everything was as it must be.
    pub(crate) fn holds(&self) -> bool {
        self.checks.iter().all(|check| check.holds)
    }
}

/// Runs a few models of the workload for `length` with this fault in one of them. The trace stays in
/// `results`.
///
/// # Errors
/// The workload has no evidence, another model is refused, or the trace cannot be read back.
pub(crate) fn run(
    workload: &Path,
    change: &Change,
    fault: Fault,
    length: Nanos,
    results: &Path,
) -> anyhow::Result<Suffered> {
    let (names, victim) = cast(&variant::open(workload, change)?)?;
    let budget = (fault == Fault::OverBudget).then(|| (victim.clone(), TOO_LITTLE.to_owned()));
    let change = Change { models: Models::Only { names, budget }, ..change.clone() };
    let pipeline = variant::open(workload, &change)?;
    let driver = change.driver.clone().unwrap_or_else(|| driver_of(&pipeline));
    let mut setting = Setting::here(&workload.display().to_string(), &driver);
    fs::create_dir_all(results).with_context(|| results.display().to_string())?;
    let trace = results.join(format!("fault-{fault}.jsonl"));
    let run = Run { pipeline: &pipeline, victim: &victim, length, trace: &trace };
    let ended = run.suffer(fault)?;
    setting.end();
    let back = ReadBack::open(&trace)?;
    let told = back.models();
    let others = || told.iter().filter(|(model, _)| **model != ended.victim).map(|(_, told)| told);
    let (others_completed, others_missed) =
        (others().map(|told| told.completed).sum(), others().map(|told| told.missed).sum());
    let mut checks = ended.checks(&back, &told);
    let (said, own) = judge(fault, &ended, &back, others_missed);
    checks.extend(own);
    let events = back.len() as u64;
    Ok(Suffered { setting, fault, victim, said, events, others_completed, others_missed, checks })
}

/// The models that take part, the cheapest of the workload, and of them the one that runs least often,
/// which has the fault.
fn cast(pipeline: &Pipeline) -> anyhow::Result<(Vec<String>, String)> {
    let mut costs = costs::of(pipeline)?;
    costs.sort_by_key(|(_, cost)| cost.charged);
    let names: Vec<String> = costs.into_iter().take(MODELS).map(|(name, _)| name).collect();
    let models = pipeline.workload().models.iter().filter(|model| names.contains(&model.name));
    let rarest = models.max_by_key(|model| model.period).context("the workload has no model")?;
    let victim = rarest.name.clone();
    anyhow::ensure!(names.len() > 1, "a fault needs somebody whom it does not concern");
    Ok((names, victim))
}

/// A run to be made.
struct Run<'a> {
    pipeline: &'a Pipeline,
    victim: &'a str,
    length: Nanos,
    trace: &'a Path,
}

/// What a run left beside its trace.
struct Ended {
    victim: ModelId,
    /// What the caller who asked for the model that cannot be was told.
    refusal: Option<(Category, String)>,
    stopped: Result<(), Error>,
    /// Jobs that completed, by the counters of the runtime.
    completed: Vec<(ModelId, u64)>,
    /// Of an overrun: how long it was, and the margin.
    overrun: Option<[Nanos; 2]>,
    lost_events: u64,
    trace_errors: Vec<String>,
}

impl Run<'_> {
    fn suffer(&self, fault: Fault) -> anyhow::Result<Ended> {
        match fault {
            Fault::OverBudget => {
                let (runtime, verdicts) = self.pipeline.admit(|_| {})?;
                let refused = verdicts.iter().find(|it| it.model == self.victim);
                let refused = refused.context("the victim was asked for")?;
                let refusal = refused.outcome.as_ref().err().map(|it| (it.category(), line(it)));
                let ended = self.drive(&runtime, &verdicts, None)?;
                Ok(Ended { victim: NOBODY, refusal, ..ended })
            }
            Fault::BadModel => {
                let (runtime, verdicts) = self.pipeline.admit(|_| {})?;
                let file = self.broken_file()?;
                let refused = runtime.load("broken", &ModelSource::onnx(&file)).err();
                fs::remove_file(&file)?;
                let refusal = refused.map(|it| (it.category(), line(&it)));
                let ended = self.drive(&runtime, &verdicts, None)?;
                Ok(Ended { victim: NOBODY, refusal, ..ended })
            }
            Fault::Request => self.inject(InjectedFault::Request { requested: REQUESTED }),
            Fault::Overrun => {
                let margin = self.margin()?;
                let length = Nanos(margin.as_nanos() / 10 * 9);
                let ended = self.inject(InjectedFault::Overrun { length })?;
                Ok(Ended { overrun: Some([length, margin]), ..ended })
            }
            Fault::Hang => self.inject(InjectedFault::Overrun { length: HANG }),
            Fault::Illegal => self.inject(InjectedFault::IllegalAccess),
        }
    }

    fn inject(&self, fault: InjectedFault) -> anyhow::Result<Ended> {
        let (runtime, verdicts, switch) = self.pipeline.admit_with_fault(self.victim, fault)?;
        self.drive(&runtime, &verdicts, Some(&switch))
    }

    /// What stages may run beyond their costs without anybody being late.
    fn margin(&self) -> anyhow::Result<Nanos> {
        let (runtime, verdicts) = self.pipeline.check()?;
        let margins = self.pipeline.margins(&runtime, &verdicts);
        let margin = margins.first().and_then(|margins| margins.overrun);
        margin.context("the set has no margin of overruns")
    }

    /// The victim's network without its last third.
    fn broken_file(&self) -> anyhow::Result<PathBuf> {
        let models = &self.pipeline.workload().models;
        let model = models.iter().find(|model| model.name == self.victim);
        let [file, ..] = model.context("the victim is of the workload")?.backend.files() else {
            bail!("{} has no file", self.victim);
        };
        let whole = fs::read(&file.path).with_context(|| file.path.display().to_string())?;
        let broken = std::env::temp_dir().join(format!("aegis-broken-{}.onnx", std::process::id()));
        fs::write(&broken, &whole[..whole.len() / 3 * 2])?;
        Ok(broken)
    }

    /// Runs what was admitted at its rates, and turns the fault on a third into the run.
    fn drive(
        &self,
        runtime: &Runtime,
        verdicts: &[Verdict],
        switch: Option<&FaultSwitch>,
    ) -> anyhow::Result<Ended> {
        let is_refused = |it: &&Verdict| it.model != self.victim && it.outcome.is_err();
        let refused = verdicts.iter().find(is_refused);
        if let Some(Verdict { model, outcome: Err(error), .. }) = refused {
            bail!("{model} is not admitted: {error}");
        }
        runtime.warm_up()?;
        let file = TraceSink::at(self.trace)?;
        let pump = TracePump::start(runtime.collector(), &[file])?;
        runtime.start()?;
        let load = Load::start(self.pipeline.load(verdicts), Arc::clone(runtime.clock()))?;
        let third = Duration::from(self.length) / 3;
        std::thread::sleep(third);
        switch.iter().for_each(|switch| switch.arm(1));
        std::thread::sleep(third * 2);
        let load = load.end();
        std::thread::sleep(DRAIN);
        let stopped = runtime.stop();
        drop(load.summary());
        let (summary, errors) = pump.finish();
        let victim = verdicts.iter().find(|verdict| verdict.model == self.victim);
        let report = runtime.report();
        let completed = |model: &aegis::ModelReport| (model.model, model.observed.counts.completed);
        Ok(Ended {
            victim: victim.map_or(NOBODY, |verdict| verdict.id),
            refusal: None,
            stopped,
            completed: report.models.iter().map(completed).collect(),
            overrun: None,
            lost_events: summary.dropped,
            trace_errors: errors.iter().map(ToString::to_string).collect(),
        })
    }
}

impl Ended {
    /// What must be so whatever the fault was.
    fn checks(&self, back: &ReadBack, told: &BTreeMap<ModelId, Told>) -> Vec<Check> {
        let of = |model: &ModelId| told.get(model).cloned().unwrap_or_default();
        let same = |(model, completed): &(ModelId, u64)| of(model).completed == *completed;
        let divergence = back.divergence.clone().unwrap_or_else(|| "none".to_owned());
        vec![
            check("the trace lost no event and was written to its end", {
                self.lost_events == 0 && self.trace_errors.is_empty()
            }),
            check(
                format!(
                    "a replay of the file makes every decision as logged (divergence: {divergence})"
                ),
                back.divergence.is_none(),
            ),
            check("the file tells the end of every job that it tells the submission of", {
                told.values().all(|told| told.endless == 0)
            }),
            check("it tells as many completed jobs of each model as the runtime counted", {
                !self.completed.is_empty() && self.completed.iter().all(same)
            }),
            check("every other model completed jobs", {
                let mut others = self.completed.iter().filter(|(model, _)| *model != self.victim);
                others.all(|(_, completed)| *completed > 0)
            }),
        ]
    }
}

fn check(what: impl Into<String>, holds: bool) -> Check {
    Check { what: what.into(), holds }
}

/// What this fault must have come to, in words, and whether it did.
fn judge(fault: Fault, ended: &Ended, back: &ReadBack, others_missed: u64) -> (String, Vec<Check>) {
    let victim = ended.victim;
    let in_time = || check("no other model missed a deadline", others_missed == 0);
    let ended_well = || check("the runtime stopped without an error", ended.stopped.is_ok());
    match fault {
        Fault::OverBudget | Fault::BadModel => {
            let refusal = ended.refusal.clone();
            let permanent = matches!(refusal, Some((Category::Permanent, _)));
            let said = refusal.map_or("it was taken".to_owned(), |(_, said)| said);
            (said, vec![check("it is refused for good", permanent), in_time(), ended_well()])
        }
        Fault::Request => {
            let refused = back.refused_request(victim);
            let said = refused
                .map_or("nothing was refused".to_owned(), |[requested, available]| {
                    format!("asked for {requested} with {available} left")
                });
            let is_told = refused.is_some_and(|[requested, _]| requested == REQUESTED);
            let fenced = check("its model is fenced", back.is_fenced(victim));
            let told = check("the trace has the request, with its numbers", is_told);
            (said, vec![told, fenced, in_time(), ended_well()])
        }
        Fault::Overrun => overrun(ended, back, vec![in_time(), ended_well()]),
        Fault::Hang => hang(ended, back, ended_well()),
        Fault::Illegal => illegal(ended, back, in_time()),
    }
}

fn overrun(ended: &Ended, back: &ReadBack, mut checks: Vec<Check>) -> (String, Vec<Check>) {
    let [length, margin] = ended.overrun.unwrap_or_default();
    let (found, debt) = (back.overrun(ended.victim), back.debt(ended.victim));
    let [assumed, observed] = found.unwrap_or_default();
    let [excess, postponed] = debt.unwrap_or_default();
    checks.push(check("the overrun is found, at its size", found.is_some() && observed >= length));
    checks.push(check("its model owes the excess and is put off", debt.is_some()));
    let said = format!(
        "{length} too long, of a margin of {margin}: {observed} seen where {assumed} was assumed; it owes \
         {excess}, and its next release was put off by {postponed}"
    );
    (said, checks)
}

fn hang(ended: &Ended, back: &ReadBack, ended_well: Check) -> (String, Vec<Check>) {
    let Some((since, elapsed)) = back.hanging(ended.victim) else {
        return ("nothing hung".to_owned(), vec![check("the watchdog found it", false)]);
    };
    // What waited meanwhile is late for no fault of its own; once that is done, nobody is.
    let back_at = since.saturating_sub(elapsed).saturating_add(HANG);
    let after = back_at.saturating_add(Nanos::from_secs(1));
    let [completed, late] = back.others_since(after, ended.victim);
    let said = format!(
        "found after {elapsed}; from a second after its end on, {completed} jobs of the others, {late} late"
    );
    let checks = vec![
        check("the watchdog found it", true),
        check("its model is fenced", back.is_fenced(ended.victim)),
        check("the others go on in time once the device is back", completed > 0 && late == 0),
        ended_well,
    ];
    (said, checks)
}

fn illegal(ended: &Ended, back: &ReadBack, in_time: Check) -> (String, Vec<Check>) {
    let fatal = matches!(&ended.stopped, Err(error) if error.category() == Category::Fatal);
    let said = match &ended.stopped {
        Ok(()) => "the runtime stopped without an error".to_owned(),
        Err(error) => line(error),
    };
    let faulted = back.faulted(ended.victim, Category::Fatal);
    let checks = vec![
        check("the runtime ends with an error of category Fatal", fatal),
        check("the trace names the job whose stage failed", faulted.is_some()),
        in_time,
    ];
    (said, checks)
}

/// An error with its causes, on one line.
fn line(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
