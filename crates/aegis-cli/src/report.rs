//! `aegis report`: the trace of a run as a page for a browser.

use std::path::PathBuf;

use aegis::page::{self, Written};
use anyhow::Result;
use clap::Args;

use crate::Answer;
use crate::output::print;
use crate::written;

#[derive(Args)]
pub(crate) struct ReportArgs {
    /// The trace, as `aegis run --trace` writes it.
    trace: PathBuf,
    /// Write the page there.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// *Yes* if the page shows all of the run, whatever that did: it had its own answer. *No*, as of
/// `trace convert`, if the trace is not whole.
pub(crate) fn run(args: &ReportArgs) -> Result<Answer> {
    let out = written::Written { by: "the page", path: &args.out };
    written::overwrites_nothing(&[out], [args.trace.as_path()])?;
    let Written { records, is_whole, bytes } = page::write(&args.trace, &args.out)?;
    let whole = if is_whole { "" } else { "; the trace is not whole, which the page says" };
    print(format!(
        "{records} events, {} KiB: {}{whole}",
        bytes.div_ceil(1024),
        args.out.display()
    ))?;
    Ok(if is_whole { Answer::Yes } else { Answer::No })
}
