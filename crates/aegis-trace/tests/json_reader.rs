//! The reader of JSON Lines against the general parser, and against files that are damaged.

mod records;

use aegis_trace::export::json::{Ending, Reader, Writer};
use aegis_trace::{Record, TraceError};
use proptest::prelude::*;

const HEADER: &str = "{\"aegis_trace\":2}\n";

fn written(records: &[Record]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).expect("memory takes all");
    writer.write(records).expect("memory takes all");
    writer.finish(0).expect("memory takes all")
}

/// Every record up to the end or the first fault.
fn read(bytes: &[u8]) -> Result<(Vec<Record>, Option<Ending>), TraceError> {
    let mut reader = Reader::open(bytes)?;
    let mut records = Vec::new();
    while let Some(record) = reader.next()? {
        records.push(record);
    }
    Ok((records, reader.ending()))
}

/// One change of a file.
#[derive(Clone, Debug)]
enum Damage {
    Flip { at: prop::sample::Index, bit: u8 },
    Cut { at: prop::sample::Index },
    Insert { at: prop::sample::Index, byte: u8 },
    Remove { at: prop::sample::Index },
    Repeat { at: prop::sample::Index, copied: usize },
}

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<prop::sample::Index>;
    prop_oneof![
        (at(), 0..8u8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        at().prop_map(|at| Damage::Cut { at }),
        (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Insert { at, byte }),
        at().prop_map(|at| Damage::Remove { at }),
        (at(), 1..200usize).prop_map(|(at, copied)| Damage::Repeat { at, copied }),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let length = bytes.len();
        match *self {
            Self::Flip { at, bit } => bytes[at.index(length)] ^= 1 << bit,
            Self::Cut { at } => bytes.truncate(at.index(length)),
            Self::Insert { at, byte } => bytes.insert(at.index(length), byte),
            Self::Remove { at } => drop(bytes.remove(at.index(length))),
            Self::Repeat { at, copied } => {
                let from = at.index(length);
                let again = bytes[from..length.min(from + copied)].to_vec();
                bytes.splice(from..from, again);
            }
        }
    }
}

/// Every key of a line of JSON, with those around it.
fn keys(line: &[u8]) -> Vec<String> {
    fn gather(value: &serde_json::Value, at: &str, keys: &mut Vec<String>) {
        if let Some(fields) = value.as_object() {
            for (key, value) in fields {
                let at = format!("{at}/{key}");
                gather(value, &at, keys);
                keys.push(at);
            }
        }
        for (n, value) in value.as_array().into_iter().flatten().enumerate() {
            gather(value, &format!("{at}/{n}"), keys);
        }
    }
    let mut keys = Vec::new();
    gather(&serde_json::from_slice(line).expect("it was read"), "", &mut keys);
    keys
}

/// The place that an error names, as line and byte.
fn place(error: &TraceError) -> Option<(u64, u64)> {
    match error {
        TraceError::Malformed { line, byte, .. }
        | TraceError::TooLong { line, byte, .. }
        | TraceError::AfterEnd { line, byte } => Some((*line, *byte)),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_written_is_read(records in prop::collection::vec(records::arbitrary(), 0..40)) {
        let (back, ending) = read(&written(&records)).expect("our own output");
        let closed = Ending::Closed { records: records.len() as u64, dropped: 0 };
        prop_assert_eq!(back, records);
        prop_assert_eq!(ending, Some(closed));
    }

    /// The twin: the general parser, line by line. The reader takes a line if and only if the parser
    /// does, and as the same record.
    #[test]
    fn a_damaged_line_is_read_as_the_general_parser_reads_it(
        record in records::arbitrary(),
        damages in prop::collection::vec(damage(), 0..3),
    ) {
        let mut line = serde_json::to_vec(&record).expect("records serialise");
        damages.iter().for_each(|damage| damage.apply(&mut line));
        line.retain(|byte| *byte != b'\n');
        prop_assume!(!line.starts_with(b"{\"end\""));
        line.push(b'\n');
        let file = [HEADER.as_bytes(), &line].concat();
        let ours = read(&file).map(|(records, _)| records).ok();
        let theirs = serde_json::from_slice::<Record>(&line).ok().filter(|record| {
            // What the parser passed over would be lost.
            let (line, read) = (keys(&line), keys(&serde_json::to_vec(record).expect("it is")));
            line.iter().all(|key| read.contains(key))
        });
        let theirs = theirs.map(|record| vec![record]);
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn a_damaged_file_is_read_or_refused_with_a_place_inside_it(
        records in prop::collection::vec(records::arbitrary(), 1..10),
        damages in prop::collection::vec(damage(), 1..4),
    ) {
        let mut file = written(&records);
        damages.iter().for_each(|damage| damage.apply(&mut file));
        match read(&file) {
            Ok((_, ending)) => prop_assert!(ending.is_some()),
            Err(TraceError::NoHeader | TraceError::Version { .. }) => {}
            Err(error) => {
                let (line, byte) = place(&error).expect("faults of a line have a place");
                let before = &file[..usize::try_from(byte).expect("small")];
                let ends = before.iter().filter(|byte| **byte == b'\n').count() as u64;
                // A parser that wants more points behind the end of its line.
                prop_assert!(line == ends + 1 || line == ends, "line {line}, byte {byte}");
            }
        }
    }
}

#[test]
fn after_a_fault_the_next_line_is_read() {
    let file = format!("{HEADER}nonsense\n{{\"at\":1,\"by\":0,\"event\":\"idle\"}}\n");
    let mut reader = Reader::open(file.as_bytes()).expect("a header");
    let error = reader.next().expect_err("no event");
    assert_eq!(place(&error), Some((2, 19)));
    assert!(reader.next().expect("an event").is_some());
    assert!(reader.next().expect("the end").is_none());
    assert!(matches!(reader.ending(), Some(Ending::Cut { place }) if place.line == 4));
}
