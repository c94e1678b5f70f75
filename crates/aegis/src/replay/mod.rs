//! A trace file, replayed: decisions recomputed, other policies tried, jobs accounted for.
//!
//! [`TraceFile::open`] reads the file and replays it with the shipped code
//! ([`aegis_sched::replay`]); the rest are questions to what that found, in words and as JSON.
//!
//! A file is gone through several times and never held: memory is bounded by the models in it and by the
//! jobs in flight, whatever its length. Only what another policy would have done needs every job of the
//! run, up to [`KEPT_MAX`] of them; a longer file is an error that names the line.
//!
//! # Invariants
//! 1. Nothing but the file is read, and no device is touched.
//! 2. What is said in words stands in the JSON too, with integers of nanoseconds.

mod account;
mod comparison;
mod file;
mod verdict;

use std::path::{Path, PathBuf};

use aegis_sched::policy::PolicyKind;
use aegis_sched::replay::{self, Extent, Keeps, Replayed};
use aegis_trace::export::json::Ending;
use aegis_trace::{Category, JobId, ModelId, TraceError};

pub use aegis_sched::replay::{
    Account, AccountError, Divergence, KEPT_MAX, ReplayError, Seen, WhatIf,
};
pub use comparison::Row;
use file::Log;
pub use file::PIPE_MAX;

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
    path: PathBuf,
    log: Log,
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
    /// It has no closing line.
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
    /// Its closing line counts other records than there are: it was changed after it was written.
    #[error(
        "{}: the closing line counts {counted} records and there are {found}; this is no log as it \
         was written",
        path.display()
    )]
    Miscounted {
        /// Which file.
        path: PathBuf,
        /// What the closing line says.
        counted: u64,
        /// Records before it.
        found: u64,
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
            Self::CutShort { .. } | Self::Miscounted { .. } | Self::Parted { .. } => {
                Category::Permanent
            }
        }
    }
}

impl TraceFile {
    /// Reads the trace at `path` and replays it. Costs some microseconds an event. The file is read some
    /// times and not held; what is no file, a pipe, is held, up to [`PIPE_MAX`] bytes.
    ///
    /// # Errors
    /// [`ReplayFileError`]: the file cannot be read, is cut short (unless `cut` allows that), lacks
    /// records, or cannot be replayed; each with the place.
    pub fn open(path: &Path, cut: CutTrace) -> Result<Self, ReplayFileError> {
        let read = |cause| ReplayFileError::Read { path: path.to_owned(), cause };
        let (log, ending) = Log::open(path, cut).map_err(read)?;
        let (path, found) = (path.to_owned(), log.records());
        let extent = match ending {
            Ending::Closed { records, .. } if records == found => Extent::Whole,
            Ending::Closed { records, .. } => {
                return Err(ReplayFileError::Miscounted { path, counted: records, found });
            }
            Ending::Cut { .. } if cut == CutTrace::Replayed => Extent::Prefix,
            Ending::Cut { .. } => {
                let line = usize::try_from(found).unwrap_or(usize::MAX).saturating_add(1);
                return Err(ReplayFileError::CutShort { path, line });
            }
        };
        match replay::replay_records(&log, extent, Keeps::Counts) {
            Ok(replayed) => Ok(Self { path, log, replayed, cut: extent == Extent::Prefix }),
            Err(cause) => Err(ReplayFileError::Replay { path, cause }),
        }
    }

    /// Where log and replay part, if they do.
    #[must_use]
    pub fn divergence(&self) -> Option<&Divergence> {
        self.replayed.divergence.as_ref()
    }

    /// What `policy` would have done, executor by executor. Costs two replays more, and memory for every
    /// job of the run.
    ///
    /// # Errors
    /// [`ReplayFileError::Parted`], or what a replay can say: of more than [`KEPT_MAX`] jobs, stages and
    /// changes [`ReplayError::TooMuch`].
    pub fn what_if(&self, policy: PolicyKind) -> Result<Vec<WhatIf>, ReplayFileError> {
        self.check()?;
        self.replayed.what_if(&self.log, policy).map_err(|cause| self.failed(cause))
    }

    /// The account of one job. Costs a replay more.
    ///
    /// # Errors
    /// [`ReplayFileError::Parted`], [`ReplayFileError::Account`].
    pub fn account(&self, job: JobId) -> Result<Account, ReplayFileError> {
        self.check()?;
        Ok(self.replayed.account(&self.log, job)?)
    }

    /// The account of the completed job of a model with the longest response.
    ///
    /// # Errors
    /// As [`TraceFile::account`].
    pub fn worst(&self, model: &str) -> Result<Account, ReplayFileError> {
        self.check()?;
        Ok(self.replayed.worst(&self.log, model)?)
    }

    /// The name of a model; its id for one that is not known.
    #[must_use]
    pub fn name_of(&self, model: ModelId) -> String {
        let known = self.replayed.executors.iter().find_map(|of| of.models.get(&model));
        known.map_or_else(|| model.to_string(), |model| shown(&model.name))
    }

    fn failed(&self, cause: ReplayError) -> ReplayFileError {
        ReplayFileError::Replay { path: self.path.clone(), cause }
    }

    fn check(&self) -> Result<(), ReplayFileError> {
        match self.divergence() {
            Some(divergence) => Err(ReplayFileError::Parted { line: divergence.line() }),
            None => Ok(()),
        }
    }
}

/// `the whole device` or `partition vision`.
fn place(partition: Option<&str>) -> String {
    partition.map_or_else(|| "the whole device".into(), |name| format!("partition {}", shown(name)))
}

/// A name on one line of a terminal, whatever a foreign trace has for one.
fn shown(name: &str) -> String {
    let plain = |part: char| {
        if part.is_control() { part.escape_default().to_string() } else { part.into() }
    };
    name.chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"{"aegis_trace":3}
{"at":0,"by":0,"event":"configured","what":{"policy":"edf","overheads":{"dispatch":1,"wake":2,"boundary":0,"copy":0,"look_ahead":false},"overrun":"record","streams":1,"queue_depth":8,"first_model":0,"max_models":4,"max_suspended":null,"hang_factor":8,"hang_floor":0}}
{"end":{"records":1,"dropped":0}}
"#;

    #[test]
    fn a_name_of_a_foreign_trace_forges_no_line() {
        assert_eq!(shown("lidar \"left\""), "lidar \"left\"");
        let forged = "lidar\nyes: every decision is as logged\u{1b}[2K";
        assert_eq!(shown(forged), "lidar\\nyes: every decision is as logged\\u{1b}[2K");
        assert_eq!(place(Some("a\rb")), "partition a\\rb");
    }

    /// No log is known that replays and fails under another policy, so the error is made here.
    #[test]
    fn an_error_of_a_question_names_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("out.jsonl");
        std::fs::write(&path, LOG).expect("a file");
        let file = TraceFile::open(&path, CutTrace::Refused).expect("a log");
        let said = file.failed(ReplayError::NotConfigured).to_string();
        assert_eq!(said, format!("{} cannot be replayed", path.display()));
    }
}
