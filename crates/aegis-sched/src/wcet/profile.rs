//! What the scheduler takes: the cost of every stage, with the evidence that stands behind it.
//!
//! A cost is the largest bound over all measured scenarios plus a margin, rounded up. The bound answers
//! for sampling; the margin is for what no sample of this machine saw (other inputs, other
//! temperatures), and is the user's judgement. They are reported apart.
//!
//! # Invariants
//! 1. A profile claims something only if the bound of every scenario of every stage does.

use std::collections::BTreeMap;

use aegis_trace::Nanos;

use super::campaign::Campaign;
use super::contention::{ContentionFactor, Scenario};
use super::estimate::{Estimate, Kind};
use super::margin::with_margin;
use super::monitor::StageMonitor;
use super::question::{Method, Question};
use super::samples::Samples;
use super::warning::Warning;

/// How a cost is made from samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CostRule {
    /// What is asked of the samples of each stage in each scenario. With [`Method::Margin`] the bound
    /// is the observed maximum.
    pub question: Question,
    /// Percent on top of the bound.
    pub margin_percent: u32,
}

/// What is known about the execution time of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct WcetProfile {
    /// One entry per stage.
    pub stages: Vec<StageProfile>,
    /// How it was made.
    pub rule: CostRule,
}

/// What is known about the execution time of one stage.
#[derive(Clone, Debug, PartialEq)]
pub struct StageProfile {
    /// The cost the analysis uses: the bound plus margin, rounded up.
    pub worst_case: Nanos,
    /// The largest bound over the scenarios.
    pub bound: Nanos,
    /// What that bound is.
    pub kind: Kind,
    /// Whether the bounds of all scenarios carry a claim.
    pub claim: bool,
    /// The longest time seen in any scenario: the high-water mark.
    pub high_water: Nanos,
    /// The largest mean of a scenario, rounded up; for capacity planning.
    pub average_case: Nanos,
    /// The limits of that mean at the confidence of the rule; `None` where the process was not tested
    /// or found to change.
    pub average_limits: Option<[Nanos; 2]>,
    /// The lower confidence limit of the time that the largest bound limits from above; `None` if that
    /// bound has no claim.
    pub bound_lower: Option<Nanos>,
    /// The shortest time seen.
    pub best_case: Nanos,
    /// The scenario with the largest bound.
    pub worst_scenario: Scenario,
    /// How much slower it is there than in the scenario of least load, where it was measured in two.
    pub contention: Option<ContentionFactor>,
    /// The samples of each scenario and what was concluded from them.
    pub evidence: BTreeMap<Scenario, (Campaign, Estimate)>,
}

impl WcetProfile {
    /// Applies `rule` to every stage of every scenario. All scenarios have the same stages, and there is
    /// at least one; an estimate for each.
    ///
    /// # Panics
    /// When there is no scenario, or one has other stages than the first.
    #[must_use]
    pub fn of(scenarios: &BTreeMap<Scenario, &Samples>, rule: CostRule) -> Self {
        let first = scenarios.values().next().expect("at least one scenario was measured");
        let stages = 0..first.stages().len();
        Self { stages: stages.map(|stage| stage_of(scenarios, stage, rule)).collect(), rule }
    }

    /// The plain margin rule on one scenario: observed maximum plus margin, and no claim.
    #[must_use]
    pub fn with_margin(samples: &Samples, margin_percent: u32) -> Self {
        let share = super::Share::P99;
        let question = Question { method: Method::Margin, ..Question::auto(share, share) };
        let scenarios = BTreeMap::from([(Scenario::Turns, samples)]);
        Self::of(&scenarios, CostRule { question, margin_percent })
    }

    /// The cost of each stage.
    #[must_use]
    pub fn costs(&self) -> Vec<Nanos> {
        self.stages.iter().map(|stage| stage.worst_case).collect()
    }

