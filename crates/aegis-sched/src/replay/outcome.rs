//! The outcome of a run under another policy, beside what was recorded.
//!
//! Model by model, and where the two part.

use aegis_trace::{AdmittedModel, JobId, ModelId, Nanos, PolicyKind, StageIndex, Timestamp};

use super::ExecutorReplay;
use super::timeline::{Ending, Timeline};
use super::what_if::{Bounds, Change, ModelWhatIf, Run, Seen, WhatIf, median};

/// What is to be told of a run.
pub(super) fn told(
    of: &ExecutorReplay,
    policy: PolicyKind,
    bounds: &Bounds,
    run: Run<'_>,
) -> WhatIf {
    let model = |(model, what): (&ModelId, &AdmittedModel)| ModelWhatIf {
        model: *model,
        name: what.name.clone(),
        was: seen(*model, what, &of.timeline, &of.timeline),
        would_be: seen(*model, what, &run.timeline, &of.timeline),
        bound_was: longest_bound(of, *model),
        bound_would_be: bounds.get(model).cloned().unwrap_or(Ok(None)),
    };
    WhatIf {
        partition: of.config.partition.clone(),
        recorded: of.config.policy,
        policy,
        models: of.models.iter().map(model).collect(),
        first_change: first_change(&of.timeline, &run.timeline),
        assumed: run.assumed,
        ends_with: run.ends_with,
        timeline: run.timeline,
    }
}

fn longest_bound(of: &ExecutorReplay, model: ModelId) -> Option<Nanos> {
    let changes = of.timeline.bounds.iter().filter(|change| change.model == model);
    let promised = of.models.get(&model)?.bound?;
    changes.map(|change| change.bound).chain([promised]).max()
}

/// What `timeline` has of a model, beside the jobs that were `accepted` in the log.
fn seen(model: ModelId, what: &AdmittedModel, timeline: &Timeline, accepted: &Timeline) -> Seen {
    let mut seen = Seen::default();
    let mut responses = Vec::new();
    let first = JobId { model, sequence: 0 };
    let last = JobId { model, sequence: u64::MAX };
    for record in timeline.jobs.range(first..=last).map(|(_, record)| record) {
        match record.ending {
            Some((at, Ending::Completed)) => {
                seen.completed += 1;
                seen.missed += u64::from(record.late > Nanos::ZERO);
                let guaranteed = what.service.is_guaranteed();
                let from = if guaranteed { record.release } else { record.arrival };
                responses.push(at.saturating_since(from));
            }
            Some((_, Ending::Dropped(_))) => seen.dropped += 1,
            Some((_, Ending::Faulted(_))) => seen.failed += 1,
            None => seen.unfinished += 1,
        }
    }
    let absent = accepted.jobs.range(first..=last).filter(|job| !timeline.jobs.contains_key(job.0));
    seen.not_accepted = absent.count() as u64;
    seen.longest = responses.iter().copied().max().unwrap_or(Nanos::ZERO);
    seen.median = median(responses);
    seen
}

/// The first place at which the two run another stage.
fn first_change(was: &Timeline, would_be: &Timeline) -> Option<Change> {
    let stage = |timeline: &Timeline, place: usize| {
        timeline.services.get(place).map(|service| (service.job.id, service.stage, service.since))
    };
    let most = was.services.len().max(would_be.services.len());
    (0..most).find_map(|place| {
        let (was, other) = (stage(was, place), stage(would_be, place));
        let named =
            |of: Option<(JobId, StageIndex, Timestamp)>| of.map(|(job, stage, _)| (job, stage));
        if named(was) == named(other) {
            return None;
        }
        let at = other.or(was).map(|(_, _, since)| since)?;
        Some(Change { at, was: named(was), would_be: named(other) })
    })
}
