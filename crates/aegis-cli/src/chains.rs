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

/// What about the chains makes a run a *no*.
pub(crate) fn faults(seen: &[ChainSummary]) -> Vec<String> {
    let sum = |of: fn(&ChainSummary) -> u64| seen.iter().map(of).sum::<u64>();
    let counted = [
        ("chain deadlines missed", sum(|chain| chain.missed)),
        ("instances of chains lost", sum(|chain| chain.lost)),
    ];
    let some = counted.into_iter().filter(|(_, count)| *count > 0);
    some.map(|(what, count)| format!("{what}: {count}")).collect()
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
