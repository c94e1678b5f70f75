//! The trace of a run, and what becomes of the run when it cannot be written.

use aegis::{Error, Runtime, TraceObserver, TracePump, TraceSink, TraceSummary};
use anyhow::Result;
use clap::ValueEnum;

use crate::output::{chain, say};

/// What a trace that cannot be written any more does to the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnTraceError {
    /// The run goes on, without that file.
    Continue,
    /// The run ends as if it were interrupted.
    Stop,
}

/// The files that are written, and those that failed.
pub(crate) struct Recording {
    pump: TracePump,
    on_error: OnTraceError,
    /// The first failure, which is what the command ends with. Each was told when it happened.
    first: Option<Error>,
}

impl Recording {
    /// Begins to write `files`, and to show what is written to `observers`.
    ///
    /// # Errors
    /// A file cannot be created.
    pub(crate) fn start(
        runtime: &Runtime,
        files: &[TraceSink],
        on_error: OnTraceError,
        observers: Vec<Box<dyn TraceObserver>>,
    ) -> Result<Self> {
        let pump = TracePump::start_observed(runtime.collector(), files, observers)?;
        Ok(Self { pump, on_error, first: None })
    }

    /// Tells what has failed since the last call. Whether the run is to end for it.
    pub(crate) fn must_end(&mut self, tell: impl Fn(&str)) -> bool {
        for failure in self.pump.failures() {
            let what = chain(&failure);
            tell(&match self.on_error {
                OnTraceError::Continue => format!("warning: {what}; the run goes on without it"),
                OnTraceError::Stop => format!("warning: {what}; the run ends"),
            });
            self.first.get_or_insert(failure);
        }
        self.first.is_some() && self.on_error == OnTraceError::Stop
    }

    /// Closes the files. Afterwards there is what was recorded, and the first failure of all.
    pub(crate) fn finish(self) -> (TraceSummary, Option<anyhow::Error>) {
        let (summary, failures) = self.pump.finish();
        let mut all = self.first.into_iter().chain(failures);
        let first = all.next();
        for failure in all {
            say(format!("warning: {}", chain(&failure)));
        }
        let holds = "it holds what was written until then";
        (summary, first.map(|error| anyhow::anyhow!("{}; {holds}", chain(&error))))
    }
}
