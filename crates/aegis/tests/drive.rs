//! What the load generator claims of the jobs that it submits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aegis::drive::Load;
use aegis::{JobId, ModelId, Nanos, Pipeline, Timestamp, TraceEvent};

/// Two models of 10 us every 5 ms. The second tolerates whatever a busy machine does to the generator.
const WORKLOAD: &str = r#"
device = { driver = "host", memory = "64MiB" }
scheduler = { policy = "edf", queue_depth = 64 }
overheads = { dispatch = "100us", wake = "1ms" }

[[model]]
name = "strict"
backend = "sim"
period = "5ms"
deadline = "1s"
sim = { stages = ["10us"] }

[[model]]
name = "tolerant"
backend = "sim"
period = "5ms"
deadline = "1s"
jitter = "5ms"
sim = { stages = ["10us"] }
"#;

/// The arrivals, the claims and the releases of one model's jobs.
#[derive(Default)]
struct Seen {
    arrivals: BTreeMap<JobId, Timestamp>,
    claims: BTreeMap<JobId, Timestamp>,
    releases: BTreeMap<JobId, Timestamp>,
}

#[test]
fn a_model_with_jitter_is_released_when_it_was_due() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("drive.toml");
    std::fs::write(&file, WORKLOAD).expect("written");
    let pipeline = Pipeline::open(&file).expect("a workload");
    let (runtime, verdicts) = pipeline.admit(|_| {}).expect("a host");
    let [strict, tolerant] = [0, 1].map(|at| {
        let handle = verdicts[at].outcome.as_ref().expect("a light load");
        handle.id()
    });
    runtime.start().expect("first start");
    let length = Nanos::from_millis(200);
    let load = Load::start_for(pipeline.load(&verdicts), Arc::clone(runtime.clock()), Some(length));
    let load = load.expect("threads");
    std::thread::sleep(Duration::from(length));
    let start = load.end().summary().start;
    runtime.stop().expect("nothing failed");
    let mut seen: BTreeMap<ModelId, Seen> = BTreeMap::new();
    for record in runtime.take_trace() {
        match record.event {
            TraceEvent::Submitted { job, arrival, release, .. } => {
                let of = seen.entry(job.model).or_default();
                of.arrivals.insert(job, arrival);
                of.releases.insert(job, release);
            }
            TraceEvent::Stamped { job, claimed: Some(claimed), .. } => {
                seen.entry(job.model).or_default().claims.insert(job, claimed);
            }
            _ => {}
        }
    }
    assert!(seen[&strict].claims.is_empty(), "its jobs are released as they come");
    let Seen { arrivals, claims, releases } = &seen[&tolerant];
    assert_eq!(claims.len(), arrivals.len());
    assert!(claims.len() >= 2, "{}", claims.len());
    let period = Nanos::from_millis(5);
    let mut earliest = Timestamp(0);
    for (job, claimed) in claims {
        assert_eq!((*claimed - start) % period, Nanos::ZERO, "{job:?} was due at another time");
        // What more than the jitter is claimed is cut, and a job is a period behind the one before.
        let release = (*claimed).max(arrivals[job].saturating_sub(period)).max(earliest);
        assert_eq!(releases[job], release, "{job:?}");
        earliest = release + period;
    }
}
