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
