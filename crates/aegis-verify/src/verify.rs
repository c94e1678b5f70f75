//! From files to an answer: what `aegis verify` and `aegis-verify` do.

use crate::account::account;
use crate::certificate::Certificate;
use crate::check::check;
use crate::evidence::{EvidenceAccount, check_evidence, check_workload};
use crate::fault::Fault;
use crate::text::{ReadError, read};

/// The bytes of a certificate and of what it is to be held against.
#[derive(Clone, Copy, Debug)]
pub struct Files<'b> {
    /// The certificate.
    pub certificate: &'b [u8],
    /// The workload that it should be for, if that is to be checked.
    pub workload: Option<&'b [u8]>,
    /// The evidence that its costs should come from, if that is to be checked.
    pub evidence: Option<&'b [u8]>,
}

/// Reads and checks a certificate. The inner value is what it proves, in words, or the first thing in it
/// that does not hold.
///
/// Costs as [`check`]; does not block.
///
/// # Errors
/// Permanent: the bytes are no certificate.
pub fn verify(files: Files<'_>) -> Result<Result<String, Fault>, ReadError> {
    let (certificate, intact) = read(files.certificate)?;
    Ok(held(&certificate, intact, files))
}

fn held(
    certificate: &Certificate,
    intact: Result<(), Fault>,
    files: Files<'_>,
) -> Result<String, Fault> {
    check(certificate)?;
    // A content that was changed and holds together is told last: a fault with a place says more.
    intact?;
    let workload = match files.workload {
        Some(file) => {
            check_workload(certificate, file)?;
            "the workload file is the one it is for"
        }
        None => "which workload file it is for was not compared: --workload FILE does",
    };
    let evidence = match (files.evidence, certificate.evidence) {
        (Some(file), _) => costs(&check_evidence(certificate, file)?),
        (None, Some(_)) => {
            "where the costs come from was not compared: --evidence FILE does".to_owned()
        }
        (None, None) => "there is no evidence to compare the costs with".to_owned(),
    };
    Ok(format!(
        "{}\nvalid: every number and every inequality was recomputed\n{workload}\n{evidence}",
        account(certificate).trim_end()
    ))
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
