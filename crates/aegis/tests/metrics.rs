//! The endpoint as Prometheus meets it, and what is written about it.
#![cfg(feature = "metrics")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use aegis::metrics::{Exposure, MetricsFeed, MetricsServer, Serving};
use aegis::{Bytes, Record, TraceObserver};

/// One record of every kind that a metric is made of, as the trace file writes them.
const RECORDS: [&str; 22] = [
    r#"{"at":1,"by":1,"event":"admitted","model":"m0","what":{"name":"camera","service":"guaranteed","period":20000000,"deadline":20000000,"jitter":0,"priority":0,"may_be_suspended":true,"compute":0,"streams":1,"slots":2,"stages":[1000000],"overhead":0,"bound":5000000,"persistent":4096,"scratch":2048,"partition":"vision"}}"#,
    r#"{"at":1,"by":1,"event":"bound_changed","model":"m0","bound":8000000}"#,
    r#"{"at":2,"by":1,"event":"refused","what":{"name":"lidar","why":{"refusal":"too_many_models","limit":1}}}"#,
    r#"{"at":3,"by":0,"event":"submitted","job":"m0#0","arrival":3,"release":3,"deadline":20000003}"#,
    r#"{"at":4,"by":0,"event":"submitted","job":"m0#1","arrival":4,"release":4,"deadline":20000004}"#,
    r#"{"at":5,"by":0,"event":"dispatched","job":"m0#0","stage":0,"stream":"s0","waiting":1,"why":{"reason":"only_ready"}}"#,
    r#"{"at":6,"by":0,"event":"stage_completed","job":"m0#0","stage":0,"started":5,"finished":1500005}"#,
    r#"{"at":6,"by":0,"event":"completed","job":"m0#0","response":3000000,"execution":1500000}"#,
    r#"{"at":6,"by":0,"event":"missed_deadline","job":"m0#0","late":5}"#,
    r#"{"at":7,"by":0,"event":"dropped","job":"m0#2","why":"overrun"}"#,
    r#"{"at":7,"by":0,"event":"faulted","job":"m0#3","category":"permanent"}"#,
    r#"{"at":7,"by":0,"event":"fenced","model":"m0"}"#,
    r#"{"at":8,"by":2,"event":"submission_refused","model":"m0","why":"no_slot"}"#,
    r#"{"at":8,"by":0,"event":"assumption_broken","assumption":"wake_latency","job":"m0#0","assumed":1,"observed":2}"#,
    r#"{"at":8,"by":0,"event":"bound_exceeded","job":"m0#0","bound":1,"response":2,"cause":null}"#,
    r#"{"at":8,"by":0,"event":"bound_exceeded","job":"m0#0","bound":1,"response":2,"cause":"m0#0"}"#,
    r#"{"at":8,"by":0,"event":"hanging","job":"m0#0","stage":0,"elapsed":9}"#,
    r#"{"at":8,"by":0,"event":"allocation_refused","model":"m0","requested":9,"available":8}"#,
    r#"{"at":8,"by":0,"event":"evidence_stale","job":"m0#0","stage":2,"why":{"staleness":"drift","mean":1,"excess":2500000}}"#,
    r#"{"at":9,"by":1,"event":"pressure_changed","from":"ample","to":"low","free":9}"#,
    r#"{"at":9,"by":1,"event":"admitted","model":"m1","what":{"name":"logger","service":"background","may_be_suspended":true,"compute":0,"streams":1,"slots":2,"stages":[1000000],"overhead":0,"bound":null,"persistent":0,"scratch":0}}"#,
    r#"{"at":9,"by":0,"event":"completed","job":"m7#0","response":3000000,"execution":1500000}"#,
];

fn served() -> (Serving, MetricsFeed) {
    let any = "127.0.0.1:0".parse().expect("an address");
    let server = MetricsServer::bind(any, Exposure::Loopback).expect("a free port");
    server.serve(Bytes::from_mib(64)).expect("a thread")
}

fn fed() -> (Serving, MetricsFeed) {
    let (serving, mut feed) = served();
    // Lost before: whoever waited then may have begun.
    feed.emptied(2);
    feed.emptied(3);
    for record in RECORDS {
        let record: Record = serde_json::from_str(record).expect("a record of the trace");
        feed.observe(&record);
    }
    feed.emptied(3);
    (serving, feed)
}

fn ask(address: SocketAddr, request: &str) -> String {
    let mut client = TcpStream::connect(address).expect("it listens");
    client.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("it answers, and closes");
    answer
}

fn scrape(address: SocketAddr) -> String {
    let answer = ask(address, "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    body.to_owned()
}

/// The value of exactly this series.
fn value(text: &str, series: &str) -> f64 {
    let line =
        text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(name, _)| name == series));
    let line = line.unwrap_or_else(|| panic!("there is no {series} in\n{text}"));
    line.rsplit_once(' ').expect("found by it").1.parse().expect("a number")
}

