//! A trace file, replayed: decisions recomputed, other policies tried, jobs accounted for.
//!
//! [`TraceFile::open`] reads the file and replays it with the shipped code
//! ([`aegis_sched::replay`]); the rest are questions to what that found, in words and as JSON.
//!
//! # Invariants
//! 1. Nothing but the file is read, and no device is touched.
//! 2. What is said in words stands in the JSON too, with integers of nanoseconds.

mod account;
mod comparison;
mod verdict;

use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::{Path, PathBuf};

use aegis_sched::policy::PolicyKind;
use aegis_sched::replay::{self, Extent, Replayed};
use aegis_trace::export::json;
use aegis_trace::{Category, JobId, ModelId, Trace, TraceError};

pub use aegis_sched::replay::{Account, AccountError, Divergence, ReplayError, Seen, WhatIf};
pub use comparison::Row;

/// What becomes of a file without its closing line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CutTrace {
    /// It is an error that names its last line.
    Refused,
    /// What was written before the run was cut off is replayed, up to the last whole line.
    Replayed,
}

/// A trace file that was replayed.
#[derive(Debug)]
pub struct TraceFile {
    trace: Trace,
    replayed: Replayed,
    /// Whether its closing line was missing.
    cut: bool,
}

/// Why a trace file answers no question.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayFileError {
    /// It could not be read, or is no trace.
    #[error("{} could not be read", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: TraceError,
    },
    /// It has no closing line, or one that counts other records.
    #[error(
        "{}: the trace is cut short after line {line}; `--cut` replays what there is",
        path.display()
    )]
    CutShort {
        /// Which file.
        path: PathBuf,
        /// The last line that is an event.
        line: usize,
    },
    /// It cannot be replayed.
    #[error("{} cannot be replayed", path.display())]
    Replay {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: ReplayError,
    },
    /// Its replay parts from it, so nothing can be said about its jobs.
    #[error("line {line}: the replay parts from the log, see `aegis replay`")]
    Parted {
        /// Where.
        line: usize,
    },
    /// There is no account of this job.
    #[error(transparent)]
    Account(#[from] AccountError),
}

impl ReplayFileError {
    /// What the caller can do.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Read { cause, .. } => cause.category(),
            Self::Replay { cause, .. } => cause.category(),
            Self::Account(cause) => cause.category(),
            Self::CutShort { .. } | Self::Parted { .. } => Category::Permanent,
        }
    }
}

impl TraceFile {
    /// Reads the trace at `path` and replays it. Costs some microseconds an event, and memory in
    /// proportion to the file.
    ///
    /// # Errors
    /// [`ReplayFileError`]: the file cannot be read, is cut short (unless `cut` allows that), or
    /// cannot be replayed; each with the place.
    pub fn open(path: &Path, cut: CutTrace) -> Result<Self, ReplayFileError> {
        let read = |cause| ReplayFileError::Read { path: path.to_owned(), cause };
        let back = match cut {
            CutTrace::Refused => open(path).and_then(|file| json::read(BufReader::new(file))),
            CutTrace::Replayed => whole_lines(path).and_then(|text| json::read(Cursor::new(text))),
        };
        let json::ReadBack { trace, complete } = back.map_err(read)?;
        if !complete && cut == CutTrace::Refused {
            let line = trace.records.len() + 1;
            return Err(ReplayFileError::CutShort { path: path.to_owned(), line });
        }
        let extent = if complete { Extent::Whole } else { Extent::Prefix };
        let replayed = replay::replay(&trace, extent)
            .map_err(|cause| ReplayFileError::Replay { path: path.to_owned(), cause })?;
        Ok(Self { trace, replayed, cut: !complete })
    }

    /// Where log and replay part, if they do.
    #[must_use]
    pub fn divergence(&self) -> Option<&Divergence> {
        self.replayed.divergence.as_ref()
    }

    /// What `policy` would have done, executor by executor.
    ///
    /// # Errors
    /// [`ReplayFileError::Parted`], or what a replay can say.
    pub fn what_if(&self, policy: PolicyKind) -> Result<Vec<WhatIf>, ReplayFileError> {
        self.check()?;
        let failed = |cause| ReplayFileError::Replay { path: PathBuf::new(), cause };
        self.replayed.what_if(&self.trace, policy).map_err(failed)
    }

    /// The account of one job.
    ///
    /// # Errors
    /// [`ReplayFileError::Parted`], [`ReplayFileError::Account`].
    pub fn account(&self, job: JobId) -> Result<Account, ReplayFileError> {
        self.check()?;
        Ok(self.replayed.account(&self.trace, job)?)
    }

    /// The account of the completed job of a model with the longest response.
    ///
    /// # Errors
    /// As [`TraceFile::account`].
    pub fn worst(&self, model: &str) -> Result<Account, ReplayFileError> {
        self.check()?;
        let job = self.replayed.worst_job(model)?;
        Ok(self.replayed.account(&self.trace, job)?)
    }

    /// The name of a model; its id for one that is not known.
    #[must_use]
    pub fn name_of(&self, model: ModelId) -> String {
        let known = self.replayed.executors.iter().find_map(|of| of.models.get(&model));
        known.map_or_else(|| model.to_string(), |model| model.name.clone())
    }

    fn check(&self) -> Result<(), ReplayFileError> {
        match self.divergence() {
            Some(divergence) => Err(ReplayFileError::Parted { line: divergence.line() }),
            None => Ok(()),
        }
    }
}

fn open(path: &Path) -> Result<File, TraceError> {
    Ok(File::open(path)?)
}

/// The file without a last line that was not written to its end.
fn whole_lines(path: &Path) -> Result<Vec<u8>, TraceError> {
    let mut text = Vec::new();
    open(path)?.read_to_end(&mut text)?;
    let end = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    text.truncate(end);
    Ok(text)
}

/// `the whole device` or `partition vision`.
fn place(partition: Option<&str>) -> String {
    partition.map_or_else(|| "the whole device".into(), |name| format!("partition {name}"))
}
