//! Perfetto and Chrome traces, read back by others' decoders.

mod decoder;
mod records;
mod story;

use std::collections::BTreeMap;

use aegis_trace::export::End;
use aegis_trace::export::convert::{ConvertError, Converted, convert};
use aegis_trace::export::format::{TraceFormat, TraceWriter};
use aegis_trace::export::json::{Ending, Place, Reader, VERSION};
use aegis_trace::{
    JobId, ModelId, Nanos, Reason, Record, StageIndex, StreamId, Timestamp, TraceError, TraceEvent,
};
use decoder::Reading;
use expect_test::expect_file;
use proptest::prelude::*;
use serde_json::Value;

fn written(format: TraceFormat, records: &[Record], dropped: u64) -> Vec<u8> {
    let mut writer = TraceWriter::new(format, Vec::new()).expect("memory takes all");
    writer.write(records).expect("memory takes all");
    writer.finish(dropped).expect("memory takes all")
}

/// The picture of a log that ends in the middle of `records`.
fn cut(format: TraceFormat, records: &[Record]) -> Vec<u8> {
    let mut writer = TraceWriter::new(format, Vec::new()).expect("memory takes all");
    writer.write(records).expect("memory takes all");
    writer.conclude(End::Cut).expect("memory takes all")
}

/// The events of a Chrome trace, after holding its slices to nest.
fn chrome(bytes: &[u8]) -> Vec<Value> {
    let events: Vec<Value> = serde_json::from_slice(bytes).expect("a JSON array");
    let mut open: BTreeMap<u64, (f64, usize)> = BTreeMap::new();
    for event in &events {
        let track = event["tid"].as_u64().expect("a track");
        let at = event["ts"].as_f64();
        let (last, depth) = open.entry(track).or_default();
        match event["ph"].as_str().expect("a phase") {
            "B" => *depth += 1,
            "E" => *depth = depth.checked_sub(1).expect("something is open"),
            _ => continue,
        }
        assert!(*last <= at.expect("slices have times"), "time goes back on track {track}");
        *last = at.expect("as above");
    }
    assert!(open.values().all(|(_, depth)| *depth == 0), "something is open");
    events
}

#[test]
fn the_story_in_perfetto_is_as_it_was() {
    let reading = Reading::of(&written(TraceFormat::Perfetto, &story::records(), 3));
    reading.assert_closed();
    expect_file!["story/perfetto.txt"].assert_eq(&reading.lines);
}

#[test]
fn the_story_in_chrome_is_as_it_was() {
    let bytes = written(TraceFormat::Chrome, &story::records(), 3);
    chrome(&bytes);
    let text = String::from_utf8(bytes).expect("JSON is UTF-8");
    expect_file!["story/chrome.json"].assert_eq(&text);
}

#[test]
fn both_pictures_have_the_same_slices() {
    let records = story::records();
    let begun = chrome(&written(TraceFormat::Chrome, &records, 0));
    let begun = begun.iter().filter(|event| event["ph"] == "B").count();
    assert_eq!(begun, Reading::of(&written(TraceFormat::Perfetto, &records, 0)).slices);
}

