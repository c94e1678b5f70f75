//! A trace as one page for a browser: `aegis report`.
//!
//! ```text
//!   JSON Lines --Reader, once--> Digest (bounded) --maud--> one HTML file
//! ```
//!
//! The page needs nothing but itself: no script, no font, no network, and its own policy forbids them
//! to it. It follows the reader's choice of light and dark, and has the figures of every picture in a
//! table beside it. [`digest`] is what is kept of a trace; [`window`] finds the stretch of time that is
//! drawn; [`html`] lays out. ADR 0075 says why it is made this way.
//!
//! # Invariants
//! 1. The trace is read once, and memory is bounded by the models in it and by named limits, not by its
//!    length.
//! 2. Whatever is in a trace, names above all, is escaped: a trace from anywhere can be shown.
//! 3. What was left out for a limit is counted on the page.

mod digest;
mod findings;
mod gantt;
mod html;
mod models;
mod plot;
mod times;
mod window;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use aegis_trace::export::json::Reader;
use aegis_trace::{Category, TraceError};

use self::digest::Digest;

/// Models that one page shows: each costs some kilobytes of histograms.
const MODELS_MAX: usize = 1_024;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// The trace cannot be read, or is none.
    #[error("{} cannot be shown", path.display())]
    Trace {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: TraceError,
    },
    /// More models were admitted than one page shows.
    #[error("{} admits more than {MODELS_MAX} models, the most that one page shows", path.display())]
    TooManyModels {
        /// Which file.
        path: PathBuf,
    },
    /// The page would take the place of the trace.
    #[error("the page would overwrite the trace {}", path.display())]
    Overwrites {
        /// Which file.
        path: PathBuf,
    },
    /// The page cannot be written.
    #[error("{} cannot be written", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
}

impl PageError {
    /// What the caller can do.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Trace { cause, .. } => cause.category(),
            Self::Write { .. } => Category::Transient,
            Self::TooManyModels { .. } | Self::Overwrites { .. } => Category::Permanent,
        }
    }
}

/// What a page was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Records that were read.
    pub records: u64,
    /// Whether the trace has its closing line, all of its records and no lost event.
    pub is_whole: bool,
    /// Size of the page in bytes.
    pub bytes: usize,
}

/// Reads the trace at `path` and writes its page to `out`. Blocks; linear in the trace.
///
/// # Errors
/// [`PageError`]: nothing is written where the trace cannot be read to its end.
pub fn write(path: &Path, out: &Path) -> Result<Written, PageError> {
    let failed = |cause| PageError::Trace { path: path.to_owned(), cause };
    let file = File::open(path).map_err(|cause| failed(cause.into()))?;
    if is_same(path, out) {
        return Err(PageError::Overwrites { path: path.to_owned() });
    }
    let Some(digest) = read(BufReader::new(file)).map_err(failed)? else {
        return Err(PageError::TooManyModels { path: path.to_owned() });
    };
    let text = html::page(&digest, &title(path));
    fs::write(out, &text).map_err(|cause| PageError::Write { path: out.to_owned(), cause })?;
    let (records, is_whole) = (digest.records, digest.is_whole());
    Ok(Written { records, is_whole, bytes: text.len() })
}

/// One pass over a trace; `None` when it admits too many models.
fn read(input: impl BufRead) -> Result<Option<Digest>, TraceError> {
    let mut reader = Reader::open(input)?;
    let mut digest = Digest::default();
    while let Some(record) = reader.next()? {
        digest.take(&record);
        if digest.models.len() > MODELS_MAX {
            return Ok(None);
        }
    }
    digest.ending = reader.ending();
    Ok(Some(digest))
}

fn is_same(trace: &Path, out: &Path) -> bool {
    trace.canonicalize().is_ok_and(|trace| out.canonicalize().is_ok_and(|out| out == trace))
}

fn title(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}
