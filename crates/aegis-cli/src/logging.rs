//! What goes to standard error as a log, and how much of it.
//!
//! The library emits `tracing` events; here they are filtered and written. Without `-v` and `--log`
//! nothing is installed, and an event costs its emitter next to nothing.

use std::io::{self, IsTerminal};

use anyhow::{Context, Result};
use clap::{ArgAction, Args};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt;
use tracing_subscriber::prelude::*;

#[derive(Args)]
pub(crate) struct LogArgs {
    /// Log decisions, findings and errors to standard error; twice for every event of the trace.
    #[arg(short, long, action = ArgAction::Count, global = true, conflicts_with = "log")]
    verbose: u8,
    /// Log what passes this filter, for example `warn` or `aegis::trace=debug,warn`.
    #[arg(long, value_name = "FILTER", global = true)]
    log: Option<Targets>,
}

impl LogArgs {
    /// Installs the log that was asked for, if any.
    pub(crate) fn install(&self) -> Result<()> {
        let Some(filter) = self.filter() else { return Ok(()) };
        let lines = fmt::layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
        // It would tell of a line that standard error does not take on standard error, and panic.
        let lines = lines.log_internal_errors(false);
        let log = tracing_subscriber::registry().with(lines.with_filter(filter));
        log.try_init().context("the log cannot be installed")
    }

    fn filter(&self) -> Option<Targets> {
        let of = |level: LevelFilter| Targets::new().with_target("aegis", level);
        match (&self.log, self.verbose) {
            (Some(filter), _) => Some(filter.clone()),
            (None, 0) => None,
            (None, 1) => Some(of(LevelFilter::DEBUG)),
            (None, _) => Some(of(LevelFilter::TRACE)),
        }
    }
}

/// Whether anything is logged.
pub(crate) fn is_on() -> bool {
    LevelFilter::current() != LevelFilter::OFF
}