/// While a stage waits on the device behind another, its job waits; it has the executor's row from the
/// end of the other on, and the device's from when it began.
#[test]
fn with_look_ahead_a_stage_is_shown_from_the_end_of_the_one_before_it_on() {
    let job = |model| JobId { model: ModelId::first(model), sequence: 0 };
    let at = |at, event| Record { at: Timestamp(at), by: 0, event };
    let submitted = |model, time| {
        let (arrival, release) = (Timestamp(time), Timestamp(time));
        at(time, TraceEvent::Submitted { job: job(model), arrival, release, deadline: None })
    };
    let dispatched = |model, time| {
        let (stage, stream) = (StageIndex(0), StreamId::first(0));
        let (waiting, why) = (0, Reason::OnlyReady);
        at(time, TraceEvent::Dispatched { job: job(model), stage, stream, waiting, why })
    };
    let ran = |model, noticed, started, finished| {
        let (started, finished) = (Timestamp(started), Timestamp(finished));
        let (job, stage) = (job(model), StageIndex(0));
        let [upload, download, ahead] = [Nanos::ZERO; 3];
        let done =
            TraceEvent::StageCompleted { job, stage, started, finished, upload, download, ahead };
        at(noticed, done)
    };
    let completed = |model, time| {
        let (response, execution) = (Nanos(1), Nanos(1));
        at(time, TraceEvent::Completed { job: job(model), response, execution })
    };
    let config = TraceEvent::Configured { what: Box::new(records::executor(true)) };
    let records = [
        at(0, config),
        submitted(0, 1_000),
        dispatched(0, 1_000),
        submitted(1, 2_000),
        dispatched(1, 3_000),
        ran(0, 30_000, 1_500, 28_000),
        completed(0, 30_000),
        ran(1, 52_000, 28_000, 50_000),
        completed(1, 52_000),
    ];
    let events = chrome(&written(TraceFormat::Chrome, &records, 0));
    let track = |named: &str| {
        let named = events.iter().find(|event| event["args"]["name"] == named).expect("a track");
        named["tid"].clone()
    };
    let slices = |named: &str| {
        let track = track(named);
        let slices = events.iter().filter(|event| event["tid"] == track);
        let slices = slices.filter(|event| event["ph"] == "B" || event["ph"] == "E");
        slices.map(|event| event["ts"].as_f64().expect("a time")).collect::<Vec<_>>()
    };
    assert_eq!(slices("device"), [1.0, 30.0, 30.0, 52.0]);
    assert_eq!(slices("stream s0"), [1.5, 28.0, 28.0, 50.0]);
    // The job, its waiting until the end of the other one, its stage.
    assert_eq!(slices("model m1"), [2.0, 2.0, 30.0, 30.0, 52.0, 52.0]);
}

/// Copies are slices in that of their stage; those of a damaged trace are cut to it.
#[test]
fn copies_are_shown_within_their_stage() {
    let job = JobId { model: ModelId::first(0), sequence: 0 };
    let (stage, stream) = (StageIndex(0), aegis_trace::StreamId::first(0));
    let drawn = |[started, finished]: [u64; 2], [upload, download]: [u64; 2]| {
        let why = aegis_trace::Reason::OnlyReady;
        let dispatched = TraceEvent::Dispatched { job, stage, stream, waiting: 0, why };
        let (started, finished) = (Timestamp(started), Timestamp(finished));
        let (upload, download, ahead) = (Nanos(upload), Nanos(download), Nanos::ZERO);
        let ran =
            TraceEvent::StageCompleted { job, stage, started, finished, upload, download, ahead };
        let records = [(1_000, dispatched), (60_000, ran)].map(|(at, event)| Record {
            at: Timestamp(at),
            by: 0,
            event,
        });
        let events = chrome(&written(TraceFormat::Chrome, &records, 0));
        let stream = events.iter().find(|event| event["args"]["name"] == "stream s0");
        let track = stream.expect("a track")["tid"].clone();
        let slices = events
            .iter()
            .filter(|event| event["tid"] == track && (event["ph"] == "B" || event["ph"] == "E"));
        let told = |event: &Value| match event["name"].as_str() {
            Some(name) => format!("{name} {}", event["ts"]),
            None => format!("{}", event["ts"]),
        };
        slices.map(told).collect::<Vec<_>>().join(", ")
    };
    let whole = drawn([2_000, 50_000], [7_000, 3_000]);
    assert_eq!(whole, "m0 2.0, upload 2.0, 9.0, download 47.0, 50.0, 50.0");
    assert_eq!(drawn([2_000, 50_000], [0, 3_000]), "m0 2.0, download 47.0, 50.0, 50.0");
    assert_eq!(drawn([2_000, 50_000], [0, 0]), "m0 2.0, 50.0");
    let too_long = drawn([2_000, 50_000], [40_000, 30_000]);
    assert_eq!(too_long, "m0 2.0, upload 2.0, 42.0, download 42.0, 50.0, 50.0");
    assert_eq!(drawn([2_000, 50_000], [u64::MAX, u64::MAX]), "m0 2.0, upload 2.0, 50.0, 50.0");
    assert_eq!(drawn([50_000, 2_000], [5, 5]), "m0 50.0, 50.0", "it ended before it began");
}

