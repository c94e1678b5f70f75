//! A workload file is read whole or refused with everything that is wrong with it.

use std::path::Path;

use aegis::environment::Property;
use aegis::workload::{
    Backend, BestEffort, Budget, ChainKind, Driver, FILE_BYTES_MAX, FaultKind, MODELS_MAX,
    Overheads, Server, SourceText, Span, Unclaimed, WcetRule, Workload, WorkloadFaults,
};
use aegis_sched::dispatch::OverrunPolicy;
use aegis_sched::policy::PolicyKind;
use aegis_sched::wcet::{Method, Share};
use aegis_trace::{Bytes, Category, Nanos};
use expect_test::{Expect, expect};
use proptest::prelude::*;

const FORMATS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/formats.md"));

/// A file with no fault and no optional key; what tests append belongs to its only model.
const SMALL: &str = r#"
device = { driver = "sim", memory = "1GiB" }
scheduler = { policy = "edf", queue_depth = 8 }
[[model]]
name = "camera"
backend = "sim"
period = "33ms"
sim.stages = ["2ms"]
"#;

/// The example of the format's documentation, which has every key but those of a split device.
fn documented_example() -> &'static str {
    let (_, after) = FORMATS.split_once("```toml\n").expect("the document has an example");
    after.split_once("```").expect("the example ends").0
}

fn parse(text: &str) -> Result<Workload, WorkloadFaults> {
    Workload::parse(text, Path::new("folder/edge.toml"))
}

fn faults_of(text: &str) -> WorkloadFaults {
    parse(text).expect_err("the text has faults")
}

fn check(text: &str, rendered: Expect) {
    rendered.assert_eq(&faults_of(text).to_string());
}

#[test]
fn the_documented_example_is_read_as_it_says() {
    let workload = parse(documented_example()).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(workload.device.driver, Driver::Host);
    assert_eq!(workload.device.memory, Bytes::from_gib(2));
    assert_eq!(workload.scheduler.policy, PolicyKind::Edf);
    assert_eq!(workload.scheduler.overrun, OverrunPolicy::Contain);
    assert!(workload.overheads.look_ahead);
    let [detector, segmenter, planner, map_builder] = workload.models.as_slice() else {
        panic!("four models, not {}", workload.models.len())
    };
    let Backend::Onnx(onnx) = &detector.backend else { panic!("a model of ONNX Runtime") };
    assert_eq!(onnx.stages[0].path, Path::new("folder/models/front_detector.onnx"));
    assert_eq!(detector.budget.compute, Some(Nanos::from_millis(8)));
    assert_eq!(segmenter.backend.stage_count(), 2);
    let Backend::Sim(sim) = &planner.backend else { panic!("a model of declared costs") };
    assert_eq!(sim.stages, [Nanos::from_millis(2), Nanos::from_millis(3)]);
    assert_eq!((sim.persistent, sim.carried), (Bytes::from_mib(10), Bytes::from_mib(1)));
    assert_eq!((planner.suspend, segmenter.suspend), (false, true));
    assert_eq!(workload.scheduler.max_suspended, Some(1));
    assert_eq!(planner.best_effort, None);
    let (budget, period) = (Nanos::from_millis(5), Nanos::from_millis(50));
    let server = Server { budget, period, priority: Some(9) };
    assert_eq!(map_builder.best_effort, Some(BestEffort::Server(server)));
    let [chain] = workload.chains.as_slice() else { panic!("one chain") };
    assert_eq!((&chain.models[..], chain.kind), (&[0, 2][..], ChainKind::Sampled));
    assert_eq!(chain.max_age, Some(Nanos::from_millis(300)));
}

