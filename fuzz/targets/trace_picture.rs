//! Any bytes at all as a log, behind a good header: drawn in both formats as far as they go.
#![no_main]

use aegis_trace::export::convert::convert;
use aegis_trace::export::format::TraceFormat;
use aegis_trace::export::json::Reader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let log = [b"{\"aegis_trace\":1}\n", bytes].concat();
    for format in [TraceFormat::Perfetto, TraceFormat::Chrome] {
        let mut reader = Reader::open(&log[..]).expect("a good header");
        let mut picture = Vec::new();
        let whole = convert(&mut reader, format, &mut picture).is_ok();
        assert!(!picture.is_empty());
        // What is closed is an array, whatever was drawn.
        assert!(!whole || format == TraceFormat::Perfetto || picture.ends_with(b"\n]\n"));
    }
});
