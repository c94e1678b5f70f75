//! Certificates from `aegis check` to `aegis verify`, and what POET is given.

mod program;

use expect_test::{Expect, expect};
use yaml_rust2::{Yaml, YamlLoader};

use program::{aegis, text};

const WORKLOAD: &str = r#"
device = { driver = "sim", memory = "64MiB" }
scheduler = { policy = "rms", queue_depth = 8 }
overheads = { dispatch = "100us", wake = "300us" }
[[model]]
name = "camera"
backend = "sim"
period = "10ms"
sim = { stages = ["2ms"], persistent = "1MiB", scratch = "2MiB" }
[[model]]
name = "lidar"
backend = "sim"
period = "100ms"
sim = { stages = ["3ms", "4ms"], carried = "1MiB", scratch = "4MiB" }
suspend = false
"#;

/// A folder with a workload and its certificate, and the exit status of `check`.
fn certified(workload: &str) -> (tempfile::TempDir, Option<i32>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("p.toml"), workload).expect("a file");
    let output = aegis(folder.path(), &["check", "p.toml", "--certificate", "c.json"]);
    (folder, output.status.code())
}

#[test]
fn a_certificate_is_written_and_holds_for_its_workload() {
    let (folder, status) = certified(WORKLOAD);
    assert_eq!(status, Some(0));
    let output = aegis(folder.path(), &["verify", "c.json", "--workload", "p.toml"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.starts_with("yes: all 2 models are admitted, and no job is late\n"), "{said}");
    assert!(said.contains("valid: every number and every inequality was recomputed"), "{said}");
    assert!(said.contains("the workload file has the hash in it; that what is asked"), "{said}");
    assert!(said.contains("without look-ahead: no stage is put on the device before"), "{said}");
    std::fs::write(folder.path().join("p.toml"), WORKLOAD.replace("4ms", "5ms")).expect("a file");
    let output = aegis(folder.path(), &["verify", "c.json", "--workload", "p.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stdout).starts_with("invalid: workload, the hash of the file"));
}

#[test]
fn a_refusal_is_certified_with_its_witness() {
    let (folder, status) = certified(&WORKLOAD.replace("4ms", "9ms"));
    assert_eq!(status, Some(1));
    let output = aegis(folder.path(), &["verify", "c.json"]);
    assert_eq!(output.status.code(), Some(0));
    let said = text(&output.stdout);
    let line = said.lines().find(|line| line.starts_with("lidar")).expect("a refusal");
    expect!["lidar is refused: job 0 of a busy period of camera starts its last stage at 12.2 ms behind 12.2 ms of a stage of lidar: response 14.3 ms > deadline 10 ms"].assert_eq(line);
}

#[test]
fn what_does_not_hold_is_told_apart_from_what_cannot_be_read() {
    let (folder, _) = certified(WORKLOAD);
    let path = folder.path().join("c.json");
    let good = std::fs::read_to_string(&path).expect("a certificate");
    let judged = |content: &str| {
        std::fs::write(&path, content).expect("a file");
        let output = aegis(folder.path(), &["verify", "c.json"]);
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let (status, said) = judged(&good.replace("\"period\":10000000", "\"period\":10000001"));
    assert_eq!(status, Some(1), "{said}");
    assert!(said.starts_with("invalid: models[0].charge.share: the certificate says"), "{said}");
    let (status, said) = judged(&good.replace("camera", "kamera"));
    assert_eq!(
        (status, said.trim_end()),
        (Some(1), "invalid: seal: the content was changed after it was written")
    );
    let (status, said) = judged(&good[..good.len() / 2]);
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("c.json") && said.contains("line 1 column"), "{said}");
    let (status, said) =
        judged(&good.replace("\"aegis_certificate\":3", "\"aegis_certificate\":7"));
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("has format version 7, and this program reads 3"), "{said}");
    let output = aegis(folder.path(), &["verify", "nothing.json"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("cannot read nothing.json"));
}

#[test]
fn look_ahead_is_certified_with_what_it_adds_and_is_no_problem_for_poet() {
    let ahead = |workload: &str| {
        workload.replacen("queue_depth = 8", "queue_depth = 8, look_ahead = true", 1)
    };
    // A camera that waits for two stages of the lidar is late; with shorter ones it is not.
    let (folder, status) = certified(&ahead(WORKLOAD));
    assert_eq!(status, Some(1));
    let output = aegis(folder.path(), &["verify", "c.json", "--workload", "p.toml"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let line = said.lines().find(|line| line.starts_with("lidar")).expect("a refusal");
    expect!["lidar is refused: job 0 of a busy period of camera starts its last stage at 14.4 ms behind 7.2 ms of a stage of lidar + 7.2 ms by the stage before it: response 16.5 ms > deadline 10 ms"].assert_eq(line);
    let (folder, status) = certified(&ahead(&WORKLOAD.replace("\"3ms\", \"4ms\"", "\"3ms\"")));
    assert_eq!(status, Some(0));
    let output = aegis(folder.path(), &["verify", "c.json"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("look-ahead")).collect();
    expect![[r#"
        [
            "  and for 3.1 ms by what ran when that was put behind it: look-ahead",
            "     with look-ahead: one stage may wait on the device, whom the policy chose while the one before it ran,",
        ]
    "#]].assert_debug_eq(&lines);
    let output = aegis(folder.path(), &["check", "p.toml", "--poet", "p.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    let said = text(&output.stderr);
    assert!(said.contains("a stage is put on the device behind the running one"), "{said}");
    assert!(!folder.path().join("p.yaml").exists());
}

/// What the account of a certificate says of a model.
fn line_of(workload: &str, model: &str) -> String {
    let (folder, status) = certified(workload);
    assert_eq!(status, Some(1));
    let output = aegis(folder.path(), &["verify", "c.json", "--workload", "p.toml"]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    said.lines().find(|line| line.starts_with(model)).expect("a refusal").to_owned()
}

#[test]
fn memory_that_is_short_is_certified_with_what_was_free() {
    let pressure = "pressure = { low_enter = \"62MiB\", low_leave = \"63MiB\", \
                    critical_enter = \"1MiB\", critical_leave = \"2MiB\" } }";
    let workload = WORKLOAD.replacen("\"64MiB\" }", &format!("\"64MiB\", {pressure}"), 1);
    expect!["lidar is refused: 61 MiB are free, and a new model requires that 62 MiB are"]
        .assert_eq(&line_of(&workload, "lidar"));
}

#[test]
fn an_endless_busy_period_is_certified_as_the_want_of_an_answer() {
    let third = |name: &str, cost: u64, more: &str| {
        let period = 3 * cost;
        format!(
            "[[model]]\nname = \"{name}\"\nbackend = \"sim\"\nperiod = \"{period}ns\"\ndeadline = \
             \"1s\"\n{more}sim = {{ stages = [\"{cost}ns\"] }}\n"
        )
    };
    let workload = format!(
        "device = {{ driver = \"sim\", memory = \"64MiB\" }}\nscheduler = {{ policy = \"edf\", \
         queue_depth = 8 }}\noverheads = {{ dispatch = \"0us\", wake = \"1us\" }}\n{}{}{}",
        third("one", 3_000_017, "jitter = \"1us\"\n"),
        third("two", 3_000_047, ""),
        third("three", 3_000_061, "")
    );
    expect!["three is refused: no answer was found: a busy period goes on for more than 393.218 s with 131073 jobs in it, and nobody looks at more than 131072. No deadline is shown to be missed"].assert_eq(&line_of(&workload, "three"));
}

/// A camera triggers a detector, and there is no room for what comes after them.
const CHAIN: &str = r#"
device = { driver = "sim", memory = "64MiB" }
scheduler = { policy = "edf", queue_depth = 8 }
overheads = { dispatch = "100us", wake = "300us" }
[[model]]
name = "camera"
backend = "sim"
period = "30ms"
sim = { stages = ["2ms"], persistent = "1MiB" }
[[model]]
name = "detector"
backend = "sim"
period = "30ms"
sim = { stages = ["12ms"], persistent = "1MiB" }
[[model]]
name = "heavy"
backend = "sim"
period = "30ms"
sim = { stages = ["14ms"] }
[[chain]]
name = "sight"
models = ["camera", "detector"]
kind = "triggered"
"#;

#[test]
fn a_refusal_beside_a_chain_is_certified_with_how_late_its_members_get_ready() {
    expect!["heavy is refused: with detector ready 28.9 ms after its chain arrives, one job of detector alone is late"].assert_eq(&line_of(CHAIN, "heavy"));
}

#[test]
fn an_answer_that_no_certificate_covers_is_said_and_leaves_no_file() {
    // Refused beside a detector that memory then refuses; with the camera alone it would fit.
    let workload =
        CHAIN.replacen("\"12ms\"], persistent = \"1MiB\"", "\"12ms\"], persistent = \"64MiB\"", 1);
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("p.toml"), workload).expect("a file");
    let output = aegis(folder.path(), &["check", "p.toml", "--certificate", "c.json"]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
    let said = text(&output.stderr);
    assert!(said.contains("the refusal of heavy cannot be certified"), "{said}");
    assert!(said.contains("or without what was refused since, it passes"), "{said}");
    assert!(!folder.path().join("c.json").exists());
}

fn poet(workload: &str, expected: &Expect) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("p.toml"), workload).expect("a file");
    let output = aegis(folder.path(), &["check", "p.toml", "--poet", "out.yaml"]);
    let written = std::fs::read_to_string(folder.path().join("out.yaml"));
    expected.assert_eq(&written.unwrap_or_else(|_| text(&output.stderr)));
}

#[test]
fn what_runs_to_completion_is_exported_for_poet() {
    poet(
        WORKLOAD,
        &expect![[r#"
            # Written by `aegis check --poet`. Times are nanoseconds, overheads included.
            # POET's bounds are for discrete time: where something blocks, those of AegisRT are 1 longer.
            scheduling policy: FP
            preemption model: NP
            task set:
            - id: 0 # waking up, or work in the background
              worst-case execution time: 300000
              period: 113370474
              deadline: 113370474
              priority: 0
            - id: 1 # camera
              worst-case execution time: 2100000
              period: 10000000
              deadline: 10000000
              priority: 2
            - id: 2 # lidar
              worst-case execution time: 7200000
              period: 100000000
              deadline: 100000000
              priority: 1
        "#]],
    );
    let edf = WORKLOAD.replace("\"rms\"", "\"edf\"").replace("wake = \"300us\"", "wake = \"0us\"");
    poet(
        &edf,
        &expect![[r#"
            # Written by `aegis check --poet`. Times are nanoseconds, overheads included.
            # POET's bounds are for discrete time: where something blocks, those of AegisRT are 1 longer.
            scheduling policy: EDF
            preemption model: NP
            task set:
            - id: 1 # camera
              worst-case execution time: 2100000
              period: 10000000
              deadline: 10000000
            - id: 2 # lidar
              worst-case execution time: 7200000
              period: 100000000
              deadline: 100000000
        "#]],
    );
}

#[test]
fn what_poet_does_not_know_is_not_exported() {
    let refused = |workload: &str, why: &str| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("p.toml"), workload).expect("a file");
        let output = aegis(folder.path(), &["check", "p.toml", "--poet", "out.yaml"]);
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(why), "{said}");
        assert!(!folder.path().join("out.yaml").exists());
    };
    let staged = WORKLOAD.replace("suspend = false", "");
    refused(&staged, "lidar may be suspended between its 2 stages");
    let fifo = WORKLOAD.replace("\"rms\"", "\"fifo\"");
    refused(&fifo, "and not the policy fifo");
    let late = WORKLOAD.replace("suspend = false", "suspend = false\njitter = \"1ms\"");
    refused(&late, "lidar has a release jitter of 1 ms");
}

/// What POET's documentation and its own schema ask of an input: the keys of the file and of each task,
/// which of them are whole numbers above zero, and that no two tasks have one id.
#[test]
fn what_poet_is_given_is_what_its_input_format_asks_for() {
    for policy in ["rms", "dm", "edf", "priority"] {
        let priority = |name: &str, more: &str| (format!("name = \"{name}\"\n"), more.to_owned());
        let workload = [priority("camera", "priority = 1\n"), priority("lidar", "priority = 4\n")]
            .into_iter()
            .fold(WORKLOAD.replace("\"rms\"", &format!("\"{policy}\"")), |text, (name, more)| {
                text.replace(&name, &format!("{name}{more}"))
            });
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("p.toml"), workload).expect("a file");
        let arguments = ["check", "p.toml", "--poet", "out.yaml", "--json"];
        let output = aegis(folder.path(), &arguments);
        let report: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("a report in JSON");
        let written = std::fs::read_to_string(folder.path().join("out.yaml")).expect("a problem");
        let file = YamlLoader::load_from_str(&written).expect("YAML");
        let [root] = &file[..] else { panic!("one document: {written}") };
        assert_eq!(keys(root), ["preemption model", "scheduling policy", "task set"]);
        let is_fixed = policy != "edf";
        assert_eq!(root["scheduling policy"].as_str(), Some(if is_fixed { "FP" } else { "EDF" }));
        assert_eq!(root["preemption model"].as_str(), Some("NP"));
        let tasks = root["task set"].as_vec().expect("a list");
        let models = report["admitted"]["models"].as_array().expect("a list");
        assert_eq!(tasks.len(), 1 + models.len(), "{written}");
        let of = |task: &Yaml, key: &str| task[key].as_i64().unwrap_or_else(|| panic!("{key}"));
        for (id, task) in (0..).zip(tasks) {
            let mut expected = vec!["deadline", "id", "period", "worst-case execution time"];
            if is_fixed {
                expected.insert(3, "priority");
            }
            assert_eq!(keys(task), expected);
            assert_eq!(of(task, "id"), id, "its place, so no two are the same");
            for key in ["worst-case execution time", "period", "deadline"] {
                assert!(of(task, key) > 0, "{key}: {written}");
            }
        }
        for (task, model) in tasks[1..].iter().zip(models) {
            assert_eq!(of(task, "worst-case execution time"), model["cost"].as_i64().expect("ns"));
            assert_eq!(of(task, "period"), model["period"].as_i64().expect("ns"));
            assert_eq!(of(task, "deadline"), model["deadline"].as_i64().expect("ns"));
            // The floor is the least urgent, and not again released while anything is busy.
            let until = of(task, "deadline") + model["bound"].as_i64().expect("ns");
            assert!(of(&tasks[0], "deadline") >= until && of(&tasks[0], "period") >= until);
            if is_fixed {
                assert!(of(task, "priority") > of(&tasks[0], "priority"), "{written}");
            }
        }
        if is_fixed {
            assert!(of(&tasks[1], "priority") > of(&tasks[2], "priority"), "larger is more urgent");
        }
    }
}

/// The keys of a mapping, in order of the alphabet.
fn keys(of: &Yaml) -> Vec<&str> {
    let mapping = of.as_hash().expect("a mapping");
    let mut keys: Vec<&str> = mapping.keys().map(|key| key.as_str().expect("a word")).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn long_evidence_is_read_whole_and_what_is_too_long_is_no_fault_of_the_certificate() {
    let seed = |path: &str| {
        let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/seeds/");
        std::fs::read(format!("{seeds}{path}/two_models.json")).expect("a seed")
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let evidence = folder.path().join("evidence.json");
    let mut long = seed("evidence");
    // Spaces are no part of its content; and more of them than a certificate may have bytes.
    long.resize(usize::try_from(aegis_verify::FILE_MAX).expect("64 MiB") + 10, b' ');
    std::fs::write(&evidence, &long).expect("a file");
    let (mut certificate, _) = aegis_verify::read(&seed("certificate")).expect("a certificate");
    certificate.evidence = Some(aegis_verify::Digest::of(&long));
    let sealed = aegis_verify::write(&certificate);
    std::fs::write(folder.path().join("c.json"), sealed).expect("a file");
    let arguments = ["verify", "c.json", "--evidence", "evidence.json"];
    let output = aegis(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let file = std::fs::File::create(&evidence).expect("a file");
    file.set_len(aegis_verify::INPUT_MAX + 1).expect("it takes no room");
    let output = aegis(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stdout));
    assert!(text(&output.stderr).contains("at most 1073741824 are read"));
}
