//! What `aegis check` says beyond yes and no: offers that hold, names, warnings, grounds.

use std::process::{Command, Output};

fn check(workload: &str, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("pipeline.toml"), workload).expect("a file");
    let mut program = Command::new(env!("CARGO_BIN_EXE_aegis"));
    program.args(["check", "pipeline.toml"]).args(arguments).current_dir(folder.path());
    program.output().expect("aegis starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

fn shown(workload: &str) -> String {
    text(&check(workload, &[]).stdout)
}

/// What the first refused model is offered, in words.
fn offers(workload: &str) -> Vec<String> {
    let json = json(workload);
    let offers = json["refused"][0]["offers"].as_array().expect("a refused model has offers");
    let words = offers.iter().map(|offer| offer["explained"].as_str().expect("words").to_owned());
    words.collect()
}

fn json(workload: &str) -> serde_json::Value {
    let output = check(workload, &["--json"]);
    serde_json::from_slice(&output.stdout).expect("JSON alone")
}

/// The head of a workload under `policy` with 64 MiB.
fn head(policy: &str) -> String {
    format!(
        r#"
        device = {{ driver = "sim", memory = "64MiB" }}
        scheduler = {{ policy = "{policy}", queue_depth = 8 }}
        overheads = {{ dispatch = "0ms", wake = "0ms" }}
        "#
    )
}

/// A simulated model of one stage.
fn model(name: &str, period: &str, cost: &str, memory: &str, more: &str) -> String {
    format!(
        r#"
        [[model]]
        name = "{name}"
        backend = "sim"
        period = "{period}"
        sim = {{ stages = ["{cost}"], persistent = "{memory}" }}
        {more}
        "#
    )
}

#[test]
fn an_offer_that_memory_refuses_is_not_made() {
    let camera = model("camera", "10ms", "4ms", "30MiB", "");
    let lidar = |memory| model("lidar", "100ms", "30ms", memory, "");
    let roomy = format!("{}{camera}{}", head("edf"), lidar("1MiB"));
    let expected = ["lidar runs in 5 equal stages", "camera is not there"];
    assert_eq!(offers(&roomy), expected);
    // Beside the camera there is no room for it, however it is cut.
    let tight = format!("{}{camera}{}", head("edf"), lidar("40MiB"));
    assert_eq!(offers(&tight), ["camera is not there"]);
    let map = model("map", "100ms", "1ms", "30MiB", "");
    let tighter = format!("{}{map}{camera}{}", head("edf"), lidar("40MiB"));
    assert!(offers(&tighter).is_empty(), "{:?}", offers(&tighter));
}

#[test]
fn where_memory_refuses_those_that_make_room_are_offered() {
    let small = model("small", "100ms", "1ms", "1MiB", "");
    let large = |name| model(name, "100ms", "1ms", "30MiB", "");
    let last = large("last");
    let all = format!("{}{small}{}{}{last}", head("edf"), large("one"), large("two"));
    let made = json(&all);
    assert_eq!(made["refused"][0]["refusal"]["refusal"], "device_memory");
    assert_eq!(offers(&all), ["one is not there", "two is not there"]);
    let taken = format!("{}{small}{}{last}", head("edf"), large("one"));
    assert_eq!(check(&taken, &[]).status.code(), Some(0), "an offer that is taken is admitted");
}

#[test]
fn a_cut_beyond_a_compute_budget_is_not_offered() {
    let head = head("edf").replace("dispatch = \"0ms\"", "dispatch = \"100us\"");
    let camera = model("camera", "10ms", "4ms", "1MiB", "");
    let budget = |compute| format!("[model.budget]\ncompute = \"{compute}\"");
    let lidar = |compute| model("lidar", "100ms", "30ms", "1MiB", &budget(compute));
    let cut = |compute| offers(&format!("{head}{camera}{}", lidar(compute)));
    assert!(cut("31ms").contains(&"lidar runs in 6 equal stages".into()), "{:?}", cut("31ms"));
    assert_eq!(cut("30.5ms"), ["camera is not there"], "six dispatches take 600 us");
}

#[test]
fn the_offered_period_says_what_becomes_of_the_deadline_and_holds() {
    let camera = model("camera", "10ms", "6ms", "1MiB", "");
    let with = |period: &str, deadline: &str| {
        let late = model("late", period, "3ms", "1MiB", deadline);
        format!("{}{camera}{late}", head("edf"))
    };
    let follows = &offers(&with("4ms", ""))[0];
    assert_eq!(follows, "its period is at least 9 ms (and its deadline with it)");
    let kept = &offers(&with("5ms", "deadline = \"9ms\""))[0];
    assert_eq!(kept, "its period is at least 7.5 ms (deadline kept at 9 ms)");
    // The same where the stated deadline happens to equal the period.
    let stages = ["1ms"; 7].join("\", \"");
    let camera = model("camera", "10ms", &stages, "1MiB", "deadline = \"30ms\"");
    let with = |period: &str| {
        let late = model("late", period, "3ms", "1MiB", "deadline = \"5ms\"");
        format!("{}{camera}{late}", head("edf"))
    };
    let kept = &offers(&with("5ms"))[0];
    assert_eq!(kept, "its period is at least 10 ms (deadline kept at 5 ms)");
    assert_eq!(check(&with("10ms"), &[]).status.code(), Some(0));
    assert_eq!(check(&with("9.999999ms"), &[]).status.code(), Some(1));
}

#[test]
fn a_refusal_can_be_resolved_without_the_table() {
    let camera = model("camera", "10ms", "4ms", "1MiB", "");
    let lidar = model("lidar", "100ms", "30ms", "1MiB", "");
    let json = json(&format!("{}{camera}{lidar}", head("edf")));
    let refused = &json["refused"][0];
    assert_eq!(refused["id"], "m1");
    assert_eq!(refused["names"], serde_json::json!({ "m0": "camera", "m1": "lidar" }));
    assert_eq!(refused["refusal"]["blocked_by"], refused["id"]);
    let named: Vec<_> = refused["offers"].as_array().expect("offers").iter().collect();
    assert_eq!((&named[0]["model"], &named[0]["name"]), (&"m1".into(), &"lidar".into()));
    assert_eq!((&named[1]["model"], &named[1]["name"]), (&"m0".into(), &"camera".into()));
}

#[test]
fn refusals_name_who_is_due_and_that_overheads_count() {
    let camera = model("camera", "10ms", "4ms", "1MiB", "");
    let lidar = model("lidar", "100ms", "30ms", "1MiB", "");
    let due = shown(&format!("{}{camera}{lidar}", head("edf")));
    assert!(due.contains("> window 10 ms, in which jobs of camera are due"), "{due}");
    let greedy = model("greedy", "10ms", "8ms", "1MiB", "");
    let over = shown(&format!("{}{camera}{greedy}", head("edf")));
    assert!(over.contains("sum C/T must not exceed 1, overheads included"), "{over}");
    assert!(over.contains("utilisation 40.0 % without overheads"), "{over}");
}

#[test]
fn a_priority_that_nobody_reads_is_said_and_refuses_nothing() {
    let camera = model("camera", "10ms", "4ms", "1MiB", "priority = 1");
    let output = check(&format!("{}{camera}", head("edf")), &[]);
    assert_eq!(output.status.code(), Some(0));
    let warning = "warning: the edf policy does not read `priority`, which is stated for camera\n";
    assert!(text(&output.stdout).ends_with(warning), "{}", text(&output.stdout));
    let read = shown(&format!("{}{camera}", head("priority")));
    assert!(!read.contains("warning"), "{read}");
}

#[test]
fn the_conclusion_counts_in_words() {
    let camera = model("camera", "10ms", "4ms", "1MiB", "");
    let one = shown(&format!("{}{camera}", head("edf")));
    assert!(one.contains("yes: the model meets every deadline"), "{one}");
    let served = |name| model(name, "10ms", "1ms", "1MiB", "best_effort = true");
    let none = shown(&format!("{}{}{}", head("edf"), served("a"), served("b")));
    assert!(none.contains("yes: 2 models admitted, and nothing has a deadline"), "{none}");
}

#[test]
fn the_hint_for_a_policy_is_the_name_it_begins() {
    let camera = model("camera", "10ms", "4ms", "1MiB", "");
    let output = check(&format!("{}{camera}", head("rm")), &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("did you mean `rms`?"), "{}", text(&output.stderr));
}

#[test]
fn a_long_search_is_announced_beside_the_answer() {
    let many = |count: usize| {
        let of = |n: usize| model(&format!("m{n}"), "1s", "1ms", "1KiB", "");
        format!("{}{}", head("fifo"), (0..count).map(of).collect::<String>())
    };
    let long = check(&many(33), &["--sensitivity", "--json"]);
    assert!(text(&long.stderr).contains("each of 33 models"), "{}", text(&long.stderr));
    let short = check(&many(2), &["--sensitivity", "--json"]);
    assert!(short.stderr.is_empty(), "{}", text(&short.stderr));
}

#[test]
fn a_server_shows_its_budget_and_no_sensitivity() {
    let camera = model("camera", "60ms", "4ms", "1MiB", "");
    let server = "best_effort = true\nserver = { budget = \"8ms\", period = \"40ms\" }";
    let planner = model("planner", "10ms", "3ms", "1MiB", server);
    let output = check(&format!("{}{camera}{planner}", head("edf")), &["--sensitivity"]);
    let shown = text(&output.stdout);
    assert!(shown.contains("| server ms |") && shown.contains("|     8.000 |"), "{shown}");
    let rows: Vec<&str> = shown.lines().filter(|line| line.starts_with("| planner ")).collect();
    let figures: Vec<&str> = rows[1].split('|').skip(2).map(str::trim).collect();
    assert_eq!(figures, ["-", "-", "-", "-", "-", ""], "{shown}");
}

#[test]
fn a_split_device_is_shown_beside_the_whole_one() {
    let text = r#"
device = { driver = "sim", memory = "64MiB" }
scheduler = { policy = "edf", queue_depth = 8 }
overheads = { dispatch = "0ns", wake = "0ns" }
[[partition]]
name = "vision"
sms = 72
[[partition]]
name = "control"
sms = 60
policy = "fifo"
[[model]]
name = "lidar"
partition = "vision"
backend = "sim"
period = "100ms"
sim = { stages = ["30ms"], scratch = "8MiB" }
[[model]]
name = "arm"
partition = "control"
backend = "sim"
period = "50ms"
sim = { stages = ["1ms"], scratch = "4MiB" }
"#;
    let output = check(text, &[]);
    expect_test::expect![[r#"
        | model | partition |   C ms |    T ms |    D ms | bound ms | blocking ms | slack ms | resident MiB | scratch MiB |
        |-------|-----------|--------|---------|---------|----------|-------------|----------|--------------|-------------|
        | lidar |    vision | 30.000 | 100.000 | 100.000 |   30.000 |       0.000 |   70.000 |          0.0 |         8.0 |
        | arm   |   control |  1.000 |  50.000 |  50.000 |    1.000 |       0.000 |   49.000 |          0.0 |         4.0 |
        partition vision, 72 SMs: edf policy, proved by non-preemptive EDF demand and blocking; utilisation 30.0 % without overheads
        partition control, 60 SMs: fifo policy, proved by first in, first out response times; utilisation 2.0 % without overheads
        C includes 0 ns per stage; waking up may take 0 ns
        memory: 0 B resident + 12 MiB shared scratch of 64 MiB
        vision, to the edge: all costs times 3.333, or 70 ms of overruns in one busy period, or stages in the background of 70 ms
        control, to the edge: all costs times 50.000, or 49 ms of overruns in one busy period, or stages in the background of 49 ms
        beside the whole device as one partition:
        | model | C ms split |  whole | bound ms split |  whole | slack ms split |  whole | gain ms |
        |-------|------------|--------|----------------|--------|----------------|--------|---------|
        | lidar |     30.000 | 30.000 |         30.000 | 31.000 |         70.000 | 69.000 |  +1.000 |
        | arm   |      1.000 |  1.000 |          1.000 | 31.000 |         49.000 | 19.000 | +30.000 |
        all admitted: yes split, yes whole
        utilisation: vision 30.0 % and control 2.0 % split, 32.0 % whole
        memory: 0 B resident + 12 MiB scratch split, 0 B resident + 8 MiB scratch whole
        yes: all 2 models meet every deadline under the stated assumptions
    "#]].assert_eq(&self::text(&output.stdout));
    assert_eq!(output.status.code(), Some(0));
    // Shorter, and the long stage would block it on the whole device.
    let shown = shown(&text.replace("50ms", "20ms"));
    assert!(shown.contains("all admitted: yes split, no whole"), "{shown}");
    let json = json(text);
    assert_eq!(json["admitted"]["partitions"][1]["policy"], "fifo");
    assert!(json["admitted"].get("policy").is_none(), "of which partition?");
    assert_eq!(json["unsplit"]["all_admitted"], true);
    assert_eq!(json["margins"][0]["partition"], "vision");
}

#[test]
fn a_printed_offer_is_admitted_as_it_is_printed() {
    let mut taken = 0;
    for (policy, cost, period) in [
        ("edf", "4214781ns", "3ms"),
        ("edf", "4214781ns", "4214783ns"),
        ("rms", "2000333ns", "1437777ns"),
        ("fifo", "999499ns", "1ms"),
        ("priority", "3333333ns", "2ms"),
    ] {
        let camera = model("camera", "20ms", "1000001ns", "1MiB", "priority = 1");
        let head = head(policy).replace(r#"wake = "0ms""#, r#"wake = "999999ns""#);
        let with = |period: &str, more: &str| {
            let of = model("lidar", period, cost, "1MiB", &format!("priority = 2\n{more}"));
            format!("{head}{camera}{of}")
        };
        for deadline in ["", "deadline = \"2500001ns\""] {
            for offer in offers(&with(period, deadline)) {
                let time = |rest: &str| rest.split(" (").next().expect("a part").to_owned();
                let changed = if let Some(rest) = offer.strip_prefix("its period is at least ") {
                    with(&time(rest), deadline)
                } else if let Some(rest) = offer.strip_prefix("its deadline is at least ") {
                    with(period, &format!("deadline = \"{}\"", time(rest)))
                } else {
                    continue;
                };
                let output = check(&changed, &[]);
                let said = text(&output.stdout);
                assert_eq!(output.status.code(), Some(0), "{policy} {offer}: {said}");
                taken += 1;
            }
        }
    }
    assert!(taken >= 5, "{taken} offers were tried");
}

#[test]
fn a_claim_that_the_margin_rule_does_not_read_is_said() {
    let camera = model("camera", "10ms", "4ms", "1MiB", "");
    let with = |wcet: &str| shown(&format!("{}wcet = {{ {wcet} }}\n{camera}", head("edf")));
    let unread = with(r#"coverage = "0.99", confidence = "0.9""#);
    let warning = "warning: the margin rule makes no claim and does not read `coverage` and \
                   `confidence`; `method = \"auto\"` under [wcet] makes one\n";
    assert!(unread.ends_with(warning), "{unread}");
    assert!(!with(r#"method = "order", coverage = "0.99""#).contains("warning"));
    assert!(!with("samples = 200").contains("warning"));
}

#[test]
fn a_model_on_the_wrong_driver_is_told_every_driver_that_would_do() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("m.onnx"), b"not read").expect("a file");
    let workload = format!(
        "{}[[model]]\nname = \"m\"\nbackend = \"onnx\"\npath = \"m.onnx\"\nperiod = \"1s\"\n",
        head("edf")
    );
    std::fs::write(folder.path().join("pipeline.toml"), workload).expect("a file");
    let mut program = Command::new(env!("CARGO_BIN_EXE_aegis"));
    let program = program.args(["check", "pipeline.toml"]).current_dir(folder.path());
    let said = text(&program.output().expect("aegis starts").stderr);
    assert!(said.contains("m runs on onnx, which needs the device driver host or cuda"), "{said}");
}

#[test]
fn a_model_that_cannot_be_decided_about_is_no_yes_and_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let aegis = |arguments: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_aegis"));
        program.args(arguments).current_dir(folder.path()).output().expect("aegis starts")
    };
    let head = head("edf").replace("\"sim\"", "\"host\"") + "wcet = { samples = 8 }\n";
    let workload = format!("{head}{}", model("camera", "100ms", "100us", "1MiB", ""));
    std::fs::write(folder.path().join("pipeline.toml"), &workload).expect("a file");
    assert_eq!(aegis(&["profile", "pipeline.toml"]).status.code(), Some(0));
    // A sample that no clock gives makes a cost that no task has: that is a failure, no refusal. The
    // network is none, and nothing loads it.
    let network = folder.path().join("planner.onnx");
    std::fs::write(&network, "no network").expect("a file");
    let planner = "[[model]]\nname = \"planner\"\nbackend = \"onnx\"\npath = \"planner.onnx\"\n\
                   period = \"100ms\"\n";
    std::fs::write(folder.path().join("pipeline.toml"), workload + planner).expect("a file");
    let path = folder.path().join("pipeline.evidence.json");
    let evidence = std::fs::read_to_string(&path).expect("the evidence");
    let mut evidence: serde_json::Value = serde_json::from_str(&evidence).expect("JSON");
    let mut measured = evidence["models"]["camera"].clone();
    let source = aegis::ModelSource::onnx(&network);
    let fingerprint = aegis::evidence::fingerprint(&source).expect("the file is there");
    measured["model"] = fingerprint.into();
    measured["stages"] = serde_json::json!(["planner.onnx"]);
    measured["samples"][0][3] = i64::MAX.into();
    evidence["models"]["planner"] = measured;
    std::fs::write(&path, evidence.to_string()).expect("a file");
    let why = "planner could not be admitted: ";
    // `run` would look for a runtime first; it prints the same function's words.
    let output = aegis(&["check", "pipeline.toml"]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{shown}");
    assert!(!shown.contains("yes"), "{shown}");
    assert!(shown.contains(&format!("\nno: {why}")), "{shown}");
    assert!(shown.contains("\nno: 1 of 2 models admitted, in file order; "), "{shown}");
    assert!(text(&output.stderr).contains(&format!("error: {why}")), "{}", text(&output.stderr));
    let output = aegis(&["check", "pipeline.toml", "--json"]);
    assert_eq!(output.status.code(), Some(2));
    let whole: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON alone");
    let refused = whole["refused"].as_array().expect("a list");
    assert_eq!(refused.len(), 1, "{whole}");
    assert_eq!((&refused[0]["model"], &refused[0]["refusal"]), (&"planner".into(), &().into()));
    let words = refused[0]["explained"].as_str().expect("words");
    assert!(words.starts_with(why) && words.contains("exceeds"), "{words}");
}

#[test]
fn everything_that_a_cost_includes_is_said_and_in_the_costs_of_best_effort_too() {
    let head = head("edf")
        .replace("dispatch = \"0ms\"", "dispatch = \"100us\", boundary = \"1ms\", copy = \"2ms\"");
    let stages = "1ms\", \"1ms";
    let models = [
        model("guaranteed", "100ms", stages, "1MiB", ""),
        model("background", "100ms", stages, "1MiB", "best_effort = true"),
        model(
            "served",
            "100ms",
            stages,
            "1MiB",
            "best_effort = true\nserver = { budget = \"20ms\", period = \"100ms\" }",
        ),
    ];
    let shown = shown(&format!("{head}{}", models.concat()));
    // Two stages of 1 ms, 100 us for each, 1 ms between them, 2 ms before and 2 ms behind.
    for name in ["guaranteed", "background", "served"] {
        let row = shown.lines().find(|line| line.starts_with(&format!("| {name} ")));
        let cost = row.and_then(|row| row.split('|').nth(2)).expect("a row with a cost");
        assert_eq!(cost.trim(), "7.200", "{shown}");
    }
    let included = "C includes 100 us per stage, 1 ms between two stages and 2 ms for inputs and as \
                    much for outputs; waking up";
    assert!(shown.contains(included), "{shown}");
}

#[test]
fn the_margin_on_declared_costs_is_said_where_there_is_one() {
    let head = head("edf").replace("\"sim\"", "\"host\"");
    let camera = model("camera", "100ms", "1ms", "1MiB", "");
    let host = shown(&format!("{head}{camera}"));
    assert!(
        host.contains("C includes 0 ns per stage and 20 % on top of declared times;"),
        "{host}"
    );
    assert!(host.contains("| camera | 1.200 |"), "{host}");
    let bare = shown(&format!("{head}wcet.margin_percent = 0\n{camera}"));
    assert!(bare.contains("C includes 0 ns per stage;") && bare.contains("| camera | 1.000 |"));
}

#[test]
fn a_refusal_says_what_look_ahead_has_to_do_with_it() {
    let ahead = |policy: &str, slow: &str| {
        let head = head(policy).replace("queue_depth = 8", "queue_depth = 8, look_ahead = true");
        let fast = model("fast", "20ms", "4ms", "1MiB", "");
        shown(&format!("{head}{fast}{}", model("slow", "100ms", slow, "1MiB", "")))
    };
    for policy in ["edf", "dm"] {
        let told = ahead(policy, "10ms");
        let part = "; look-ahead adds 10 ms of blocking to it, and without it the analysis accepts \
                    this\n";
        assert!(told.contains(part), "{told}");
        assert!(told.contains("look-ahead is on and costs what is admitted no blocking"), "{told}");
        let told = ahead(policy, "17ms");
        assert!(told.contains("; look-ahead adds 17 ms of blocking to it\n"), "{told}");
    }
    assert!(!ahead("edf", "120ms").contains("look-ahead adds"), "too much by itself");
}
