//! What an engineer must see after a run: broken assumptions apart from violated bounds.
//!
//! The first are the machine's or the evidence's doing and each names the job that did it; the
//! second are ours. The totals come from the counters, which lose nothing; the examples come from
//! the trace, the worst first.

use std::cmp::Reverse;

use aegis::{
    Assumption, Counts, DropReason, JobId, ModelId, ModelReport, Nanos, Report, TraceEvent,
    TraceSummary,
};

/// Examples that are printed of each kind.
const SHOWN_MAX: usize = 5;

/// A kind of finding: its heading, what is counted, and how one is told.
struct Kind {
    heading: &'static str,
    count: fn(&Counts) -> u64,
    tell: fn(&Report, &TraceEvent) -> Option<Told>,
    /// Whether one of them makes the run a *no*.
    fatal: Fatal,
    /// Whether it is said that there are none.
    said_if_none: bool,
}

/// When a finding makes the run a *no*.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fatal {
    Never,
    /// Where it is about a model with deadlines: nothing was promised to the others.
    IfPromised,
    Always,
}

impl Fatal {
    fn concerns(self, model: &ModelReport) -> bool {
        match self {
            Self::Never => false,
            Self::IfPromised => model.service.is_guaranteed(),
            Self::Always => true,
        }
    }
}

/// One finding in words, with how bad it is: by how many thousandths it exceeds what was allowed.
struct Told {
    words: String,
    excess: u64,
}

const KINDS: [Kind; 8] = [
    Kind {
        heading: "assumptions broken",
        count: |counts| counts.broken.total(),
        tell: broken,
        said_if_none: true,
        fatal: Fatal::Never,
    },
    Kind {
        heading: "bounds exceeded because of a broken assumption",
        count: |counts| counts.bound_excused,
        tell: excused,
        said_if_none: true,
        fatal: Fatal::Never,
    },
    Kind {
        heading: "busy periods with a broken assumption, after which all guarantees held again",
        count: |counts| counts.restored,
        tell: restored,
        said_if_none: false,
        fatal: Fatal::Never,
    },
    Kind {
        heading: "releases put off to repay an overrun",
        count: |counts| counts.debts,
        tell: indebted,
        said_if_none: false,
        fatal: Fatal::Never,
    },
    Kind {
        heading: "bounds violated with every assumption intact (a defect of AegisRT)",
        count: |counts| counts.bound_violated,
        tell: violated,
        said_if_none: true,
        fatal: Fatal::Always,
    },
    Kind {
        heading: "deadlines missed",
        count: |counts| counts.missed,
        tell: missed,
        said_if_none: true,
        fatal: Fatal::Always,
    },
    Kind {
        heading: "jobs dropped",
        count: |counts| counts.dropped,
        tell: dropped,
        said_if_none: true,
        fatal: Fatal::IfPromised,
    },
    Kind {
        heading: "jobs failed, and their models fenced",
        count: |counts| counts.failed,
        tell: failed,
        said_if_none: true,
        fatal: Fatal::Always,
    },
];

/// All kinds, each with its total and the worst examples.
pub(crate) fn show(report: &Report, trace: &TraceSummary) -> String {
    let mut lines = Vec::new();
    for kind in &KINDS {
        let total: u64 =
            report.models.iter().map(|model| (kind.count)(&model.observed.counts)).sum();
        if total == 0 {
            lines.extend(kind.said_if_none.then(|| format!("{}: none", kind.heading)));
            continue;
        }
        lines.push(format!("{}: {total} ({})", kind.heading, by_model(report, kind)));
        let examples = examples(report, trace, kind);
        let more = total.saturating_sub(examples.len() as u64);
        lines.extend(examples);
        if more > 0 {
            lines.push(format!("  and {more} more, in the trace"));
        }
    }
    lines.extend(stale(report, trace));
    lines.join("\n")
}

/// What the monitors found, each once: evidence that does not describe what runs.
fn stale(report: &Report, trace: &TraceSummary) -> Vec<String> {
    let told = |event: &TraceEvent| match event {
        TraceEvent::EvidenceStale { job, stage, why } => {
            Some(format!("evidence gone stale: {}, stage {}: {why}", name(report, *job), stage.0))
        }
        _ => None,
    };
    trace.findings.iter().filter_map(|record| told(&record.event)).collect()
}

/// What keeps a run from being a *yes*, each with its count; empty for a *yes*.
pub(crate) fn faults(report: &Report) -> Vec<String> {
    let total = |kind: &Kind| -> u64 {
        let concerned = report.models.iter().filter(|model| kind.fatal.concerns(model));
        concerned.map(|model| (kind.count)(&model.observed.counts)).sum()
    };
    KINDS
        .iter()
        .map(|kind| (kind.heading, total(kind)))
        .filter(|(_, count)| *count > 0)
        .map(|(heading, count)| format!("{heading}: {count}"))
        .collect()
}

