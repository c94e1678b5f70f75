//! Random task sets as the literature draws them.
//!
//! Loads are uniform over all ways to share a total (what UUniFast draws), made from sorted cuts of
//! an interval and therefore without floating-point numbers: a seed gives the same set everywhere.
//! Periods are log-uniform or those of automotive software. Used by the tests against the peer and,
//! by path, by the benches, so both speak of the same sets.
//!
//! # Sources
//! Bini, Buttazzo, "Measuring the performance of schedulability tests", Real-Time Systems 30, 2005,
//! for the loads. Kramer, Ziegenbein, Hamann, "Real world automotive benchmarks for free", WATERS
//! 2015, table III, for the shares of the periods; the angle-synchronous tasks are left out.

use aegis_sched::sim::Random;
use aegis_sched::task::{Task, TaskSet, TaskSpec};
use aegis_trace::{ModelId, Nanos};

/// How periods are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Periods {
    /// Log-uniform within 1 %, over some octaves: ten are 1 ms to 1 s for a unit of 1 ms.
    LogUniform {
        /// The shortest period.
        unit: Nanos,
        octaves: u64,
    },
    /// 1 to 1000 units with the shares of Kramer et al.
    Automotive {
        /// The shortest period.
        unit: Nanos,
    },
}

/// How deadlines are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deadlines {
    /// As long as the period.
    Implicit,
    /// From the cost (and jitter) to the period, where that is more.
    Constrained,
    /// From the cost (and jitter) to three periods.
    Arbitrary,
}

/// What a set looks like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) tasks: u16,
    /// `sum C/T` at most (but for costs below 1 ns, which become 1), in thousandths.
    pub(crate) load: u64,
    pub(crate) periods: Periods,
    pub(crate) deadlines: Deadlines,
    /// The longest jitter, in thousandths of the period.
    pub(crate) jitter: u64,
    /// The most stages of a task.
    pub(crate) stages: u64,
    /// How many tasks share a priority; one where there are no ties.
    pub(crate) alike: u32,
}

impl Shape {
    /// One stage a task, no jitter, no ties, deadlines as periods.
    pub(crate) fn plain(tasks: u16, load: u64, periods: Periods) -> Self {
        let deadlines = Deadlines::Implicit;
        Self { tasks, load, periods, deadlines, jitter: 0, stages: 1, alike: 1 }
    }

    /// Draws a set, priorities in the order of deadlines.
    pub(crate) fn draw(&self, random: &mut Random) -> TaskSet {
        let loads = loads(random, self.tasks, self.load);
        let mut specs: Vec<TaskSpec> = loads
            .into_iter()
            .zip(0..)
            .map(|(load, index)| self.task(random, ModelId::first(index), load))
            .collect();
        let mut by_deadline: Vec<&mut TaskSpec> = specs.iter_mut().collect();
        by_deadline.sort_by_key(|spec| spec.deadline);
        for (place, spec) in (0u32..).zip(by_deadline) {
            spec.priority = place / self.alike;
        }
        let tasks = specs.into_iter().map(|spec| Task::new(spec).expect("a valid task"));
        TaskSet::new(tasks.collect()).expect("every model once")
    }

    /// A task that asks for `load` parts in 2^32 of the device.
    fn task(&self, random: &mut Random, model: ModelId, load: u64) -> TaskSpec {
        let period = self.periods.draw(random).0;
        let cost = u64::try_from((u128::from(period) * u128::from(load)) >> 32);
        let cost = cost.expect("less than the period").max(1);
        let jitter = random.up_to(period * self.jitter / 1_000);
        let least = cost + jitter;
        let deadline = match self.deadlines {
            Deadlines::Implicit => period,
            Deadlines::Constrained => random.between(least.min(period), period),
            Deadlines::Arbitrary => random.between(least.min(3 * period), 3 * period),
        };
        let stages = random.between(1, self.stages.min(cost));
        let (period, deadline, jitter) = (Nanos(period), Nanos(deadline), Nanos(jitter));
        let stages = parts(random, cost, stages);
        TaskSpec { model, period, deadline, jitter, priority: 0, stages }
    }
}

impl Periods {
    fn draw(self, random: &mut Random) -> Nanos {
        match self {
            Self::LogUniform { unit, octaves } => log_uniform(random, unit, octaves),
            Self::Automotive { unit } => unit * automotive(random),
        }
    }
}

/// Log-uniform to within the width of an eighth of an octave.
fn log_uniform(random: &mut Random, unit: Nanos, octaves: u64) -> Nanos {
    /// `2^(k/8)` in millionths.
    const EIGHTHS: [u64; 9] = [
        1_000_000, 1_090_508, 1_189_207, 1_296_840, 1_414_214, 1_542_211, 1_681_793, 1_834_008,
        2_000_000,
    ];
    let octave = random.up_to(octaves - 1);
    let eighth = usize::try_from(random.up_to(7)).expect("below eight");
    let millionths = random.between(EIGHTHS[eighth], EIGHTHS[eighth + 1]);
    let scaled = (u128::from(unit.0) << octave) * u128::from(millionths) / 1_000_000;
    Nanos(u64::try_from(scaled).expect("a unit far below 2^54"))
}

/// A period in milliseconds; the shares add up to 85 % since the rest has no fixed period.
fn automotive(random: &mut Random) -> u64 {
    const PERCENT: [(u64, u64); 9] =
        [(1, 3), (2, 2), (5, 2), (10, 25), (20, 25), (50, 3), (100, 20), (200, 1), (1_000, 4)];
    let mut drawn = random.up_to(84);
    for (period, share) in PERCENT {
        if drawn < share {
            return period;
        }
        drawn -= share;
    }
    unreachable!("the shares add up to 85")
}

/// Uniform over all ways to share `load` thousandths among `tasks`, in parts of 2^32.
fn loads(random: &mut Random, tasks: u16, load: u64) -> Vec<u64> {
    let all = (load << 32) / 1_000;
    let mut cuts: Vec<u64> = (1..tasks).map(|_| random.up_to(all)).collect();
    cuts.extend([0, all]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// `cost` cut into `count` stages, none empty.
fn parts(random: &mut Random, cost: u64, count: u64) -> Vec<Nanos> {
    let mut cuts: Vec<u64> = (1..count).map(|_| random.up_to(cost - count)).collect();
    cuts.extend([0, cost - count]);
    cuts.sort_unstable();
    cuts.windows(2).map(|pair| Nanos(pair[1] - pair[0] + 1)).collect()
}
