//! The command `aegis wcet`, from samples to answers and exit statuses.

use std::fs;
use std::io::Write;
use std::process::{Command, Output, Stdio};

use expect_test::expect;

/// 600 times around 1 ms, spread like the sum of four numbers of SplitMix64.
fn samples() -> String {
    let mut state = 7u64;
    let mut number = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) >> 48
    };
    let mut time = || 900_000 + (0..4).map(|_| number()).sum::<u64>();
    (0..600).map(|_| format!("{}\n", time())).collect()
}

fn wcet(input: &str, arguments: &[&str]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_aegis"))
        .args(["wcet", "-"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("aegis starts");
    // A refusal may end the program before it has read everything.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    child.wait_with_output().expect("aegis ends")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

fn json(input: &str, arguments: &[&str]) -> serde_json::Value {
    let output = wcet(input, &[arguments, &["--json"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON alone")
}

const ASKED: [&str; 4] = ["--coverage", "0.99", "--confidence", "0.99"];

#[test]
fn the_answer_has_the_documented_keys() {
    let answer = json(&samples(), &ASKED);
    let keys: Vec<&str> =
        answer.as_object().expect("an object").keys().map(String::as_str).collect();
    let mut expected = vec![
        "bound_ns",
        "kind",
        "method",
        "claim",
        "coverage",
        "confidence",
        "lower_ns",
        "supported_coverage",
        "n",
        "n_eff",
        "diagnose",
        "order_statistic",
        "evt",
        "estimates",
        "tests",
        "warnings",
    ];
    expected.sort_unstable();
    let mut keys = keys;
    keys.sort_unstable();
    assert_eq!(keys, expected);
    assert_eq!(answer["kind"], "order_statistic");
    assert_eq!(answer["claim"], true);
    assert_eq!(answer["coverage"], 0.99);
    assert_eq!((&answer["n"], &answer["n_eff"]), (&600.into(), &600.into()));
    assert_eq!(answer["bound_ns"], answer["order_statistic"]);
    for key in [
        "bound_ns",
        "return_level_ns",
        "lower_ns",
        "xi",
        "xi_lower",
        "xi_upper",
        "sigma",
        "threshold_ns",
    ] {
        assert!(answer["evt"][key].is_number(), "{key}: {answer}");
    }
}

#[test]
fn every_method_answers_with_its_kind() {
    for (method, kind, claim) in [
        ("auto", "order_statistic", true),
        ("order", "order_statistic", true),
        ("gpd", "evt", true),
        ("gev", "evt", false),
        ("margin", "margin", false),
    ] {
        let answer = json(&samples(), &[&ASKED[..], &["--method", method]].concat());
        assert_eq!((&answer["kind"], &answer["claim"]), (&kind.into(), &claim.into()), "{method}");
        assert_eq!(answer["method"], method);
    }
}

#[test]
fn a_report_for_people_says_the_same() {
    let shown = text(&wcet(&samples(), &ASKED).stdout);
    let head: Vec<&str> = shown.lines().take(4).collect();
    expect![[r#"
        bound: 1.134 ms (1133361 ns), by order statistic
        claim: a share of 0.99 of jobs stays below it, with confidence 0.99
        the time that this share does not exceed lies between 1.103 ms and 1.134 ms, each end with that confidence
        600 samples; their maximum covers 0.992354 at that confidence"#]]
    .assert_eq(&head.join("\n"));
    assert!(shown.contains("| generalised Pareto |"), "{shown}");
    assert!(shown.contains("| bursts: slowest fiftieth "), "{shown}");
}

#[test]
fn a_lost_claim_is_an_answer_unless_a_claim_is_required() {
    let few: String = samples().lines().take(100).map(|line| format!("{line}\n")).collect();
    let arguments = ["--coverage", "99%", "--confidence", "99%", "--method", "order"];
    let output = wcet(&few, &arguments);
    assert_eq!(output.status.code(), Some(0));
    let shown = text(&output.stdout);
    assert!(shown.contains("note: not enough samples: have 100, need 459"), "{shown}");
    let output = wcet(&few, &[&arguments[..], &["--require-claim"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let output = wcet(&samples(), &[&ASKED[..], &["--require-claim"]].concat());
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn broken_samples_exit_with_2_and_name_the_line() {
    for (input, told) in [
        ("", "the input is empty"),
        ("ns\n", "only a header"),
        ("ns\n5\nfoo\n", "line 3: `foo` is not a number"),
        ("5\n-1\n", "line 2: `-1` is negative"),
        ("5\n0\n", "line 2: a time of zero"),
        ("l000\n5\n", "line 1: `l000` is not a number"),
        ("5\n1e9\n", "line 2: `1e9` is not written in digits alone; write `1000000000`"),
        ("5\nNaN\n", "line 2: `NaN` is not a number"),
    ] {
        let output = wcet(input, &ASKED);
        assert_eq!(output.status.code(), Some(2), "{input:?}");
        assert!(output.stdout.is_empty());
        let shown = text(&output.stderr);
        assert!(shown.contains(told), "{input:?}: {shown}");
    }
}

#[test]
fn a_skipped_header_is_told_beside_the_answer() {
    let with_header = format!("time_ns\n{}", samples());
    let output = wcet(&with_header, &[&ASKED[..], &["--json"]].concat());
    assert_eq!(text(&output.stderr), "the first line, `time_ns`, was skipped as a header\n");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON alone");
    assert_eq!(answer, json(&samples(), &ASKED));
}

#[test]
fn shares_outside_of_zero_and_one_are_refused() {
    for share in ["0", "1", "1.5", "NaN", "-0.5", "99.9", ""] {
        let output = wcet("5\n", &["--coverage", share, "--confidence", "0.9"]);
        assert_eq!(output.status.code(), Some(2), "{share}");
    }
}

#[test]
fn a_file_is_read_and_a_missing_one_named() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("times.csv"), samples()).expect("a new file");
    let aegis = |file: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aegis"));
        command.current_dir(folder.path()).args(["wcet", file, "--json"]).args(ASKED);
        command.output().expect("aegis runs")
    };
    let answer: serde_json::Value =
        serde_json::from_slice(&aegis("times.csv").stdout).expect("JSON alone");
    assert_eq!(answer, json(&samples(), &ASKED));
    let missing = aegis("nowhere.csv");
    assert_eq!(missing.status.code(), Some(2));
    assert!(text(&missing.stderr).contains("nowhere.csv"));
}
