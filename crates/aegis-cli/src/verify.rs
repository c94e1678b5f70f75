//! `aegis verify`: checks a certificate, with `aegis-verify` alone.
//!
//! Nothing of the scheduler or the planner takes part. The program `aegis-verify` does the same without
//! even linking them.

use std::path::{Path, PathBuf};

use aegis_verify::{FILE_MAX, Files, INPUT_MAX};
use anyhow::{Context, Result};
use clap::Args;

use crate::Answer;
use crate::output::print;

#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// The certificate, as `aegis check --certificate` writes it.
    certificate: PathBuf,
    /// The workload that it should be for.
    #[arg(long, value_name = "FILE")]
    workload: Option<PathBuf>,
    /// The evidence that its costs should come from.
    #[arg(long, value_name = "FILE")]
    evidence: Option<PathBuf>,
}

pub(crate) fn run(args: &VerifyArgs) -> Result<Answer> {
    let input = |path| read(path, INPUT_MAX);
    let certificate = read(&args.certificate, FILE_MAX)?;
    let workload = args.workload.as_deref().map(input).transpose()?;
    let evidence = args.evidence.as_deref().map(input).transpose()?;
    let (workload, evidence) = (workload.as_deref(), evidence.as_deref());
    let files = Files { certificate: &certificate, workload, evidence };
    let name = || args.certificate.display().to_string();
    match aegis_verify::verify(files).with_context(name)? {
        Ok(account) => print(account).map(|()| Answer::Yes),
        Err(fault) => print(format!("invalid: {fault}")).map(|()| Answer::No),
    }
}

fn read(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let name = || format!("cannot read {}", path.display());
    aegis_verify::bytes_of(path, limit).with_context(name)
}
