//! `aegis analyse` as a script meets it: lines in, lines out, and every way to get one wrong.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, Output, Stdio};

use expect_test::{Expect, expect};
use serde_json::{Value, json};

/// The example of Davis, Burns, Bril and Lukkien 2007.
const CAN: &str = r#"{"id":"can","unit":"us","policies":["np-fp"],"tasks":[
    {"C":100,"T":250,"D":250,"P":1},{"C":100,"T":350,"D":325,"P":2},
    {"C":100,"T":350,"D":325,"P":3}]}"#;

fn one_line(text: &str) -> Vec<u8> {
    text.replace('\n', " ").into_bytes()
}

fn start(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_aegis"))
        .arg("analyse")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("aegis starts")
}

/// What `aegis analyse - ARGUMENTS` makes of `input`.
fn analyse(input: &[u8], arguments: &[&str]) -> Output {
    let mut child = start(&[&["-"], arguments].concat());
    let mut stdin = child.stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().expect("it ends")
    })
}

fn answers(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).expect("output is UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

fn check(line: &str, arguments: &[&str], expected: &Expect) {
    let output = analyse(&one_line(line), arguments);
    expected.assert_eq(std::str::from_utf8(&output.stdout).expect("output is UTF-8"));
}

#[test]
fn the_can_example_has_its_published_responses_in_both_time_models() {
    check(
        CAN,
        &["--time", "discrete"],
        &expect![[r#"
        {"id":"can","policy":"np-fp","schedulable":false,"wcrt":[199,299,350],"test":"non-preemptive fixed-priority response times","exact":true,"refusal":"tasks[2]: response 350 us > deadline 325 us"}
    "#]],
    );
    check(
        CAN,
        &[],
        &expect![[r#"
        {"id":"can","policy":"np-fp","schedulable":false,"wcrt":[200,300,350],"test":"non-preemptive fixed-priority response times","exact":true,"refusal":"tasks[2]: response 350 us > deadline 325 us"}
    "#]],
    );
    assert_eq!(analyse(&one_line(CAN), &[]).status.code(), Some(0), "a refused set is an answer");
}

#[test]
fn a_file_is_read_as_standard_input_is() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("sets.jsonl");
    std::fs::write(&file, one_line(CAN)).expect("a file");
    let output = start(&[file.to_str().expect("a path")]).wait_with_output().expect("it ends");
    assert_eq!(output.stdout, analyse(&one_line(CAN), &[]).stdout);
    assert_eq!(output.status.code(), Some(0));
    let missing = start(&["nowhere.jsonl"]).wait_with_output().expect("it ends");
    assert_eq!(missing.status.code(), Some(2));
    let folder = start(&["/"]).wait_with_output().expect("it ends");
    assert_eq!((folder.status.code(), folder.stdout.as_slice()), (Some(2), &b""[..]));
}

/// One set under every policy: stages, overhead, jitter and priorities all take part.
const MIXED: &str = r#"{"id":"mixed","unit":"ms","overhead":1,
    "policies":["np-fp","np-edf","np-rm","np-dm","fifo"],
    "tasks":[{"C":2,"T":12,"D":11,"P":-7,"J":1},{"C":12,"T":60,"D":60,"P":9000000000,"seg":[4,4,4]},
             {"C":3,"T":30,"D":40,"P":0}],"chain":[0,2,1]}"#;

#[test]
fn every_policy_answers_with_every_key() {
    check(
        MIXED,
        &[],
        &expect![[r#"
        {"id":"mixed","policy":"np-fp","schedulable":true,"wcrt":[9,25,12],"test":"non-preemptive fixed-priority response times","exact":true,"refusal":null}
        {"id":"mixed","policy":"np-edf","schedulable":true,"wcrt":[9,25,12],"test":"non-preemptive EDF demand and blocking","exact":false,"refusal":null}
        {"id":"mixed","policy":"np-rm","schedulable":true,"wcrt":[9,25,12],"test":"non-preemptive fixed-priority response times","exact":true,"refusal":null}
        {"id":"mixed","policy":"np-dm","schedulable":true,"wcrt":[9,25,12],"test":"non-preemptive fixed-priority response times","exact":true,"refusal":null}
        {"id":"mixed","policy":"fifo","schedulable":false,"wcrt":[23,22,22],"test":"first in, first out response times","exact":false,"refusal":"tasks[0]: response 23 ms > deadline 11 ms"}
    "#]],
    );
    check(
        MIXED,
        &["--sensitivity"],
        &expect![[r#"
        {"id":"mixed","policy":"np-fp","schedulable":true,"wcrt":[9,25,12],"test":"non-preemptive fixed-priority response times","exact":true,"refusal":null,"max_scale_ppm":1250000,"max_best_effort_chunk":6,"feasible_with_some_priority_order":true,"chain_reaction":128,"chain_age":68}
        {"id":"mixed","policy":"np-edf","schedulable":true,"wcrt":[9,25,12],"test":"non-preemptive EDF demand and blocking","exact":false,"refusal":null,"max_scale_ppm":1250000,"max_best_effort_chunk":6,"chain_reaction":128,"chain_age":68}
        {"id":"mixed","policy":"np-rm","schedulable":true,"wcrt":[9,25,12],"test":"non-preemptive fixed-priority response times","exact":true,"refusal":null,"max_scale_ppm":1250000,"max_best_effort_chunk":6,"chain_reaction":128,"chain_age":68}
        {"id":"mixed","policy":"np-dm","schedulable":true,"wcrt":[9,25,12],"test":"non-preemptive fixed-priority response times","exact":true,"refusal":null,"max_scale_ppm":1250000,"max_best_effort_chunk":6,"chain_reaction":128,"chain_age":68}
        {"id":"mixed","policy":"fifo","schedulable":false,"wcrt":[23,22,22],"test":"first in, first out response times","exact":false,"refusal":"tasks[0]: response 23 ms > deadline 11 ms","max_scale_ppm":250000,"max_best_effort_chunk":null,"chain_reaction":125,"chain_age":65}
    "#]],
    );
}

#[test]
fn an_argument_adds_up_in_the_unit_of_the_set() {
    let edf = MIXED.replace(r#""np-fp","np-edf","np-rm","np-dm","fifo""#, r#""np-edf""#);
    check(
        &edf.replace(r#""D":11"#, r#""D":8"#),
        &["--explain", "--sensitivity"],
        &expect![[r#"
        mixed, np-edf, dense time: not schedulable: demand 3 ms + blocking 5 ms by a stage of tasks[1] > window 7 ms
          utilisation 0.633333, decided by non-preemptive EDF demand and blocking (not exact here)
          in a window of 7 ms:
          + 5 ms  blocking by a stage of tasks[1] that had just started
          + 3 ms  1 job of tasks[0]
          = 8 ms  which is more than 7 ms
        tasks[0]: response 9 ms > deadline 8 ms
          worst is job 1 in a busy period of at most 28 ms: visible at 0 ms, due at 7 ms
          + 5 ms  blocking by a stage of tasks[1] that had just started
          + 3 ms  1 job of tasks[0], its last stage (3 ms) from 5 ms on
          = 8 ms  when it ends
          + 1 ms  by which that may be later than its release
          = 9 ms  response
        tasks[1]: response 25 ms <= deadline 60 ms, slack 35 ms
          worst is job 1 in a busy period of at most 28 ms: visible at 0 ms, due at 60 ms
          +  6 ms  2 jobs of tasks[0], 3 ms each
          +  4 ms  1 job of tasks[2]
          + 15 ms  1 job of tasks[1], its last stage (5 ms) from 20 ms on
          = 25 ms  when it ends
          = 25 ms  response
        tasks[2]: response 12 ms <= deadline 40 ms, slack 28 ms
          worst is job 1 in a busy period of at most 28 ms: visible at 0 ms, due at 40 ms
          +  5 ms  blocking by a stage of tasks[1] that had just started
          +  3 ms  1 job of tasks[0]
          +  4 ms  1 job of tasks[2], its last stage (4 ms) from 8 ms on
          = 12 ms  when it ends
          = 12 ms  response
        all stages may be 0.750000 times as long
        longest best-effort chunk: none
        chain: reaction at most 128 ms, data age 68 ms

    "#]],
    );
}

#[test]
fn only_the_order_of_priorities_matters() {
    let responses = |priorities: [&str; 3]| {
        let mut line = CAN.to_owned();
        for (index, priority) in priorities.iter().enumerate() {
            line = line.replace(&format!("\"P\":{}}}", index + 1), &format!("\"P\": {priority}}}"));
        }
        answers(&analyse(&one_line(&line), &[]))[0]["wcrt"].clone()
    };
    let same = responses(["1", "2", "3"]);
    assert_eq!(same, json!([200, 300, 350]));
    assert_eq!(responses(["-9223372036854775808", "-1", "18446744073709551615"]), same);
    assert_eq!(responses(["4294967296", "4294967297", "8589934592"]), same);
    assert_eq!(responses(["5", "5", "5"]), json!([300, 350, 350]), "ties go against everybody");
}

#[test]
fn a_backlog_without_end_has_no_bound_and_no_answer_is_no() {
    let over = r#"{"id":1,"policies":["np-fp","fifo"],"tasks":[{"C":2,"T":3,"D":9,"P":1},
        {"C":2,"T":3,"D":9,"P":2}],"chain":[0,1]}"#;
    check(
        over,
        &["--sensitivity"],
        &expect![[r#"
        {"id":1,"policy":"np-fp","schedulable":false,"wcrt":[4,null],"test":"non-preemptive fixed-priority response times","exact":true,"refusal":"utilisation 1.3333 is more than the device: sum C/T must not exceed 1","max_scale_ppm":500000,"max_best_effort_chunk":null,"feasible_with_some_priority_order":false,"chain_reaction":null,"chain_age":null}
        {"id":1,"policy":"fifo","schedulable":false,"wcrt":[null,null],"test":"first in, first out response times","exact":true,"refusal":"utilisation 1.3333 is more than the device: sum C/T must not exceed 1","max_scale_ppm":500000,"max_best_effort_chunk":null,"chain_reaction":null,"chain_age":null}
    "#]],
    );
    let few = CAN.replace("np-fp", "np-edf");
    check(
        &few,
        &["--terms", "3"],
        &expect![[r#"
        {"id":"can","policy":"np-edf","schedulable":false,"wcrt":[null,null,null],"test":"non-preemptive EDF demand and blocking","exact":false,"refusal":"undecided, which counts as no: no answer within 3 steps of analysis"}
    "#]],
    );
    let figures = answers(&analyse(&one_line(&few), &["--terms", "3", "--sensitivity"]));
    assert_eq!(figures[0].get("max_scale_ppm"), Some(&Value::Null));
    assert_eq!(figures[0].get("max_best_effort_chunk"), Some(&Value::Null));
    let text = analyse(&one_line(&few), &["--terms", "3", "--explain", "--sensitivity"]).stdout;
    let text = String::from_utf8(text).expect("output is UTF-8");
    assert!(text.starts_with("can, np-edf, dense time: undecided, which counts as no"), "{text}");
    assert!(text.contains("how much longer stages may be: undecided"), "{text}");
    assert!(!text.contains("exact here") && !text.contains("not schedulable"), "{text}");
}

#[test]
fn values_up_to_the_longest_time_get_an_answer_or_a_named_limit() {
    let longest = 1u64 << 62;
    let task = format!(r#"{{"C":{},"T":{longest},"D":{longest},"J":{},"P":0}}"#, longest / 3, 7);
    let line = format!(
        r#"{{"id":"long","overhead":{longest},"policies":["np-fp","np-edf","fifo"],
        "tasks":[{task},{task},{task}]}}"#
    );
    for line in [line.clone(), line.replace(&format!(r#""overhead":{longest},"#), "")] {
        let output = analyse(&one_line(&line), &["--sensitivity"]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(answers(&output).len(), 3);
    }
    let output =
        analyse(&one_line(&line.replace(&longest.to_string(), "18446744073709551615")), &[]);
    assert_eq!(output.status.code(), Some(1));
    let error = answers(&output)[0]["error"].to_string();
    assert!(error.contains("tasks[0].T: must be at most 4611686018427387904"), "{error}");
}

/// A good line with one field replaced, and lines that are none.
fn faulty_lines() -> Vec<String> {
    let good = r#"{"id":"x","policies":["np-edf"],"tasks":[{"C":2,"T":5,"D":5}]}"#;
    let task = r#"{"C":2,"T":5,"D":5}"#;
    let with = |change: &str| good.replace(task, change);
    vec![
        with(r#"{"C":0,"T":5,"D":5}"#),
        with(r#"{"C":2,"T":-5,"D":5}"#),
        with(r#"{"C":2,"T":5,"D":0}"#),
        with(r#"{"C":2,"T":5,"D":5,"J":-1}"#),
        with(r#"{"C":100.0,"T":"5","D":1e2,"J":null}"#),
        with(r#"{"C":2,"T":true,"D":[5],"J":{}}"#),
        with(r#"{"C":2,"T":99999999999999999999999,"D":5}"#),
        with(r#"{"T":5,"D":5}"#),
        with(r#"{"C":2,"T":5}"#),
        with(r#"{"C":2,"T":5,"D":5,"P":1.5}"#),
        with(r#"{"C":2,"T":5,"D":5,"p":1}"#),
        with(r#"{"C":2,"C":2,"T":5,"D":5}"#),
        with(r#"{"C":2,"T":5,"D":5,"seg":[1]}"#),
        with(r#"{"C":2,"T":5,"D":5,"seg":[]}"#),
        with(r#"{"C":2,"T":5,"D":5,"seg":[2,0]}"#),
        with(r#"{"C":2,"T":5,"D":5,"seg":2}"#),
        with("7"),
        with(""),
        good.replace(r#","tasks":[{"C":2,"T":5,"D":5}]"#, ""),
        good.replace(r#"[{"C":2,"T":5,"D":5}]"#, "{}"),
        good.replace(r#""policies":["np-edf"],"#, ""),
        good.replace(r#"["np-edf"]"#, "[]"),
        good.replace(r#"["np-edf"]"#, r#""np-edf""#),
        good.replace(r#"["np-edf"]"#, r#"["np-edf","edf",3]"#),
        good.replace(r#"["np-edf"]"#, r#"["np-edf","edf"]"#),
        good.replace(r#"["np-edf"]"#, r#"["np-edf","np-edf"]"#),
        good.replace(r#"["np-edf"]"#, r#"["np-fp","np-edf"]"#),
        good.replace(r#""id":"x""#, r#""id":"x","unit":"s""#),
        good.replace(r#""id":"x""#, r#""id":"x","unit":1"#),
        good.replace(r#""id":"x""#, r#""id":"x","overhead":-1"#),
        good.replace(r#""id":"x""#, r#""id":"x","overhead":0.5"#),
        good.replace(r#""id":"x""#, r#""id":"x","colour":"red""#),
        good.replace(r#""id":"x""#, r#""id":"x","id":"y""#),
        good.replace(r#""id":"x""#, r#""id":null"#),
        good.replace(r#""id":"x""#, r#""id":"x","chain":[]"#),
        good.replace(r#""id":"x""#, r#""id":"x","chain":[0,0]"#),
        good.replace(r#""id":"x""#, r#""id":"x","chain":[1,-1,"0"]"#),
        good.replace(r#""id":"x""#, r#""id":"x","chain":0"#),
        "{".into(),
        "not json".into(),
        "[]".into(),
        format!("{good}{good}"),
        "[".repeat(1000),
    ]
}

#[test]
fn every_fault_names_its_field_and_its_reason() {
    let output = analyse(faulty_lines().join("\n").as_bytes(), &[]);
    assert_eq!(output.status.code(), Some(1));
    expect![[r#"
        {"id":"x","policy":"np-edf","error":"line 1: tasks[0].C: must be at least 1, not 0"}
        {"id":"x","policy":"np-edf","error":"line 2: tasks[0].T: must be at least 1, not -5"}
        {"id":"x","policy":"np-edf","error":"line 3: tasks[0].D: must be at least 1, not 0"}
        {"id":"x","policy":"np-edf","error":"line 4: tasks[0].J: must be at least 0, not -1"}
        {"id":"x","policy":"np-edf","error":"line 5: tasks[0].C: must be an integer up to 2^62, without point or exponent, not 100.0; tasks[0].T: must be an integer up to 2^62, without point or exponent, not the text \"5\"; tasks[0].D: must be an integer up to 2^62, without point or exponent, not 1e2; tasks[0].J: must be an integer up to 2^62, without point or exponent, not null"}
        {"id":"x","policy":"np-edf","error":"line 6: tasks[0].T: must be an integer up to 2^62, without point or exponent, not true; tasks[0].D: must be an integer up to 2^62, without point or exponent, not a list; tasks[0].J: must be an integer up to 2^62, without point or exponent, not an object"}
        {"id":"x","policy":"np-edf","error":"line 7: tasks[0].T: must be an integer up to 2^62, without point or exponent, not 99999999999999999999999"}
        {"id":"x","policy":"np-edf","error":"line 8: tasks[0].C: is missing"}
        {"id":"x","policy":"np-edf","error":"line 9: tasks[0].D: is missing"}
        {"id":"x","policy":"np-edf","error":"line 10: tasks[0].P: must be an integer of 64 bits, without point or exponent, not 1.5"}
        {"id":"x","policy":"np-edf","schedulable":true,"wcrt":[2],"test":"non-preemptive EDF demand and blocking","exact":true,"refusal":null,"ignored":["tasks[0].p"]}
        {"id":"x","policy":"np-edf","error":"line 12: tasks[0].C: is given twice"}
        {"id":"x","policy":"np-edf","error":"line 13: tasks[0].seg: adds up to 1, and C is 2"}
        {"id":"x","policy":"np-edf","error":"line 14: tasks[0].seg: is empty; there must be at least one stage"}
        {"id":"x","policy":"np-edf","error":"line 15: tasks[0].seg[1]: must be at least 1, not 0"}
        {"id":"x","policy":"np-edf","error":"line 16: tasks[0].seg: must be a list, not 2"}
        {"id":"x","policy":"np-edf","error":"line 17: tasks[0]: must be an object, not 7"}
        {"id":"x","policy":"np-edf","error":"line 18: tasks: is empty; there must be at least one task"}
        {"id":"x","policy":"np-edf","error":"line 19: tasks: is missing"}
        {"id":"x","policy":"np-edf","error":"line 20: tasks: must be a list, not an object"}
        {"id":"x","policy":null,"error":"line 21: policies: is missing"}
        {"id":"x","policy":null,"error":"line 22: policies: is empty; there must be at least one policy"}
        {"id":"x","policy":null,"error":"line 23: policies: must be a list, not the text \"np-edf\""}
        {"id":"x","policy":"np-edf","error":"line 24: policies[2]: must be a text, not 3"}
        {"id":"x","policy":"edf","error":"line 24: policies[1]: must be one of np-fp, np-edf, np-rm, np-dm, fifo, not the text \"edf\"; policies[2]: must be a text, not 3"}
        {"id":"x","policy":"np-edf","schedulable":true,"wcrt":[2],"test":"non-preemptive EDF demand and blocking","exact":true,"refusal":null}
        {"id":"x","policy":"edf","error":"line 25: policies[1]: must be one of np-fp, np-edf, np-rm, np-dm, fifo, not the text \"edf\""}
        {"id":"x","policy":"np-edf","error":"line 26: policies[1]: is given twice"}
        {"id":"x","policy":"np-fp","error":"line 27: tasks[0].P: is missing, and np-fp goes by it"}
        {"id":"x","policy":"np-edf","schedulable":true,"wcrt":[2],"test":"non-preemptive EDF demand and blocking","exact":true,"refusal":null}
        {"id":"x","policy":"np-edf","error":"line 28: unit: must be one of tick, ns, us, ms, not the text \"s\""}
        {"id":"x","policy":"np-edf","error":"line 29: unit: must be one of tick, ns, us, ms, not 1"}
        {"id":"x","policy":"np-edf","error":"line 30: overhead: must be at least 0, not -1"}
        {"id":"x","policy":"np-edf","error":"line 31: overhead: must be an integer up to 2^62, without point or exponent, not 0.5"}
        {"id":"x","policy":"np-edf","schedulable":true,"wcrt":[2],"test":"non-preemptive EDF demand and blocking","exact":true,"refusal":null,"ignored":["colour"]}
        {"id":"x","policy":"np-edf","error":"line 33: id: is given twice"}
        {"id":34,"policy":"np-edf","error":"line 34: id: must be a text or an integer, not null"}
        {"id":"x","policy":"np-edf","error":"line 35: chain: is empty; there must be at least one task"}
        {"id":"x","policy":"np-edf","error":"line 36: chain[1]: is given twice"}
        {"id":"x","policy":"np-edf","error":"line 37: chain[0]: must be at most 0, not 1; chain[1]: must be at least 0, not -1; chain[2]: must be an index of a task, counted from 0, not the text \"0\""}
        {"id":"x","policy":"np-edf","error":"line 38: chain: must be a list, not 0"}
        {"id":39,"policy":null,"error":"line 39: the line is not JSON: it ends too early; write one JSON object per line, column 1"}
        {"id":40,"policy":null,"error":"line 40: the line is not JSON: there is no value here, column 2"}
        {"id":41,"policy":null,"error":"line 41: must be one JSON object per line, not a list"}
        {"id":42,"policy":null,"error":"line 42: the line is not JSON: more follows; write one JSON object per line, column 63"}
        {"id":43,"policy":null,"error":"line 43: the line is not JSON: recursion limit exceeded, column 128"}
    "#]].assert_eq(std::str::from_utf8(&output.stdout).expect("output is UTF-8"));
}

#[test]
fn a_line_at_fault_does_not_stop_the_next_one() {
    let good = r#"{"policies":["np-edf"],"tasks":[{"C":2,"T":5,"D":5}]}"#;
    let mut input = Vec::new();
    input.extend_from_slice(b"\xEF\xBB\xBF"); // Some programs begin a file so.
    input.extend_from_slice(good.as_bytes());
    input.extend_from_slice(b"\r\n\n   \n\xFF\xFE\n");
    input.extend_from_slice(&vec![b' '; (8 << 20) + 1]);
    input.extend_from_slice(format!("\n{good}\n\u{feff}{good}\n{good}").as_bytes());
    let output = analyse(&input, &[]);
    assert_eq!(output.status.code(), Some(1));
    let answers = answers(&output);
    let ids: Vec<&Value> = answers.iter().map(|answer| &answer["id"]).collect();
    assert_eq!(ids, [1, 4, 5, 6, 7, 8], "lines without an id go by their number");
    let errors: Vec<&str> = answers.iter().filter_map(|answer| answer["error"].as_str()).collect();
    expect![[r#"
        line 4: the line is not UTF-8 text
        line 5: the line is longer than 8388608 bytes
        line 7: the line is not JSON: there is no value here, column 1"#]]
    .assert_eq(&errors.join("\n"));
}

#[test]
fn every_answer_is_there_before_the_next_line_is_asked_for() {
    let mut child = start(&["-"]);
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    for _ in 0..3 {
        stdin.write_all(&one_line(CAN)).and_then(|()| stdin.write_all(b"\n")).expect("it reads");
        let mut answer = String::new();
        stdout.read_line(&mut answer).expect("it answers");
        assert!(answer.contains("[200,300,350]"), "{answer}");
    }
    drop(stdin);
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_reader_who_leaves_early_ends_it_quietly() {
    let mut child = start(&["-"]);
    drop(child.stdout.take());
    let mut stdin = child.stdin.take().expect("a pipe");
    let line = [one_line(CAN), b"\n".to_vec()].concat();
    // Without an end of its input, so it must end by itself.
    while stdin.write_all(&line).is_ok() {}
    let mut said = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut said).expect("text");
    assert_eq!((child.wait().expect("it ends").code(), said.as_str()), (Some(0), ""));
}

#[test]
fn where_the_search_gives_up_on_a_schedulable_set_the_deadline_is_the_bound() {
    // The verdict takes one look at the longest window; the responses want every deadline.
    let tasks: Vec<String> =
        (0..40).map(|index| format!(r#"{{"C":20,"T":{0},"D":{0}}}"#, 1_000 + 17 * index)).collect();
    let line = format!(r#"{{"unit":"ms","policies":["np-edf"],"tasks":[{}]}}"#, tasks.join(","));
    let few = answers(&analyse(line.as_bytes(), &["--terms", "150"]));
    assert_eq!((&few[0]["schedulable"], &few[0]["wcrt"][39]), (&json!(true), &json!(1_663)));
    let text = analyse(line.as_bytes(), &["--terms", "150", "--explain"]).stdout;
    let text = String::from_utf8(text).expect("output is UTF-8");
    let last = text.lines().rfind(|line| line.starts_with("tasks[39]")).expect("its line");
    expect!["tasks[39]: response <= deadline 1663 ms, how much less is not known: no answer within 150 steps of analysis"].assert_eq(last);
    let marked = few[0]["wcrt_not_tight"].as_array().expect("some were given up");
    assert!(marked.contains(&json!(39)), "{marked:?}");
    let all = answers(&analyse(line.as_bytes(), &[]));
    assert_eq!(all[0].get("wcrt_not_tight"), None, "every search ended");
    assert!(all[0]["wcrt"][39].as_u64().is_some_and(|found| found < 1_663), "{all:?}");
}

#[test]
fn a_job_that_is_late_alone_names_only_what_adds_up() {
    let refusals = |jitter: u64, overhead: u64| {
        let task = json!({"C": 6, "T": 9, "D": 5, "J": jitter});
        let line = json!({"policies": ["fifo"], "overhead": overhead, "tasks": [task]});
        let line = line.to_string();
        let text = analyse(line.as_bytes(), &["--explain"]).stdout;
        let answer = answers(&analyse(line.as_bytes(), &[]))[0]["refusal"].clone();
        let answer = answer.as_str().expect("a refusal").to_owned();
        assert!(String::from_utf8(text).expect("UTF-8").contains(&answer), "{answer}");
        answer
    };
    assert_eq!(refusals(0, 0), "tasks[0]: cost 6 ticks > deadline 5 ticks");
    assert_eq!(refusals(2, 0), "tasks[0]: jitter + cost 8 ticks > deadline 5 ticks");
    assert_eq!(refusals(0, 1), "tasks[0]: cost with overhead 7 ticks > deadline 5 ticks");
    assert_eq!(refusals(2, 1), "tasks[0]: jitter + cost with overhead 9 ticks > deadline 5 ticks");
}

#[test]
fn text_in_utf_16_is_named() {
    let output = analyse(b"\xFF\xFE{\0}\0", &[]);
    let error = answers(&output)[0]["error"].clone();
    assert_eq!(
        error,
        json!("line 1: begins with the byte order mark of UTF-16; the text must be UTF-8")
    );
}