    /// Whether every stage claims its bound.
    #[must_use]
    pub fn claims(&self) -> bool {
        self.stages.iter().all(|stage| stage.claim)
    }

    /// How many samples of each stage would be enough for every claim that is lost for want of samples
    /// alone, if they depend on each other as these do; `None` if no claim is lost so.
    #[must_use]
    pub fn samples_wanted(&self) -> Option<u64> {
        let estimates =
            self.stages.iter().flat_map(|stage| stage.evidence.values().map(|(_, it)| it));
        let wanted = |warning: &Warning| match warning {
            Warning::NotEnoughSamples { like_these, .. } => Some(*like_these),
            _ => None,
        };
        let lost = estimates.filter(|it| !it.claim && it.supported_coverage.is_some());
        lost.flat_map(|it| it.warnings.iter().filter_map(wanted)).max()
    }

    /// A monitor for each stage, of the scenario with the largest bound, held to the stage's cost.
    #[must_use]
    pub fn monitors(&self) -> Vec<StageMonitor> {
        let monitor = |stage: &StageProfile| {
            let (campaign, _) = &stage.evidence[&stage.worst_scenario];
            let promised = stage.claim.then_some(self.rule.question.coverage);
            StageMonitor::new(campaign, stage.worst_case, promised)
        };
        self.stages.iter().map(monitor).collect()
    }
}