/// Three models of two stages each and one of one, with `suspend` where it is given.
fn staged(max_suspended: &str, suspend: [&str; 4]) -> String {
    let model = |(index, suspend): (usize, &str)| {
        let stages = if index == 3 { r#"["1ms"]"# } else { r#"["1ms", "2ms"]"# };
        format!(
            "[[model]]\nname = \"m{index}\"\nbackend = \"sim\"\nperiod = \"33ms\"\n{suspend}\n\
             sim.stages = {stages}\n"
        )
    };
    let models: String = suspend.into_iter().enumerate().map(model).collect();
    format!(
        "device = {{ driver = \"sim\", memory = \"1GiB\" }}\n\
         [scheduler]\npolicy = \"edf\"\nqueue_depth = 8\n{max_suspended}\n{models}"
    )
}

#[test]
fn no_more_staged_models_than_the_limit_may_be_suspended() {
    let kinds = |text: &str| -> Vec<FaultKind> {
        faults_of(text).faults().iter().map(|fault| fault.kind.clone()).collect()
    };
    let surplus = |found, most| FaultKind::TooManySuspended { found, most };
    assert_eq!(kinds(&staged("max_suspended = 1", [""; 4])), [surplus(2, 1), surplus(3, 1)]);
    assert_eq!(
        kinds(&staged("max_suspended = 2", ["", "", "suspend = true", ""])),
        [surplus(3, 2)]
    );
    let never = "suspend = false";
    let one = parse(&staged("max_suspended = 1", [never, "", never, ""])).expect("one may");
    let may: Vec<bool> = one.models.iter().map(|model| model.suspend).collect();
    assert_eq!(
        (may.as_slice(), one.scheduler.max_suspended),
        (&[false, true, false, true][..], Some(1))
    );
    parse(&staged("max_suspended = 0", [never; 4]))
        .expect("none may, and a whole model need not say");
    parse(&staged("max_suspended = 0", [never, never, never, ""])).expect("one stage has no cut");
    let unlimited = parse(&staged("", [""; 4])).expect("no limit");
    assert!(unlimited.models.iter().all(|model| model.suspend));
}

#[test]
fn a_model_beyond_the_limit_is_shown_with_the_limit_and_what_would_be_right() {
    check(
        &staged("max_suspended = 2", ["", "", "suspend = true", ""]),
        expect![[r#"
        error: folder/edge.toml:22:11: this is model 3 of several stages that may be suspended; at most 2 may
           |
         5 | max_suspended = 2
           |                 - the limit
        ...
        22 | suspend = true
           |           ^^^^ write suspend = false here, or for another"#]],
    );
}

#[test]
fn levels_of_pressure_nest_and_are_left_later_than_they_are_entered() {
    let with = |thresholds: [&str; 4]| {
        let [low_enter, low_leave, critical_enter, critical_leave] = thresholds;
        SMALL.replace(
            "memory = \"1GiB\"",
            &format!(
                "memory = \"1GiB\", pressure = {{ low_enter = \"{low_enter}\", low_leave = \
                 \"{low_leave}\", critical_enter = \"{critical_enter}\", critical_leave = \
                 \"{critical_leave}\" }}"
            ),
        )
    };
    let pressure = parse(&with(["8MiB", "9MiB", "1MiB", "2MiB"])).expect("sound").device.pressure;
    let pressure = pressure.expect("stated");
    assert_eq!((pressure.low.enter, pressure.low.leave), (Bytes::from_mib(8), Bytes::from_mib(9)));
    assert_eq!(pressure.critical.enter, Bytes::from_mib(1));
    let kinds = |text: &str| -> Vec<FaultKind> {
        faults_of(text).faults().iter().map(|fault| fault.kind.clone()).collect()
    };
    let (two, eight, nine) = (Bytes::from_mib(2), Bytes::from_mib(8), Bytes::from_mib(9));
    assert_eq!(
        kinds(&with(["8MiB", "8MiB", "2MiB", "2MiB"])),
        [
            FaultKind::NoHysteresis { key: "low_leave", found: eight, enter: eight },
            FaultKind::NoHysteresis { key: "critical_leave", found: two, enter: two },
        ]
    );
    assert_eq!(
        kinds(&with(["2MiB", "9MiB", "8MiB", "9MiB"])),
        [FaultKind::AboveLow { key: "critical_enter", found: eight, low: two }]
    );
    assert_eq!(
        kinds(&with(["2MiB", "8MiB", "1MiB", "9MiB"])),
        [FaultKind::AboveLow { key: "critical_leave", found: nine, low: eight }]
    );
    let half =
        SMALL.replace("memory = \"1GiB\"", "memory = \"1GiB\", pressure.low_enter = \"1MiB\"");
    assert_eq!(kinds(&half).len(), 3, "each of the others is lacking");
}

#[test]
fn what_is_not_stated_has_its_documented_default() {
    let workload = parse(SMALL).unwrap_or_else(|faults| panic!("{faults}"));
    assert_eq!(workload.device.streams, 1);
    let (dispatch, wake) = (Nanos::from_micros(300), Nanos::from_millis(1));
    let (boundary, copy) = (Nanos::ZERO, Nanos::ZERO);
    assert_eq!(workload.overheads, Overheads { dispatch, wake, boundary, copy, ..Overheads::NONE });
    assert_eq!(workload.wcet, WcetRule { samples: 100, margin_percent: 20, ..WcetRule::default() });
    assert_eq!(workload.scheduler.overrun, OverrunPolicy::Record);
    let looking = SMALL.replace("queue_depth = 8", "queue_depth = 8, look_ahead = true");
    assert!(parse(&looking).unwrap_or_else(|faults| panic!("{faults}")).overheads.look_ahead);
    let camera = &workload.models[0];
    assert_eq!(camera.best_effort, None);
    assert_eq!((camera.deadline, camera.jitter), (Nanos::from_millis(33), Nanos::ZERO));
    assert_eq!((camera.priority, camera.slots), (None, 2));
    assert_eq!(camera.budget, Budget::default());
    let Backend::Sim(sim) = &camera.backend else { panic!("a model of declared costs") };
    assert_eq!((sim.persistent, sim.scratch), (Bytes::ZERO, Bytes::ZERO));
}

#[test]
fn a_bad_unit_is_shown_as_the_documentation_shows_it() {
    let (_, after) = FORMATS.split_once("```text\n").expect("the document shows a fault");
    let shown = after.split_once("\n```").expect("the fault ends").0;
    let text =
        SMALL.replace("\"33ms\"", "\"33\"").replacen("[[model]]", "\n\n\n\n\n\n\n[[model]]", 1);
    let faults = Workload::parse(&text, Path::new("edge.toml")).expect_err("33 of what?");
    assert_eq!(faults.to_string(), shown);
}

// tidy: long because it is one file and its whole rendering, to be read side by side.
#[test]
fn every_fault_of_a_file_is_reported_at_once() {
    let text = r#"[device]
driver = "rocm"
memory = "2GiB"
[scheduler]
policy = "priority"
queue_depth = 0
[overheads]
dispatch = 300
[[model]]
name = "front"
backend = "onnx"
path = "a.onnx"
stages = ["b.onnx"]
perido = "50ms"
priority = 1
[model.budget]
memory = "4GiB"
[[model]]
name = "front"
backend = "sim"
period = "50ms"
jitter = "60ms"
[model.sim]
stages = ["2ms", "0ms", "3"]
[[model]]
name = "Rear camera"
backend = "onnx"
period = "-5ms"
priority = -1
"#;
    check(
        text,
        expect![[r#"
        error: folder/edge.toml:2:10: there is no driver `rocm`; write one of host, sim, cuda
          |
        2 | driver = "rocm"
          |          ^^^^^^

        error: folder/edge.toml:6:15: `queue_depth` is 0; it must be from 1 to 65536
          |
        6 | queue_depth = 0
          |               ^ e.g. 64

        error: folder/edge.toml:8:12: `dispatch` must be a time in quotes, not an integer
          |
        8 | dispatch = 300
          |            ^^^ e.g. "300us"

        error: folder/edge.toml:13:10: a model has either `path` or `stages`, not both
           |
        12 | path = "a.onnx"
           |        -------- one stage
        13 | stages = ["b.onnx"]
           |          ^^^^^^^^^^ leave one of them out

        error: folder/edge.toml:14:1: [[model]] has no key `perido`
           |
        14 | perido = "50ms"
           | ^^^^^^ did you mean `period`?

        error: folder/edge.toml:17:10: a `memory` budget of 4 GiB is above the device's 2 GiB
           |
         3 | memory = "2GiB"
           |          ------ the device
        ...
        17 | memory = "4GiB"
           |          ^^^^^^ at most 2 GiB

        error: folder/edge.toml:18:1: [[model]] lacks the key `priority`, which the policy `priority` needs
           |
         5 | policy = "priority"
           |          ---------- needed by this policy
        ...
        18 | [[model]]
           | ^^^^^^^^^ add priority = 1

        error: folder/edge.toml:19:8: the name `front` is taken
           |
        10 | name = "front"
           |        ------- first used here
        ...
        19 | name = "front"
           |        ^^^^^^^ choose another

        error: folder/edge.toml:22:10: `jitter` of 60 ms is longer than the period of 50 ms
           |
        21 | period = "50ms"
           |          ------ the period
        22 | jitter = "60ms"
           |          ^^^^^^ at most 50 ms

        error: folder/edge.toml:24:18: `stage` is 0 ns; it must be from 1 ns to 3600 s
           |
        24 | stages = ["2ms", "0ms", "3"]
           |                  ^^^^^ e.g. "2ms"

        error: folder/edge.toml:24:25: `3` has no unit; write one of ns, us, ms, s, min or h
           |
        24 | stages = ["2ms", "0ms", "3"]
           |                         ^^^ e.g. "3ms"

        error: folder/edge.toml:25:1: [[model]] lacks the key `path`, or `stages` for several files
           |
        25 | [[model]]
           | ^^^^^^^^^ add path = "models/front_detector.onnx"

        error: folder/edge.toml:26:8: `Rear camera` is no name; write 1 to 64 of a-z, 0-9, _ and -
           |
        26 | name = "Rear camera"
           |        ^^^^^^^^^^^^^ e.g. "front_detector"

        error: folder/edge.toml:28:10: `-5ms` is negative
           |
        28 | period = "-5ms"
           |          ^^^^^^ e.g. "50ms"

        error: folder/edge.toml:29:12: `priority` is -1; it must be from 0 to 4294967295
           |
        29 | priority = -1
           |            ^^ e.g. 1"#]],
    );
}

#[test]
fn an_empty_file_lacks_what_is_required() {
    check(
        "",
        expect![[r#"
        error: folder/edge.toml:1:1: there is no [device] table
          |
        1 |
          | ^ add [device]

        error: folder/edge.toml:1:1: there is no [scheduler] table
          |
        1 |
          | ^ add [scheduler]

        error: folder/edge.toml:1:1: there is no [[model]] table
          |
        1 |
          | ^ add [[model]]"#]],
    );
}

#[test]
fn broken_toml_is_reported_with_the_faults_it_cannot_have_caused() {
    let text = r#"
[device]
driver = "hots"
memory = 2GiB
[[model]
name = "a"
[[model]]
name = "b
"#;
    check(
        text,
        expect![[r#"
        error: folder/edge.toml:3:10: there is no driver `hots`; write one of host, sim, cuda
          |
        3 | driver = "hots"
          |          ^^^^^^ did you mean `host`?

        error: folder/edge.toml:4:10: this is not TOML: string values must be quoted, expected literal string
          |
        4 | memory = 2GiB
          |          ^^^^

        error: folder/edge.toml:5:9: this is not TOML: unclosed array table, expected `]`
          |
        5 | [[model]
          |         ^

        error: folder/edge.toml:8:10: this is not TOML: invalid basic string, expected `"`
          |
        8 | name = "b
          |          ^"#]],
    );
}

#[test]
fn tables_of_the_wrong_kind_are_told_apart() {
    check(
        "device = 1\nscheduler = []\n[model]\nname = \"a\"\n",
        expect![[r#"
        error: folder/edge.toml:1:10: `device` must be a table, not an integer
          |
        1 | device = 1
          |          ^ e.g. [device]

        error: folder/edge.toml:2:13: `scheduler` must be a table, not an array
          |
        2 | scheduler = []
          |             ^^ e.g. [scheduler]

        error: folder/edge.toml:3:1: `model` must be an array of tables, each [[model]], not a table
          |
        3 | [model]
          | ^^^^^^^ e.g. [[model]]"#]],
    );
}

#[test]
fn keys_of_the_other_backend_are_refused() {
    let text = format!("{SMALL}threads = 2\npath = \"\"\nbudget = {{ streams = 2 }}\n");
    check(
        &text,
        expect![[r#"
        error: folder/edge.toml:9:11: `threads` is not for the backend `sim`
          |
        6 | backend = "sim"
          |           ----- the backend
        ...
        9 | threads = 2
          |           ^ leave it out

        error: folder/edge.toml:10:8: `path` is not for the backend `sim`
           |
         6 | backend = "sim"
           |           ----- the backend
        ...
        10 | path = ""
           |        ^^ leave it out

        error: folder/edge.toml:11:22: a `streams` budget of 2 is above the device's 1
           |
        11 | budget = { streams = 2 }
           |                      ^ at most 1"#]],
    );
}

#[test]
fn stages_are_checked_although_the_backend_is_unknown() {
    let text = SMALL.replace("backend = \"sim\"", "backend = \"smi\"").replace("\"2ms\"", "2");
    check(
        &text,
        expect![[r#"
        error: folder/edge.toml:6:11: there is no backend `smi`; write one of onnx, tvm, trt, sim
          |
        6 | backend = "smi"
          |           ^^^^^ did you mean `sim`?

        error: folder/edge.toml:8:15: `stage` must be a time in quotes, not an integer
          |
        8 | sim.stages = [2]
          |               ^ e.g. "2ms""#]],
    );
}

#[test]
fn a_budget_of_compute_fits_the_period() {
    check(
        &format!("{SMALL}budget.compute = \"34ms\""),
        expect![[r#"
        error: folder/edge.toml:9:18: `compute` of 34 ms is longer than the period of 33 ms
          |
        7 | period = "33ms"
          |          ------ the period
        ...
        9 | budget.compute = "34ms"
          |                  ^^^^^^ at most 33 ms"#]],
    );
}

#[test]
fn one_model_more_than_the_most_is_a_fault_at_that_model() {
    let (head, model) = SMALL.split_once("[[model]]").expect("a model");
    let of_number = |i| format!("[[model]]{}", model.replace("camera", &format!("camera-{i}")));
    let text = |models| format!("{head}{}", (0..models).map(of_number).collect::<String>());
    assert_eq!(parse(&text(MODELS_MAX)).map(|workload| workload.models.len()), Ok(MODELS_MAX));
    let faults = faults_of(&text(MODELS_MAX + 1));
    let [fault] = faults.faults() else { panic!("one fault, not\n{faults}") };
    assert_eq!(fault.kind, FaultKind::TooManyModels { found: MODELS_MAX + 1, most: MODELS_MAX });
    assert_eq!(fault.place.map(|place| place.line), Some(3 + 5 * MODELS_MAX + 1));
}

#[test]
fn faults_serve_programs_too() {
    let faults = faults_of(&SMALL.replace("\"33ms\"", "\"0ms\""));
    let [fault] = faults.faults() else { panic!("one fault, not\n{faults}") };
    assert!(matches!(&fault.kind, FaultKind::OutOfRange { key: "period", .. }));
    let place = fault.place.expect("a place in the file");
    assert_eq!((place.line, place.column), (7, 10));
    assert_eq!(faults.category(), Category::Permanent);
    assert_eq!(faults.file(), Path::new("folder/edge.toml"));
}

#[test]
fn every_missing_model_file_is_reported_and_the_others_are_not() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("edge.toml");
    let model = r#"backend = "onnx"
stages = ["there.onnx", "missing.onnx", "."]"#;
    let text = SMALL.replace("backend = \"sim\"", model).replace("sim.stages = [\"2ms\"]\n", "");
    std::fs::write(&file, text).expect("the workload is written");
    std::fs::write(folder.path().join("there.onnx"), "").expect("the model is written");

    let workload = Workload::read(&file).unwrap_or_else(|faults| panic!("{faults}"));
    let faults = workload.check_files().expect_err("two stages are no files");
    let rendered = faults.to_string().replace(&folder.path().display().to_string(), "folder");
    expect![[r#"
        error: folder/edge.toml:7:25: there is no file folder/missing.onnx
          |
        7 | stages = ["there.onnx", "missing.onnx", "."]
          |                         ^^^^^^^^^^^^^^ relative to the folder of this file

        error: folder/edge.toml:7:41: folder/. is not a file
          |
        7 | stages = ["there.onnx", "missing.onnx", "."]
          |                                         ^^^"#]]
    .assert_eq(&rendered);
}

#[test]
fn an_engine_of_tensorrt_has_its_own_keys_and_no_others() {
    let with = |keys: &str| {
        let model = format!("backend = \"trt\"\n{keys}");
        SMALL
            .replace("backend = \"sim\"", &model)
            .replace("\"sim\", memory", "\"cuda\", memory")
            .replace("sim.stages = [\"2ms\"]\n", "")
    };
    let text = with("stages = [\"a.engine\", \"b.engine\"]\ngraph = false");
    let workload = parse(&text).unwrap_or_else(|faults| panic!("{faults}"));
    let Backend::Trt(model) = &workload.models[0].backend else { panic!("an engine") };
    assert_eq!((model.stages.len(), model.graph), (2, false));
    assert_eq!(model.stages[1].path, Path::new("folder/b.engine"));

    let faults = faults_of(&with("path = \"a.engine\"\nthreads = 2\ntf32 = true"));
    let wrong = |key| FaultKind::WrongBackend { key, backend: "trt" };
    let kinds: Vec<_> = faults.faults().iter().map(|fault| fault.kind.clone()).collect();
    assert_eq!(kinds, [wrong("threads"), wrong("tf32")]);
}

#[test]
fn best_effort_is_in_the_background_unless_it_has_a_server() {
    let with = |more: &str| parse(&format!("{SMALL}{more}")).unwrap_or_else(|f| panic!("{f}"));
    let of = |more: &str| with(more).models[0].best_effort;
    assert_eq!(of("best_effort = false"), None);
    assert_eq!(of("best_effort = true"), Some(BestEffort::Background));
    let server = "best_effort = true\nserver = { budget = \"2ms\", period = \"10ms\" }";
    let (budget, period) = (Nanos::from_millis(2), Nanos::from_millis(10));
    let expected = Server { budget, period, priority: None };
    assert_eq!(of(server), Some(BestEffort::Server(expected)));
}

/// Four models with everything that can be wrong with best effort.
const BAD_BEST_EFFORT: &str = r#"
device = { driver = "sim", memory = "1GiB" }
scheduler = { policy = "priority", queue_depth = 8, overrun = "contained" }
[[model]]
name = "a"
backend = "sim"
period = "33ms"
deadline = "20ms"
priority = 1
best_effort = true
sim.stages = ["2ms"]
[[model]]
name = "b"
backend = "sim"
period = "33ms"
priority = 1
server = { budget = "2ms", period = "10ms", priority = 3 }
sim.stages = ["2ms"]
[[model]]
name = "c"
backend = "sim"
period = "33ms"
best_effort = 1
sim.stages = ["2ms"]
[[model]]
name = "d"
backend = "sim"
period = "33ms"
best_effort = true
server = { budget = "20ms", period = "10ms", slots = 2 }
sim.stages = ["2ms"]
"#;

#[test]
fn every_fault_of_best_effort_is_reported() {
    check(
        BAD_BEST_EFFORT,
        expect![[r#"
        error: folder/edge.toml:3:63: there is no overrun `contained`; write one of record, contain
          |
        3 | ...", queue_depth = 8, overrun = "contained" }
          |                                  ^^^^^^^^^^^ did you mean `contain`?

        error: folder/edge.toml:8:12: `deadline` is not for a model of best effort
           |
         8 | deadline = "20ms"
           |            ^^^^^^ leave it out
        ...
        10 | best_effort = true
           |               ---- best effort

        error: folder/edge.toml:9:12: `priority` is not for a model of best effort
           |
         9 | priority = 1
           |            ^ leave it out
        10 | best_effort = true
           |               ---- best effort

        error: folder/edge.toml:17:10: [model.server] is for models of best effort alone
           |
        17 | server = { budget = "2ms", period = "10ms", priority = 3 }
           |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ add best_effort = true to its [[model]]

        error: folder/edge.toml:23:15: `best_effort` must be true or false, not an integer
           |
        23 | best_effort = 1
           |               ^ e.g. true

        error: folder/edge.toml:30:10: [model.server] lacks the key `priority`, which the policy `priority` needs
           |
         3 | scheduler = { policy = "priority", queue_depth = 8, overrun = "contained" }
           |                        ---------- needed by this policy
        ...
        30 | server = { budget = "20ms", period = "10ms", slots = 2 }
           |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^ add priority = 9

        error: folder/edge.toml:30:21: `budget` of 20 ms is longer than the period of 10 ms
           |
        30 | server = { budget = "20ms", period = "10ms", slots = 2 }
           |                     ^^^^^^ at most 10 ms
           |                                      ------ the period

        error: folder/edge.toml:30:46: [model.server] has no key `slots`
           |
        30 | server = { budget = "20ms", period = "10ms", slots = 2 }
           |                                              ^^^^^ its keys are budget, period, priority"#]],
    );
}

#[test]
fn a_hand_made_span_does_not_panic() {
    let mut workload = parse(documented_example()).unwrap_or_else(|faults| panic!("{faults}"));
    workload.source = SourceText { path: "x.toml".into(), text: "µ".into() };
    if let Backend::Onnx(model) = &mut workload.models[0].backend {
        model.stages[0].span = Span { start: 1, end: usize::MAX };
    }
    let faults = workload.check_files().expect_err("no model is there");
    assert!(faults.to_string().starts_with("error: x.toml:1:1: there is no file"));
}

#[test]
fn a_file_that_cannot_be_read_is_a_fault_without_a_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let faults = Workload::read(&folder.path().join("none.toml")).expect_err("no such file");
    assert!(matches!(&faults.faults()[0].kind, FaultKind::Unreadable { .. }));
    assert_eq!(faults.faults()[0].place, None);
    assert!(faults.to_string().contains("none.toml: the file could not be read: "));
}

#[test]
fn bytes_that_are_no_text_are_pointed_at() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("edge.toml");
    std::fs::write(&file, b"[device]\ndriver = \"h\xffst\"\n").expect("the file is written");
    let faults = Workload::read(&file).expect_err("not UTF-8");
    let place = faults.faults()[0].place.expect("a place in the file");
    assert_eq!((place.line, place.column), (2, 12));
    assert_eq!(faults.faults()[0].kind, FaultKind::NotUtf8);
}

#[test]
fn a_file_above_the_limit_is_refused_unparsed() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("edge.toml");
    let text = format!("{SMALL}#{}", " ".repeat(FILE_BYTES_MAX.as_usize()));
    std::fs::write(&file, text).expect("the file is written");
    let faults = Workload::read(&file).expect_err("too large");
    assert_eq!(faults.faults()[0].kind, FaultKind::FileTooLarge { most: FILE_BYTES_MAX });
}

#[test]
fn a_byte_order_mark_and_carriage_returns_change_nothing() {
    let text = format!("\u{feff}{}", SMALL.replace('\n', "\r\n"));
    assert_eq!(parse(&text).map(|w| w.models), parse(SMALL).map(|w| w.models.clone()));
}

/// What must hold for any text: an answer without a panic, and faults with places in file order.
fn assert_answered(text: &str) -> Result<(), TestCaseError> {
    let Err(faults) = parse(text) else { return Ok(()) };
    prop_assert!(!faults.faults().is_empty());
    let places: Vec<_> = faults.faults().iter().filter_map(|fault| fault.place).collect();
    prop_assert_eq!(places.len(), faults.faults().len());
    prop_assert!(places.is_sorted_by_key(|place| place.span.start));
    prop_assert!(places.iter().all(|place| place.line >= 1 && place.column >= 1));
    prop_assert!(faults.to_string().starts_with("error: folder/edge.toml:"));
    Ok(())
}

proptest! {
    #[test]
    fn random_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        assert_answered(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn random_characters_of_toml_are_answered(text in "[a-z\\[\\]{}=,.\"'#0-9 \n-]{0,200}") {
        assert_answered(&text)?;
    }

    #[test]
    fn mutated_files_are_answered(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0usize..20, any::<String>()), 1..6),
    ) {
        let mut text = documented_example().to_owned();
        for (at, removed, added) in edits {
            let start = text.floor_char_boundary(at.index(text.len() + 1));
            let end = text.floor_char_boundary((start + removed).min(text.len())).max(start);
            text.replace_range(start..end, &added);
        }
        assert_answered(&text)?;
    }

    #[test]
    fn values_put_in_place_of_others_are_answered(
        line in any::<prop::sample::Index>(),
        value in prop::sample::select(vec![
            "-1", "1e400", "nan", "\"\"", "[]", "[[]]", "{}", "true", "1979-05-27", "\"-1ms\"",
            "99999999999999999999999999", "0xffff_ffff_ffff_ffff", "\"99999999999999999999h\"",
            "\"0.00000000000000000000000000001s\"", "'''\n\n'''", "\"\\u0000\"", "{ a.b.c = 1 }",
        ]),
    ) {
        let mut lines: Vec<String> = documented_example().lines().map(str::to_owned).collect();
        let at = line.index(lines.len());
        if let Some((key, _)) = lines[at].split_once('=') {
            lines[at] = format!("{key}= {value}");
        }
        assert_answered(&lines.join("\n"))?;
    }
}

#[test]
fn a_rule_for_costs_states_coverage_confidence_and_what_it_accepts() {
    let text = |wcet: &str| {
        format!(
            r#"
            device = {{ driver = "sim", memory = "1GiB" }}
            scheduler = {{ policy = "edf", queue_depth = 8 }}
            wcet = {{ {wcet} }}
            [[model]]
            name = "camera"
            backend = "sim"
            period = "33ms"
            sim.stages = ["2ms"]
            "#
        )
    };
    let read = |wcet: &str| Workload::parse(&text(wcet), Path::new("edge.toml"));
    let rule = read(
        r#"method = "auto", coverage = "99.9%", confidence = "0.95", unclaimed = "accept",
           accept = ["kernel", "governor"]"#,
    )
    .expect("a sound rule")
    .wcet;
    assert_eq!((rule.method, rule.unclaimed), (Method::Auto, Unclaimed::Accept));
    assert_eq!((rule.coverage.to_string(), rule.confidence), ("0.999".to_owned(), Share::P95));
    assert_eq!(rule.accept, [Property::Kernel, Property::Governor]);

    for (wrong, told) in [
        (r#"coverage = "1.5""#, "not strictly between 0 and 1"),
        (r#"confidence = "NaN""#, "is no share"),
        ("coverage = 0.99", "a share in quotes"),
        (r#"method = "gev""#, "there is no method `gev`; write one of margin, auto, order, gpd"),
        (r#"unclaimed = "maybe""#, "write one of refuse, accept"),
        (r#"accept = ["colour"]"#, "there is no property `colour`"),
    ] {
        let faults = read(wrong).expect_err("a faulty rule").to_string();
        assert!(faults.contains(told), "{wrong}: {faults}");
    }
}

#[test]
fn a_module_of_tvm_has_its_own_keys_and_no_others() {
    let with = |keys: &str| {
        let model = format!("backend = \"tvm\"\n{keys}");
        SMALL
            .replace("backend = \"sim\"", &model)
            .replace("\"sim\", memory", "\"host\", memory")
            .replace("sim.stages = [\"2ms\"]\n", "")
    };
    let text = with("stages = [\"a.llvm.so\", \"b.llvm.so\"]\ngraph = false");
    let workload = parse(&text).unwrap_or_else(|faults| panic!("{faults}"));
    let Backend::Tvm(model) = &workload.models[0].backend else { panic!("a module") };
    assert_eq!((model.stages.len(), model.graph), (2, false));
    assert_eq!(model.stages[1].path, Path::new("folder/b.llvm.so"));

    let faults = faults_of(&with("path = \"a.llvm.so\"\nthreads = 2\ntf32 = true"));
    let wrong = |key| FaultKind::WrongBackend { key, backend: "tvm" };
    let kinds: Vec<_> = faults.faults().iter().map(|fault| fault.kind.clone()).collect();
    assert_eq!(kinds, [wrong("threads"), wrong("tf32")]);
}
