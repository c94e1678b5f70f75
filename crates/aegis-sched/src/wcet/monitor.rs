//! The online monitor: whether the evidence still describes what runs.
//!
//! Every stage's time is compared with two things the campaign promised. The *exceedances* of the bound
//! are counted in windows of [`WINDOW`] jobs against the promised probability; the *drift* of the times
//! is summed up by a one-sided cumulative sum, which sees a lasting change long before a bound is
//! exceeded. Either makes the evidence stale, and says so once.
//!
//! # Invariants
//! 1. A monitor never changes a bound: it says that the evidence is stale, and a person decides.
//! 2. One observation allocates nothing, takes constant time and uses integers alone.
//! 3. Each kind of staleness is reported once for each stage: what is stale stays so.
//!
//! # Sources
//! Page, "Continuous Inspection Schemes", Biometrika 41 (1954), for the cumulative sum. Siegmund,
//! "Sequential Analysis" (1985), equation 2.56, for the time to a false alarm, from which the limit is
//! chosen.

use aegis_trace::{Nanos, StageWatch, Staleness};

use super::campaign::Campaign;
use super::share::Share;

/// Jobs of one window of counting.
pub const WINDOW: u32 = 1_000;
/// The probability of a false alarm in one window, at most.
const FALSE_ALARM: f64 = 1e-3;
/// Times are cut off this many deviations from the mean: one outlier is no drift.
const CUT: u64 = 3;
/// The sum counts what exceeds the mean by more than half a deviation.
const ALLOWANCE_DIVISOR: u64 = 2;
/// The sum that is a drift, in deviations. With an allowance of one half, independent normal times
/// reach it by chance once in some `2 (exp(15 + 1.17) - 17)`, 21 million jobs; a change by one deviation
/// reaches it in 30.
const LIMIT: u64 = 15;

/// The monitor of one stage of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageMonitor {
    watch: StageWatch,
    exceedances: Option<Exceedances>,
    drift: Drift,
}

/// Counts exceedances in windows; gone once it has raised its alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Exceedances {
    jobs: u32,
    exceeded: u32,
    /// The fewest exceedances of one window that are an alarm.
    alarm: u32,
}

/// A one-sided cumulative sum of what exceeds the mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Drift {
    mean: Nanos,
    lowest: Nanos,
    highest: Nanos,
    /// Mean plus allowance.
    reference: Nanos,
    limit: Nanos,
    sum: Nanos,
    raised: bool,
}

impl StageMonitor {
    /// A monitor of a stage whose times were `campaign`, and which was promised to exceed `bound` with a
    /// probability of at most `1 - coverage`; without a coverage, nothing was promised, and only the
    /// drift is watched.
    #[must_use]
    pub fn new(campaign: &Campaign, bound: Nanos, coverage: Option<Share>) -> Self {
        let alarm = coverage.map(|coverage| alarm_count(WINDOW, coverage.complement()));
        let mean = campaign.mean();
        let deviation = deviation(campaign, mean);
        Self::watching(StageWatch { bound, alarm, mean, deviation })
    }

    /// A monitor that has seen nothing yet and holds times to `watch`.
    #[must_use]
    pub fn watching(watch: StageWatch) -> Self {
        let StageWatch { alarm, mean, deviation, .. } = watch;
        let exceedances = alarm.map(|alarm| Exceedances { jobs: 0, exceeded: 0, alarm });
        Self { watch, exceedances, drift: Drift::of(mean, deviation) }
    }

    /// What it holds times to.
    #[must_use]
    pub fn watch(&self) -> StageWatch {
        self.watch
    }

    /// Takes the time of one more job; why the evidence is stale, the first time it is.
    pub fn observe(&mut self, time: Nanos) -> Option<Staleness> {
        let drift = self.drift.observe(time);
        let exceeded = time > self.watch.bound;
        let counted = self.exceedances.as_mut().and_then(|counter| counter.observe(exceeded));
        if counted.is_some() {
            self.exceedances = None;
        }
        // Both at once are reported one after the other: the sum stays above its limit.
        if counted.is_some() { counted } else { self.drift.raise(drift) }
    }
}

impl Exceedances {
    fn observe(&mut self, exceeded: bool) -> Option<Staleness> {
        self.jobs += 1;
        self.exceeded += u32::from(exceeded);
        let Self { jobs, exceeded, alarm } = *self;
        if exceeded >= alarm {
            return Some(Staleness::Exceedances { jobs, exceeded, alarm });
        }
        if jobs == WINDOW {
            (self.jobs, self.exceeded) = (0, 0);
        }
        None
    }
}

impl Drift {
    fn of(mean: Nanos, deviation: Nanos) -> Self {
        let cut = deviation.saturating_mul(CUT);
        Self {
            mean,
            lowest: mean.saturating_sub(cut),
            highest: mean.saturating_add(cut),
            reference: mean.saturating_add(Nanos(deviation.0 / ALLOWANCE_DIVISOR)),
            limit: deviation.saturating_mul(LIMIT),
            sum: Nanos::ZERO,
            raised: false,
        }
    }

