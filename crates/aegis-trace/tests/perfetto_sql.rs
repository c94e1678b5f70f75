//! What Perfetto's own reader finds in the pictures of a known run.

mod story;
#[expect(dead_code, reason = "shared with a test that asks for single numbers")]
mod trace_processor;

use std::collections::BTreeMap;
use std::path::PathBuf;

use aegis_trace::export::format::{TraceFormat, TraceWriter};
use expect_test::expect;
use serde_json::Value;
use tempfile::TempDir;
use trace_processor::ask;

/// A picture of the story in a folder of its own.
fn picture(format: TraceFormat, name: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    let file = std::fs::File::create(&path).expect("a file");
    let mut writer = TraceWriter::new(format, file).expect("a disk with room");
    writer.write(&story::records()).expect("a disk with room");
    writer.finish(3).expect("a disk with room");
    (folder, path)
}

/// The rows of an answer, one line each.
fn lines(answer: &[Value]) -> String {
    let row = |row: &Value| {
        let cells: Vec<_> = row.as_object().expect("a row").values().map(cell).collect();
        cells.join(" | ") + "\n"
    };
    answer.iter().map(row).collect()
}

fn cell(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

const SLICES_BY_NAME: &str =
    "SELECT name, count(*) AS n, sum(dur) AS total FROM slice WHERE dur > 0 GROUP BY name";

#[test]
fn every_partition_stream_and_model_has_its_track() {
    let (_folder, path) = picture(TraceFormat::Perfetto, "story.pftrace");
    let tracks = "
        SELECT DISTINCT ifnull(parent.name, 'AegisRT') AS a_parent, track.name AS b_name
        FROM track LEFT JOIN track parent ON track.parent_id = parent.id
        WHERE track.name IS NOT NULL ORDER BY 1, 2";
    let answers = ask(&path, &[tracks]);
    expect![[r#"
        AegisRT | free memory
        AegisRT | memory of camera
        AegisRT | memory of lidar "front"
        AegisRT | memory of logger
        AegisRT | partition left
        AegisRT | partition right
        partition left | load of partition left
        partition left | model camera
        partition left | model lidar "front"
        partition left | queue depth of partition left
        partition left | stream s0
        partition right | load of partition right
        partition right | model logger
        partition right | queue depth of partition right
        partition right | stream s0
    "#]]
    .assert_eq(&lines(&answers[0]));
}

#[test]
fn slices_are_where_and_as_long_as_the_run_was() {
    let (_folder, path) = picture(TraceFormat::Perfetto, "story.pftrace");
    let on_device = "
        SELECT s.ts AS a_ts, s.dur AS b_dur, s.name AS c_name, p.name AS d_partition
        FROM slice s JOIN track t ON s.track_id = t.id JOIN track p ON t.parent_id = p.id
        WHERE t.name = 'stream s0' ORDER BY s.ts";
    let answers = ask(&path, &[SLICES_BY_NAME, on_device]);
    expect![[r#"
        5 | camera | 30880000
        3 | download | 300000
        7 | job | 95140000
        6 | lidar "front" | 105820000
        4 | logger | 21880000
        1 | out of budget | 8000000
        7 | queued | 8140000
        6 | stage 0 | 69000000
        2 | stage 1 | 6000000
        1 | suspended | 4000000
        4 | upload | 1200000
    "#]]
    .assert_eq(&lines(&answers[0]));
    expect![[r#"
        2050000 | 3940000 | lidar "front" | partition left
        2050000 | 300000 | upload | partition left
        3050000 | 8940000 | logger | partition right
        6050000 | 3940000 | camera | partition left
        6050000 | 300000 | upload | partition left
        9890000 | 100000 | download | partition left
        10050000 | 3940000 | lidar "front" | partition left
        13890000 | 100000 | download | partition left
        20050000 | 1940000 | logger | partition right
        30050000 | 10940000 | camera | partition left
        30050000 | 300000 | upload | partition left
        40890000 | 100000 | download | partition left
        50050000 | 44940000 | lidar "front" | partition left
        50050000 | 300000 | upload | partition left
    "#]]
    .assert_eq(&lines(&answers[1]));
}

#[test]
fn copies_lie_in_the_slice_of_their_stage() {
    let (_folder, path) = picture(TraceFormat::Perfetto, "story.pftrace");
    let copies = "
        SELECT stage.name AS a_model, copy.name AS b_copy, count(*) AS c_n, sum(copy.dur) AS d_total,
            sum(copy.ts = stage.ts) AS e_first,
            sum(copy.ts + copy.dur = stage.ts + stage.dur) AS f_last
        FROM slice copy JOIN slice stage ON copy.parent_id = stage.id
        WHERE copy.name IN ('upload', 'download') GROUP BY 1, 2 ORDER BY 1, 2";
    let answers = ask(&path, &[copies]);
    expect![[r#"
        camera | download | 2 | 200000 | 0 | 2
        camera | upload | 2 | 600000 | 2 | 0
        lidar "front" | download | 1 | 100000 | 0 | 1
        lidar "front" | upload | 2 | 600000 | 2 | 0
    "#]]
    .assert_eq(&lines(&answers[0]));
}

#[test]
fn every_job_has_its_deadline_bound_and_slack() {
    let (_folder, path) = picture(TraceFormat::Perfetto, "story.pftrace");
    let jobs = "
        SELECT extract_arg(arg_set_id, 'debug.job') AS a_job,
            extract_arg(arg_set_id, 'debug.deadline_ns') AS b_deadline,
            extract_arg(arg_set_id, 'debug.bound_ns') AS c_bound,
            extract_arg(arg_set_id, 'debug.proved_slack_ns') AS d_proved,
            extract_arg(arg_set_id, 'debug.response_ns') AS e_response,
            extract_arg(arg_set_id, 'debug.slack_ns') AS f_slack,
            dur AS g_dur
        FROM slice WHERE name = 'job' ORDER BY ts";
    let answers = ask(&path, &[jobs]);
    expect![[r#"
        m1#0 | 50020000 | 30000000 | 20000000 | 12020000 | 38000000 | 12020000
        m2#0 | null | null | null | 19020000 | null | 19020000
        m0#0 | 10020000 | 8000000 | 2000000 | 6020000 | 4000000 | 6020000
        m0#1 | 10020000 | 8000000 | 2000000 | 11020000 | -1000000 | 11020000
        m0#2 | 10020000 | 8000000 | 2000000 | null | null | 6020000
        m1#1 | 50020000 | 30000000 | 20000000 | null | null | 40020000
        m0#3 | 10020000 | 8000000 | 2000000 | null | null | 1020000
    "#]]
    .assert_eq(&lines(&answers[0]));
}

#[test]
fn arrows_lead_from_submission_over_the_device_to_completion() {
    let (_folder, path) = picture(TraceFormat::Perfetto, "story.pftrace");
    let flows = "
        SELECT o.ts AS a_ts, o.name AS b_from, i.name AS c_to
        FROM flow JOIN slice o ON slice_out = o.id JOIN slice i ON slice_in = i.id
        ORDER BY trace_id, o.ts";
    let answers = ask(&path, &[flows]);
    expect![[r#"
        1980000 | job | lidar "front"
        2050000 | lidar "front" | lidar "front"
        10050000 | lidar "front" | completed
        3980000 | job | camera
        6050000 | camera | completed
        2980000 | job | logger
        3050000 | logger | logger
        20050000 | logger | completed
        29980000 | job | camera
        30050000 | camera | completed
        37980000 | job | dropped
        49980000 | job | lidar "front"
        50050000 | lidar "front" | faulted
    "#]]
    .assert_eq(&lines(&answers[0]));
}

#[test]
fn decisions_have_their_reason_and_counters_their_values() {
    let (_folder, path) = picture(TraceFormat::Perfetto, "story.pftrace");
    let decisions = "
        SELECT ts AS a_ts, extract_arg(arg_set_id, 'debug.job') AS b_job,
            extract_arg(arg_set_id, 'debug.reason') AS c_reason,
            extract_arg(arg_set_id, 'debug.chosen') AS d_chosen,
            extract_arg(arg_set_id, 'debug.next') AS e_next
        FROM slice WHERE name = 'dispatch' ORDER BY ts, slice.id";
    let counters = "
        SELECT t.name AS a_name, t.unit AS b_unit, count(*) AS c_n, max(value) AS d_max,
            sum(value) AS e_sum
        FROM counter JOIN counter_track t ON track_id = t.id GROUP BY t.name, t.unit ORDER BY 1";
    let end = "
        SELECT extract_arg(arg_set_id, 'debug.events_lost') AS lost
        FROM slice WHERE name = 'end of trace'";
    let answers = ask(&path, &[decisions, counters, end]);
    expect![[r#"
        2000000 | m1#0 | only ready | null | null
        3000000 | m2#0 | background | null | null
        6000000 | m0#0 | earliest deadline | 14000000 | 52000000
        10000000 | m1#0 | only ready | null | null
        20000000 | m2#0 | background | null | null
        30000000 | m0#1 | only ready | null | null
        50000000 | m1#1 | only ready | null | null
        98000000 | m0#3 | most urgent | 3 | 7
    "#]]
    .assert_eq(&lines(&answers[0]));
    expect![[r#"
        free memory | bytes | 1 | 67108864 | 67108864
        load of partition left | % | 9 | 100 | 473
        load of partition right | % | 3 | 69 | 88
        memory of camera | bytes | 1 | 3145728 | 3145728
        memory of lidar "front" | bytes | 2 | 3145728 | 3145728
        memory of logger | bytes | 1 | 3145728 | 3145728
        queue depth of partition left | count | 14 | 2 | 9
        queue depth of partition right | count | 4 | 1 | 2
    "#]]
    .assert_eq(&lines(&answers[1]));
    expect![[r#"
        3
    "#]]
    .assert_eq(&lines(&answers[2]));
}

#[test]
fn the_chrome_picture_shows_the_same() {
    let (_one, perfetto) = picture(TraceFormat::Perfetto, "story.pftrace");
    let (_other, chrome) = picture(TraceFormat::Chrome, "story.json");
    let instants = "SELECT name, count(*) AS n FROM slice WHERE dur = 0 GROUP BY name";
    let counters = "SELECT count(*) AS n, sum(value) AS total FROM counter";
    let flows = "SELECT count(*) AS n FROM flow";
    let questions = [SLICES_BY_NAME, instants, counters, flows];
    let (ours, theirs) = (ask(&perfetto, &questions), ask(&chrome, &questions));
    let both: BTreeMap<_, _> = questions.iter().zip(ours.iter().zip(&theirs)).collect();
    for (question, (perfetto, chrome)) in both {
        assert_eq!(lines(perfetto), lines(chrome), "{question}");
    }
}
