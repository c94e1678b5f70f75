//! What writing and reading one event of a trace costs, off the hot path.

use std::hint::black_box;
use std::io::{Sink, sink};
use std::time::Instant;

use aegis_benches::{Sampling, traffic};
use aegis_trace::Record;
use aegis_trace::export::format::{TraceFormat, TraceWriter};
use aegis_trace::export::json::{Reader, Writer};
use criterion::{Criterion, criterion_group, criterion_main};

/// How many events one log holds.
const EVENTS: usize = 50_000;

fn trace_export(criterion: &mut Criterion) {
    let mut group = aegis_benches::group(criterion, "trace_export", Sampling::BATCHES);
    let records: Vec<Record> = traffic::records().take(EVENTS).collect();
    let formats = [
        ("baseline", TraceFormat::JsonLines), // serde_json, which writes the log.
        ("perfetto", TraceFormat::Perfetto),
        ("chrome", TraceFormat::Chrome),
    ];
    for (name, format) in formats {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|events| {
                let mut writer = new_writer(format);
                let mut left = records.iter();
                let start = Instant::now();
                for _ in 0..events {
                    let record = left.next().unwrap_or_else(|| {
                        writer = new_writer(format);
                        left = records.iter();
                        left.next().expect("there are records")
                    });
                    writer.write(std::slice::from_ref(record)).expect("a sink takes all");
                }
                start.elapsed()
            });
        });
    }
    let log = log(&records);
    group.bench_function("read", |bencher| {
        bencher.iter_custom(|events| {
            let mut reader = Reader::open(&log[..]).expect("our own log");
            let start = Instant::now();
            for _ in 0..events {
                match reader.next().expect("our own log") {
                    Some(record) => drop(black_box(record)),
                    None => reader = Reader::open(&log[..]).expect("our own log"),
                }
            }
            start.elapsed()
        });
    });
    group.finish();
}

fn new_writer(format: TraceFormat) -> TraceWriter<Sink> {
    TraceWriter::new(format, sink()).expect("a sink takes all")
}

fn log(records: &[Record]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).expect("memory");
    writer.write(records).expect("memory");
    writer.finish(0).expect("memory")
}

criterion_group!(benches, trace_export);
criterion_main!(benches);
