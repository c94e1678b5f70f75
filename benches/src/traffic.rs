//! Events as a steady run records them, any number of them.

use aegis_trace::{
    AdmittedModel, Bytes, JobId, JobLimits, ModelId, Nanos, Reason, Record, ServiceTerms,
    StageIndex, StreamId, Timestamp, TraceEvent,
};

/// Models of the run.
const MODELS: u16 = 24;
/// From one submission to the next.
const PERIOD: u64 = 1_000_000;

/// The records of a run of 24 models, whose jobs follow each other: five for each job.
pub fn records() -> impl Iterator<Item = Record> {
    admissions().chain((0..).flat_map(job))
}

fn admissions() -> impl Iterator<Item = Record> {
    (0..MODELS).map(|index| {
        let period = Nanos(PERIOD * u64::from(MODELS));
        let what = AdmittedModel {
            name: format!("model_{index}"),
            service: ServiceTerms::Guaranteed {
                period,
                deadline: period,
                jitter: Nanos(0),
                priority: u32::from(index),
            },
            stages: vec![Nanos(900_000)],
            limits: JobLimits { may_be_suspended: true, compute: Nanos::MAX, streams: 1, slots: 2 },
            overhead: Nanos(10_000),
            bound: Some(Nanos(5_000_000)),
            persistent: Bytes::from_mib(20),
            scratch: Bytes::from_mib(5),
            partition: None,
            watched: Vec::new(),
        };
        let event = TraceEvent::Admitted { model: ModelId::first(index), what: Box::new(what) };
        Record { at: Timestamp(u64::from(index)), by: 1, event }
    })
}

fn job(number: u64) -> [Record; 5] {
    let index = u16::try_from(number % u64::from(MODELS)).expect("few models");
    let id = JobId { model: ModelId::first(index), sequence: number / u64::from(MODELS) };
    let at = Timestamp(1_000_000 + number * PERIOD);
    // Numbers as irregular as measured ones.
    let odd = number.wrapping_mul(2_654_435_761) % 50_000;
    let (started, finished) = (at + Nanos(9_000 + odd / 10), at + Nanos(800_000 + odd));
    let done = finished + Nanos(4_000 + odd / 20);
    let deadline = at + Nanos(PERIOD * u64::from(MODELS));
    let (upload, download) = (Nanos(20_000 + odd / 25), Nanos(3_000));
    let stage = StageIndex(0);
    let record = |at, event| Record { at, by: 0, event };
    [
        record(
            at + Nanos(700),
            TraceEvent::Submitted { job: id, arrival: at, release: at, deadline: Some(deadline) },
        ),
        record(
            at + Nanos(900),
            TraceEvent::Dispatched {
                job: id,
                stage,
                stream: StreamId::first(0),
                waiting: 3,
                why: Reason::EarliestDeadline { chosen: deadline, next: deadline + Nanos(odd) },
            },
        ),
        record(
            done,
            TraceEvent::StageCompleted {
                job: id,
                stage,
                started,
                finished,
                upload,
                download,
                ahead: Nanos::ZERO,
            },
        ),
        record(
            done,
            TraceEvent::Completed { job: id, response: done - at, execution: finished - started },
        ),
        record(done, TraceEvent::Idle),
    ]
}
