//! One line of words for one event of the trace.
//!
//! What the log writes and the live view shows. Names of models stand for their ids, and the
//! reason of a decision is the comparison that made it.

use aegis_trace::{Nanos, Reason, RefusedModel, ServiceTerms, Timestamp, TraceEvent};

use crate::observer::Names;

/// How much an engineer wants to see an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// The small change of every job: accepted, a stage over, the device idle.
    Detail,
    /// A decision, or the end of a job: what ran, and why.
    Decision,
    /// A promise or an assumption of one is in question.
    Finding,
    /// A job or the device failed, or AegisRT is at fault.
    Fault,
}

/// How much `event` matters.
#[must_use]
pub fn weight(event: &TraceEvent) -> Weight {
    match event {
        TraceEvent::Started
        | TraceEvent::Stopped
        | TraceEvent::Admitted { .. }
        | TraceEvent::BoundChanged { .. }
        | TraceEvent::Refused { .. }
        | TraceEvent::Evicting { .. }
        | TraceEvent::Evicted { .. }
        | TraceEvent::SubmissionRefused { .. }
        | TraceEvent::Dispatched { .. }
        | TraceEvent::Suspended { .. }
        | TraceEvent::Dropped { .. }
        | TraceEvent::OutOfBudget { .. }
        | TraceEvent::Postponed { .. }
        | TraceEvent::GuaranteesRestored { .. }
        | TraceEvent::PressureChanged { .. } => Weight::Decision,
        TraceEvent::AssumptionBroken { .. }
        | TraceEvent::BoundExceeded { cause: Some(_), .. }
        | TraceEvent::MissedDeadline { .. }
        | TraceEvent::EvidenceStale { .. }
        | TraceEvent::DebtIncurred { .. } => Weight::Finding,
        TraceEvent::BoundExceeded { cause: None, .. }
        | TraceEvent::Faulted { .. }
        | TraceEvent::Fenced { .. }
        | TraceEvent::Hanging { .. }
        | TraceEvent::AllocationRefused { .. } => Weight::Fault,
        // Submissions, stages, completions, idleness, and what is recorded for replay alone.
        _ => Weight::Detail,
    }
}

/// `event` in words.
#[must_use]
pub fn tell(event: &TraceEvent, names: &Names) -> String {
    match event {
        TraceEvent::Started => "the orchestrator started".into(),
        TraceEvent::Stopped => "the orchestrator stopped".into(),
        TraceEvent::Idle => "idle: a busy period ended".into(),
        TraceEvent::Admitted { what, .. } => format!("{} admitted{}", what.name, terms(what)),
        TraceEvent::Refused { what } => {
            format!("{} refused: {}", what.name, refusal(what, names))
        }
        TraceEvent::PressureChanged { from, to, free } => {
            format!("free memory was {from} and is {to}, {free} are free")
        }
        TraceEvent::BoundChanged { .. }
        | TraceEvent::Evicting { .. }
        | TraceEvent::Evicted { .. }
        | TraceEvent::SubmissionRefused { .. }
        | TraceEvent::Fenced { .. }
        | TraceEvent::AllocationRefused { .. } => tell_of_model(event, names),
        _ => tell_of_job(event, names),
    }
}

fn terms(what: &aegis_trace::AdmittedModel) -> String {
    match (what.service, what.bound) {
        (ServiceTerms::Guaranteed { deadline, .. }, Some(bound)) => {
            format!(": bound {bound}, deadline {}", deadline.cut())
        }
        (ServiceTerms::Guaranteed { deadline, .. }, None) => {
            format!(": deadline {}", deadline.cut())
        }
        (ServiceTerms::Background, _) => ": in the background".into(),
        (ServiceTerms::Server { budget, period, .. }, _) => {
            format!(": {} of the device every {period}", budget.cut())
        }
    }
}

/// A refusal in words. A model that was never admitted is in it by an id that nobody has, so an id
/// without a name is the refused model's own.
pub(crate) fn refusal(what: &RefusedModel, names: &Names) -> String {
    let name = |model| names.known(model).unwrap_or(&what.name).to_owned();
    what.why.explain(name)
}

