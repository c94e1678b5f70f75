//! Records of every kind, drawn at random.

use aegis_trace::{
    AdmittedModel, Assumption, Bytes, Category, DropReason, ExecutorConfig, JobId, JobLimits,
    ModelId, Nanos, Overheads, OverrunPolicy, PolicyKind, PressureLevel, Reason, Record, Refusal,
    RefusedModel, ServiceTerms, StageIndex, Staleness, StreamId, SubmitRefusal, Timestamp,
    TraceEvent,
};
use proptest::prelude::*;

/// Any record at all, sensible or not.
pub(crate) fn arbitrary() -> impl Strategy<Value = Record> {
    (time(), 0..20u32, event()).prop_map(|(at, by, event)| Record { at, by, event })
}

/// Mostly small, and now and then as large as it gets.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![6 => 0..100_000u64, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

fn time() -> impl Strategy<Value = Timestamp> {
    number().prop_map(Timestamp)
}

fn length() -> impl Strategy<Value = Nanos> {
    number().prop_map(Nanos)
}

fn model() -> impl Strategy<Value = ModelId> {
    (prop_oneof![4 => 0..3u16, 1 => any::<u16>()], prop_oneof![4 => Just(0u16), 1 => any::<u16>()])
        .prop_map(|(index, generation)| ModelId { index, generation })
}

fn job() -> impl Strategy<Value = JobId> {
    (model(), prop_oneof![6 => 0..5u64, 1 => any::<u64>()])
        .prop_map(|(model, sequence)| JobId { model, sequence })
}

fn stage() -> impl Strategy<Value = StageIndex> {
    prop_oneof![4 => 0..3u16, 1 => any::<u16>()].prop_map(StageIndex)
}

fn stream() -> impl Strategy<Value = StreamId> {
    prop_oneof![4 => 0..3u16, 1 => any::<u16>()].prop_map(StreamId::first)
}

/// Often none, as where nobody tells copies apart.
fn copy() -> impl Strategy<Value = Nanos> {
    prop_oneof![Just(Nanos::ZERO), length()]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![4 => "[a-z_]{1,12}", 1 => any::<String>(), 1 => "é{200}"]
}

/// An executor of the whole device.
pub(crate) fn executor(look_ahead: bool) -> ExecutorConfig {
    ExecutorConfig {
        partition: None,
        policy: PolicyKind::Edf,
        overheads: Overheads { look_ahead, uploads_ahead: look_ahead, ..Overheads::NONE },
        overrun: OverrunPolicy::Record,
        streams: 1,
        first_stream: look_ahead.then_some(StreamId::first(3)),
        queue_depth: 8,
        first_model: 0,
        max_models: 4,
        max_suspended: None,
        hang_factor: 8,
        hang_floor: Nanos::ZERO,
    }
}

fn event() -> BoxedStrategy<TraceEvent> {
    prop_oneof![6 => of_a_job(), 2 => of_a_model(), 1 => of_the_runtime()].boxed()
}

fn of_a_job() -> BoxedStrategy<TraceEvent> {
    let frequent = prop_oneof![
        (job(), time(), time(), prop::option::of(time())).prop_map(
            |(job, arrival, release, deadline)| TraceEvent::Submitted {
                job,
                arrival,
                release,
                deadline
            }
        ),
        (job(), stage(), stream(), any::<u32>(), reason()).prop_map(
            |(job, stage, stream, waiting, why)| TraceEvent::Dispatched {
                job,
                stage,
                stream,
                waiting,
                why
            }
        ),
        (job(), stage(), time(), time(), [copy(), copy(), copy()]).prop_map(
            |(job, stage, started, finished, copies)| TraceEvent::StageCompleted {
                job,
                stage,
                started,
                finished,
                upload: copies[0],
                download: copies[1],
                ahead: copies[2],
            }
        ),
        (job(), stage(), job(), length(), length()).prop_map(|(job, stage, of, took, before)| {
            TraceEvent::UploadAwaited { job, stage, of, took, before }
        }),
        (job(), stage()).prop_map(|(job, next_stage)| TraceEvent::Suspended { job, next_stage }),
        (job(), length(), length()).prop_map(|(job, response, execution)| {
            TraceEvent::Completed { job, response, execution }
        }),
    ];
    prop_oneof![3 => frequent, 1 => ending_badly(), 1 => remarkable()].boxed()
}

fn reason() -> BoxedStrategy<Reason> {
    let times = || (time(), time());
    let lengths = || (length(), length());
    prop_oneof![
        Just(Reason::OnlyReady),
        Just(Reason::Continues),
        Just(Reason::Background),
        times().prop_map(|(chosen, next)| Reason::EarliestRelease { chosen, next }),
        times().prop_map(|(chosen, next)| Reason::EarliestDeadline { chosen, next }),
        lengths().prop_map(|(chosen, next)| Reason::ShortestPeriod { chosen, next }),
        lengths().prop_map(|(chosen, next)| Reason::ShortestDeadline { chosen, next }),
        (any::<u32>(), any::<u32>()).prop_map(|(chosen, next)| Reason::MostUrgent { chosen, next }),
    ]
    .boxed()
}

fn ending_badly() -> BoxedStrategy<TraceEvent> {
    let why = prop::sample::select(vec![
        DropReason::Stopping,
        DropReason::ModelFenced,
        DropReason::ComputeBudget,
        DropReason::ComputeDebt,
        DropReason::CannotFinish,
        DropReason::Overrun,
    ]);
    let category =
        prop::sample::select(vec![Category::Transient, Category::Permanent, Category::Fatal]);
    prop_oneof![
        (job(), why).prop_map(|(job, why)| TraceEvent::Dropped { job, why }),
        (job(), category).prop_map(|(job, category)| TraceEvent::Faulted { job, category }),
        (job(), stage(), length()).prop_map(|(job, stage, elapsed)| TraceEvent::Hanging {
            job,
            stage,
            elapsed
        }),
    ]
    .boxed()
}

