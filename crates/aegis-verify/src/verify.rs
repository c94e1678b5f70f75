//! From files to an answer: what `aegis verify` and `aegis-verify` do.

use std::fs::File;
use std::io::Read;

use crate::account::account;
use crate::certificate::Certificate;
use crate::check::check;
use crate::evidence::{EvidenceAccount, check_evidence, check_workload};
use crate::fault::Fault;
use crate::text::{Compared, ReadError, read};

/// The bytes of a certificate, and what it is to be held against.
pub struct Files<'b> {
    /// The certificate.
    pub certificate: &'b [u8],
    /// The workload that it should be for, if that is to be checked.
    pub workload: Option<&'b mut dyn Read>,
    /// The evidence that its costs should come from, if that is to be checked. It is read twice, so it
    /// is no pipe.
    pub evidence: Option<&'b mut File>,
}

/// Reads and checks a certificate. The inner value is what it proves, in words, or the first thing in it
/// that does not hold.
///
/// Costs as [`check`]; blocks while the other files are read.
///
/// # Errors
/// The bytes are no certificate; another file cannot be read.
pub fn verify(files: Files<'_>) -> Result<Result<String, Fault>, ReadError> {
    let (certificate, intact) = read(files.certificate)?;
    // A content that was changed and holds together is told last: a fault with a place says more.
    match check(&certificate).and(intact) {
        Ok(()) => compared(&certificate, files),
        Err(fault) => Ok(Err(fault)),
    }
}

/// What it proves, and of which files.
fn compared(
    certificate: &Certificate,
    files: Files<'_>,
) -> Result<Result<String, Fault>, ReadError> {
    let failed = |what| move |cause| ReadError::Compared { what, cause: Box::new(cause) };
    let workload = match files.workload {
        Some(file) => {
            match check_workload(certificate, file).map_err(failed(Compared::Workload))? {
                Ok(()) => {
                    "the workload file has the hash in it; that what is asked here is what the file says was \
                 not compared"
                }
                Err(fault) => return Ok(Err(fault)),
            }
        }
        None => "the hash of the workload file was not compared: --workload FILE does",
    };
    let evidence = match (files.evidence, certificate.evidence) {
        (Some(file), _) => {
            match check_evidence(certificate, file).map_err(failed(Compared::Evidence))? {
                Ok(found) => costs(&found),
                Err(fault) => return Ok(Err(fault)),
            }
        }
        (None, Some(_)) => {
            "where the costs come from was not compared: --evidence FILE does".to_owned()
        }
        (None, None) => "there is no evidence to compare the costs with".to_owned(),
    };
    Ok(Ok(format!(
        "{}\nvalid: every number and every inequality was recomputed\n{workload}\n{evidence}",
        account(certificate).trim_end()
    )))
}

fn costs(found: &EvidenceAccount) -> String {
    let EvidenceAccount { recomputed, taken, declared } = found;
    let mut text = format!(
        "the evidence is the one that was used: the costs of {} models are its longest samples plus margin",
        recomputed.len()
    );
    if !taken.is_empty() {
        text += &format!("; made by an estimator, and not recomputed: {}", taken.join(", "));
    }
    if !declared.is_empty() {
        text += &format!("; declared: {}", declared.join(", "));
    }
    text
}
