//! Periods that load the device to a wanted share, within what each model's class allows.
//!
//! All periods are scaled by one factor, each kept in the range of its class, and rounded to tenths
//! of a millisecond. The largest load that does not exceed the wanted one is searched by bisection
//! over the factor, since load falls as it grows. The load is the mean time on the device by the
//! period: what the device is busy, and not what admission charges, which is printed beside it.
//! Where a file is named, the workload with these periods is written there.

use std::collections::BTreeMap;
use std::path::Path;

use aegis::Nanos;

use crate::costs::{self, Cost};
use crate::variant::{self, Change, Variant};

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
fn load_ppm(loads: &[Load], factor: u64, time: fn(&Load) -> u64) -> u64 {
    loads.iter().map(|load| (time(load) * 1_000_000).div_ceil(load.scaled(factor))).sum()
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
    let variant = Variant::open(workload, change)?;
    let loads = loads(&variant)?;
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
    let busy = |factor| load_ppm(&loads, factor, |load| load.mean);
    let charged = |factor| load_ppm(&loads, factor, |load| load.charged);
    for (when, factor) in [("now", 1_000_000), ("then", factor)] {
        let (busy, charged) = (busy(factor) as f64 / 1e4, charged(factor) as f64 / 1e4);
        println!("{when}: busy {busy:.1} %, charged {charged:.1} %");
    }
    if busy(FACTORS.start) < percent * 10_000 {
        println!("the shortest periods of the classes load the device less than asked");
    }
    let Some(into) = into else { return Ok(()) };
    let scaled = |load: &Load| (load.name.clone(), Nanos(load.scaled(factor)));
    let periods: BTreeMap<_, _> = loads.iter().map(scaled).collect();
    variant::write_with_periods(workload, &periods, into)?;
    println!("wrote {}", into.display());
    Ok(())
}

fn loads(variant: &Variant) -> anyhow::Result<Vec<Load>> {
    let costs = costs::of(&variant.pipeline)?;
    let models = variant.pipeline.workload().models.iter().zip(costs);
    let load = |(model, (name, cost)): (&aegis::workload::Model, (String, Cost))| Load {
        name,
        period: model.period.as_nanos(),
        mean: cost.mean.as_nanos(),
        charged: cost.charged.as_nanos(),
    };
    Ok(models.map(load).collect())
}

/// The smallest factor whose load does not exceed `wanted` millionths.
fn search(loads: &[Load], wanted: u64) -> u64 {
    let (mut over, mut within) = (FACTORS.start, FACTORS.end);
    while within - over > 1 {
        let middle = u64::midpoint(over, within);
        if load_ppm(loads, middle, |load| load.mean) <= wanted {
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

    #[test]
    fn the_load_that_is_found_is_the_largest_within_what_is_wanted() {
        let load =
            |name: &str, period, mean| Load { name: name.into(), period, mean, charged: mean };
        let loads = [
            load("control", 10_000_000, 100_000),
            load("seen", 33_000_000, 4_000_000),
            load("also_seen", 50_000_000, 5_000_000),
            load("known", 500_000_000, 3_000_000),
        ];
        for wanted in [300_000, 350_000, 400_000] {
            let factor = search(&loads, wanted);
            let at = |factor| load_ppm(&loads, factor, |load| load.mean);
            assert!(at(factor) <= wanted && at(factor - 1) > wanted, "{wanted}");
            for load in &loads[1..3] {
                assert!((16_700_000..=50_000_000).contains(&load.scaled(factor)));
            }
        }
    }
}
