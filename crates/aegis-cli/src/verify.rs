//! `aegis verify`: checks a certificate, with `aegis-verify` alone.
//!
//! Nothing of the scheduler or the planner takes part. The program `aegis-verify` does the same without
//! even linking them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use aegis_verify::{Compared, FILE_MAX, Files};
use anyhow::{Context, Result};
use clap::Args;

use crate::Answer;
use crate::output::print;

#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// The certificate, as `aegis check --certificate` writes it.
    certificate: PathBuf,
    /// The workload that it should be for: the hash of this file is compared, and not what it asks for.
    #[arg(long, value_name = "FILE")]
    workload: Option<PathBuf>,
    /// The evidence that its costs should come from. It is read twice, so it is no pipe.
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
        evidence: evidence.as_mut(),
    };
    let named = |error: aegis_verify::ReadError| {
        let path = match error.compared() {
            Some(Compared::Workload) => args.workload.as_deref(),
            Some(Compared::Evidence) => args.evidence.as_deref(),
            None => None,
        };
        let path = path.unwrap_or(&args.certificate).display().to_string();
        anyhow::Error::new(error).context(path)
    };
    match aegis_verify::verify(files).map_err(named)? {
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