fn stage_of(
    scenarios: &BTreeMap<Scenario, &Samples>,
    stage: usize,
    rule: CostRule,
) -> StageProfile {
    let measured = |(scenario, samples): (&Scenario, &&Samples)| {
        let times = samples.stages().get(stage).expect("all scenarios have the same stages");
        let campaign = Campaign::new(times.clone()).expect("samples were checked");
        let estimate = Estimate::of(&campaign, &rule.question);
        (*scenario, (campaign, estimate))
    };
    let evidence: BTreeMap<_, _> = scenarios.iter().map(measured).collect();
    let bound_of = |(campaign, estimate): &(Campaign, Estimate)| match rule.question.method {
        // The rule of a workload has its margin on the maximum, not on a quantile.
        Method::Margin => campaign.max(),
        _ => estimate.bound_ns,
    };
    // The last of equal bounds: the heavier load.
    let worst = evidence.iter().max_by_key(|(_, measured)| bound_of(measured));
    let (worst_scenario, worst) = worst.expect("at least one scenario");
    let least = evidence.iter().next().expect("at least one scenario");
    let confidence = rule.question.confidence;
    let contention = (least.0 != worst_scenario)
        .then(|| ContentionFactor::of(&worst.0, &least.1.0, confidence))
        .flatten();
    let campaigns = || evidence.values().map(|(campaign, _)| campaign);
    let over = |of: fn(&Campaign) -> Nanos| campaigns().map(of).max().expect("at least one");
    let bound = bound_of(worst);
    let slowest = evidence.values().max_by_key(|(campaign, _)| campaign.mean());
    let (slowest, of_slowest) = slowest.expect("at least one scenario");
    StageProfile {
        worst_case: with_margin(bound, rule.margin_percent),
        bound,
        kind: worst.1.kind,
        claim: evidence.values().all(|(_, estimate)| estimate.claim),
        high_water: over(Campaign::max),
        average_case: slowest.mean(),
        average_limits: of_slowest.estimates.mean_limits,
        bound_lower: worst.1.lower_ns,
        best_case: campaigns().map(Campaign::min).min().expect("at least one"),
        worst_scenario: *worst_scenario,
        contention,
        evidence,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Random, Seed};
    use crate::wcet::Share;
    use crate::wcet::experiment::Family;

    fn samples(times: &[u64]) -> Samples {
        Samples::new(vec![times.iter().copied().map(Nanos).collect()]).expect("fine")
    }

    #[test]
    fn the_margin_rule_is_the_maximum_plus_margin_rounded_up() {
        let profile = WcetProfile::with_margin(&samples(&[7, 3, 5]), 20);
        let stage = &profile.stages[0];
        assert_eq!(stage.worst_case, Nanos(9)); // 7 * 1.2 = 8.4
        assert_eq!((stage.bound, stage.high_water), (Nanos(7), Nanos(7)));
        assert_eq!((stage.average_case, stage.best_case), (Nanos(5), Nanos(3)));
        assert_eq!((stage.kind, stage.claim, profile.claims()), (Kind::Margin, false, false));
        assert_eq!(profile.costs(), [Nanos(9)]);
    }

    #[test]
    fn absurd_samples_saturate_instead_of_wrapping() {
        let profile = WcetProfile::with_margin(&samples(&[u64::MAX]), 50);
        assert_eq!(profile.costs(), [Nanos::MAX]);
    }

    #[test]
    fn the_bound_covers_the_worst_scenario_and_names_it() {
        let mut random = Random::new(Seed(8));
        let mut draw = |slower: u64| {
            let drawn = Family::Normal.draw(600, &mut random);
            samples(&drawn.times().iter().map(|time| time.0 * slower).collect::<Vec<_>>())
        };
        let (alone, turns, mixed) = (draw(1), draw(2), draw(3));
        let scenarios = BTreeMap::from([
            (Scenario::Alone, &alone),
            (Scenario::Turns, &turns),
            (Scenario::Mixed, &mixed),
        ]);
        let question = Question::auto(Share::P99, Share::P99);
        let profile = WcetProfile::of(&scenarios, CostRule { question, margin_percent: 10 });
        let stage = &profile.stages[0];
        assert_eq!((stage.worst_scenario, stage.kind), (Scenario::Mixed, Kind::OrderStatistic));
        assert_eq!(stage.bound, stage.evidence[&Scenario::Mixed].1.bound_ns);
        assert_eq!(stage.worst_case.0, (stage.bound.0 * 110).div_ceil(100));
        assert!(profile.claims());
        assert!(stage.bound_lower.is_some_and(|lower| lower < stage.bound), "{stage:?}");
        let [low, high] = stage.average_limits.expect("a process that stays");
        assert!(low < stage.average_case && stage.average_case < high, "{low} {high}");
        let factor = stage.contention.expect("two scenarios");
        assert!((2_950..3_050).contains(&factor.observed), "{factor}");
        assert!(factor.is_certain());
        assert_eq!(profile.monitors().len(), 1);
    }

    #[test]
    fn a_profile_says_how_many_samples_its_claims_want() {
        let question = Question::auto(Share::P99, Share::P99);
        let rule = CostRule { question, margin_percent: 0 };
        let wanted = |family: Family, n| {
            let drawn = family.draw(n, &mut Random::new(Seed(9)));
            let samples = samples(&drawn.times().iter().map(|time| time.0).collect::<Vec<_>>());
            WcetProfile::of(&BTreeMap::from([(Scenario::Turns, &samples)]), rule).samples_wanted()
        };
        assert_eq!(wanted(Family::Normal, 600), None);
        assert_eq!(wanted(Family::Mixture, 100), Some(459));
        let dependent = wanted(Family::Autoregressive(0.6), 600).expect("too few that depend");
        assert!((600..3_000).contains(&dependent), "{dependent}");
        assert_eq!(wanted(Family::Step(2.0), 600), None, "more would not help");
    }

    #[test]
    fn one_scenario_without_a_claim_costs_the_claim() {
        let drawn = Family::Normal.draw(600, &mut Random::new(Seed(8)));
        let many = samples(&drawn.times().iter().map(|time| time.0).collect::<Vec<_>>());
        let few = samples(&[1_000_000; 3]);
        let scenarios = BTreeMap::from([(Scenario::Alone, &few), (Scenario::Turns, &many)]);
        let question = Question::auto(Share::P99, Share::P99);
        let profile = WcetProfile::of(&scenarios, CostRule { question, margin_percent: 0 });
        assert!(!profile.claims());
    }
}
