//! What a profile saw of the processor's part in a stage, held against what a workload charges for it.
//!
//! A stage is charged `overheads.dispatch` for being launched and noticed. Where inputs go ahead, another
//! stage may be put behind it just before it ends, inputs and all, and its charge has to hold that too.

use aegis::evidence::Evidence;
use aegis::profile::{self, OverheadSummary};
use aegis::{Nanos, Overheads};

/// What a profile saw of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    /// Launching and noticing a stage.
    launch: OverheadSummary,
    /// Putting one behind another with its inputs ahead, where inputs go ahead and it was measured.
    commit: Option<OverheadSummary>,
}

impl Seen {
    fn of(evidence: &Evidence, overheads: &Overheads) -> Option<Self> {
        let commit = overheads.uploads_ahead.then(|| profile::commit_overhead(evidence)).flatten();
        Some(Self { launch: profile::dispatch_overhead(evidence)?, commit })
    }

    /// What a charge has to hold: 99 % of each part.
    fn needed(&self) -> Nanos {
        let commit = self.commit.map_or(Nanos::ZERO, |commit| commit.p99);
        self.launch.p99.saturating_add(commit)
    }

    /// What was seen is more than `charged`.
    fn undercharged(&self, charged: Nanos) -> Option<String> {
        (self.needed() > charged).then(|| {
            let launch = self.launch.p99;
            let commit = self.commit.map_or_else(String::new, |commit| {
                format!(
                    " and putting one behind it with its inputs ahead {} (99 %), which is {} together",
                    commit.p99,
                    self.needed()
                )
            });
            format!(
                "warning: while profiling, launching and noticing a stage took {launch} (99 %){commit}, \
                 and `overheads.dispatch` charges {charged}: the assumption will be broken"
            )
        })
    }

    /// What was seen, in all, and whether `charged` is enough.
    fn summary(&self, charged: Nanos) -> String {
        let spread = |OverheadSummary { p50, p99, max }: OverheadSummary| {
            format!("{p50} (median), {p99} (99 %), {max} (maximum)")
        };
        let commit = self.commit.map_or_else(String::new, |commit| {
            format!(
                "putting one behind it with its inputs ahead took {}, so that a stage takes {} with both \
                 (99 % of each); ",
                spread(commit),
                self.needed()
            )
        });
        let short = if self.needed() > charged { ", which is not enough: raise it" } else { "" };
        format!(
            "launching and noticing a stage took {}; {commit}`overheads.dispatch` charges {charged}{short}",
            spread(self.launch)
        )
    }
}

/// Warnings where the analysis charges less than was seen, or where what it has to charge was not
/// measured of some of `models`.
pub(crate) fn warnings<'m>(
    evidence: &Evidence,
    overheads: &Overheads,
    models: impl Iterator<Item = &'m str>,
) -> Vec<String> {
    let charged = overheads.dispatch;
    let short = Seen::of(evidence, overheads).and_then(|seen| seen.undercharged(charged));
    let is_without = |name: &&str| profile::without_commits(evidence).any(|other| other == *name);
    let without: Vec<&str> = models.filter(is_without).collect();
    let unknown = overheads.uploads_ahead && !without.is_empty();
    short.into_iter().chain(unknown.then(|| unmeasured(&without, charged))).collect()
}

fn unmeasured(models: &[&str], charged: Nanos) -> String {
    format!(
        "warning: inputs go ahead, and the evidence does not say what it takes to put a stage of {} behind \
         another one; `overheads.dispatch`, which charges {charged}, has to hold that beside launching and \
         noticing: run `aegis profile` again",
        models.join(", ")
    )
}

/// What was seen and what is charged, in a line; nothing where nothing was seen.
pub(crate) fn summary(evidence: &Evidence, overheads: &Overheads) -> String {
    let seen = Seen::of(evidence, overheads);
    seen.map_or_else(String::new, |seen| seen.summary(overheads.dispatch))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spread(p50: u64, p99: u64, max: u64) -> OverheadSummary {
        let of = Nanos::from_micros;
        OverheadSummary { p50: of(p50), p99: of(p99), max: of(max) }
    }

    #[test]
    fn a_charge_has_to_hold_a_commit_beside_launching_and_noticing() {
        let seen = Seen { launch: spread(10, 30, 90), commit: Some(spread(15, 20, 40)) };
        assert_eq!(seen.undercharged(Nanos::from_micros(50)), None);
        let short = seen.undercharged(Nanos::from_micros(49)).expect("a microsecond short");
        assert_eq!(
            short,
            "warning: while profiling, launching and noticing a stage took 30 us (99 %) and putting one \
             behind it with its inputs ahead 20 us (99 %), which is 50 us together, and \
             `overheads.dispatch` charges 49 us: the assumption will be broken"
        );
        assert_eq!(
            seen.summary(Nanos::from_micros(49)),
            "launching and noticing a stage took 10 us (median), 30 us (99 %), 90 us (maximum); putting one \
             behind it with its inputs ahead took 15 us (median), 20 us (99 %), 40 us (maximum), so that a \
             stage takes 50 us with both (99 % of each); `overheads.dispatch` charges 49 us, which is not \
             enough: raise it"
        );
    }

    #[test]
    fn where_inputs_stay_within_their_stage_it_holds_launching_and_noticing() {
        let seen = Seen { launch: spread(10, 30, 90), commit: None };
        assert_eq!(seen.undercharged(Nanos::from_micros(30)), None);
        let short = seen.undercharged(Nanos::from_micros(29)).expect("a microsecond short");
        assert_eq!(
            short,
            "warning: while profiling, launching and noticing a stage took 30 us (99 %), and \
             `overheads.dispatch` charges 29 us: the assumption will be broken"
        );
        assert_eq!(
            seen.summary(Nanos::from_micros(30)),
            "launching and noticing a stage took 10 us (median), 30 us (99 %), 90 us (maximum); \
             `overheads.dispatch` charges 30 us"
        );
    }

    #[test]
    fn models_of_which_it_was_not_measured_are_named() {
        let said = unmeasured(&["camera", "lidar"], Nanos::from_micros(300));
        assert!(said.contains("a stage of camera, lidar behind another one"), "{said}");
        assert!(said.contains("charges 300 us") && said.contains("run `aegis profile` again"));
    }
}
