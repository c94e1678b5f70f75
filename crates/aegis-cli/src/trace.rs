//! `aegis trace convert`: a log made into a picture.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, stdin};
use std::path::{Path, PathBuf};

use aegis::export::convert::{Converted, convert};
use aegis::export::format::TraceFormat;
use aegis::export::json::{Ending, Reader};
use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};

use crate::Answer;
use crate::output::say;
use crate::written::{self, Written};

/// What is read, and written, at once.
const BUFFER: usize = 256 << 10;

#[derive(Args)]
pub(crate) struct TraceArgs {
    #[command(subcommand)]
    command: TraceCommand,
}

#[derive(Subcommand)]
enum TraceCommand {
    /// Make a picture of a log: JSON Lines to Perfetto or Chrome JSON.
    Convert(ConvertArgs),
}

#[derive(Args)]
struct ConvertArgs {
    /// The log, as `aegis run --trace out.jsonl` writes it; `-` is standard input.
    input: PathBuf,
    /// The picture: .pftrace opens in Perfetto, .json in Chrome and others.
    output: PathBuf,
}

pub(crate) fn run(args: &TraceArgs) -> Result<Answer> {
    match &args.command {
        TraceCommand::Convert(args) => args.run(),
    }
}

impl ConvertArgs {
    fn run(&self) -> Result<Answer> {
        let format = self.format()?;
        let name = self.input.display();
        if self.input == Path::new("-") {
            return self.convert(stdin().lock(), format);
        }
        let input = File::open(&self.input).with_context(|| format!("{name} cannot be read"))?;
        let picture = Written { by: "the picture", path: &self.output };
        written::overwrites_nothing(&[picture], [self.input.as_path()])?;
        self.convert(BufReader::with_capacity(BUFFER, input), format)
    }

    fn format(&self) -> Result<TraceFormat> {
        let format = TraceFormat::of_path(&self.output)?;
        ensure!(
            format != TraceFormat::JsonLines,
            "{} is to be a picture; write .pftrace (Perfetto) or .json (Chrome)",
            self.output.display()
        );
        Ok(format)
    }

    fn convert(&self, input: impl BufRead, format: TraceFormat) -> Result<Answer> {
        let (from, to) = (self.input.display(), self.output.display());
        // Before the output is made: what is no trace shall not cost an older picture.
        let mut log = Reader::open(input).with_context(|| format!("{from} is no trace"))?;
        let output = File::create(&self.output).with_context(|| format!("{to} cannot be made"))?;
        let output = BufWriter::with_capacity(BUFFER, output);
        let converted = convert(&mut log, format, output)
            .with_context(|| format!("{from} to {to}, which holds what came before"))?;
        say(told(&self.input, &converted));
        Ok(if is_whole(&converted) { Answer::Yes } else { Answer::No })
    }
}

/// Whether the picture shows everything that happened.
fn is_whole(converted: &Converted) -> bool {
    converted.ending == Ending::Closed { records: converted.records, dropped: 0 }
}

fn told(input: &Path, converted: &Converted) -> String {
    let (name, records) = (input.display(), converted.records);
    match converted.ending {
        Ending::Closed { records: written, .. } if written != records => format!(
            "warning: {name} holds {records} of {written} events; the others are not in the picture"
        ),
        Ending::Closed { dropped: 0, .. } => format!("{records} events"),
        Ending::Closed { dropped, .. } => {
            format!("warning: {records} events; {dropped} more were lost when {name} was recorded")
        }
        Ending::Cut { place } => format!(
            "warning: {name} was cut short at line {} (byte {}); the {records} events before it are \
             in the picture",
            place.line, place.byte
        ),
    }
}
