//! Periods that load the device to a wanted share, within what each model's class allows.
//!
//! All periods are scaled by one factor, each kept in the range of its class, and rounded to tenths
//! of a millisecond. The largest load that does not exceed the wanted one is searched by bisection
//! over the factor, since load falls as it grows. The load is the mean time on the device by the
//! period: what the device is busy, and not what admission charges, which is printed beside it.
//! Where a file is named, the workload with these periods is written there.

use std::collections::BTreeMap;
use std::path::Path;

use aegis::{Nanos, Pipeline};

use crate::costs::{self, Cost};
use crate::tuned;
use crate::variant::{self, Change};

/// Periods are multiples of this.
const GRAIN: u64 = 100_000;
/// The factor's range, in millionths.
const FACTORS: std::ops::Range<u64> = 10_000..100_000_000;
/// What a period of up to so many nanoseconds may become: control, which closes its loops 100 times a
/// second whatever the load; perception; background.
const CLASSES: [(u64, [u64; 2]); 3] = [
    (10_000_000, [10_000_000, 10_000_000]),
    (50_000_000, [16_700_000, 50_000_000]),
    (u64::MAX, [200_000_000, 1_000_000_000]),
];

/// One model; times in nanoseconds.
struct Load {
    name: String,
    period: u64,
    mean: u64,
    charged: u64,
    /// The partition of a model with deadlines, whose charge must fit there beside the others'; `None`
    /// for best effort.
    promised_in: Option<usize>,
}

impl Load {
    /// The period at `factor` millionths of the present one.
    fn scaled(&self, factor: u64) -> u64 {
        let [least, most] = CLASSES
            .into_iter()
            .find(|(up_to, _)| self.period <= *up_to)
            .map_or([0, u64::MAX], |c| c.1);
        let exact = u128::from(self.period) * u128::from(factor) / 1_000_000;
        let rounded = u64::try_from(exact).unwrap_or(u64::MAX).div_ceil(GRAIN) * GRAIN;
        rounded.clamp(least, most)
    }
}

/// The sum of `time / period` in millionths, each rounded up.
fn load_ppm(loads: &[Load], period: impl Fn(&Load) -> u64, time: fn(&Load) -> u64) -> u64 {
    let ppm = |load: &Load| (u128::from(time(load)) * 1_000_000).div_ceil(period(load).into());
    u64::try_from(loads.iter().map(ppm).sum::<u128>()).unwrap_or(u64::MAX)
}

/// Whether the charges of some partition come to more than all of its time, so that admission refuses.
/// Each share is rounded down, so that it is not said of what fits exactly.
fn is_overcharged(loads: &[Load], period: impl Fn(&Load) -> u64) -> bool {
    let mut charged: BTreeMap<usize, u128> = BTreeMap::new();
    for load in loads {
        if let Some(partition) = load.promised_in {
            let ppm = u128::from(load.charged) * 1_000_000 / u128::from(period(load));
            *charged.entry(partition).or_default() += ppm;
        }
    }
    charged.values().any(|charged| *charged > 1_000_000)
}

/// Prints periods that load the device to at most `percent`, and writes the workload that has them to
/// `into`, with the evidence beside it.
///
/// # Errors
/// The workload has no evidence of its device, or `into` is in another folder or cannot be written.
pub(crate) fn run(
    workload: &Path,
    change: &Change,
    percent: u64,
    into: Option<&Path>,
) -> anyhow::Result<()> {
    let pipeline = variant::open(workload, change)?;
    let loads = loads(&pipeline)?;
    let factor = search(&loads, percent * 10_000);
    println!(
        "{:<28} {:>9} {:>9} {:>12} {:>12}",
        "model", "mean us", "C us", "period now", "period"
    );
    for load in &loads {
        println!(
            "{:<28} {:>9} {:>9} {:>12} {:>12}",
            load.name,
            load.mean / 1000,
            load.charged / 1000,
            format!("{}us", load.period / 1000),
            format!("{}us", load.scaled(factor) / 1000),
        );
    }
    println!("{}", told("now", &loads, |load| load.period));
    println!("{}", told("then", &loads, |load| load.scaled(factor)));
    if let Some(remark) = out_of_reach(&loads, percent * 10_000) {
        println!("{remark}");
    }
    let Some(into) = into else { return Ok(()) };
    let scaled = |load: &Load| (load.name.clone(), Nanos(load.scaled(factor)));
    let periods: BTreeMap<_, _> = loads.iter().map(scaled).collect();
    tuned::write(workload, &periods, into)?;
    println!("wrote {}", into.display());
    Ok(())
}

