//! Any bytes at all as a log: read, or refused with a place inside them.

use aegis_trace::TraceError;
use aegis_trace::export::json::Reader;

pub(crate) fn run(bytes: &[u8]) {
    let Ok(mut reader) = Reader::open(bytes) else { return };
    loop {
        match reader.next() {
            Ok(Some(_)) => {}
            Ok(None) => break assert!(reader.ending().is_some()),
            Err(
                TraceError::Malformed { byte, .. }
                | TraceError::TooLong { byte, .. }
                | TraceError::AfterEnd { byte, .. },
            ) => assert!(byte <= bytes.len() as u64),
            Err(error) => panic!("memory does not fail: {error}"),
        }
    }
}