#[test]
fn every_event_is_counted_where_it_belongs() {
    let (serving, _feed) = fed();
    let text = scrape(serving.address());
    for (series, expected) in [
        (
            r#"aegis_model_info{model="camera",id="m0",partition="vision",service="guaranteed"}"#,
            1.0,
        ),
        (r#"aegis_model_info{model="logger",id="m1",partition="",service="background"}"#, 1.0),
        (r#"aegis_model_fenced{model="camera"}"#, 1.0),
        (r#"aegis_jobs_submitted_total{model="camera"}"#, 2.0),
        (r#"aegis_jobs_completed_total{model="camera"}"#, 1.0),
        (r#"aegis_deadline_misses_total{model="camera"}"#, 1.0),
        (r#"aegis_deadline_misses_total{model="logger"}"#, 0.0),
        (r#"aegis_jobs_dropped_total{model="camera",reason="overrun"}"#, 1.0),
        (r#"aegis_jobs_dropped_total{model="camera",reason="stopping"}"#, 0.0),
        (r#"aegis_jobs_failed_total{model="camera",category="permanent"}"#, 1.0),
        (r#"aegis_submissions_refused_total{model="camera",reason="no_slot"}"#, 1.0),
        (r#"aegis_models_refused_total{reason="too_many_models"}"#, 1.0),
        (r#"aegis_queue_depth{model="camera"}"#, 1.0),
        (r#"aegis_assumptions_broken_total{model="camera",assumption="wake_latency"}"#, 1.0),
        (r#"aegis_bounds_exceeded_total{model="camera",cause="none"}"#, 1.0),
        (r#"aegis_bounds_exceeded_total{model="camera",cause="broken_assumption"}"#, 1.0),
        (r#"aegis_stages_hanging_total{model="camera"}"#, 1.0),
        (r#"aegis_allocations_refused_total{model="camera"}"#, 1.0),
        (r#"aegis_evidence_stale_total{model="camera",stage="2",reason="drift"}"#, 1.0),
        (r#"aegis_evidence_drift_seconds{model="camera",stage="2"}"#, 0.0025),
        (r#"aegis_response_seconds_bucket{model="camera",le="0.002"}"#, 0.0),
        (r#"aegis_response_seconds_bucket{model="camera",le="0.005"}"#, 1.0),
        (r#"aegis_response_seconds_sum{model="camera"}"#, 0.003),
        (r#"aegis_execution_seconds_count{model="camera"}"#, 1.0),
        (r#"aegis_response_max_seconds{model="camera"}"#, 0.003),
        (r#"aegis_bound_seconds{model="camera"}"#, 0.008),
        (r#"aegis_deadline_seconds{model="camera"}"#, 0.02),
        (r#"aegis_slack_seconds{model="camera"}"#, 0.012),
        (r#"aegis_device_busy_seconds_total{model="camera"}"#, 0.0015),
        (r#"aegis_memory_bytes{model="camera",kind="resident"}"#, 4096.0),
        (r#"aegis_memory_bytes{model="camera",kind="scratch"}"#, 2048.0),
        ("aegis_memory_limit_bytes", 67_108_864.0),
        ("aegis_memory_pressure", 1.0),
        ("aegis_trace_events_total", 22.0),
        ("aegis_trace_events_dropped_total", 3.0),
    ] {
        let found = value(&text, series);
        assert!((found - expected).abs() < 1e-12, "{series} is {found}, not {expected}");
    }
    assert!(!text.contains("m7"), "a model that was never admitted has no series");
    assert!(!text.contains(r#"aegis_bound_seconds{model="logger"}"#), "nothing was promised to it");
}

#[test]
fn the_promises_of_a_model_go_with_it_and_its_deeds_stay() {
    let (serving, mut feed) = fed();
    let evicted = r#"{"at":20,"by":1,"event":"evicted","model":"m0"}"#;
    feed.observe(&serde_json::from_str(evicted).expect("a record"));
    let text = scrape(serving.address());
    for gone in
        ["aegis_bound_seconds", "aegis_queue_depth", "aegis_memory_bytes", "aegis_model_info"]
    {
        let series = format!("{gone}{{model=\"camera\"");
        assert!(!text.contains(&series), "{series} is still there");
    }
    assert!((value(&text, r#"aegis_deadline_misses_total{model="camera"}"#) - 1.0).abs() < 1e-12);
}

#[test]
fn other_requests_are_answered_and_never_with_metrics() {
    let (serving, _feed) = fed();
    let status = |request: &str| {
        let answer = ask(serving.address(), request);
        answer.lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(status("GET /elsewhere HTTP/1.1\r\n\r\n"), "HTTP/1.1 404 Not Found");
    assert_eq!(status("PUT /metrics HTTP/1.1\r\n\r\n"), "HTTP/1.1 405 Method Not Allowed");
    assert_eq!(status("what?\r\n\r\n"), "HTTP/1.1 400 Bad Request");
    let head = ask(serving.address(), "HEAD /metrics HTTP/1.1\r\n\r\n");
    assert!(head.ends_with("\r\n\r\n") && head.contains("Content-Length: "), "{head}");
}

#[test]
fn a_client_that_stalls_keeps_others_waiting_for_a_bounded_time() {
    let (serving, _feed) = fed();
    let mut stalled = TcpStream::connect(serving.address()).expect("it listens");
    stalled.write_all(b"GET /met").expect("it reads");
    let start = Instant::now();
    assert!(scrape(serving.address()).contains("aegis_model_info"));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    // And none keeps the end of the run waiting for longer.
    let mut stalled = TcpStream::connect(serving.address()).expect("it listens");
    stalled.write_all(b"GET /met").expect("it reads");
    let (address, start) = (serving.address(), Instant::now());
    drop(serving);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert!(TcpStream::connect(address).is_err(), "nobody listens there any more");
}

/// What the program serves: the type and the labels of each metric.
fn families(text: &str) -> BTreeMap<String, (String, BTreeSet<String>)> {
    let mut families = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a name and a type");
        let suffixes: &[&str] = if kind == "histogram" { &["_sum"] } else { &[""] };
        let begins = suffixes.iter().map(|suffix| format!("{name}{suffix}"));
        let series: Vec<String> = begins.collect();
        let sample = text.lines().find(|line| {
            series.iter().any(|name| {
                line.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with(['{', ' ']))
            })
        });
        let sample = sample.unwrap_or_else(|| panic!("{name} has no series"));
        let labels =
            sample.split_once('{').map_or("", |(_, rest)| rest.split('}').next().unwrap_or(""));
        let labels = labels
            .split("\",")
            .filter_map(|label| label.split_once('='))
            .map(|(key, _)| key.to_owned());
        families.insert(name.to_owned(), (kind.to_owned(), labels.collect()));
    }
    families
}

fn document(name: &str) -> String {
    let path = format!("{}/../../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_page_about_metrics_lists_all_that_exist_and_no_other() {
    let (serving, _feed) = fed();
    let served = families(&scrape(serving.address()));
    let page = document("metrics.md");
    let rows =
        page.lines().filter(|line| line.starts_with("| `aegis_") && line.matches('|').count() == 5);
    let listed: BTreeMap<_, _> = rows
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let labels = cells[2].split(", ").map(|label| label.trim_matches('`').to_owned());
            let labels = labels.filter(|label| !label.is_empty()).collect();
            (cells[0].trim_matches('`').to_owned(), (cells[1].to_owned(), labels))
        })
        .collect();
    assert_eq!(listed, served);
}

/// The words of a query that are no numbers and no text in quotes.
fn words(query: &str) -> Vec<String> {
    let outside = query.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    outside.split(|c| !is_word(c)).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn queries(value: &serde_json::Value, into: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str() {
                    Some(text) if matches!(key.as_str(), "expr" | "query" | "definition") => {
                        into.push(text.to_owned());
                    }
                    _ => queries(value, into),
                }
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| queries(value, into)),
        _ => {}
    }
}

/// All of PromQL that the dashboard and the page use, beside metrics and labels.
const LANGUAGE: [&str; 17] = [
    "by",
    "histogram_quantile",
    "increase",
    "label_values",
    "le",
    "max",
    "or",
    "rate",
    "sum",
    "vector",
    "__rate_interval",
    "__range",
    "prometheus",
    "5m",
    "1h",
    "0",
    "1",
];

#[test]
fn queries_name_only_metrics_and_labels_that_exist() {
    let (serving, _feed) = fed();
    let served = families(&scrape(serving.address()));
    let mut names: BTreeSet<String> = BTreeSet::new();
    for (name, (kind, labels)) in &served {
        names.extend(labels.iter().cloned());
        let suffixes: &[&str] =
            if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        names.extend(suffixes.iter().map(|suffix| format!("{name}{suffix}")));
    }
    let dashboard = serde_json::from_str(&document("grafana/aegis.json")).expect("JSON");
    let mut all = Vec::new();
    queries(&dashboard, &mut all);
    let page = document("metrics.md");
    let alarms =
        page.lines().filter(|line| line.starts_with("| `") && line.matches(" | ").count() == 1);
    all.extend(
        alarms.map(|row| row.trim_start_matches("| `").split('`').next().unwrap_or("").to_owned()),
    );
    assert!(all.len() > 30, "{} queries are all?", all.len());
    let mut used = BTreeSet::new();
    for query in &all {
        for word in words(query) {
            let is_known = names.contains(&word)
                || LANGUAGE.contains(&word.as_str())
                || word.chars().all(|c| c.is_ascii_digit());
            assert!(is_known, "`{word}` in `{query}` is no metric, no label and no function");
            used.insert(word);
        }
    }
    for (name, (kind, _)) in &served {
        let name = if kind == "histogram" { format!("{name}_bucket") } else { name.clone() };
        assert!(used.contains(&name), "the dashboard does not show {name}");
    }
}
