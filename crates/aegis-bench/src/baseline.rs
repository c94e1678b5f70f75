//! What people do today: one thread and one session for each model, at its rate, uncoordinated.
//!
//! A thread releases its jobs on a grid of its period that all threads begin together, calls the
//! runtime for each, and sleeps in between. One that is late by a whole period leaves the jobs out
//! that it slept through, as a camera's driver drops frames; they count as lost.

use std::path::{Path, PathBuf};
use std::sync::{Barrier, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use aegis::{Nanos, Pipeline};
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use crate::figures::{FromDue, Memory, ModelFigures, Observed};
use crate::headline::driver_of;
use crate::session::{Bare, Call, Provider};
use crate::setting::{Setting, process_memory};
use crate::stats::Quantiles;
use crate::variant::{self, Change};

/// From the last thread's readiness to the first release.
const LEAD: Duration = Duration::from_millis(100);

/// A way of running the models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Plain calls.
    Threads,
    /// The runtime's own captured graphs.
    Graphs,
    /// Graphs, each on a stream of its own: the shorter the period, the higher its priority.
    Priorities,
}

impl Kind {
    /// All of them, in the order in which they are measured.
    pub(crate) const ALL: [Self; 3] = [Self::Threads, Self::Graphs, Self::Priorities];

    /// As the command line and the files call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Threads => "threads",
            Self::Graphs => "graphs",
            Self::Priorities => "priorities",
        }
    }

    fn call(self, rank: u16) -> Call {
        match self {
            Self::Threads => Call::Plain,
            Self::Graphs => Call::Graph,
            Self::Priorities => Call::GraphAt(rank),
        }
    }
}

/// How long before the end the clocks are read a second time, while all still run.
const LAST_LOOK: Duration = Duration::from_millis(100);

/// One model to run.
struct Task {
    name: String,
    file: PathBuf,
    period: Nanos,
    deadline: Nanos,
    /// 1000 for the shortest period, 0 for the longest.
    rank: u16,
}

/// What a thread saw.
#[derive(Default)]
struct Seen {
    responses: Vec<u64>,
    executions: Vec<u64>,
    missed: u64,
    lost: u64,
}

/// Runs every model of the workload in a thread of its own for `length`.
///
/// # Errors
/// The workload, the library, or a session that cannot be made or run.
pub(crate) fn run(
    workload: &Path,
    change: &Change,
    kind: Kind,
    length: Nanos,
) -> anyhow::Result<Observed> {
    let pipeline = variant::open(workload, change)?;
    let driver = change.driver.clone().unwrap_or_else(|| driver_of(&pipeline));
    let mut setting = Setting::here(&workload.display().to_string(), &driver);
    let provider = if driver == "cuda" { Provider::Cuda } else { Provider::Cpu };
    let tasks = tasks(&pipeline)?;
    let together = Together { barrier: Barrier::new(tasks.len() + 1), ..Together::default() };
    let (seen, memory) = thread::scope(|scope| {
        let start = |task| {
            let together = &together;
            scope.spawn(move || together.work(task, provider, kind, Duration::from(length)))
        };
        let threads: Vec<_> = tasks.iter().map(start).collect();
        together.begin();
        let half = Duration::from(length) / 2;
        thread::sleep(half);
        let memory = process_memory();
        thread::sleep(half.saturating_sub(LAST_LOOK));
        setting.end();
        let ends = threads.into_iter().map(|thread| thread.join().expect("no thread panics"));
        (ends.collect::<anyhow::Result<Vec<_>>>(), memory)
    });
    let models = tasks.iter().zip(seen?).map(|(task, seen)| task.figures(seen)).collect();
    Ok(Observed {
        how: kind.name().to_owned(),
        setting,
        runs: 1,
        wall: length.as_nanos(),
        models,
        memory: Memory { driver: memory, ..Memory::default() },
        device: None,
    })
}

