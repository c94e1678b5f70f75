//! What an engineer must see after a run: broken assumptions apart from violated bounds.
//!
//! The first are the machine's or the evidence's doing and each names the job that did it; the
//! second are ours. The totals come from the counters, which lose nothing; the examples come from
//! the trace.

use aegis::{Assumption, Counts, DropReason, ModelReport, Report, TraceEvent, TraceSummary};

/// Examples that are printed of each kind.
const SHOWN_MAX: usize = 5;

/// A kind of finding: its heading, what is counted, and how one is told.
struct Kind {
    heading: &'static str,
    count: fn(&Counts) -> u64,
    tell: fn(&TraceEvent) -> Option<String>,
}

const KINDS: [Kind; 6] = [
    Kind { heading: "assumptions broken", count: |counts| counts.broken.total(), tell: broken },
    Kind {
        heading: "bounds exceeded because of a broken assumption",
        count: |counts| counts.bound_excused,
        tell: excused,
    },
    Kind {
        heading: "bounds violated with every assumption intact (a defect of AegisRT)",
        count: |counts| counts.bound_violated,
        tell: violated,
    },
    Kind { heading: "deadlines missed", count: |counts| counts.missed, tell: missed },
    Kind { heading: "jobs dropped", count: |counts| counts.dropped, tell: dropped },
    Kind {
        heading: "jobs failed, and their models fenced",
        count: |counts| counts.failed,
        tell: failed,
    },
];

/// All kinds, each with its total and some examples.
pub(crate) fn show(report: &Report, trace: &TraceSummary) -> String {
    let mut lines = Vec::new();
    for kind in &KINDS {
        let total: u64 =
            report.models.iter().map(|model| (kind.count)(&model.observed.counts)).sum();
        if total == 0 {
            lines.push(format!("{}: none", kind.heading));
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
    lines.join("\n")
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
    let name = |event: &TraceEvent| {
        let known = report.models.iter().find(|known| Some(known.model) == event.model());
        known.map_or_else(|| "?".into(), |known| known.name.clone())
    };
    let told = |event: &TraceEvent| Some(format!("  {}: {}", name(event), (kind.tell)(event)?));
    trace.findings.iter().filter_map(|record| told(&record.event)).take(SHOWN_MAX).collect()
}

fn broken(event: &TraceEvent) -> Option<String> {
    let TraceEvent::AssumptionBroken { assumption, job, assumed, observed } = event else {
        return None;
    };
    let against = match assumption {
        Assumption::ExecutionTime => "its C without overhead",
        Assumption::DispatchOverhead => "the charged overhead",
        Assumption::WakeLatency => "the charged wake-up",
        _ => "the declared jitter",
    };
    Some(format!("job {job}, {assumption}: {observed} > {against} of {assumed}"))
}

fn excused(event: &TraceEvent) -> Option<String> {
    match event {
        TraceEvent::BoundExceeded { job, bound, response, cause: Some(cause) } => {
            Some(format!("job {job}: response {response} > bound {bound}, touched by job {cause}"))
        }
        _ => None,
    }
}

fn violated(event: &TraceEvent) -> Option<String> {
    match event {
        TraceEvent::BoundExceeded { job, bound, response, cause: None } => {
            Some(format!("job {job}: response {response} > bound {bound}"))
        }
        _ => None,
    }
}

fn missed(event: &TraceEvent) -> Option<String> {
    match event {
        TraceEvent::MissedDeadline { job, late } => Some(format!("job {job}, {late} late")),
        _ => None,
    }
}

fn dropped(event: &TraceEvent) -> Option<String> {
    match event {
        TraceEvent::Dropped { job, why } if *why != DropReason::Stopping => {
            Some(format!("job {job}: {why}"))
        }
        _ => None,
    }
}

fn failed(event: &TraceEvent) -> Option<String> {
    match event {
        TraceEvent::Faulted { job, category } => Some(format!("job {job}, {category}")),
        TraceEvent::Hanging { job, elapsed, .. } => {
            Some(format!("job {job} has held the device for {elapsed}"))
        }
        TraceEvent::AllocationRefused { requested, available, .. } => {
            Some(format!("asked for {requested} of scratch with {available} left"))
        }
        _ => None,
    }
}