#[test]
fn a_picture_cut_at_any_packet_is_readable_until_there() {
    let whole = written(TraceFormat::Perfetto, &story::records(), 0);
    let all = Reading::of(&whole).lines;
    // Packets end where the next one begins: with tag 1 of the outermost message.
    let mut from = 0;
    while from < whole.len() {
        let length = usize::from(whole[from + 1] & 0x7f) + (usize::from(whole[from + 2]) << 7);
        from += 3 + length;
        let lines = Reading::of(&whole[..from]).lines;
        assert!(all.starts_with(&lines), "cut at byte {from}");
    }
}

fn converted(
    log: &[u8],
    format: TraceFormat,
    picture: &mut Vec<u8>,
) -> Result<Converted, ConvertError> {
    convert(&mut Reader::open(log).expect("a header"), format, picture)
}

#[test]
fn conversion_says_what_it_read() {
    let records = story::records();
    let log = written(TraceFormat::JsonLines, &records, 7);
    let mut picture = Vec::new();
    let read = converted(&log, TraceFormat::Perfetto, &mut picture).expect("our own log");
    let count = records.len() as u64;
    let ending = Ending::Closed { records: count, dropped: 7 };
    assert_eq!(read, Converted { version: VERSION, records: count, ending });
    assert_eq!(picture, written(TraceFormat::Perfetto, &records, 7));
}

#[test]
fn a_log_that_was_cut_is_converted_up_to_there() {
    let records = story::records();
    let log = written(TraceFormat::JsonLines, &records, 0);
    let half = log.len() / 2;
    let mut picture = Vec::new();
    let read = converted(&log[..half], TraceFormat::Chrome, &mut picture).expect("a prefix");
    let whole = log[..half].iter().filter(|byte| **byte == b'\n').count();
    assert_eq!(read.records, whole as u64 - 1);
    let last = log[..half].iter().rposition(|byte| *byte == b'\n').expect("lines") as u64 + 1;
    let place = Place { line: whole as u64 + 1, byte: last };
    assert_eq!(read.ending, Ending::Cut { place });
    let before = usize::try_from(read.records).expect("few");
    assert_eq!(picture, cut(TraceFormat::Chrome, &records[..before]));
}

#[test]
fn a_fault_in_the_log_ends_the_picture_there_and_names_the_place() {
    let records = story::records();
    let log = String::from_utf8(written(TraceFormat::JsonLines, &records, 0)).expect("JSON");
    let lines: Vec<_> = log.lines().collect();
    let broken = [&lines[..5], &["{\"at\":5,\"by\":0}"], &lines[5..]].concat().join("\n");
    let mut picture = Vec::new();
    let error =
        converted(broken.as_bytes(), TraceFormat::Chrome, &mut picture).expect_err("a fault");
    assert!(
        matches!(error, ConvertError::Input(TraceError::Malformed { line: 6, .. })),
        "{error:?}"
    );
    assert_eq!(picture, cut(TraceFormat::Chrome, &records[..4]));
}

