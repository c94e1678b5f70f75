//! Any bytes at all as a log, behind a good header: drawn in both formats as far as they go.

use aegis_trace::export::convert::convert;
use aegis_trace::export::format::TraceFormat;
use aegis_trace::export::json::{Reader, VERSION};

pub(crate) fn run(bytes: &[u8]) {
    let header = format!("{{\"aegis_trace\":{VERSION}}}\n");
    let log = [header.as_bytes(), bytes].concat();
    for format in [TraceFormat::Perfetto, TraceFormat::Chrome] {
        let mut reader = Reader::open(&log[..]).expect("a good header");
        let mut picture = Vec::new();
        let whole = convert(&mut reader, format, &mut picture).is_ok();
        assert!(!picture.is_empty());
        // What is closed is an array, whatever was drawn.
        assert!(!whole || format == TraceFormat::Perfetto || picture.ends_with(b"\n]\n"));
    }
}
