//! The command `aegis profile`, on the processor with declared costs: no runtime is needed.

mod program;

use std::fs;

use program::{aegis, text};

const WORKLOAD: &str = r#"
    device = { driver = "host", memory = "64MiB" }
    scheduler = { policy = "edf", queue_depth = 8 }
    wcet = { samples = 8, method = "auto", unclaimed = "accept" }
    [[model]]
    name = "camera"
    backend = "sim"
    period = "100ms"
    sim = { stages = ["200us"] }
    [[model]]
    name = "lidar"
    backend = "sim"
    period = "100ms"
    sim = { stages = ["100us", "150us"] }
"#;

#[test]
fn a_profile_under_load_shows_every_stage_and_keeps_what_it_measured() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("pipeline.toml"), WORKLOAD).expect("a new file");
    let arguments = ["profile", "pipeline.toml", "--under-load", "--plot", "out.svg"];
    let output = aegis(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));

    let shown = text(&output.stdout);
    let rows =
        shown.lines().filter(|line| line.starts_with("| camera") || line.starts_with("| lidar"));
    assert_eq!(rows.count(), 3, "{shown}");
    assert!(shown.contains("C is the bound from 8 samples plus 20 %"), "{shown}");
    let told = "no claim: lidar, stage 2, mixed: 8 samples are too few for the validity tests";
    assert!(shown.contains(told), "{shown}");

    let evidence =
        fs::read_to_string(folder.path().join("pipeline.evidence.json")).expect("a file");
    let evidence: serde_json::Value = serde_json::from_str(&evidence).expect("JSON");
    assert_eq!((&evidence["aegis_evidence"], &evidence["warm_up"]), (&2.into(), &5.into()));
    assert!(evidence["date"].as_str().is_some_and(|date| date.ends_with('Z')), "{evidence}");
    assert_eq!(evidence["states"].as_array().map(Vec::len), Some(2), "before and after");
    let lidar = &evidence["models"]["lidar"];
    assert_eq!(lidar["background"][0], "camera");
    for scenario in ["alone", "compute", "bandwidth", "mixed"] {
        let times = lidar["scenarios"][scenario][1].as_array().expect("the second stage");
        assert_eq!(times.len(), 8, "{scenario}");
    }
    assert_eq!(lidar["samples"][0].as_array().map(Vec::len), Some(8));

    let picture = fs::read_to_string(folder.path().join("out.svg")).expect("a picture");
    assert!(picture.contains("lidar, stage 2 of 2"), "every stage has its panel");
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("pipeline.toml"), WORKLOAD).expect("a new file");
    let output = aegis(folder.path(), &["profile", "pipeline.toml", "--plot", "no/such/out.svg"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("no/such/out.svg"), "{}", text(&output.stderr));
}

/// Inputs go ahead on a device with copy engines, which a processor has not: the evidence is that of the
/// processor, with what a profile on such a device adds, beside the workload of a simulated one.
#[test]
fn a_check_says_what_the_evidence_lacks_or_shows_of_commits_with_inputs_ahead() {
    let folder = tempfile::tempdir().expect("a folder");
    let [workload, evidence] =
        ["pipeline.toml", "pipeline.evidence.json"].map(|name| folder.path().join(name));
    fs::write(&workload, WORKLOAD).expect("a new file");
    let profiled = aegis(folder.path(), &["profile", "pipeline.toml"]);
    assert_eq!(profiled.status.code(), Some(0), "{}", text(&profiled.stderr));
    let policy = r#"policy = "edf", queue_depth = 8, look_ahead = true"#;
    let ahead = WORKLOAD
        .replace(r#"driver = "host""#, r#"driver = "sim""#)
        .replace(r#"policy = "edf", queue_depth = 8"#, &format!("{policy}, uploads_ahead = true"));
    let checked = |workload_text: &str| {
        fs::write(&workload, workload_text).expect("its file");
        text(&aegis(folder.path(), &["check", "pipeline.toml"]).stdout)
    };

    let lacks =
        "the evidence does not say what it takes to put a stage of camera, lidar behind another";
    let shown = checked(&ahead);
    assert!(shown.contains(lacks), "{shown}");
    let within = ahead.replace("uploads_ahead = true", "uploads_ahead = false");
    assert!(!checked(&within).contains("the evidence does not say"));

    let read = fs::read_to_string(&evidence).expect("what was measured");
    let mut read: serde_json::Value = serde_json::from_str(&read).expect("JSON");
    for (model, commits) in [("camera", vec![20_000; 8]), ("lidar", vec![900_000_000; 8])] {
        read["models"][model]["commits"] = commits.into();
    }
    fs::write(&evidence, read.to_string()).expect("its file");
    let shown = checked(&ahead);
    assert!(!shown.contains("the evidence does not say"), "{shown}");
    assert!(shown.contains("putting one behind it with its inputs ahead 900 ms (99 %)"), "{shown}");
    assert!(shown.contains("`overheads.dispatch` charges 300 us: the assumption"), "{shown}");
    assert!(!checked(&within).contains("inputs ahead 900 ms"), "there it is not charged");
}