fn tell_of_model(event: &TraceEvent, names: &Names) -> String {
    let model = event.model().map(|model| names.model(model)).unwrap_or_default();
    match event {
        TraceEvent::BoundChanged { bound, .. } => format!("{model} has the bound {bound} now"),
        TraceEvent::Evicting { .. } => format!("{model} is being evicted"),
        TraceEvent::Evicted { .. } => format!("{model} is gone"),
        TraceEvent::SubmissionRefused { why, .. } => format!("{model}: job turned away, {why}"),
        TraceEvent::Fenced { .. } => format!("{model} is fenced"),
        TraceEvent::AllocationRefused { requested, available, .. } => {
            format!("{model} asked for {requested} of scratch with {available} left")
        }
        other => format!("{model}: {:?}", other.kind()),
    }
}

fn tell_of_job(event: &TraceEvent, names: &Names) -> String {
    match event {
        TraceEvent::Submitted { job, .. } => format!("{} submitted", names.job(*job)),
        TraceEvent::Dispatched { job, stage, stream, waiting, why } => format!(
            "{} stage {stage} on {stream}: {}; {waiting} waiting",
            names.job(*job),
            reason(*why)
        ),
        TraceEvent::StageCompleted { job, stage, started, finished, upload, download, ahead } => {
            let ran = length(*started, *finished);
            let copies = copies(*upload, *download, *ahead);
            format!("{} stage {stage} ran for {ran}{copies}", names.job(*job))
        }
        TraceEvent::UploadAwaited { job, stage, of, took, before } => {
            let (job, of) = (names.job(*job), names.job(*of));
            format!(
                "{job} stage {stage} began {before} behind the inputs of {of}, which took {took}"
            )
        }
        TraceEvent::Suspended { job, next_stage } => {
            format!("{} gives way before stage {next_stage}", names.job(*job))
        }
        TraceEvent::Completed { job, response, execution } => {
            format!("{} completed: response {response}, {execution} on the device", names.job(*job))
        }
        TraceEvent::Dropped { job, why } => format!("{} dropped: {why}", names.job(*job)),
        TraceEvent::OutOfBudget { job, until } => {
            format!("{} waits for its server's refill at {}", names.job(*job), since_zero(*until))
        }
        TraceEvent::Postponed { job, release, .. } => {
            format!("{} is released later, at {}", names.job(*job), since_zero(*release))
        }
        TraceEvent::GuaranteesRestored { since } => {
            format!("guarantees hold again, which {} had put in question", names.job(*since))
        }
        _ => tell_of_finding(event, names),
    }
}

fn tell_of_finding(event: &TraceEvent, names: &Names) -> String {
    match event {
        TraceEvent::MissedDeadline { job, late } => {
            format!("{} missed its deadline by {late}", names.job(*job))
        }
        TraceEvent::Faulted { job, category } => {
            format!("{} failed: {category}", names.job(*job))
        }
        TraceEvent::AssumptionBroken { assumption, job, assumed, observed } => {
            format!("{} broke {assumption}: {observed} > {assumed}", names.job(*job))
        }
        TraceEvent::BoundExceeded { job, bound, response, cause } => format!(
            "{}: response {response} > bound {bound}, {}",
            names.job(*job),
            match cause {
                Some(cause) => format!("caused by {}", names.job(*cause)),
                None => "with every assumption intact: a defect of AegisRT".into(),
            }
        ),
        TraceEvent::DebtIncurred { job, excess, postponed } => format!(
            "{} used {excess} beyond its charge; its model's next release is {postponed} later",
            names.job(*job)
        ),
        TraceEvent::Hanging { job, stage, elapsed } => {
            format!("{} stage {stage} has held the device for {elapsed}", names.job(*job))
        }
        TraceEvent::EvidenceStale { job, stage, why } => {
            format!("{} stage {stage}: evidence gone stale, {why}", names.job(*job))
        }
        other => format!("{:?}", other.kind()),
    }
}

/// The comparison that decided.
#[must_use]
pub fn reason(why: Reason) -> String {
    let later = |chosen: Timestamp, next: Timestamp| match next.0.checked_sub(chosen.0) {
        None | Some(0) => "by a tie".to_owned(),
        Some(ahead) => format!("by {}", Nanos(ahead)),
    };
    match why {
        Reason::OnlyReady => "the only one ready".into(),
        Reason::EarliestRelease { chosen, next } => {
            format!("earliest release, {}", later(chosen, next))
        }
        Reason::EarliestDeadline { chosen, next } => {
            format!("earliest deadline, {}", later(chosen, next))
        }
        Reason::ShortestPeriod { chosen, next } => {
            format!("shortest period, {chosen} against {next}")
        }
        Reason::ShortestDeadline { chosen, next } => {
            format!("shortest deadline, {chosen} against {next}")
        }
        Reason::MostUrgent { chosen, next } => format!("most urgent, {chosen} against {next}"),
        Reason::Continues => "goes on, nothing more urgent waits".into(),
        Reason::Background => "in the background, nothing else ready".into(),
        other => format!("{other:?}"),
    }
}

