//! Any bytes at all as a certificate: proved, faulted with a place, or refused as no certificate.
#![no_main]

use aegis_verify::{Files, verify};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let files = Files { certificate: bytes, workload: None, evidence: None };
    if let Ok(Err(fault)) = verify(files) {
        assert!(!fault.to_string().is_empty());
    }
});
