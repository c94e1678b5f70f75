//! A short run in which nearly everything happens, told in records.

use aegis_trace::{
    AdmittedModel, Assumption, Bytes, Category, DropReason, JobId, JobLimits, ModelId, Nanos,
    PressureLevel, Reason, Record, Refusal, RefusedModel, ServiceTerms, StageIndex, Staleness,
    StreamId, SubmitRefusal, Timestamp, TraceEvent,
};

/// The dispatcher of the left partition, that of the right one, the runtime, and a submitter.
const LEFT: u32 = 0;
const RIGHT: u32 = 1;
const RUNTIME: u32 = 2;
const SUBMITTER: u32 = 3;

/// The models of the run: two on the left, one of best effort on the right.
pub(crate) const CAMERA: ModelId = ModelId::first(0);
pub(crate) const LIDAR: ModelId = ModelId::first(1);
pub(crate) const LOGGER: ModelId = ModelId::first(2);

const MS: u64 = 1_000_000;

pub(crate) fn job(model: ModelId, sequence: u64) -> JobId {
    JobId { model, sequence }
}

/// The records, in the order of a file. All times are milliseconds but where a name says otherwise.
pub(crate) fn records() -> Vec<Record> {
    let mut story = Story::default();
    story.admissions();
    story.two_jobs_of_which_one_gives_way();
    story.a_late_job_and_what_follows();
    story.a_stage_that_hangs();
    story.the_end();
    story.0
}

#[derive(Default)]
struct Story(Vec<Record>);

impl Story {
    fn at_ns(&mut self, at: u64, by: u32, event: TraceEvent) {
        self.0.push(Record { at: Timestamp(at), by, event });
    }

    fn at(&mut self, at: u64, by: u32, event: TraceEvent) {
        self.at_ns(at * MS, by, event);
    }

    fn admissions(&mut self) {
        let admitted = |name: &str, service, bound, partition: &str| {
            Box::new(AdmittedModel {
                name: name.into(),
                service,
                stages: vec![Nanos(4 * MS)],
                overhead: Nanos(100_000),
                bound,
                persistent: Bytes::from_mib(3),
                scratch: Bytes::from_mib(1),
                partition: Some(partition.into()),
                limits: JobLimits {
                    may_be_suspended: true,
                    compute: Nanos::MAX,
                    streams: 1,
                    slots: 2,
                },
                watched: Vec::new(),
            })
        };
        let guaranteed = |period: u64| ServiceTerms::Guaranteed {
            period: Nanos(period * MS),
            deadline: Nanos(period * MS),
            jitter: Nanos(0),
            priority: 1,
        };
        let camera = admitted("camera", guaranteed(10), Some(Nanos(9 * MS)), "left");
        self.at(0, RUNTIME, TraceEvent::Admitted { model: CAMERA, what: camera });
        let lidar = admitted("lidar \"front\"", guaranteed(50), Some(Nanos(30 * MS)), "left");
        self.at(0, RUNTIME, TraceEvent::Admitted { model: LIDAR, what: lidar });
        self.at(0, RUNTIME, TraceEvent::BoundChanged { model: CAMERA, bound: Nanos(8 * MS) });
        let logger = admitted("logger", ServiceTerms::Background, None, "right");
        self.at(0, RUNTIME, TraceEvent::Admitted { model: LOGGER, what: logger });
        let why = Refusal::Overutilised { utilisation_ppm: 1_200_000 };
        let what = Box::new(RefusedModel { name: "segmenter".into(), why, asked: None });
        self.at(0, RUNTIME, TraceEvent::Refused { what });
        let (from, to) = (PressureLevel::Ample, PressureLevel::Low);
        self.at(1, RUNTIME, TraceEvent::PressureChanged { from, to, free: Bytes::from_mib(64) });
        self.at(1, LEFT, TraceEvent::Started);
        self.at(1, RIGHT, TraceEvent::Started);
    }

    fn submit(&mut self, at: u64, by: u32, job: JobId, deadline: Option<u64>) {
        let arrival = Timestamp(at * MS - 20_000);
        let deadline = deadline.map(|deadline| Timestamp(deadline * MS));
        self.at(at, by, TraceEvent::Submitted { job, arrival, release: arrival, deadline });
    }

    fn dispatch(&mut self, at: u64, by: u32, job: JobId, stage: u16, why: Reason) {
        let (stage, stream) = (StageIndex(stage), StreamId::first(0));
        let waiting = u32::from(!matches!(why, Reason::OnlyReady));
        self.at(at, by, TraceEvent::Dispatched { job, stage, stream, waiting, why });
    }

    /// A stage that the device ran for all but the first 50 us of its time, noticed 10 us later. On the
    /// left it copies for 300 us and for 100 us, the lidar's outputs in its second stage alone.
    fn stage_done(&mut self, from: u64, to: u64, by: u32, job: JobId, stage: u16) {
        let (started, finished) = (Timestamp(from * MS + 50_000), Timestamp(to * MS - 10_000));
        let stage = StageIndex(stage);
        let copies = |copies, micros| Nanos::from_micros(if copies { micros } else { 0 });
        let upload = copies(by == LEFT && stage.0 == 0, 300);
        let download = copies(by == LEFT && (job.model == CAMERA || stage.0 == 1), 100);
        let ahead = Nanos::ZERO;
        let done =
            TraceEvent::StageCompleted { job, stage, started, finished, upload, download, ahead };
        self.at(to, by, done);
    }