fn remarkable() -> BoxedStrategy<TraceEvent> {
    let assumption = prop::sample::select(vec![
        Assumption::ExecutionTime,
        Assumption::DispatchOverhead,
        Assumption::WakeLatency,
        Assumption::ReleaseJitter,
        Assumption::LeftUpload,
    ]);
    let why = prop_oneof![
        (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(jobs, exceeded, alarm)| {
            Staleness::Exceedances { jobs, exceeded, alarm }
        }),
        (length(), length()).prop_map(|(mean, excess)| Staleness::Drift { mean, excess }),
    ];
    prop_oneof![
        (job(), length()).prop_map(|(job, late)| TraceEvent::MissedDeadline { job, late }),
        (assumption, job(), length(), length()).prop_map(|(assumption, job, assumed, observed)| {
            TraceEvent::AssumptionBroken { assumption, job, assumed, observed }
        }),
        (job(), length(), length(), prop::option::of(job())).prop_map(
            |(job, bound, response, cause)| TraceEvent::BoundExceeded {
                job,
                bound,
                response,
                cause
            }
        ),
        (job(), time()).prop_map(|(job, until)| TraceEvent::OutOfBudget { job, until }),
        (job(), length(), length()).prop_map(|(job, excess, postponed)| {
            TraceEvent::DebtIncurred { job, excess, postponed }
        }),
        (job(), time(), time()).prop_map(|(job, release, deadline)| TraceEvent::Postponed {
            job,
            release,
            deadline
        }),
        job().prop_map(|since| TraceEvent::GuaranteesRestored { since }),
        (job(), stage(), why).prop_map(|(job, stage, why)| TraceEvent::EvidenceStale {
            job,
            stage,
            why
        }),
    ]
    .boxed()
}

fn of_a_model() -> BoxedStrategy<TraceEvent> {
    let why = prop::sample::select(vec![
        SubmitRefusal::QueueFull,
        SubmitRefusal::NoSlot,
        SubmitRefusal::ModelFenced,
        SubmitRefusal::ModelEvicted,
        SubmitRefusal::NotRunning,
    ]);
    prop_oneof![
        (model(), admitted())
            .prop_map(|(model, what)| TraceEvent::Admitted { model, what: Box::new(what) }),
        (model(), length()).prop_map(|(model, bound)| TraceEvent::BoundChanged { model, bound }),
        model().prop_map(|model| TraceEvent::Evicting { model }),
        model().prop_map(|model| TraceEvent::Evicted { model }),
        model().prop_map(|model| TraceEvent::Fenced { model }),
        (model(), why).prop_map(|(model, why)| TraceEvent::SubmissionRefused { model, why }),
        (model(), number(), number()).prop_map(|(model, requested, available)| {
            TraceEvent::AllocationRefused {
                model,
                requested: Bytes(requested),
                available: Bytes(available),
            }
        }),
    ]
    .boxed()
}

fn admitted() -> impl Strategy<Value = AdmittedModel> {
    let guaranteed = (length(), length(), length(), any::<u32>()).prop_map(
        |(period, deadline, jitter, priority)| ServiceTerms::Guaranteed {
            period,
            deadline,
            jitter,
            priority,
        },
    );
    let service = prop_oneof![2 => guaranteed, 1 => Just(ServiceTerms::Background)];
    let partition = prop::option::of(prop_oneof![Just("left".to_owned()), name()]);
    let numbers = (length(), prop::option::of(length()), number(), number());
    (name(), service, prop::collection::vec(length(), 0..5), partition, numbers).prop_map(
        |(name, service, stages, partition, (overhead, bound, persistent, scratch))| {
            let (persistent, scratch) = (Bytes(persistent), Bytes(scratch));
            AdmittedModel {
                name,
                service,
                stages,
                limits: JobLimits {
                    may_be_suspended: true,
                    compute: overhead,
                    streams: 1,
                    slots: 2,
                },
                overhead,
                bound,
                persistent,
                scratch,
                partition,
                watched: Vec::new(),
            }
        },
    )
}

fn of_the_runtime() -> BoxedStrategy<TraceEvent> {
    let level = || {
        prop::sample::select(vec![
            PressureLevel::Ample,
            PressureLevel::Low,
            PressureLevel::Critical,
        ])
    };
    let refusal = prop_oneof![
        number().prop_map(|utilisation_ppm| Refusal::Overutilised { utilisation_ppm }),
        (model(), length(), length()).prop_map(|(model, cost, deadline)| {
            Refusal::CostExceedsDeadline { model, cost, deadline }
        }),
    ];
    prop_oneof![
        Just(TraceEvent::Started),
        Just(TraceEvent::Idle),
        Just(TraceEvent::Stopped),
        Just(TraceEvent::Stopping),
        model().prop_map(|model| TraceEvent::Freed { model }),
        any::<bool>()
            .prop_map(|look_ahead| TraceEvent::Configured { what: Box::new(executor(look_ahead)) }),
        job().prop_map(|job| TraceEvent::Released { job }),
        (job(), time(), prop::option::of(time()))
            .prop_map(|(job, stamp, claimed)| TraceEvent::Stamped { job, stamp, claimed }),
        (name(), refusal).prop_map(|(name, why)| TraceEvent::Refused {
            what: Box::new(RefusedModel { name, why, asked: None })
        }),
        (level(), level(), number()).prop_map(|(from, to, free)| TraceEvent::PressureChanged {
            from,
            to,
            free: Bytes(free)
        }),
    ]
    .boxed()
}
