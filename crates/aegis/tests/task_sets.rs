//! Lines of task sets: whatever they hold, each has its answers, and these are the analyses' own.

use aegis::task_sets::{Invalid, Line, Options, Policy, Request, read};
use aegis::{Category, TimeModel};
use proptest::prelude::*;
use serde_json::{Value, json};

const OPTIONS: Options = Options { time: TimeModel::Dense, terms: 100_000, sensitivity: false };

fn read_text(text: &str) -> Result<Option<Request>, Vec<Invalid>> {
    read(Line::Whole(text.as_bytes()), 7)
}

/// Any JSON value, biased to what a line holds.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-3i64..30).prop_map(Value::from),
        Just(json!(1.5)),
        Just(json!("np-edf")),
        Just(json!("np-fp")),
        Just(json!("us")),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        let key = prop::sample::select(vec![
            "id", "unit", "policies", "overhead", "tasks", "chain", "C", "T", "D", "P", "J", "seg",
            "other",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key, inner), 0..6).prop_map(|entries| {
                Value::Object(entries.into_iter().map(|(key, v)| (key.to_owned(), v)).collect())
            }),
        ]
    })
}

/// A task that is valid but for, now and then, one field.
fn task() -> impl Strategy<Value = Value> {
    let time = || prop_oneof![9 => 1u64..40, 1 => Just(1u64 << 62), 1 => Just(0u64)];
    (time(), time(), time(), 0u64..9, -4i64..4, any::<bool>()).prop_map(|(c, t, d, j, p, split)| {
        let mut task = json!({"C": c, "T": t, "D": d, "J": j, "P": p});
        if split && c > 1 {
            task["seg"] = json!([1, c - 1]);
        }
        task
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn whatever_a_line_holds_it_has_an_answer(
        fields in prop::collection::vec((0usize..6, value()), 0..6),
        bytes in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        const KEYS: [&str; 6] = ["id", "unit", "policies", "overhead", "tasks", "chain"];
        let mut line = json!({"policies": ["np-fp"], "tasks": [{"C": 1, "T": 2, "D": 3, "P": 4}]});
        for (key, value) in fields {
            line[KEYS[key]] = value;
        }
        let text = line.to_string();
        match read_text(&text) {
            Ok(request) => {
                let request = request.expect("a line that is not blank");
                prop_assert!(!request.policies.is_empty());
            }
            Err(faults) => prop_assert!(!faults.is_empty() && !faults[0].faults.is_empty()),
        }
        if let Err(faults) = read(Line::Whole(&bytes), 1) {
            prop_assert!(faults.iter().all(|fault| fault.category() == Category::Permanent));
        }
    }

    #[test]
    fn every_policy_of_a_valid_line_is_answered_without_a_panic(
        tasks in prop::collection::vec(task(), 1..5),
        overhead in 0u64..4,
        sensitivity in any::<bool>(),
    ) {
        let chain: Vec<usize> = (0..tasks.len()).rev().collect();
        let names = Policy::ALL.map(Policy::name);
        let line = json!({
            "id": "x", "policies": names, "tasks": tasks, "overhead": overhead, "chain": chain,
        });
        let valid = tasks.iter().all(|t| ["C", "T", "D"].iter().all(|key| t[key] != json!(0)));
        match read_text(&line.to_string()) {
            Ok(request) => {
                prop_assert!(valid);
                let request = request.expect("a line that is not blank");
                let options = Options { sensitivity, ..OPTIONS };
                for policy in Policy::ALL {
                    let found = request.answer(policy, &options);
                    prop_assert_eq!(found.wcrt.len(), tasks.len());
                    prop_assert_eq!(found.schedulable, found.refusal.is_none());
                    let on_time = found.wcrt.iter().zip(&tasks).all(|(response, task)| {
                        response.is_some_and(|r| r <= task["D"].as_u64().expect("a number"))
                    });
                    prop_assert!(found.schedulable || !on_time || !found.exact, "{:?}", found);
                    prop_assert!(request.explain(policy, &options).contains(policy.name()));
                }
            }
            Err(faults) => {
                prop_assert!(!valid, "{faults:?}");
                prop_assert_eq!(faults.len(), names.len(), "one answer for each policy");
            }
        }
    }
}

#[test]
fn a_set_may_hold_as_many_tasks_as_an_analysis_takes() {
    let tasks = |count: usize| {
        let task = r#"{"C":1,"T":100000,"D":100000}"#;
        format!(r#"{{"policies":["np-edf"],"tasks":[{}]}}"#, vec![task; count].join(","))
    };
    let request = read_text(&tasks(65_536)).expect("valid").expect("not blank");
    assert_eq!(request.set.len(), 65_536);
    let faults = read_text(&tasks(65_537)).expect_err("one too many");
    assert_eq!(faults[0].to_string(), "line 7: tasks: holds 65537 tasks, more than 65536");
}

#[test]
fn only_so_many_faults_are_told() {
    let line = format!(r#"{{"policies":["fifo"],"tasks":[{}]}}"#, vec!["0"; 10_000].join(","));
    let text = read_text(&line).expect_err("no tasks")[0].to_string();
    assert!(text.len() < 1_000 && text.ends_with("; and more"), "{text}");
    let many = format!(r#"{{"policies":[{}],"tasks":[]}}"#, vec![r#""x""#; 17].join(","));
    let text = read_text(&many).expect_err("no policies")[0].to_string();
    assert!(text.contains("policies: holds 17 policies, more than 16"), "{text}");
}

#[test]
fn repeated_keys_behind_many_others_are_told_in_linear_time() {
    // Six million bytes: a search of what came before, for each key, would take minutes.
    let (others, repeated) = (r#""other":0,"#.repeat(250_000), r#""C":1,"#.repeat(250_000));
    let line = format!(r#"{{"policies":["fifo"],"tasks":[{{{others}{repeated}"T":2,"D":2}}]}}"#);
    let faults = read_text(&line).expect_err("C is given twice");
    assert!(faults[0].faults.iter().all(|fault| fault.to_string() == "tasks[0].C: is given twice"));
}

#[test]
fn keys_that_mean_nothing_are_told_in_every_answer_of_their_line() {
    let task = r#"{"C":1,"T":9,"D":9,"name":"a","j":[{"C":0,"C":0}]}"#;
    let line = format!(r#"{{"note":"n","policies":["fifo","np-fp"],"tasks":[{task}]}}"#);
    let request = read_text(&line).expect("valid").expect("not blank");
    let expected = json!(["note", "tasks[0].name", "tasks[0].j"]);
    let found = serde_json::to_value(request.answer(Policy::Fifo, &OPTIONS)).expect("JSON");
    assert_eq!((&found["ignored"], &found["schedulable"]), (&expected, &json!(true)));
    let text = request.explain(Policy::Fifo, &OPTIONS);
    assert!(text.ends_with("\nignored keys: note, tasks[0].name, tasks[0].j"), "{text}");
    let invalid = request.policies[1].as_ref().expect_err("P is missing");
    assert_eq!(serde_json::to_value(invalid).expect("JSON")["ignored"], expected);
    let faults = read_text(&line.replace(r#""C":1"#, r#""C":0"#)).expect_err("C is 0");
    assert_eq!(serde_json::to_value(&faults[1]).expect("JSON")["ignored"], expected);

    let many = line.replace(r#""note":"n""#, &vec![r#""note":"n""#; 17].join(","));
    let request = read_text(&many).expect("valid").expect("not blank");
    assert_eq!(request.ignored, vec!["note"; 16]);
    let none = r#"{"policies":["fifo"],"tasks":[{"C":1,"T":9,"D":9}]}"#;
    let request = read_text(none).expect("valid").expect("not blank");
    let found = serde_json::to_value(request.answer(Policy::Fifo, &OPTIONS)).expect("JSON");
    assert_eq!(found.get("ignored"), None);
}

#[test]
fn what_is_wrong_for_one_policy_is_told_beside_what_is_wrong_for_all() {
    let tasks = r#"[{"C":1,"T":-1,"D":1},{"C":1,"T":9,"D":9}]"#;
    let line = format!(r#"{{"policies":["np-edf","xx","np-fp"],"tasks":{tasks}}}"#);
    let told: Vec<String> =
        read_text(&line).expect_err("T is negative").iter().map(ToString::to_string).collect();
    let period = told[0].strip_prefix("line 7: ").expect("its line");
    assert!(period.starts_with("tasks[0].T: ") && !period.contains(';'), "{told:?}");
    let unknown = "line 7: policies[1]: must be one of np-fp, np-edf, np-rm, np-dm, fifo, not the \
                   text \"xx\"; ";
    assert_eq!(told[1], format!("{unknown}{period}"));
    let of = "is missing, and np-fp goes by it";
    let [first, second] = [0, 1].map(|task| format!("tasks[{task}].P: {of}"));
    assert_eq!(told[2], format!("line 7: {period}; {first}; {second}"));
}