#[test]
fn a_stream_that_stays_open_for_ever_is_refused_and_not_kept() {
    let submitted = |model, sequence| {
        let job = JobId { model: ModelId::first(model), sequence };
        let at = Timestamp(sequence);
        let event = TraceEvent::Submitted { job, arrival: at, release: at, deadline: None };
        Record { at, by: 0, event }
    };
    // One model: the oldest jobs give way, since no model has so many slots.
    let records: Vec<_> = (0..10_000).map(|sequence| submitted(0, sequence)).collect();
    let reading = Reading::of(&written(TraceFormat::Perfetto, &records, 0));
    assert_eq!(reading.slices, 20_000);
    // As many models as there can be: too much for any run.
    let mut writer = TraceWriter::new(TraceFormat::Perfetto, std::io::sink()).expect("a sink");
    let refused = (0..=u16::MAX).find_map(|model| {
        (0..2).find_map(|sequence| writer.write(&[submitted(model, sequence)]).err())
    });
    let said = refused.expect("a limit").to_string();
    expect_test::expect![[
        "the trace has more than 65536 open jobs at once, which no run of this program has"
    ]]
    .assert_eq(&said);
}

#[test]
fn jobs_of_a_trace_with_losses_are_drawn_from_what_is_left() {
    let job = JobId { model: ModelId::first(3), sequence: 9 };
    let (started, finished) = (Timestamp(20), Timestamp(30));
    let (upload, download, ahead) = (Nanos(3), Nanos(2), Nanos(1));
    let stage = StageIndex(0);
    let left = [
        TraceEvent::Dispatched {
            job,
            stage,
            stream: aegis_trace::StreamId::first(0),
            waiting: 0,
            why: aegis_trace::Reason::OnlyReady,
        },
        TraceEvent::StageCompleted { job, stage, started, finished, upload, download, ahead },
    ];
    let records: Vec<_> = left
        .into_iter()
        .zip([10, 40])
        .map(|(event, at)| Record { at: Timestamp(at), by: 0, event })
        .collect();
    let reading = Reading::of(&written(TraceFormat::Perfetto, &records, 2));
    reading.assert_closed();
    for expected in ["model m3", "stream s0", "begin stage 0", "upload ahead", "events_lost: 2"] {
        assert!(reading.lines.contains(expected), "{expected} is not in {}", reading.lines);
    }
}

#[test]
fn a_picture_of_a_log_that_is_not_whole_says_what_is_known_of_the_rest() {
    let idle = "{\"aegis_trace\":3}\n{\"at\":1,\"by\":0,\"event\":\"idle\"}\n";
    let end_of = |closing: &str| {
        let log = format!("{idle}{closing}");
        let mut picture = Vec::new();
        let mut reader = Reader::open(log.as_bytes()).expect("a header");
        convert(&mut reader, TraceFormat::Chrome, &mut picture).expect("a log");
        let picture: Vec<serde_json::Value> = serde_json::from_slice(&picture).expect("JSON");
        picture.last().expect("an end")["args"].to_string()
    };
    expect_test::expect![[r#"{"records":1,"unfinished":"yes"}"#]].assert_eq(&end_of(""));
    let closing = |records: u64| format!("{{\"end\":{{\"records\":{records},\"dropped\":4}}}}\n");
    expect_test::expect![[r#"{"events_lost":4,"records":1}"#]].assert_eq(&end_of(&closing(1)));
    expect_test::expect![[r#"{"events_lost":4,"records":1,"records_missing":2}"#]]
        .assert_eq(&end_of(&closing(3)));
    expect_test::expect![[r#"{"events_lost":4,"records":1,"records_missing":-1}"#]]
        .assert_eq(&end_of(&closing(0)));
}

proptest! {
    /// Whatever the records say, a reader finds slices that nest, names that it knows, tracks that
    /// were declared, and packets of a bounded size.
    #[test]
    fn any_records_at_all_give_a_well_formed_picture(
        records in prop::collection::vec(records::arbitrary(), 0..120),
        dropped in any::<u64>(),
    ) {
        Reading::of(&written(TraceFormat::Perfetto, &records, dropped)).assert_closed();
        chrome(&written(TraceFormat::Chrome, &records, dropped));
    }
}
