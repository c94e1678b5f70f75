//! `aegis analyse`: task sets in, verdicts and bounds out, one line each.
//!
//! Lines are read, answered and forgotten one by one, and each answer is written at once, so the
//! command can stand in a pipe between programs that talk to each other.

use std::fs::File;
use std::io::{BufRead, BufReader, stdin};
use std::path::{Path, PathBuf};

use aegis::TimeModel;
use aegis::task_sets::{Invalid, Lines, Options, Policy, Request, read};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::Answer;
use crate::output::print_if_read;

#[derive(Args)]
pub(crate) struct AnalyseArgs {
    /// Task sets as JSON Lines; `-` is standard input.
    file: PathBuf,
    /// At which instants jobs arrive and are dispatched.
    #[arg(long, value_enum, default_value_t = Time::Dense)]
    time: Time,
    /// Add how far each set is from the edge, and what a chain does.
    #[arg(long)]
    sensitivity: bool,
    /// Print the argument behind each answer for people, instead of JSON.
    #[arg(long)]
    explain: bool,
    /// How much work each verdict may cost, in terms of a few nanoseconds; beyond it the set is
    /// undecided.
    #[arg(long, default_value_t = 500_000_000, value_name = "COUNT")]
    terms: u64,
}

#[derive(Clone, Copy, ValueEnum)]
enum Time {
    /// Any real instant: a blocking stage counts in full.
    Dense,
    /// Whole ticks of the set's unit: a blocking stage counts a tick less.
    Discrete,
}

pub(crate) fn run(args: &AnalyseArgs) -> Result<Answer> {
    let time = match args.time {
        Time::Dense => TimeModel::Dense,
        Time::Discrete => TimeModel::Discrete,
    };
    let options = Options { time, terms: args.terms, sensitivity: args.sensitivity };
    let explain = args.explain;
    if args.file == Path::new("-") {
        return answer(stdin().lock(), "standard input", &Printer { options, explain });
    }
    let name = args.file.display().to_string();
    let file = File::open(&args.file).with_context(|| format!("{name} could not be read"))?;
    answer(BufReader::new(file), &name, &Printer { options, explain })
}

/// Answers every line; *no* if one of them made no sense.
fn answer(stream: impl BufRead, name: &str, printer: &Printer) -> Result<Answer> {
    let mut lines = Lines::new(stream);
    let mut answer = Answer::Yes;
    while let Some((number, line)) =
        lines.next_line().with_context(|| format!("{name} could not be read"))?
    {
        let (all_valid, still_read) = match read(line, number) {
            Ok(None) => continue,
            Ok(Some(request)) => printer.request(&request)?,
            Err(faults) => printer.each(&faults, Printer::invalid)?,
        };
        if !all_valid {
            answer = Answer::No;
        }
        if !still_read {
            break;
        }
    }
    Ok(answer)
}

/// How answers are written.
struct Printer {
    options: Options,
    explain: bool,
}

impl Printer {
    /// Whether every policy could be answered, and whether anybody still reads.
    fn request(&self, request: &Request) -> Result<(bool, bool)> {
        self.each(&request.policies, |printer, policy| match policy {
            Ok(policy) => Ok((true, printer.found(request, *policy)?)),
            Err(invalid) => printer.invalid(invalid),
        })
    }

    /// Writes answers until nobody reads them.
    fn each<T>(
        &self,
        items: &[T],
        write: impl Fn(&Self, &T) -> Result<(bool, bool)>,
    ) -> Result<(bool, bool)> {
        let mut all_valid = true;
        for item in items {
            let (valid, still_read) = write(self, item)?;
            all_valid &= valid;
            if !still_read {
                return Ok((all_valid, false));
            }
        }
        Ok((all_valid, true))
    }

    fn found(&self, request: &Request, policy: Policy) -> Result<bool> {
        if self.explain {
            return print_if_read(format!("{}\n", request.explain(policy, &self.options)));
        }
        let found = request.answer(policy, &self.options);
        print_if_read(serde_json::to_string(&found)?)
    }

    fn invalid(&self, invalid: &Invalid) -> Result<(bool, bool)> {
        let text = if self.explain {
            let policy = invalid.policy.as_ref().map_or(String::new(), |name| format!(", {name}"));
            format!("{}{policy}: error: {invalid}\n", invalid.id)
        } else {
            serde_json::to_string(invalid)?
        };
        Ok((false, print_if_read(text)?))
    }
}
