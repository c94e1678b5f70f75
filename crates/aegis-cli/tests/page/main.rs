//! The page of `aegis report`, looked at in a browser: what is rendered, not what was written.

mod browser;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use self::browser::Browser;

/// What says of a rendered page which of its elements are wrong.
const INSPECT: &str = include_str!("inspect.js");
/// What must be empty of that.
const PROBLEMS: [&str; 10] = [
    "overflow",
    "empty",
    "outside",
    "overlaps",
    "unlabelled",
    "tables",
    "duplicates",
    "dangling",
    "headings",
    "contrast",
];

/// A name that would do something if it were not escaped.
const HOSTILE: &str = r#"<script>alert(1)</script>"#;

fn admitted(model: u16, name: &str, service: &Value, bound: Option<u64>) -> Value {
    let mut what = json!({
        "name": name, "may_be_suspended": true, "compute": 0, "streams": 1, "slots": 2,
        "stages": [2_000_000], "overhead": 300_000, "bound": bound,
        "persistent": 1_048_576 * (u64::from(model) + 1), "scratch": 524_288,
    });
    let keys = service.as_object().expect("terms are an object").clone();
    what.as_object_mut().expect("it is one").extend(keys);
    json!({ "at": 10 + u64::from(model), "by": 1, "event": "admitted", "model": format!("m{model}"), "what": what })
}

/// A job from release to completion, as seven lines would say it; its stage runs at the end.
fn job(model: u16, number: u64, release: u64, response: u64, events: &mut Vec<Value>) {
    let (job, done) = (format!("m{model}#{number}"), release + response);
    let (started, finished) = (done - 1_500_000, done - 10_000);
    let mut push = |at: u64, mut event: Value| {
        event["at"] = at.into();
        event["by"] = 0.into();
        event["job"] = job.clone().into();
        events.push(event);
    };
    push(
        release,
        json!({ "event": "submitted", "arrival": release, "release": release, "deadline": release + 20_000_000 }),
    );
    push(
        started,
        json!({ "event": "dispatched", "stage": 0, "stream": "s0", "waiting": 1,
        "why": { "reason": "earliest_deadline", "chosen": release, "next": release + 1_000_000 } }),
    );
    push(
        done,
        json!({ "event": "stage_completed", "stage": 0, "started": started, "finished": finished }),
    );
    push(
        done,
        json!({ "event": "completed", "response": response, "execution": finished - started }),
    );
    if response > 20_000_000 {
        push(done, json!({ "event": "missed_deadline", "late": response - 20_000_000 }));
        push(
            done,
            json!({ "event": "bound_exceeded", "bound": 9_000_000, "response": response, "cause": "m1#3" }),
        );
        push(
            done,
            json!({ "event": "assumption_broken", "assumption": "execution_time", "assumed": 2_000_000, "observed": 2_500_000 }),
        );
    }
}

/// A run with everything in it: three models, one with a hostile name, a miss, a refusal, losses.
fn trace() -> String {
    let guaranteed = json!({ "service": "guaranteed", "period": 20_000_000, "deadline": 20_000_000, "jitter": 0, "priority": 0 });
    let mut events = vec![
        admitted(0, "camera", &guaranteed, Some(9_000_000)),
        admitted(1, HOSTILE, &guaranteed, Some(12_000_000)),
        admitted(
            2,
            "a_logger_with_quite_a_long_name_in_the_background",
            &json!({ "service": "background" }),
            None,
        ),
        json!({ "at": 20, "by": 1, "event": "refused", "what": { "name": "mapper", "why": {
            "refusal": "cost_exceeds_deadline", "model": "m3", "cost": 30_000_000, "deadline": 20_000_000 } } }),
    ];
    for number in 0..50 {
        let release = 1_000_000 + number * 20_000_000;
        job(0, number, release, 2_000_000 + number * 97_000, &mut events);
        job(1, number, release + 100_000, 4_000_000 + number % 7 * 500_000, &mut events);
        job(2, number, release + 200_000, 3_000_000, &mut events);
    }
    job(0, 50, 1_001_000_000, 21_000_000, &mut events);
    events.push(json!({ "at": 1_030_000_000, "by": 2, "event": "submission_refused", "model": "m2", "why": "no_slot" }));
    events.sort_by_key(|event| event["at"].as_u64());
    let mut lines = vec![json!({ "aegis_trace": 2 })];
    let count = events.len();
    lines.append(&mut events);
    lines.push(json!({ "end": { "records": count, "dropped": 0 } }));
    lines.iter().map(|line| format!("{line}\n")).collect()
}

struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new(trace: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("run.jsonl"), trace).expect("a file");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn report(&self, out: &str) -> Output {
        let mut aegis = Command::new(env!("CARGO_BIN_EXE_aegis"));
        aegis.args(["report", "run.jsonl", "--out", out]).current_dir(self.folder.path());
        aegis.output().expect("aegis starts")
    }

    /// The page, made.
    fn page(&self) -> PathBuf {
        let output = self.report("page.html");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        self.path("page.html")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

/// The page in a window, its facts; problems are failures.
fn look(browser: &mut Browser, page: &Path, width: u32, is_dark: bool) -> Value {
    browser.show(page, width, is_dark);
    let mut report = browser.evaluate(INSPECT);
    for problem in PROBLEMS {
        let where_ = format!("{problem}, {width} pixels wide, dark: {is_dark}");
        assert_eq!(report[problem], json!([]), "{where_}");
    }
    for event in &browser.events {
        let asked = &event["params"]["request"]["url"];
        let is_itself = asked.as_str().is_none_or(|url| url.starts_with("file://"));
        assert!(is_itself, "the page asked for {asked}");
        assert_ne!(event["method"], "Log.entryAdded", "the browser complains: {event:#}");
    }
    report["facts"].take()
}

#[test]
fn the_page_is_whole_in_every_window_and_in_dark() {
    let case = Case::new(&trace());
    let page = case.page();
    let mut browser = Browser::start();
    for width in [320, 480, 800, 1400] {
        let light = look(&mut browser, &page, width, false);
        let dark = look(&mut browser, &page, width, true);
        let brightness = |facts: &Value| facts["background"][0].as_u64().expect("a colour");
        assert!(brightness(&light) > 240 && brightness(&dark) < 40, "{light} {dark}");
        let card = &light["cards"][0];
        let is_beside = card["plot"]["right"].as_f64() < card["table"]["left"].as_f64();
        assert_eq!(is_beside, width > 832, "figures stand beside the plot where there is room");
        assert_eq!(light["scripts"], 0);
    }
}

#[test]
fn what_is_rendered_is_what_the_trace_says() {
    let case = Case::new(&trace());
    let page = case.page();
    let facts = look(&mut Browser::start(), &page, 1400, false);
    assert_eq!(
        facts["facts"],
        json!([
            "1 deadlines missed",
            "0 bounds violated, all assumptions intact",
            "1 bounds exceeded, an assumption broken",
            "1 assumptions broken",
            "1 models refused",
            "1 jobs without a result"
        ])
    );
    let camera =
        ["camera", "51", "1", "4.424", "21.000", "21.000", "9.000", "2.34", "20.000", "11.000", ""];
    let shown = &facts["overview"][0];
    for (column, expected) in camera.iter().enumerate().filter(|(column, _)| *column != 3) {
        assert_eq!(shown[column], *expected, "column {column} of {shown}");
    }
    let median: f64 = shown[3].as_str().expect("a figure").parse().expect("a number");
    assert!((4.425..4.425 * 1.01).contains(&median), "the 26th of 51 took 4.425 ms: {median}");
    assert_eq!(facts["overview"][1][0], HOSTILE, "as text, not as a script");
    let refused = "mapper: jitter + cost 30 ms > deadline 20 ms";
    assert_eq!(facts["refusals"][0][1], refused);
    assert_eq!(facts["refusals"][1][1], "turned away");
    assert_eq!(facts["findings"][0][4], "2.5 ms");
    assert_eq!(facts["memory"][1][1], "2 MiB");
    assert_eq!(facts["warnings"], json!([]));
}

#[test]
fn bars_and_marks_stand_where_the_times_are() {
    let case = Case::new(&trace());
    let page = case.page();
    let facts = look(&mut Browser::start(), &page, 1400, false);
    let number = |value: &Value| value.as_f64().expect("a place");
    let cards = facts["cards"].as_array().expect("a card for each model");
    assert_eq!(cards.len(), 3);
    for (card, jobs) in cards.iter().zip([51, 50, 50]) {
        let counted = card["jobs"].as_array().expect("bars").iter().filter_map(Value::as_u64);
        assert_eq!(counted.sum::<u64>(), jobs, "every job is in one bar: {card}");
        for bar in card["bars"].as_array().expect("bars") {
            assert!(number(&bar[1]) > number(&bar[0]) && number(&bar[2]) > 4.0, "{bar}");
        }
    }
    let camera = &cards[0];
    let (bound, deadline) = (number(&camera["bound"]), number(&camera["deadline"]));
    assert!(bound < deadline);
    // On a logarithmic axis equal ratios are equal distances: 9 to 20 against 2 to 21.
    let bars = camera["bars"].as_array().expect("bars");
    let last = bars.last().expect("the late one");
    assert!(number(&last[1]) > deadline, "the late job lies beyond the deadline");
    let early = bars.iter().filter(|bar| number(&bar[0]) < bound).count();
    assert_eq!(early, bars.len() - 1, "all others lie before the bound");
    assert!(cards[2]["bound"].is_null() && cards[2]["deadline"].is_null(), "nothing was promised");
}

#[test]
fn the_worst_window_is_drawn_to_scale() {
    let case = Case::new(&trace());
    let page = case.page();
    let facts = look(&mut Browser::start(), &page, 1400, false);
    let rows = facts["window"].as_array().expect("its table");
    let worst = rows.iter().find(|row| row[3] == "camera#50").expect("the job that missed");
    assert_eq!((&worst[0], &worst[1]), (&json!("19.500"), &json!("20.990")));
    assert_eq!(worst[6], "earliest deadline, by 1 ms");
    let gantt = facts["gantt"].as_array().expect("bars");
    let of =
        |kind: &str| gantt.iter().find(|bar| bar["kind"] == kind).expect("it is drawn").clone();
    let place = |bar: &Value, edge: &str| bar[edge].as_f64().expect("a place");
    let (whole, stage) = (of("waiting"), of("worst"));
    // The response is 21 ms, and the stage is the last 1.5 ms of it.
    let scale = (place(&whole, "right") - place(&whole, "left")) / 21.0;
    let length = place(&stage, "right") - place(&stage, "left");
    assert!((length / scale - 1.49).abs() < 0.05, "{length} at {scale} a millisecond");
    assert!((place(&stage, "left") - place(&whole, "left") - 19.5 * scale).abs() < 2.0);
}

#[test]
fn a_trace_that_is_not_whole_says_so_on_the_page() {
    let whole = trace();
    let cut = whole.lines().take(40).map(|line| format!("{line}\n")).collect::<String>();
    let case = Case::new(&cut);
    let output = case.report("page.html");
    assert!(text(&output.stdout).contains("the trace is not whole"), "{}", text(&output.stdout));
    let mut browser = Browser::start();
    let facts = look(&mut browser, &case.path("page.html"), 800, false);
    let warning = facts["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("cut short"), "{warning}");
    let lossy = whole.replace(r#""dropped":0"#, r#""dropped":7"#);
    let case = Case::new(&lossy);
    assert_eq!(case.report("page.html").status.code(), Some(1));
    let facts = look(&mut browser, &case.path("page.html"), 800, false);
    let warning = facts["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("7 events were lost"), "{warning}");
}

#[test]
fn an_empty_trace_has_a_page_too() {
    let case = Case::new("{\"aegis_trace\":2}\n{\"end\":{\"records\":0,\"dropped\":0}}\n");
    let facts = look(&mut Browser::start(), &case.page(), 480, true);
    assert_eq!(facts["overview"], json!([]));
}

#[test]
fn what_is_no_trace_is_refused_with_the_place_and_nothing_is_written() {
    let damaged = trace().replacen("\"event\":\"completed\"", "\"event\":\"complited\"", 1);
    let case = Case::new(&damaged);
    let output = case.report("page.html");
    assert_eq!(output.status.code(), Some(2));
    let line =
        damaged.lines().position(|line| line.contains("complited")).expect("it is there") + 1;
    assert!(
        text(&output.stderr).contains(&format!("line {line} of the trace")),
        "{}",
        text(&output.stderr)
    );
    assert!(!case.path("page.html").exists());
    let output = Case::new("no trace\n").report("page.html");
    assert!(text(&output.stderr).contains("no header of a trace"), "{}", text(&output.stderr));
}

#[test]
fn the_page_never_takes_the_place_of_the_trace() {
    let case = Case::new(&trace());
    let output = case.report("./run.jsonl");
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("would overwrite run.jsonl"), "{}", text(&output.stderr));
    assert_eq!(std::fs::read_to_string(case.path("run.jsonl")).expect("still there"), trace());
    let output = case.report("no/such/page.html");
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("no/such/page.html cannot be written"),
        "{}",
        text(&output.stderr)
    );
}

/// What is done to a good page, and the problem that must be found then.
const DAMAGES: [(&str, &str, &str); 10] = [
    ("<main", "<p style='width: 3000px; background: red'>wide</p><main", "overflow"),
    ("width=\"100%\"", "width=\"1\"", "empty"),
    ("text-anchor=\"start\"", "text-anchor=\"end\" style=\"font-size: 60px\"", "outside"),
    (
        "svg text { fill: var(--text); font-size: 12px; }",
        "svg text { font-size: 60px }",
        "overlaps",
    ),
    ("role=\"img\"", "", "unlabelled"),
    ("scope=\"row\"", "", "tables"),
    ("<main", "<p id='memory'></p><main", "duplicates"),
    ("href=\"#memory\"", "href=\"#nowhere\"", "dangling"),
    ("h3>", "h4>", "headings"),
    ("--soft: #4f5964", "--soft: #b0b0b0", "contrast"),
];

#[test]
fn the_inspection_finds_what_is_wrong() {
    let case = Case::new(&trace());
    let good = std::fs::read_to_string(case.page()).expect("a page");
    let mut browser = Browser::start();
    for (sound, damaged, problem) in DAMAGES {
        assert!(good.contains(sound), "{sound}");
        let page = case.path("damaged.html");
        std::fs::write(&page, good.replace(sound, damaged)).expect("a file");
        browser.show(&page, 480, false);
        let report = browser.evaluate(INSPECT);
        assert_ne!(report[problem], json!([]), "{damaged}");
    }
    let page = case.path("calling.html");
    let calling = good.replace("<main", "<img src='http://192.0.2.1/x.png' alt=''><main");
    std::fs::write(&page, calling).expect("a file");
    browser.show(&page, 480, false);
    let complains = |event: &Value| event["method"] == "Log.entryAdded";
    assert!(
        browser.events.iter().any(complains),
        "its own policy forbids it: {:#?}",
        browser.events
    );
}
