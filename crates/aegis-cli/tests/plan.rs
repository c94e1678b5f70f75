//! `aegis plan` as a user meets it: output, exit status, files, broken input.

use std::path::Path;
use std::process::{Command, Output};

use expect_test::expect;

/// Three buffers, of which two at most live together.
const TABLE: &str = "id,lower,upper,size\na,0,4,64\nb,2,6,32\nc,4,9,64\n";

struct Case {
    folder: tempfile::TempDir,
}

impl Case {
    fn new(table: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("table.csv"), table).expect("a file");
        Self { folder }
    }

    fn plan(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aegis"));
        let command = command.args(["plan", "table.csv"]).args(arguments);
        command.current_dir(self.folder.path()).output().expect("aegis starts")
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).expect("a file")
    }

    fn has(&self, name: &str) -> bool {
        Path::new(&self.folder.path().join(name)).exists()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

/// Standard output without the time, which differs from run to run.
fn shown(output: &Output) -> String {
    let lines = text(&output.stdout);
    let lines = lines.lines().filter(|line| !line.starts_with("time "));
    lines.fold(String::new(), |shown, line| shown + line + "\n")
}

#[test]
fn a_plan_is_printed_with_its_proof_and_written_with_its_offsets() {
    let case = Case::new(TABLE);
    let output = case.plan(&["--output", "out.csv", "--svg", "out.svg"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    expect![[r#"
        buffers      3, 160 B in all
        peak         96 (96 B)
        lower bound  96 (96 B): 2 buffers live at time 2
        gap          0.0 %
        method       forced, 0 search steps
        ended by     a proof
        yes: no plan has a lower peak
    "#]]
    .assert_eq(&shown(&output));
    let written = case.read("out.csv");
    assert_eq!(written.lines().next(), Some("id,lower,upper,size,offset"));
    assert_eq!(written.lines().count(), 4);
    assert!(case.read("out.svg").starts_with("<svg "));
}

#[test]
fn a_capacity_that_is_met_is_a_yes() {
    let output = Case::new(TABLE).plan(&["--capacity", "96"]);
    assert_eq!(output.status.code(), Some(0));
    assert!(
        shown(&output).ends_with("yes: within the capacity of 96, and no plan has a lower peak\n")
    );
    assert_eq!(Case::new(TABLE).plan(&["--capacity", "1KiB"]).status.code(), Some(0));
}

#[test]
fn a_capacity_that_no_plan_meets_is_a_no_with_its_proof() {
    let case = Case::new(TABLE);
    let output = case.plan(&["--capacity", "95", "--output", "out.csv"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "no: proved that no plan is within the capacity of 95: the lower bound is 96\n";
    assert!(shown(&output).ends_with(expected), "{}", shown(&output));
    assert!(!case.has("out.csv"), "a plan that does not fit is not passed on");
    assert!(text(&output.stderr).contains("out.csv was not written"));
}

/// Four pieces of a pinwheel around a fifth: a square of 10 that no greedy order puts together,
/// in which time is too short for a search.
#[test]
fn a_limit_that_is_reached_is_a_no_that_claims_nothing() {
    let case = Case::new(&windmills());
    let output = case.plan(&["--capacity", "65536", "--time-limit", "0ms"]);
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert!(shown(&output).contains("ended by     the clock, after 0.000 ms"));
    assert!(shown(&output).contains("was found, and none is excluded"), "{}", shown(&output));
    let output = case.plan(&["--capacity", "65536"]);
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
}

/// The same number of steps, the same plan, whatever the time; and the report says what ended it.
#[test]
fn a_limit_in_steps_is_kept_and_gives_one_answer() {
    let case = Case::new(&windmills());
    let plan = |arguments: &[&str]| {
        let output = case.plan(&[arguments, &["--json"]].concat());
        let mut json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        json["nanoseconds"] = 0.into();
        json
    };
    let few = plan(&["--nodes", "20"]);
    assert_eq!((&few["ended_by"], &few["outcome"]), (&"nodes".into(), &"gap".into()));
    assert_eq!((&few["node_limit"], &few["time_limit"]), (&20.into(), &serde_json::Value::Null));
    assert_eq!(few, plan(&["--nodes", "20"]));
    let none = plan(&["--nodes", "0", "--capacity", "65536"]);
    assert_eq!((&none["ended_by"], &none["outcome"]), (&"nodes".into(), &"limit_reached".into()));
    // A time limit alone takes away the one in steps.
    let timed = plan(&["--time-limit", "1h"]);
    assert_eq!((&timed["ended_by"], &timed["outcome"]), (&"proof".into(), &"optimal".into()));
    assert_eq!(timed["node_limit"], serde_json::Value::Null);
    assert_eq!(plan(&["--capacity", "1GiB"])["ended_by"], "capacity");
}

/// A square of 65536 cut into windmills of five within each other: every byte is taken at every
/// time.
fn windmills() -> String {
    let mut pieces = vec![(0u64, 65_536u64, 0u64, 65_536u64)];
    for round in 0..24usize {
        let (t, u, low, high) = pieces.remove(round * 7 % pieces.len());
        let (w, h) = ((u - t) / 3, (high - low) / 3);
        if w < 2 || h < 2 {
            pieces.push((t, u, low, high));
            continue;
        }
        let (t1, t2, y1, y2) = (t + w, u - w + 1, low + h, high - h + 1);
        pieces.extend([
            (t, t2, low, y1),
            (t2, u, low, y2),
            (t1, u, y2, high),
            (t, t1, y1, high),
            (t1, t2, y1, y2),
        ]);
    }
    let rows = pieces.iter().enumerate().map(|(index, (from, until, low, high))| {
        format!("p{index},{from},{until},{}\n", high - low)
    });
    rows.fold("id,lower,upper,size\n".to_owned(), |table, row| table + &row)
}

#[test]
fn json_says_the_same() {
    let output = Case::new(TABLE).plan(&["--json", "--capacity", "100"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["peak"], 96);
    assert_eq!(json["lower_bound"], 96);
    assert_eq!(json["lower_bound_by"], "live_size");
    assert_eq!(json["fits"], true);
    assert_eq!(json["outcome"], "optimal");
    assert_eq!(json["gap_ppm"], 0);
    assert_eq!(json["busiest"]["live"], serde_json::json!(["a", "b"]));
}

/// What must lie between buffers because of their alignments is a part of the bound, and is shown.
#[test]
fn padding_that_no_plan_avoids_is_explained() {
    let table = "id,lower,upper,size,alignment\na,0,2,3,4\nb,1,3,3,4\n";
    let output = Case::new(table).plan(&[]);
    let bound = "lower bound  7 (7 B): 2 buffers live at time 1: 6 of them, and 1 of padding, \
                 since all offsets are multiples of 4\n";
    assert!(shown(&output).contains(bound), "{}", shown(&output));
    let output = Case::new(table).plan(&["--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&json["lower_bound"], &json["lower_bound_by"]), (&7.into(), &"live_size".into()));
    let busiest = serde_json::json!(
        { "time": 1, "live": ["a", "b"], "size": 6, "stride": 4, "padding": 1 }
    );
    assert_eq!(json["busiest"], busiest);
    let one = Case::new("id,lower,upper,size\na,0,2,3\n").plan(&[]);
    assert!(shown(&one).contains("3 (3 B): 1 buffer lives at time 0\n"), "{}", shown(&one));
}

#[test]
fn a_broken_file_is_named_with_line_and_column() {
    for (table, fault) in [
        ("", "table.csv:1:1: the file is empty"),
        ("id,lower,size\n", "table.csv:1:1: the header has no column `upper`"),
        ("id,lower,upper,size\na,5,3,1\n", "table.csv:2:5: upper 3 is not after lower 5"),
        ("id,lower,upper,size\na,0,1,-1\n", "table.csv:2:7: size `-1` is negative"),
        ("id,lower,upper,size\na,0,1,1\na,0,1,1\n", "table.csv:3:1: id `a` was used in line 2"),
    ] {
        let output = Case::new(table).plan(&[]);
        assert_eq!(output.status.code(), Some(2), "{table:?}");
        let said = text(&output.stderr);
        assert!(said.starts_with(&format!("error: {fault}")), "{said}");
    }
    let missing = Command::new(env!("CARGO_BIN_EXE_aegis")).args(["plan", "/nowhere.csv"]).output();
    assert_eq!(missing.expect("aegis starts").status.code(), Some(2));
}

/// Not a performance test: only that nothing about the size is special.
#[test]
fn a_long_file_is_planned() {
    let rows =
        (0..200_000u32).map(|n| format!("b{n},{n},{},{}\n", n + 3 + n % 5, 64 * (1 + n % 9)));
    let table = rows.fold("id,lower,upper,size\n".to_owned(), |table, row| table + &row);
    let output = Case::new(&table).plan(&["--time-limit", "1s"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(shown(&output).starts_with("buffers      200000,"));
}