    fn complete(&mut self, at: u64, by: u32, job: JobId, release: u64, execution: u64) {
        let response = Nanos((at - release) * MS + 20_000);
        let execution = Nanos(execution * MS);
        self.at(at, by, TraceEvent::Completed { job, response, execution });
    }

    fn two_jobs_of_which_one_gives_way(&mut self) {
        let (lidar, camera) = (job(LIDAR, 0), job(CAMERA, 0));
        self.submit(2, LEFT, lidar, Some(52));
        self.dispatch(2, LEFT, lidar, 0, Reason::OnlyReady);
        self.submit(4, LEFT, camera, Some(14));
        self.stage_done(2, 6, LEFT, lidar, 0);
        self.at(6, LEFT, TraceEvent::Suspended { job: lidar, next_stage: StageIndex(1) });
        let (chosen, next) = (Timestamp(14 * MS), Timestamp(52 * MS));
        self.dispatch(6, LEFT, camera, 0, Reason::EarliestDeadline { chosen, next });
        self.stage_done(6, 10, LEFT, camera, 0);
        self.complete(10, LEFT, camera, 4, 4);
        self.dispatch(10, LEFT, lidar, 1, Reason::OnlyReady);
        self.stage_done(10, 14, LEFT, lidar, 1);
        self.complete(14, LEFT, lidar, 2, 8);
        self.at(14, LEFT, TraceEvent::Idle);
        let logger = job(LOGGER, 0);
        self.submit(3, RIGHT, logger, None);
        self.dispatch(3, RIGHT, logger, 0, Reason::Background);
        self.stage_done(3, 12, RIGHT, logger, 0);
        self.at(12, RIGHT, TraceEvent::OutOfBudget { job: logger, until: Timestamp(20 * MS) });
        self.dispatch(20, RIGHT, logger, 1, Reason::Background);
        self.stage_done(20, 22, RIGHT, logger, 1);
        self.complete(22, RIGHT, logger, 3, 11);
    }

    fn a_late_job_and_what_follows(&mut self) {
        let (late, next) = (job(CAMERA, 1), job(CAMERA, 2));
        self.submit(30, LEFT, late, Some(40));
        self.dispatch(30, LEFT, late, 0, Reason::OnlyReady);
        self.submit(38, LEFT, next, Some(48));
        self.stage_done(30, 41, LEFT, late, 0);
        let (assumed, observed) = (Nanos(4 * MS), Nanos(10 * MS));
        let assumption = Assumption::ExecutionTime;
        let broken = TraceEvent::AssumptionBroken { assumption, job: late, assumed, observed };
        self.at(41, LEFT, broken);
        let why = Staleness::Drift { mean: Nanos(3 * MS), excess: Nanos(20 * MS) };
        let stage = StageIndex(0);
        self.at(41, LEFT, TraceEvent::EvidenceStale { job: late, stage, why });
        self.complete(41, LEFT, late, 30, 11);
        self.at(41, LEFT, TraceEvent::MissedDeadline { job: late, late: Nanos(MS) });
        let (bound, response) = (Nanos(8 * MS), Nanos(11 * MS));
        let cause = Some(late);
        self.at(41, LEFT, TraceEvent::BoundExceeded { job: late, bound, response, cause });
        let (excess, postponed) = (Nanos(6 * MS), Nanos(15 * MS));
        self.at(41, LEFT, TraceEvent::DebtIncurred { job: late, excess, postponed });
        let (release, deadline) = (Timestamp(53 * MS), Timestamp(63 * MS));
        self.at(41, LEFT, TraceEvent::Postponed { job: next, release, deadline });
        self.at(44, LEFT, TraceEvent::Dropped { job: next, why: DropReason::CannotFinish });
        self.at(44, LEFT, TraceEvent::Idle);
        self.at(44, LEFT, TraceEvent::GuaranteesRestored { since: late });
    }

    fn a_stage_that_hangs(&mut self) {
        let hung = job(LIDAR, 1);
        self.submit(50, LEFT, hung, Some(100));
        self.dispatch(50, LEFT, hung, 0, Reason::OnlyReady);
        let elapsed = Nanos(40 * MS);
        self.at(90, LEFT, TraceEvent::Hanging { job: hung, stage: StageIndex(0), elapsed });
        self.at(90, LEFT, TraceEvent::Faulted { job: hung, category: Category::Permanent });
        self.at(90, LEFT, TraceEvent::Fenced { model: LIDAR });
        let why = SubmitRefusal::ModelFenced;
        self.at(91, SUBMITTER, TraceEvent::SubmissionRefused { model: LIDAR, why });
        self.stage_done(50, 95, LEFT, hung, 0);
        let (requested, available) = (Bytes(4_096), Bytes(0));
        let refused = TraceEvent::AllocationRefused { model: LOGGER, requested, available };
        self.at(96, RIGHT, refused);
    }

    fn the_end(&mut self) {
        self.at(97, LEFT, TraceEvent::Evicting { model: LIDAR });
        self.at(97, LEFT, TraceEvent::Evicted { model: LIDAR });
        // Nobody sees this one end.
        let last = job(CAMERA, 3);
        self.submit(98, LEFT, last, Some(108));
        let (chosen, next) = (3, 7);
        self.dispatch(98, LEFT, last, 0, Reason::MostUrgent { chosen, next });
        self.at(99, LEFT, TraceEvent::Stopped);
        self.at(99, RIGHT, TraceEvent::Stopped);
    }
}
