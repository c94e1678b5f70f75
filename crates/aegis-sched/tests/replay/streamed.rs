//! A replay that keeps counts only answers every question as one that keeps everything.

use aegis_sched::replay::{
    Extent, Keeps, Pass, Records, ReplayError, Replayed, replay, replay_records,
};
use aegis_trace::{
    ExecutorConfig, JobId, ModelId, PolicyKind, Record, Trace, TraceError, TraceEvent,
};

use crate::worlds;

fn counted(trace: &Trace, extent: Extent) -> Replayed {
    replay_records(trace, extent, Keeps::Counts).expect("a trace of ours")
}

/// Both, which say the same of the whole.
fn both(trace: &Trace, extent: Extent) -> [Replayed; 2] {
    let whole = replay(trace, extent).expect("a trace of ours");
    let counts = counted(trace, extent);
    assert_eq!(whole.divergence, counts.divergence);
    for (whole, counts) in whole.executors.iter().zip(&counts.executors) {
        assert_eq!(whole.timeline.jobs.len() as u64, counts.jobs);
        assert_eq!(whole.timeline.services.len() as u64, counts.stages);
        assert_eq!((whole.jobs, whole.stages), (counts.jobs, counts.stages));
        assert_eq!((whole.events, whole.admissions), (counts.events, counts.admissions));
        assert!(counts.timeline.jobs.is_empty() && counts.timeline.services.is_empty());
    }
    [whole, counts]
}

#[test]
fn an_account_from_an_excerpt_is_the_one_from_everything() {
    let (mut accounts, mut none) = (0, 0);
    for (turn, seed) in (0..120).enumerate() {
        let trace = worlds::hostile(seed);
        let [whole, counts] = both(&trace, Extent::Whole);
        let jobs: Vec<JobId> = whole.executors[0].timeline.jobs.keys().copied().collect();
        let beyond = JobId { model: ModelId::first(0), sequence: 1 << 40 };
        let step = (jobs.len() / 4).max(1);
        for job in jobs.into_iter().skip(turn % 7).step_by(step).chain([beyond]) {
            match (whole.account(&trace, job), counts.account(&trace, job)) {
                (Ok(known), Ok(found)) => {
                    assert_eq!(format!("{known:#?}"), format!("{found:#?}"), "seed {seed}, {job}");
                    accounts += 1;
                }
                (Err(known), Err(found)) => {
                    assert_eq!(known.to_string(), found.to_string(), "seed {seed}, {job}");
                    none += 1;
                }
                (known, found) => panic!("seed {seed}, {job}: {known:?} and {found:?}"),
            }
        }
    }
    assert!(accounts > 300 && none > 120, "{accounts} accounts, {none} without");
}

#[test]
fn the_worst_job_of_a_name_is_the_same_one() {
    let mut found = 0;
    for seed in 200..280 {
        let trace = worlds::hostile(seed);
        let [whole, counts] = both(&trace, Extent::Whole);
        for model in whole.executors[0].models.values() {
            let pair = [&whole, &counts].map(|it| it.worst(&trace, &model.name));
            let words = pair.map(|it| it.map_or_else(|e| e.to_string(), |it| format!("{it:#?}")));
            assert_eq!(words[0], words[1], "seed {seed}, {}", model.name);
            found += 1;
        }
    }
    assert!(found > 150, "{found}");
}

#[test]
fn what_another_policy_would_have_done_is_the_same() {
    for seed in 300..340 {
        let trace = worlds::hostile(seed);
        let pair = both(&trace, Extent::Whole);
        let pair = pair.map(|it| it.what_if(&trace, PolicyKind::Edf).expect("a trace of ours"));
        assert_eq!(format!("{:?}", pair[0]), format!("{:?}", pair[1]), "seed {seed}");
    }
}

#[test]
fn a_prefix_is_counted_as_it_is_kept() {
    for seed in 0..12 {
        let whole = worlds::hostile(seed);
        for cut in (1..whole.records.len()).step_by(131) {
            let trace = Trace { records: whole.records[..cut].to_vec(), dropped: 0 };
            both(&trace, Extent::Prefix);
        }
    }
}

/// Records that fail in the pass of this number.
struct Failing {
    trace: Trace,
    good: std::cell::Cell<u32>,
}

impl Records for Failing {
    fn dropped(&self) -> u64 {
        0
    }

    fn pass(&self) -> Result<Pass<'_>, TraceError> {
        let Some(left) = self.good.get().checked_sub(1) else {
            let lost = std::io::Error::other("it was taken away");
            return Ok(Box::new(std::iter::once(Err(TraceError::Io(lost)))));
        };
        self.good.set(left);
        self.trace.pass()
    }
}

#[test]
fn records_that_cannot_be_read_again_are_an_error_and_no_answer() {
    for good in 0..3 {
        let records = Failing { trace: worlds::hostile(5), good: good.into() };
        let error = replay_records(&records, Extent::Whole, Keeps::Counts).expect_err("it fails");
        assert!(matches!(error, ReplayError::Read(TraceError::Io(_))), "{good}: {error}");
    }
    let records = Failing { trace: worlds::hostile(5), good: 3.into() };
    assert!(replay_records(&records, Extent::Whole, Keeps::Counts).is_ok());
}

/// Records that are others from the pass of this number on.
struct Changing {
    traces: [Trace; 2],
    good: std::cell::Cell<u32>,
}

impl Records for Changing {
    fn dropped(&self) -> u64 {
        0
    }

    fn pass(&self) -> Result<Pass<'_>, TraceError> {
        let left = self.good.get();
        self.good.set(left.saturating_sub(1));
        self.traces[usize::from(left > 0)].pass()
    }
}

/// The same events of jobs of other models, which nobody admitted.
fn with_other_models(trace: &Trace) -> Trace {
    let renamed = |record: &Record| {
        let text = serde_json::to_string(record).expect("records serialise");
        let text = text.replace("\"job\":\"m", "\"job\":\"m4");
        serde_json::from_str(&text).expect("still a record")
    };
    Trace { records: trace.records.iter().map(renamed).collect(), dropped: trace.dropped }
}

#[test]
fn records_that_are_not_the_same_twice_are_no_panic() {
    let (mut errors, mut whole) = (0, 0);
    for seed in 0..40 {
        for good in 2..5 {
            let trace = worlds::hostile(seed);
            let traces = [with_other_models(&trace), trace];
            let records = Changing { traces, good: good.into() };
            match replay_records(&records, Extent::Whole, Keeps::Counts) {
                Ok(replayed) => whole += u32::from(replayed.divergence.is_none()),
                Err(error) => {
                    assert!(matches!(error, ReplayError::UnknownModel { .. }), "{error}");
                    errors += 1;
                }
            }
        }
    }
    assert!(errors > 30 && whole > 30, "{errors} errors, {whole} without one");
}

#[test]
fn more_executors_than_are_replayed_are_an_error() {
    let mut trace = worlds::hostile(3);
    let first = trace.records[0].clone();
    let TraceEvent::Configured { what } = &first.event else { panic!("{first:?}") };
    trace.records = (0..100)
        .map(|by| {
            let partition = Some(format!("p{by}"));
            let what = Box::new(ExecutorConfig { partition, ..(**what).clone() });
            Record { by, event: TraceEvent::Configured { what }, ..first.clone() }
        })
        .collect();
    let error = replay(&trace, Extent::Whole).expect_err("too many").to_string();
    expect_test::expect![
        "line 66: more than 64 executors are configured, and no more are replayed"
    ]
    .assert_eq(&error);
}
