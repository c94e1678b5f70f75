//! Any bytes at all as a certificate: proved, faulted with a place, or refused as no certificate.
//!
//! What is sealed and read is written as it was.

use aegis_verify::{Files, read, verify, write};

pub(crate) fn run(bytes: &[u8]) {
    let files = Files { certificate: bytes, workload: None, evidence: None };
    if let Ok(Err(fault)) = verify(files) {
        assert!(!fault.to_string().is_empty());
    }
    if let Ok((certificate, Ok(()))) = read(bytes) {
        assert!(write(&certificate).as_bytes() == bytes, "its seal is that of other bytes");
    }
}