fn tasks(pipeline: &Pipeline) -> anyhow::Result<Vec<Task>> {
    let models = &pipeline.workload().models;
    let mut periods: Vec<Nanos> = models.iter().map(|model| model.period).collect();
    periods.sort_unstable();
    periods.dedup();
    let task = |model: &aegis::workload::Model| {
        let [file] = model.backend.files() else {
            bail!("{} is not one file, and a bare call runs one", model.name);
        };
        let place = periods.iter().position(|period| *period == model.period).unwrap_or(0);
        let rank = 1000 * (periods.len() - 1 - place) / (periods.len() - 1).max(1);
        Ok(Task {
            name: model.name.clone(),
            file: file.path.clone(),
            period: model.period,
            deadline: model.deadline,
            rank: u16::try_from(rank).unwrap_or(1000),
        })
    };
    models.iter().map(task).collect()
}

/// What the threads share.
struct Together {
    /// Sessions are made and warmed up one at a time: a capture does not bear another thread's
    /// allocations.
    turn: Mutex<()>,
    barrier: Barrier,
    start: OnceLock<Instant>,
}

impl Default for Together {
    fn default() -> Self {
        Self { turn: Mutex::default(), barrier: Barrier::new(1), start: OnceLock::new() }
    }
}

impl Together {
    /// Waits for all threads, and says when the first jobs are released.
    fn begin(&self) {
        self.barrier.wait();
        let _ = self.start.set(Instant::now() + LEAD);
        self.barrier.wait();
    }

    fn work(
        &self,
        task: &Task,
        provider: Provider,
        kind: Kind,
        length: Duration,
    ) -> anyhow::Result<Seen> {
        // In this thread, since the runtime keeps its graphs for each thread apart.
        let bare = {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            Bare::new(&task.file, provider, kind.call(task.rank))
        };
        // Also where there is no session: the others wait here.
        self.barrier.wait();
        self.barrier.wait();
        let start = *self.start.get().context("the start is set between the barriers")?;
        task.run(&mut bare?, start, length)
    }
}

impl Task {
    fn run(&self, bare: &mut Bare, start: Instant, length: Duration) -> anyhow::Result<Seen> {
        let mut seen = Seen::default();
        let mut job = 0;
        loop {
            let release = Duration::from_nanos(self.period.as_nanos() * job);
            if release >= length {
                return Ok(seen);
            }
            thread::sleep((start + release).saturating_duration_since(Instant::now()));
            let begun = start.elapsed();
            bare.call()?;
            let ended = start.elapsed();
            let response = nanos(ended.saturating_sub(release));
            seen.missed += u64::from(response > self.deadline.as_nanos());
            seen.responses.push(response);
            seen.executions.push(nanos(ended - begun));
            let next = next_job(job, nanos(ended), self.period.as_nanos());
            let due = nanos(length).div_ceil(self.period.as_nanos());
            seen.lost += next.min(due) - (job + 1).min(due);
            job = next;
        }
    }

    fn figures(&self, mut seen: Seen) -> ModelFigures {
        ModelFigures {
            name: self.name.clone(),
            period: self.period.as_nanos(),
            deadline: self.deadline.as_nanos(),
            bound: None,
            completed: seen.responses.len() as u64,
            missed: seen.missed,
            lost: seen.lost,
            over_bound: 0,
            response: Quantiles::of(&mut seen.responses),
            from_due: FromDue::of(&mut seen.responses, self.deadline.as_nanos()),
            execution: Quantiles::of(&mut seen.executions),
        }
    }
}

/// The job after `job`, at time `now` since the start: the next one, or the last one that was
/// released where that is later.
fn next_job(job: u64, now: u64, period: u64) -> u64 {
    (job + 1).max(now / period)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::next_job;

    #[test]
    fn a_thread_that_is_late_by_a_period_leaves_jobs_out() {
        assert_eq!(next_job(3, 35, 10), 4); // In time.
        assert_eq!(next_job(3, 49, 10), 4); // Late, but the next job is the latest.
        assert_eq!(next_job(3, 61, 10), 6); // Jobs 4 and 5 are gone.
    }
}