/// What these periods come to, and whether they can be admitted at all.
fn told(when: &str, loads: &[Load], period: impl Fn(&Load) -> u64) -> String {
    let percent = |time| load_ppm(loads, &period, time) as f64 / 1e4;
    let (busy, charged) = (percent(|load| load.mean), percent(|load| load.charged));
    let refused = if is_overcharged(loads, &period) {
        "; that is more than there is, so not every model can be admitted"
    } else {
        ""
    };
    format!("{when}: busy {busy:.1} %, charged {charged:.1} %{refused}")
}

/// That no periods of the classes come near the `wanted` millionths, from either side.
fn out_of_reach(loads: &[Load], wanted: u64) -> Option<&'static str> {
    let busy = |factor| load_ppm(loads, |load| load.scaled(factor), |load| load.mean);
    if busy(FACTORS.start) < wanted {
        Some("the shortest periods of the classes load the device less than asked")
    } else if busy(FACTORS.end) > wanted {
        Some("the longest periods of the classes load the device more than asked")
    } else {
        None
    }
}

fn loads(pipeline: &Pipeline) -> anyhow::Result<Vec<Load>> {
    let costs = costs::of(pipeline)?;
    let models = pipeline.workload().models.iter().zip(costs);
    let load = |(model, (name, cost)): (&aegis::workload::Model, (String, Cost))| Load {
        name,
        period: model.period.as_nanos(),
        mean: cost.mean.as_nanos(),
        charged: cost.charged.as_nanos(),
        promised_in: model.best_effort.is_none().then(|| model.partition.unwrap_or(0)),
    };
    Ok(models.map(load).collect())
}

/// The smallest factor whose load does not exceed `wanted` millionths.
fn search(loads: &[Load], wanted: u64) -> u64 {
    let (mut over, mut within) = (FACTORS.start, FACTORS.end);
    while within - over > 1 {
        let middle = u64::midpoint(over, within);
        if load_ppm(loads, |load| load.scaled(middle), |load| load.mean) <= wanted {
            within = middle;
        } else {
            over = middle;
        }
    }
    within
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(name: &str, period: u64, mean: u64) -> Load {
        Load { name: name.into(), period, mean, charged: mean * 2, promised_in: Some(0) }
    }

    #[test]
    fn the_load_that_is_found_is_the_largest_within_what_is_wanted() {
        let loads = [
            load("control", 10_000_000, 100_000),
            load("seen", 33_000_000, 4_000_000),
            load("also_seen", 50_000_000, 5_000_000),
            load("known", 500_000_000, 3_000_000),
        ];
        for wanted in [300_000, 350_000, 400_000] {
            let factor = search(&loads, wanted);
            let at = |factor| load_ppm(&loads, |load| load.scaled(factor), |load| load.mean);
            assert!(at(factor) <= wanted && at(factor - 1) > wanted, "{wanted}");
            for load in &loads[1..3] {
                assert!((16_700_000..=50_000_000).contains(&load.scaled(factor)));
            }
        }
    }

    #[test]
    fn what_is_there_now_counts_at_its_own_periods() {
        // Neither is a period of its class: 100 ms would be 200, and 2 ms would be 10.
        let loads = [load("slow", 100_000_000, 10_000_000), load("fast", 2_000_000, 200_000)];
        let now = |load: &Load| load.period;
        assert_eq!(told("now", &loads, now), "now: busy 20.0 %, charged 40.0 %");
        let huge = [load("huge", 100_000, u64::MAX / 4)];
        assert_eq!(load_ppm(&huge, now, |load| load.mean), u64::MAX, "nothing wraps");
    }

    #[test]
    fn a_load_beyond_the_classes_is_told_from_either_side() {
        let loads = [load("control", 10_000_000, 1_000_000), load("seen", 20_000_000, 4_000_000)];
        // From 10 % and 8 % to 10 % and 23.953 %.
        let of = |percent: u64| out_of_reach(&loads, percent * 10_000);
        assert!(of(17).is_some_and(|told| told.contains("more than asked")));
        assert_eq!((of(18), of(33)), (None, None));
        assert!(of(34).is_some_and(|told| told.contains("less than asked")));
        let factor = search(&loads, 50_000);
        assert_eq!(load_ppm(&loads, |load| load.scaled(factor), |load| load.mean), 180_000);
    }

    #[test]
    fn charges_beyond_all_time_are_told() {
        let mut loads = [load("a", 10_000_000, 3_000_000), load("b", 10_000_000, 2_000_000)];
        let now = |load: &Load| load.period;
        assert!(!is_overcharged(&loads, now), "exactly all of it");
        loads[1].charged += 10;
        assert!(told("then", &loads, now).ends_with("so not every model can be admitted"));
        loads[1].promised_in = Some(1);
        assert!(!is_overcharged(&loads, now), "another partition");
        loads[1].promised_in = None;
        assert!(!is_overcharged(&loads, now), "best effort");
    }
}
