//! Any bytes at all as the evidence of a certificate that names their hash: held to it, or faulted.

use aegis_verify::{Digest, check_evidence, read};

/// A certificate of two measured models.
const CERTIFICATE: &[u8] = include_bytes!("../seeds/certificate/two_models.json");

pub(crate) fn run(bytes: &[u8]) {
    let (mut certificate, _) = read(CERTIFICATE).expect("a certificate");
    certificate.evidence = Some(Digest::of(bytes));
    match check_evidence(&certificate, std::io::Cursor::new(bytes)).expect("memory can be read") {
        Ok(account) => {
            let told = [&account.recomputed, &account.taken, &account.declared];
            let told: usize = told.iter().map(|names| names.len()).sum();
            assert_eq!(told, certificate.models.len());
        }
        Err(fault) => assert!(!fault.to_string().is_empty()),
    }
}
