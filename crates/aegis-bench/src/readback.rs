//! What the file of a trace says once the run that wrote it is over.
//!
//! A run with a fault is judged by nothing that it kept in memory: the file is read back as anybody
//! would read it, replayed, and counted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use aegis::export::json;
use aegis::replay::{CutTrace, TraceFile};
use aegis::{Assumption, Bytes, Category, JobId, ModelId, Nanos, Record, Timestamp, TraceEvent};
use anyhow::{Context as _, ensure};

/// A trace that was read back.
#[derive(Debug)]
pub(crate) struct ReadBack {
    records: Vec<Record>,
    /// Where the replay parts from it, in words; `None` where every decision is as logged.
    pub(crate) divergence: Option<String>,
}

/// What the trace says of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) submitted: u64,
    pub(crate) completed: u64,
    pub(crate) missed: u64,
    /// Jobs that ended in another way: dropped, or with a fault.
    pub(crate) given_up: u64,
    /// Jobs that were submitted and of which no end is told.
    pub(crate) endless: u64,
}

impl ReadBack {
    /// Reads and replays the trace at `path`.
    ///
    /// # Errors
    /// It cannot be read, is not whole, or cannot be replayed.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| path.display().to_string())?;
        let back = json::read(BufReader::new(file)).with_context(|| path.display().to_string())?;
        ensure!(back.is_complete(), "{} has no closing line, or not its own", path.display());
        let replayed = TraceFile::open(path, CutTrace::Refused)?;
        let divergence = replayed.divergence().map(|it| format!("line {}: {it:?}", it.line()));
        Ok(Self { records: back.trace.records, divergence })
    }

    /// How many events there are.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// What is told of each model.
    pub(crate) fn models(&self) -> BTreeMap<ModelId, Told> {
        let mut told: BTreeMap<ModelId, Told> = BTreeMap::new();
        let mut open = BTreeSet::new();
        for Record { event, .. } in &self.records {
            match event {
                TraceEvent::Submitted { job, .. } => {
                    open.insert(*job);
                    told.entry(job.model).or_default().submitted += 1;
                }
                TraceEvent::Completed { job, .. } if open.remove(job) => {
                    told.entry(job.model).or_default().completed += 1;
                }
                TraceEvent::Dropped { job, .. } | TraceEvent::Faulted { job, .. }
                    if open.remove(job) =>
                {
                    told.entry(job.model).or_default().given_up += 1;
                }
                TraceEvent::MissedDeadline { job, .. } => {
                    told.entry(job.model).or_default().missed += 1;
                }
                _ => {}
            }
        }
        for job in open {
            told.entry(job.model).or_default().endless += 1;
        }
        told
    }

    /// The longest that a stage of `model` ran beyond what was assumed, and what was.
    pub(crate) fn overrun(&self, model: ModelId) -> Option<[Nanos; 2]> {
        let overrun = |event: &TraceEvent| match event {
            TraceEvent::AssumptionBroken {
                assumption: Assumption::ExecutionTime,
                job,
                assumed,
                observed,
            } if job.model == model => Some([*assumed, *observed]),
            _ => None,
        };
        self.all(overrun).max_by_key(|[_, observed]| *observed)
    }

    /// What a job of `model` owes, and by how much its next release was put off.
    pub(crate) fn debt(&self, model: ModelId) -> Option<[Nanos; 2]> {
        self.all(|event| match event {
            TraceEvent::DebtIncurred { job, excess, postponed } if job.model == model => {
                Some([*excess, *postponed])
            }
            _ => None,
        })
        .next()
    }

    /// How long a stage of `model` had run when it counted as hanging, and when that was.
    pub(crate) fn hanging(&self, model: ModelId) -> Option<(Timestamp, Nanos)> {
        self.records.iter().find_map(|record| match &record.event {
            TraceEvent::Hanging { job, elapsed, .. } if job.model == model => {
                Some((record.at, *elapsed))
            }
            _ => None,
        })
    }

    /// What a runtime asked for and did not get, and what was left.
    pub(crate) fn refused_request(&self, model: ModelId) -> Option<[Bytes; 2]> {
        self.all(|event| match event {
            TraceEvent::AllocationRefused { model: whose, requested, available }
                if *whose == model =>
            {
                Some([*requested, *available])
            }
            _ => None,
        })
        .next()
    }

    /// Whether `model` was fenced.
    pub(crate) fn is_fenced(&self, model: ModelId) -> bool {
        self.all(|event| {
            matches!(event, TraceEvent::Fenced { model: it } if *it == model).then_some(())
        })
        .next()
        .is_some()
    }

    /// The job of `model` that ended with a fault of `category`, and when.
    pub(crate) fn faulted(&self, model: ModelId, category: Category) -> Option<(Timestamp, JobId)> {
        self.records.iter().find_map(|record| match &record.event {
            TraceEvent::Faulted { job, category: its }
                if job.model == model && *its == category =>
            {
                Some((record.at, *job))
            }
            _ => None,
        })
    }

    /// Jobs of other models than `model` that completed from `since` on, and those of them that were
    /// late.
    pub(crate) fn others_since(&self, since: Timestamp, model: ModelId) -> [u64; 2] {
        let of = |is: fn(&TraceEvent) -> Option<JobId>| {
            let later = self.records.iter().filter(|record| record.at >= since);
            let jobs = later.filter_map(|record| is(&record.event));
            jobs.filter(|job| job.model != model).count() as u64
        };
        let completed = of(|event| match event {
            TraceEvent::Completed { job, .. } => Some(*job),
            _ => None,
        });
        let late = of(|event| match event {
            TraceEvent::MissedDeadline { job, .. } => Some(*job),
            _ => None,
        });
        [completed, late]
    }

    fn all<'t, T: 't>(
        &'t self,
        what: impl Fn(&TraceEvent) -> Option<T> + 't,
    ) -> impl Iterator<Item = T> + 't {
        self.records.iter().filter_map(move |record| what(&record.event))
    }
}
