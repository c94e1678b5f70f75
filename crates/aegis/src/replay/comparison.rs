//! What another policy would have done, beside what was done.

use aegis_sched::replay::{Assumed, Change, ModelWhatIf, Seen, WhatIf};
use aegis_trace::{JobId, ModelId, Nanos, PolicyKind, ServiceTerms, StageIndex};
use serde_json::{Value, json};

use super::{TraceFile, place, shown};

/// One row of a comparison: what was, and what would have been.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The model.
    pub model: String,
    /// Its longest bound, then and under the other policy; `None` where there is none.
    pub bound: [Option<Nanos>; 2],
    /// What was seen of it.
    pub seen: [Seen; 2],
}

impl TraceFile {
    /// The rows of `what_if`, one for each model.
    #[must_use]
    pub fn rows(what_if: &WhatIf) -> Vec<Row> {
        let row = |of: &ModelWhatIf| Row {
            model: shown(&of.name),
            bound: [of.bound_was, of.bound_would_be.clone().ok().flatten()],
            seen: [of.was, of.would_be],
        };
        what_if.models.iter().map(row).collect()
    }

    /// What heads the table: which policies are compared.
    #[must_use]
    pub fn compared(what_if: &WhatIf) -> String {
        let WhatIf { partition, recorded, policy, .. } = what_if;
        format!("{}: {recorded}, and what {policy} would have done", place(partition.as_deref()))
    }

    /// What follows the table: where the order changes, who would not have been admitted, and what the
    /// figures rest on.
    #[must_use]
    pub fn remarks(&self, what_if: &WhatIf) -> Vec<String> {
        let mut lines = vec![changed(what_if.first_change.as_ref())];
        let refused =
            what_if.models.iter().filter_map(|of| Some((of, of.bound_would_be.as_ref().err()?)));
        for (of, why) in refused {
            let why = why.explain(|model| self.name_of(model));
            let policy = what_if.policy;
            lines.push(format!(
                "{} would not have been admitted under {policy}: {why}",
                shown(&of.name)
            ));
        }
        lines.extend(self.without_priorities(what_if));
        lines.extend(assumed(what_if.assumed));
        if let Some(model) = what_if.ends_with {
            let name = self.name_of(model);
            lines.push(format!(
                "{name} would still have been there when another model took its place: nothing is said \
                 about what follows"
            ));
        }
        lines.push(
            "stages take as long as they did, and callers submit when they did, whatever else changes"
                .into(),
        );
        lines
    }

    /// That nobody stated priorities, which `priority` would need. A log has none or those of its
    /// workload: where all are the same, they order nothing.
    fn without_priorities(&self, what_if: &WhatIf) -> Option<String> {
        let models = self.replayed.executors.iter().flat_map(|executor| &executor.models);
        let priority = |id: &ModelId| match models.clone().find(|(of, _)| *of == id)?.1.service {
            ServiceTerms::Guaranteed { priority, .. } | ServiceTerms::Server { priority, .. } => {
                Some(priority)
            }
            ServiceTerms::Background => None,
        };
        let found: Vec<u32> = what_if.models.iter().filter_map(|of| priority(&of.model)).collect();
        let alike = found.len() > 1 && found.iter().all(|priority| *priority == found[0]);
        (what_if.policy == PolicyKind::Priority && alike).then(|| {
            format!(
                "all priorities in the log are {}, so `priority` orders by releases alone: a workload \
                 states them by the key `priority`",
                found[0]
            )
        })
    }

    /// The whole comparison as JSON.
    pub(super) fn what_if_json(&self, what_if: &WhatIf) -> Value {
        let Assumed { stages, since, wakes, beyond_slots } = what_if.assumed;
        json!({
            "partition": what_if.partition,
            "recorded": what_if.recorded,
            "policy": what_if.policy,
            "first_change": what_if.first_change.as_ref().map(changed_json),
            "models": what_if.models.iter().map(model_json).collect::<Vec<_>>(),
            "assumed": {
                "stages": stages, "since": since, "wakes": wakes, "beyond_slots": beyond_slots,
            },
            "ends_with": what_if.ends_with,
        })
    }
}

fn changed(change: Option<&Change>) -> String {
    let stage = |of: Option<(JobId, StageIndex)>| {
        of.map_or_else(|| "nothing".into(), |(job, stage)| format!("stage {stage} of {job}"))
    };
    match change {
        None => "the order of all stages stays as it was".into(),
        Some(Change { at, was, would_be }) => {
            format!(
                "the order changes first at {at}: {} where {} ran",
                stage(*would_be),
                stage(*was)
            )
        }
    }
}

fn assumed(assumed: Assumed) -> Vec<String> {
    let Assumed { stages, since, wakes, beyond_slots } = assumed;
    let mut lines = Vec::new();
    if let (1.., Some(since)) = (stages, since) {
        lines.push(format!(
            "the log has no time for {stages} stages, from {since} on: they take what they are charged"
        ));
    }
    if wakes > 0 {
        lines.push(format!(
            "{wakes} decisions on an idle device come after the median of the delays in the log"
        ));
    }
    if beyond_slots > 0 {
        lines.push(format!(
            "{beyond_slots} jobs come when their model has no slot left, and might have been turned away"
        ));
    }
    lines
}

fn changed_json(change: &Change) -> Value {
    let stage = |(job, stage): (JobId, StageIndex)| json!({ "job": job, "stage": stage });
    json!({
        "at": change.at,
        "was": change.was.map(stage),
        "would_be": change.would_be.map(stage),
    })
}

fn model_json(of: &ModelWhatIf) -> Value {
    let seen = |seen: &Seen, bound: Option<Nanos>| {
        json!({
            "bound": bound,
            "completed": seen.completed,
            "missed": seen.missed,
            "dropped": seen.dropped,
            "failed": seen.failed,
            "unfinished": seen.unfinished,
            "not_accepted": seen.not_accepted,
            "longest": seen.longest,
            "median": seen.median,
        })
    };
    let bound = of.bound_would_be.as_ref().ok().copied().flatten();
    json!({
        "model": of.model,
        "name": of.name,
        "was": seen(&of.was, of.bound_was),
        "would_be": seen(&of.would_be, bound),
        "refused": of.bound_would_be.as_ref().err(),
    })
}
