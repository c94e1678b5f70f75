//! `aegis verify`: checks a certificate, with `aegis-verify` alone.
//!
//! Nothing of the scheduler or the planner takes part. The program `aegis-verify` does the same without
//! even linking them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use aegis_verify::{FILE_MAX, Files};
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
    let mut workload = args.workload.as_deref().map(open).transpose()?;
    let mut evidence = args.evidence.as_deref().map(open).transpose()?;
    let certificate = aegis_verify::bytes_of(&args.certificate, FILE_MAX);
    let certificate = certificate.with_context(|| cannot_read(&args.certificate))?;
    let files = Files {
        certificate: &certificate,
        workload: workload.as_mut().map(|file| file as &mut dyn Read),
        evidence: evidence.as_mut().map(|file| file as &mut dyn Read),
    };
    let name = || args.certificate.display().to_string();
    match aegis_verify::verify(files).with_context(name)? {
        Ok(account) => print(account).map(|()| Answer::Yes),
        Err(fault) => print(format!("invalid: {fault}")).map(|()| Answer::No),
    }
}

fn open(path: &Path) -> Result<File> {
    File::open(path).with_context(|| cannot_read(path))
}

fn cannot_read(path: &Path) -> String {
    format!("cannot read {}", path.display())
}