/// Of which copies took so long, where they were told apart.
fn copies(upload: Nanos, download: Nanos, ahead: Nanos) -> String {
    let of = |what, length: Nanos| (!length.is_zero()).then(|| format!("{length} {what}"));
    let told =
        [of("uploading before", ahead), of("uploading", upload), of("downloading", download)];
    let told: Vec<String> = told.into_iter().flatten().collect();
    if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) }
}

fn length(started: Timestamp, finished: Timestamp) -> Nanos {
    Nanos(finished.0.saturating_sub(started.0))
}

/// A point as the time since the clock's zero.
fn since_zero(at: Timestamp) -> Nanos {
    Nanos(at.0)
}

#[cfg(test)]
mod tests {
    use aegis_trace::{Assumption, JobId, ModelId, StageIndex, StreamId};

    use super::*;

    const JOB: JobId = JobId { model: ModelId::first(0), sequence: 7 };

    fn check(event: &TraceEvent, weighs: Weight, expected: &str) {
        assert_eq!(tell(event, &Names::default()), expected);
        assert_eq!(weight(event), weighs, "{expected}");
    }

    #[test]
    fn a_dispatch_tells_the_comparison_that_decided() {
        let dispatched = |why| TraceEvent::Dispatched {
            job: JOB,
            stage: StageIndex(1),
            stream: StreamId::first(0),
            waiting: 2,
            why,
        };
        let why = Reason::EarliestDeadline { chosen: Timestamp(10), next: Timestamp(1_500_010) };
        let told = "m0#7 stage 1 on s0: earliest deadline, by 1.5 ms; 2 waiting";
        check(&dispatched(why), Weight::Decision, told);
        let tie = Reason::EarliestDeadline { chosen: Timestamp(10), next: Timestamp(10) };
        let told = "m0#7 stage 1 on s0: earliest deadline, by a tie; 2 waiting";
        check(&dispatched(tie), Weight::Decision, told);
    }

    #[test]
    fn a_stage_tells_its_copies_where_they_are_known() {
        let ran = |ahead, upload, download| TraceEvent::StageCompleted {
            job: JOB,
            stage: StageIndex(0),
            started: Timestamp(1_000),
            finished: Timestamp(501_000),
            upload: Nanos(upload),
            download: Nanos(download),
            ahead: Nanos(ahead),
        };
        check(&ran(0, 0, 0), Weight::Detail, "m0#7 stage 0 ran for 500 us");
        let told = "m0#7 stage 0 ran for 500 us (20 us uploading, 3 us downloading)";
        check(&ran(0, 20_000, 3_000), Weight::Detail, told);
        let told = "m0#7 stage 0 ran for 500 us (3 us downloading)";
        check(&ran(0, 0, 3_000), Weight::Detail, told);
        let told = "m0#7 stage 0 ran for 500 us (20 us uploading before)";
        check(&ran(20_000, 0, 0), Weight::Detail, told);
    }

    #[test]
    fn a_bound_without_a_cause_is_our_fault_and_said_to_be() {
        let exceeded = |cause| TraceEvent::BoundExceeded {
            job: JOB,
            bound: Nanos(5),
            response: Nanos(6),
            cause,
        };
        check(
            &exceeded(None),
            Weight::Fault,
            "m0#7: response 6 ns > bound 5 ns, with every assumption intact: a defect of AegisRT",
        );
        let told = "m0#7: response 6 ns > bound 5 ns, caused by m0#7";
        check(&exceeded(Some(JOB)), Weight::Finding, told);
    }

    #[test]
    fn findings_have_both_numbers() {
        let broken = TraceEvent::AssumptionBroken {
            assumption: Assumption::WakeLatency,
            job: JOB,
            assumed: Nanos(1_000),
            observed: Nanos(2_000),
        };
        check(&broken, Weight::Finding, "m0#7 broke wake-up latency: 2 us > 1 us");
        let missed = TraceEvent::MissedDeadline { job: JOB, late: Nanos(3) };
        check(&missed, Weight::Finding, "m0#7 missed its deadline by 3 ns");
    }
}
