//! A refusal in words, with what only the whole set tells about it.

use aegis_sched::task::{Task, TaskSet};
use aegis_trace::{ModelId, Nanos, Refusal};

/// The most models that are named one by one.
const NAMED: usize = 4;

/// The inequality in words. `first_due` has each model of the refused set with the shortest window
/// that can hold one of its jobs, `D - J`; empty where that is not known.
pub(crate) fn explain(
    refusal: &Refusal,
    name: impl Fn(ModelId) -> String,
    first_due: &[(ModelId, Nanos)],
) -> String {
    let inequality = refusal.explain(&name);
    match refusal {
        Refusal::Overutilised { .. } => format!("{inequality}, overheads included"),
        Refusal::DemandExceedsWindow { window, .. } => {
            let due = first_due.iter().filter(|(_, first)| first <= window);
            let due: Vec<String> = due.map(|(model, _)| name(*model)).collect();
            match listed(&due) {
                Some(due) => format!("{inequality}, in which jobs of {due} are due"),
                None => inequality,
            }
        }
        _ => inequality,
    }
}

/// What look-ahead adds to a refusal: `charge` more that a job may wait for, and whether the set would be
/// `accepted` without.
pub(crate) fn of_look_ahead(charge: Nanos, accepted: bool) -> String {
    let without = if accepted { ", and without it the analysis accepts this" } else { "" };
    format!("; look-ahead adds {charge} of blocking to it{without}")
}

/// Each model of `set` with the shortest window that can hold one of its jobs.
pub(crate) fn first_due(set: &TaskSet) -> impl Iterator<Item = (ModelId, Nanos)> {
    let of = |task: &Task| (task.model(), task.deadline().saturating_sub(task.jitter()));
    set.tasks().iter().map(of)
}

/// `a, b and c`, or `a, b, c, d and 7 more`; `None` of nothing.
fn listed(names: &[String]) -> Option<String> {
    let (last, before) = names.split_last()?;
    Some(match names.len() {
        1 => last.clone(),
        2..=NAMED => format!("{} and {last}", before.join(", ")),
        all => format!("{} and {} more", names[..NAMED].join(", "), all - NAMED),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demand(models: u16) -> String {
        let refusal = Refusal::DemandExceedsWindow {
            window: Nanos::from_millis(20),
            demand: Nanos::from_millis(21),
            blocking: Nanos::ZERO,
            blocked_by: None,
        };
        let first_due: Vec<_> = (0..models)
            .map(|n| (ModelId::first(n), Nanos::from_millis(15 + u64::from(n))))
            .collect();
        explain(&refusal, |model| model.to_string(), &first_due)
    }

    #[test]
    fn a_window_names_the_models_that_are_due_in_it_and_no_other() {
        assert_eq!(demand(0), "demand 21 ms > window 20 ms");
        assert_eq!(demand(1), "demand 21 ms > window 20 ms, in which jobs of m0 are due");
        assert!(demand(2).ends_with("jobs of m0 and m1 are due"));
        assert!(demand(9).ends_with("jobs of m0, m1, m2, m3 and 2 more are due"));
    }

    #[test]
    fn utilisation_says_that_it_has_overheads_in_it() {
        let refusal = Refusal::Overutilised { utilisation_ppm: 1_500_000 };
        assert!(explain(&refusal, |m| m.to_string(), &[]).ends_with(", overheads included"));
    }
}