    /// Adds one time to the sum; whether it is above its limit.
    fn observe(&mut self, time: Nanos) -> bool {
        let time = time.clamp(self.lowest, self.highest);
        self.sum = self.sum.saturating_add(time).saturating_sub(self.reference);
        self.sum > self.limit
    }

    fn raise(&mut self, above: bool) -> Option<Staleness> {
        if !above || self.raised {
            return None;
        }
        self.raised = true;
        Some(Staleness::Drift { mean: self.mean, excess: self.sum })
    }
}

/// The root of the mean square deviation from `mean`, at least one nanosecond.
fn deviation(campaign: &Campaign, mean: Nanos) -> Nanos {
    let square = |time: &Nanos| u128::from(time.0.abs_diff(mean.0)).pow(2) >> 32;
    // Squares are summed in units of 2^32 where they could overflow otherwise.
    let fits = campaign.max().0 < 1 << 40;
    let exact = |time: &Nanos| u128::from(time.0.abs_diff(mean.0)).pow(2);
    let n = campaign.count() as u128;
    let root = if fits {
        (campaign.times().iter().map(exact).sum::<u128>() / n).isqrt()
    } else {
        (campaign.times().iter().map(square).sum::<u128>() / n).isqrt() << 16
    };
    Nanos(u64::try_from(root).unwrap_or(u64::MAX).max(1))
}

/// The least `x` with `P(Bin(n, q) >= x) < 1e-3`.
fn alarm_count(n: u32, q: Share) -> u32 {
    let q = q.as_f64();
    let odds = q / (1.0 - q);
    let mut term = (f64::from(n) * (-q).ln_1p()).exp();
    let mut below = 0.0;
    for x in 0..=n {
        // `below` is P(Bin(n, q) < x).
        if 1.0 - below < FALSE_ALARM {
            return x;
        }
        below += term;
        term *= odds * f64::from(n - x) / f64::from(x + 1);
    }
    n + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Random, Seed};
    use crate::wcet::experiment::Family;

    fn campaign(random: &mut Random) -> Campaign {
        Family::Normal.draw(2_000, random)
    }

    #[test]
    fn the_alarm_count_is_the_published_one() {
        assert_eq!(alarm_count(1000, Share::P99.complement()), 22);
        // By SciPy's `binom.sf`.
        for (share, expected) in [("0.001", 6), ("0.0001", 3), ("0.05", 74)] {
            assert_eq!(alarm_count(1000, share.parse().expect("a share")), expected, "{share}");
        }
    }

    #[test]
    fn a_process_that_stays_raises_no_alarm() {
        let mut random = Random::new(Seed(1));
        let campaign = campaign(&mut random);
        let bound = campaign.quantile("0.995".parse().expect("a share"));
        let mut monitor = StageMonitor::new(&campaign, bound, Some(Share::P99));
        let later = Family::Normal.draw(200_000, &mut random);
        assert!(later.times().iter().all(|time| monitor.observe(*time).is_none()));
    }

    #[test]
    fn more_exceedances_than_promised_are_told_once() {
        let campaign = campaign(&mut Random::new(Seed(1)));
        let mut monitor = StageMonitor::new(&campaign, campaign.max(), Some(Share::P99));
        let time = |at: u32| {
            if at.is_multiple_of(20) { campaign.max() + Nanos(1) } else { campaign.min() }
        };
        let told: Vec<Staleness> = (1..=2000).filter_map(|at| monitor.observe(time(at))).collect();
        assert_eq!(told, [Staleness::Exceedances { jobs: 440, exceeded: 22, alarm: 22 }]);
    }

    #[test]
    fn a_lasting_change_is_told_once_and_an_outlier_is_none() {
        let campaign = campaign(&mut Random::new(Seed(1)));
        let mut monitor = StageMonitor::new(&campaign, Nanos::MAX, None);
        for _ in 0..10 {
            assert_eq!(monitor.observe(Nanos(u64::MAX)), None, "one outlier");
            for _ in 0..10 {
                assert_eq!(monitor.observe(campaign.mean()), None);
            }
        }
        let slower = campaign.mean() + Nanos(60_000); // Two deviations.
        let told: Vec<usize> = (0..100).filter(|_| monitor.observe(slower).is_some()).collect();
        assert_eq!(told.len(), 1);
        assert!((8..12).contains(&told[0]), "15 deviations at one and a half each: {told:?}");
    }

    #[test]
    fn a_campaign_without_spread_or_with_absurd_times_is_watched_too() {
        for times in [vec![Nanos(5); 30], vec![Nanos::MAX, Nanos(1), Nanos::MAX]] {
            let campaign = Campaign::new(times).expect("valid times");
            let mut monitor = StageMonitor::new(&campaign, campaign.max(), Some(Share::P99));
            assert_eq!(monitor.observe(campaign.max()), None);
        }
    }
}
