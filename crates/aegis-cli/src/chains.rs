//! Chains as `aegis check` and `aegis run` show them: what is proved, and what was seen.

use aegis::ChainReport;
use aegis::drive::ChainSummary;

use crate::table::{self, ms, ms_down, or_dash};

/// What is proved of each chain, as a table; empty when there is none.
pub(crate) fn promises(chains: &[ChainReport]) -> String {
    if chains.is_empty() {
        return String::new();
    }
    let columns =
        ["chain", "kind", "models", "bound ms", "deadline ms", "slack ms", "age ms", "most age ms"];
    let mut shown = table::new(&columns);
    for chain in chains {
        table::add(
            &mut shown,
            &[
                chain.name.clone(),
                chain.kind.name().into(),
                chain.models.len().to_string(),
                or_dash(chain.bound.map(ms)),
                or_dash(chain.deadline.map(ms)),
                or_dash(chain.slack.map(ms_down)),
                or_dash(chain.age.map(ms)),
                or_dash(chain.max_age.map(ms)),
            ],
        );
    }
    format!(
        "{shown}\nthe bound of a triggered chain is its end-to-end response, of a sampled one its reaction"
    )
}

/// Every chain that is not promised what it asks for, one inequality a line.
pub(crate) fn refusals(chains: &[ChainReport]) -> Vec<String> {
    let lines = |chain: &ChainReport| {
        let ChainReport { name, models, refused, .. } = chain;
        let models = models.join(", ");
        let line = |why| format!("no: chain {name} ({models}): {why}");
        refused.iter().map(line).collect::<Vec<_>>()
    };
    chains.iter().flat_map(lines).collect()
}

/// Whether a chain is not promised what it asks for.
pub(crate) fn any_refused(chains: &[ChainReport]) -> bool {
    chains.iter().any(|chain| !chain.refused.is_empty())
}

/// What was seen of each triggered chain beside its bound; empty when none ran.
pub(crate) fn observed(chains: &[ChainReport], seen: &[ChainSummary]) -> String {
    if seen.is_empty() {
        return String::new();
    }
    let columns =
        ["chain", "instances", "deadline ms", "bound ms", "max ms", "max/bound", "missed", "lost"];
    let mut shown = table::new(&columns);
    for ChainSummary { name, completed, missed, lost, response_max } in seen {
        let promised = chains.iter().find(|chain| chain.name == *name);
        let bound = promised.and_then(|chain| chain.bound);
        let deadline = promised.and_then(|chain| chain.deadline);
        let share = bound.map(|bound| {
            let share = response_max.as_nanos() as f64 / bound.as_nanos().max(1) as f64;
            format!("{share:.2}")
        });
        table::add(
            &mut shown,
            &[
                name.clone(),
                completed.to_string(),
                or_dash(deadline.map(ms)),
                or_dash(bound.map(ms)),
                ms(*response_max),
                or_dash(share),
                or_dash(deadline.map(|_| missed.to_string())),
                lost.to_string(),
            ],
        );
    }
    shown.to_string()
}

/// The chains of which an instance took longer than the bound, each with its longest; empty when there is
/// none. A job's bounds and deadlines say nothing of it: the chain counts from its first release.
pub(crate) fn over_bound(chains: &[ChainReport], seen: &[ChainSummary]) -> String {
    let over = seen.iter().filter_map(|seen| {
        let bound = chains.iter().find(|chain| chain.name == seen.name)?.bound?;
        let is_over = seen.response_max > bound;
        is_over.then(|| format!("{} ({} of {bound})", seen.name, seen.response_max))
    });
    over.collect::<Vec<_>>().join(", ")
}

/// What about the chains makes a run a *no*; `broken` assumptions of the proof did not hold.
pub(crate) fn faults(chains: &[ChainReport], seen: &[ChainSummary], broken: u64) -> Vec<String> {
    let over = over_bound(chains, seen);
    let defect = (broken == 0 && !over.is_empty())
        .then(|| format!("chains over their bounds with every assumption intact: {over}"));
    let sum = |of: fn(&ChainSummary) -> u64| seen.iter().map(of).sum::<u64>();
    let counted = [
        ("chain deadlines missed", sum(|chain| chain.missed)),
        ("instances of chains lost", sum(|chain| chain.lost)),
    ];
    let some = counted.into_iter().filter(|(_, count)| *count > 0);
    some.map(|(what, count)| format!("{what}: {count}")).chain(defect).collect()
}

/// Adds the chains to a report in JSON, with what was seen of them.
pub(crate) fn add_to(
    whole: &mut serde_json::Value,
    chains: &[ChainReport],
    seen: Option<&[ChainSummary]>,
) {
    let with = |chain: &ChainReport| {
        let explained: Vec<String> = chain.refused.iter().map(ToString::to_string).collect();
        let mut value = serde_json::json!(chain);
        value["explained"] = serde_json::json!(explained);
        if let Some(seen) = seen {
            let seen = seen.iter().find(|seen| seen.name == chain.name).map(|seen| {
                let ChainSummary { completed, missed, lost, response_max, .. } = seen;
                serde_json::json!({ "completed": completed, "missed": missed, "lost": lost,
                    "response_max": response_max })
            });
            value["observed"] = serde_json::json!(seen);
        }
        value
    };
    whole["chains"] = chains.iter().map(with).collect();
}

#[cfg(test)]
mod tests {
    use aegis::Nanos;
    use aegis::workload::ChainKind;

    use super::*;

    #[test]
    fn a_chain_over_its_bound_is_named_and_a_defect_where_nothing_was_broken() {
        let chain = |name: &str, bound| ChainReport {
            name: name.into(),
            kind: ChainKind::Triggered,
            models: vec![],
            bound,
            deadline: None,
            slack: None,
            age: None,
            max_age: None,
            refused: vec![],
        };
        let saw = |name: &str| ChainSummary {
            name: name.into(),
            completed: 1,
            missed: 0,
            lost: 0,
            response_max: Nanos::from_millis(20),
        };
        let bound = |ms| Some(Nanos::from_millis(ms));
        let chains = [chain("over", bound(19)), chain("within", bound(20)), chain("open", None)];
        let seen = ["over", "within", "open"].map(saw);
        assert_eq!(over_bound(&chains, &seen), "over (20 ms of 19 ms)");
        assert!(faults(&chains, &seen, 1).is_empty(), "the assumption excuses it");
        let defect = "chains over their bounds with every assumption intact: over (20 ms of 19 ms)";
        assert_eq!(faults(&chains, &seen, 0), [defect]);
        assert!(faults(&chains[1..], &seen[1..], 0).is_empty());
    }
}