/// `camera 3, lidar 1`: the models concerned, most first.
fn by_model(report: &Report, kind: &Kind) -> String {
    let counted = |model: &ModelReport| ((kind.count)(&model.observed.counts), model.name.clone());
    let mut models: Vec<(u64, String)> =
        report.models.iter().map(counted).filter(|(count, _)| *count > 0).collect();
    models.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let shown: Vec<String> = models.iter().map(|(count, name)| format!("{name} {count}")).collect();
    shown.join(", ")
}

fn examples(report: &Report, trace: &TraceSummary, kind: &Kind) -> Vec<String> {
    let told = trace.findings.iter().filter_map(|record| (kind.tell)(report, &record.event));
    let mut told: Vec<Told> = told.collect();
    told.sort_by_key(|told| Reverse(told.excess)); // Stable: equals stay in order of time.
    told.into_iter().take(SHOWN_MAX).map(|told| format!("  {}", told.words)).collect()
}

/// A model by its name; by its id where it has none.
pub(crate) fn name_of(report: &Report, model: ModelId) -> String {
    let known = report.models.iter().find(|known| known.model == model);
    known.map_or_else(|| model.to_string(), |known| known.name.clone())
}

/// `camera#17`: a job by its model's name and its number.
fn name(report: &Report, job: JobId) -> String {
    let known = report.models.iter().find(|known| known.model == job.model);
    known.map_or_else(|| job.to_string(), |known| format!("{}#{}", known.name, job.sequence))
}

fn over(allowed: Nanos, seen: Nanos) -> u64 {
    let thousandths = u128::from(seen.as_nanos()) * 1_000 / u128::from(allowed.as_nanos().max(1));
    u64::try_from(thousandths).unwrap_or(u64::MAX)
}

fn broken(report: &Report, event: &TraceEvent) -> Option<Told> {
    let TraceEvent::AssumptionBroken { assumption, job, assumed, observed } = event else {
        return None;
    };
    let against = match assumption {
        Assumption::ExecutionTime => "its C without overhead",
        Assumption::DispatchOverhead => "the charged overhead",
        Assumption::WakeLatency => "the charged wake-up",
        Assumption::LeftUpload => "what others may wait for it",
        _ => "the declared jitter",
    };
    let job = name(report, *job);
    let words = format!("{job}, {assumption}: {observed} > {against} of {assumed}");
    Some(Told { words, excess: over(*assumed, *observed) })
}

fn excused(report: &Report, event: &TraceEvent) -> Option<Told> {
    let TraceEvent::BoundExceeded { job, bound, response, cause: Some(cause) } = event else {
        return None;
    };
    let by = if job == cause { "itself".into() } else { name(report, *cause) };
    let job = name(report, *job);
    let words = format!("{job}: response {response} > bound {bound}, caused by {by}");
    Some(Told { words, excess: over(*bound, *response) })
}

fn violated(report: &Report, event: &TraceEvent) -> Option<Told> {
    let TraceEvent::BoundExceeded { job, bound, response, cause: None } = event else {
        return None;
    };
    let words = format!("{}: response {response} > bound {bound}", name(report, *job));
    Some(Told { words, excess: over(*bound, *response) })
}

fn restored(report: &Report, event: &TraceEvent) -> Option<Told> {
    let TraceEvent::GuaranteesRestored { since } = event else { return None };
    Some(Told { words: format!("first broken by {}", name(report, *since)), excess: 0 })
}

fn indebted(report: &Report, event: &TraceEvent) -> Option<Told> {
    let TraceEvent::DebtIncurred { job, excess, postponed } = event else { return None };
    let job = name(report, *job);
    let words =
        format!("{job}: {excess} beyond its charge, its model's next release {postponed} later");
    Some(Told { words, excess: excess.as_nanos() })
}

fn missed(report: &Report, event: &TraceEvent) -> Option<Told> {
    let TraceEvent::MissedDeadline { job, late } = event else { return None };
    Some(Told { words: format!("{}: {late} late", name(report, *job)), excess: late.as_nanos() })
}

fn dropped(report: &Report, event: &TraceEvent) -> Option<Told> {
    match event {
        TraceEvent::Dropped { job, why } if *why != DropReason::Stopping => {
            Some(Told { words: format!("{}: {why}", name(report, *job)), excess: 0 })
        }
        _ => None,
    }
}

fn failed(report: &Report, event: &TraceEvent) -> Option<Told> {
    let words = match event {
        TraceEvent::Faulted { job, category } => format!("{}: {category}", name(report, *job)),
        TraceEvent::Hanging { job, elapsed, .. } => {
            format!("{}: has held the device for {elapsed}", name(report, *job))
        }
        TraceEvent::AllocationRefused { model, requested, available } => {
            let model = name_of(report, *model);
            format!("{model}: asked for {requested} of scratch with {available} left")
        }
        _ => return None,
    };
    Some(Told { words, excess: 0 })
}
