//! The trace says when evidence has gone stale, once, and nothing else changes.

use aegis::wcet::{Campaign, Share, StageMonitor};
use aegis::{
    Bytes, DType, ModelDescription, ModelSource, Nanos, Overheads, PolicyKind, Runtime, SimModel,
    Staleness, Tensor, TensorSpec, Terms, TraceEvent,
};

/// Runs `jobs` jobs of 4 ms, watched with a campaign that measured `measured`; what went stale.
fn run(jobs: usize, measured: &[u64]) -> Vec<Staleness> {
    let runtime = Runtime::builder()
        .sim(Bytes::from_mib(64))
        .streams(1)
        .policy(PolicyKind::Edf)
        .queue_depth(16)
        .max_models(8)
        .overheads(Overheads::default())
        .trace_capacity(1 << 12)
        .build()
        .expect("a runtime");
    let x = TensorSpec { name: "x".into(), dtype: DType::F32, shape: vec![1] };
    let description = ModelDescription { inputs: vec![x.clone()], outputs: vec![x], stages: 1 };
    let cost = Nanos::from_millis(4);
    let carried = Bytes::ZERO;
    let model = SimModel { description, persistent: Bytes(4096), scratch: Bytes(4096), carried };
    let loaded = runtime
        .load("camera", &ModelSource::Sim { model, costs: vec![cost] })
        .expect("a declared model");
    let campaign = measured.iter().map(|micros| Nanos::from_micros(*micros)).collect();
    let campaign = Campaign::new(campaign).expect("valid times");
    let monitor = StageMonitor::new(&campaign, campaign.max(), Some(Share::P99));
    let terms = Terms::periodic(cost, Nanos::from_millis(10), Bytes::from_mib(1));
    let camera = runtime.admit_watched(loaded, &terms, vec![monitor]).expect("40 % load");
    runtime.start().expect("the first start");
    for _ in 0..jobs {
        let job = camera.submit(&[Tensor::f32("x", &[1], &[0.5])]).expect("a free slot");
        job.wait().expect("outputs");
    }
    runtime.stop().expect("nothing hangs");
    let report = runtime.report();
    assert_eq!(report.misses(), 0);
    assert_eq!(report.models[0].cost, cost, "no bound was changed");
    let stale = |event: TraceEvent| match event {
        TraceEvent::EvidenceStale { why, .. } => Some(why),
        _ => None,
    };
    runtime.take_trace().into_iter().filter_map(|record| stale(record.event)).collect()
}

#[test]
fn jobs_slower_than_measured_make_the_evidence_stale() {
    // Measured between 2 and 3 ms, and every job takes 4 ms: the 22nd exceedance is an alarm, and the
    // sum of what exceeds the mean was one before.
    let stale = run(60, &[2_000, 2_500, 3_000]);
    assert!(matches!(stale[0], Staleness::Drift { .. }), "{stale:?}");
    let counted = Staleness::Exceedances { jobs: 22, exceeded: 22, alarm: 22 };
    assert_eq!(stale[1..], [counted]);
}

#[test]
fn jobs_as_they_were_measured_do_not() {
    assert_eq!(run(60, &[3_900, 4_000, 4_100]), []);
}
