//! The names that the audit gives where inputs go ahead.
//!
//! Hostile worlds in which something is wrong, and a twin that finds out what from the trace.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use aegis_cuda::SimFault;
use aegis_sched::policy::PolicyKind;
use aegis_sched::replay::{Extent, replay};
use aegis_sched::sim::{Arrivals, Behaviour, Costs, Model, Random, Seed, World, WorldConfig};
use aegis_sched::task::Overheads;
use aegis_trace::{Assumption, JobId, ModelId, Nanos, StageIndex, Timestamp, Trace, TraceEvent};

/// What is wrong in a world, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wrong {
    /// Models fail to launch, once each.
    unlaunched: bool,
    /// The host stalls: it decides up to so much later than is charged.
    stall: Nanos,
    /// Stages take longer than they may.
    slow: bool,
}

const NOTHING: Wrong = Wrong { unlaunched: false, stall: Nanos::ZERO, slow: false };

/// A world with inputs that take up to ten times as long as stages, and models that come often.
fn world(seed: u64, wrong: Wrong) -> World {
    let mut random = Random::new(Seed(seed ^ 0xaad17));
    let charged = Overheads {
        dispatch: Nanos(random.up_to(20)),
        wake: Nanos(random.up_to(40)),
        copy: Nanos(random.between(1, 200)),
        look_ahead: true,
        uploads_ahead: true,
        ..Overheads::NONE
    };
    let policies = [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Edf, PolicyKind::Priority];
    let mut world = World::new(WorldConfig {
        policy: policies[usize::try_from(random.up_to(3)).expect("four policies")],
        charged,
        real: Overheads { dispatch: charged.dispatch + wrong.stall, ..charged },
        ..WorldConfig::new(Seed(random.bits()))
    });
    for n in 0..random.between(3, 6) {
        // A refused model makes the world a smaller one.
        let _ = world.admit(model(n, wrong, &mut random));
    }
    world
}

fn model(n: u64, wrong: Wrong, random: &mut Random) -> Model {
    let period = random.between(1_000, 4_000);
    let stages: Vec<Nanos> =
        (0..random.between(1, 4)).map(|_| Nanos(random.between(1, 60))).collect();
    let extra = Nanos(1 + stages[0].0 / 4);
    let costs = match wrong {
        // Of one alone: nothing goes ahead in a busy period in which somebody was slow.
        Wrong { slow: true, .. } if n == 0 => Costs::Beyond { extra },
        Wrong { stall: Nanos(1..), .. } => Costs::UpTo,
        _ => Costs::Full,
    };
    let fails = wrong.unlaunched && !random.once_in(4);
    let fault = (StageIndex(0), random.between(1, 12), SimFault::LaunchFailure);
    Model {
        priority: u32::try_from(random.up_to(4)).expect("small"),
        deadline: Nanos(period * random.between(1, 3)),
        stages,
        behaviour: Behaviour {
            arrivals: if random.once_in(3) { Arrivals::Sporadic } else { Arrivals::AfterLaunch },
            costs,
            faults: fails.then_some(fault).into_iter().collect(),
        },
        ..Model::periodic(&format!("model{n}"), Nanos(1), Nanos(period))
    }
}

/// What a stage, or a job that held it up, did beyond what was assumed, and by how much.
type Beyond = (Assumption, Nanos);

/// One stage as a reader of the trace sees it who knows nothing of uploads but that the simulated device
/// never rests: a stage that begins later than it could have waited for one.
#[derive(Debug)]
struct Stage {
    job: JobId,
    /// What it should have broken, in the order in which it is told.
    expected: Vec<Beyond>,
    /// What was said that was broken, and by whom.
    named: Vec<(Assumption, JobId, Nanos)>,
    /// It was beyond its charge, and its own inputs had gone ahead of it.
    exceeds_ahead: bool,
    /// What it waited for uploads.
    waited: Nanos,
}

/// The stages of a trace, each beside what a twin of the audit finds from these few facts.
struct Twin {
    overheads: Overheads,
    costs: BTreeMap<ModelId, Vec<Nanos>>,
    on_device: VecDeque<JobId>,
    since: Timestamp,
    stages: Vec<Stage>,
    unlaunched: BTreeSet<JobId>,
    told: usize,
    /// What broke an assumption first in the present busy period, beyond a charge.
    taint: Option<Taint>,
    /// Responses beyond their bounds.
    excused: usize,
    /// Who was named for these, and for busy periods that were tainted; each beside the one expected.
    causes: Vec<[Option<JobId>; 2]>,
    /// How many of these busy periods were tainted by stages that had waited for a left upload, and would
    /// have been beyond their charge without that too; and how many by the job of that upload.
    blamed: [usize; 2],
}

/// What tainted a busy period.
#[derive(Clone, Copy, Debug)]
enum Taint {
    /// The stage at this place, by its own.
    Stage(usize),
    /// The upload of somebody else that the stage at this place waited for.
    LeftBefore(usize),
    /// A job that found the device idle was seen too late.
    Wake(JobId),
}

impl Twin {
    fn read(trace: &Trace, overheads: Overheads) -> Self {
        let mut twin = Self {
            overheads,
            costs: BTreeMap::new(),
            on_device: VecDeque::new(),
            since: Timestamp::ZERO,
            stages: Vec::new(),
            unlaunched: BTreeSet::new(),
            told: 0,
            taint: None,
            excused: 0,
            causes: Vec::new(),
            blamed: [0; 2],
        };
        trace.records.iter().for_each(|record| twin.take(record.at, &record.event));
        twin
    }

    fn take(&mut self, at: Timestamp, event: &TraceEvent) {
        match event {
            TraceEvent::Admitted { model, what } => {
                self.costs.insert(*model, what.stages.clone());
            }
            TraceEvent::Dispatched { job, .. } => {
                if self.on_device.is_empty() {
                    self.since = at;
                }
                self.on_device.push_back(*job);
            }
            TraceEvent::LaunchFailed { job, .. } => {
                self.unlaunched.insert(*job);
            }
            TraceEvent::UploadAwaited { .. } => self.told += 1,
            &TraceEvent::StageCompleted { job, stage, started, finished, ahead, .. } => {
                assert_eq!(self.on_device.pop_front(), Some(job));
                let (cost, executed) = (self.cost(job.model, stage), finished - started);
                let interval = [at - self.since, started.saturating_since(self.since)];
                let (expected, waited) = self.expected(cost, executed, interval, ahead);
                let exceeds_ahead =
                    ahead > Nanos::ZERO && interval[0] > cost + self.overheads.dispatch;
                let named = Vec::new();
                if interval[0] > cost + self.overheads.dispatch {
                    self.exceeded(&expected, interval[0], cost);
                }
                self.stages.push(Stage { job, expected, named, exceeds_ahead, waited });
                self.since = at;
            }
            &TraceEvent::AssumptionBroken { assumption, job, observed, .. } => match assumption {
                Assumption::WakeLatency => {
                    self.taint.get_or_insert(Taint::Wake(job));
                }
                Assumption::ReleaseJitter => {}
                _ => {
                    self.stages.last_mut().expect("of one").named.push((assumption, job, observed))
                }
            },
            &TraceEvent::BoundExceeded { cause, .. } => {
                self.excused += 1;
                self.blame(cause, self.taint);
            }
            &TraceEvent::GuaranteesRestored { since } => {
                let taint = self.taint.take();
                self.blame(Some(since), taint);
                self.blamed[0] += usize::from(taint.is_some_and(|of| self.is_beyond_both(of)));
                self.blamed[1] += usize::from(matches!(taint, Some(Taint::LeftBefore(_))));
            }
            _ => {}
        }
    }

    /// Keeps whom the trace names for what was tainted, beside whom it should.
    fn blame(&mut self, named: Option<JobId>, taint: Option<Taint>) {
        let expected = taint.map(|taint| self.cause(taint));
        self.causes.push([named, expected]);
    }

    /// The stage that comes next was beyond its charge: by its own, unless a left upload alone made it so.
    fn exceeded(&mut self, expected: &[Beyond], service: Nanos, cost: Nanos) {
        let place = self.stages.len();
        let left = expected.iter().find(|(assumption, _)| *assumption == Assumption::LeftUpload);
        let excess = service - cost - self.overheads.dispatch;
        let taint = match left {
            Some((_, waited)) if *waited >= excess => Taint::LeftBefore(place),
            _ => Taint::Stage(place),
        };
        self.taint.get_or_insert(taint);
    }

    /// Whom a taint names. Whose upload it was, the trace alone knows: which of several failed launches
    /// left one is not to be seen from outside.
    fn cause(&self, taint: Taint) -> JobId {
        match taint {
            Taint::Wake(job) => job,
            Taint::Stage(place) => self.stages[place].job,
            Taint::LeftBefore(place) => {
                let mut named = self.stages[place].named.iter();
                let left = named.find(|(what, _, _)| *what == Assumption::LeftUpload);
                left.expect("it was told with the stage").1
            }
        }
    }

    /// Whether that is a stage that waited for a left upload, and would have been beyond its charge
    /// without that.
    fn is_beyond_both(&self, taint: Taint) -> bool {
        let Taint::Stage(place) = taint else { return false };
        self.stages[place].named.iter().any(|(what, _, _)| *what == Assumption::LeftUpload)
    }

    /// What a stage is charged on the device: with its copies, which first and last stages have.
    fn cost(&self, model: ModelId, stage: StageIndex) -> Nanos {
        let (costs, stage) = (&self.costs[&model], usize::from(stage.0));
        let copies = u64::from(stage == 0) + u64::from(stage + 1 == costs.len());
        costs[stage] + self.overheads.copy * copies
    }

    /// What a stage of an interval broke in which it began so much later than it could have, and what it
    /// waited for uploads.
    fn expected(
        &self,
        cost: Nanos,
        executed: Nanos,
        [service, waited]: [Nanos; 2],
        ahead: Nanos,
    ) -> (Vec<Beyond>, Nanos) {
        let overhead = self.overheads.dispatch;
        let too_long =
            |executed| (executed > cost).then_some((Assumption::ExecutionTime, executed));
        if service <= cost + overhead {
            return (too_long(executed).into_iter().collect(), waited);
        }
        let spent = service.saturating_sub(executed);
        // What the overhead covers is the overhead's.
        let beyond = spent.saturating_sub(overhead).min(waited);
        let is_own = ahead > Nanos::ZERO;
        let left = (!is_own && beyond > Nanos::ZERO).then_some((Assumption::LeftUpload, beyond));
        let own = if is_own { beyond } else { Nanos::ZERO };
        let rest = spent - beyond;
        let late = (rest > overhead).then_some((Assumption::DispatchOverhead, rest));
        (left.into_iter().chain(too_long(executed + own)).chain(late).collect(), waited)
    }
}

/// What was found in many worlds.
#[derive(Debug, Default)]
struct Found {
    long: usize,
    late: usize,
    left: usize,
    /// Stages beyond their charge with their inputs ahead that waited for them, and that did not.
    waited: [usize; 2],
    excused: usize,
    /// As in [`Twin::blamed`].
    blamed: [usize; 2],
}

/// Runs worlds, each of which is replayed, and holds what every stage is said to have broken to the twin.
fn run(seeds: Range<u64>, wrong: Wrong) -> Found {
    let mut all = Found::default();
    for seed in seeds {
        let mut world = world(seed, wrong);
        world.run_for(Nanos(80_000));
        let replayed = replay(world.trace(), Extent::Whole).expect("a whole trace of ours");
        assert_eq!(replayed.divergence, None, "seed {seed}");
        let overheads = replayed.executors[0].config.overheads;
        let twin = Twin::read(world.trace(), overheads);
        let place = |stage: &Stage| format!("seed {seed}, {overheads:?}: {stage:?}");
        for stage in &twin.stages {
            let said = stage.named.iter().map(|(assumption, _, observed)| (*assumption, *observed));
            assert_eq!(said.collect::<Vec<_>>(), stage.expected, "{}", place(stage));
            for (assumption, by, observed) in &stage.named {
                match assumption {
                    Assumption::LeftUpload => {
                        all.left += 1;
                        assert!(twin.unlaunched.contains(by), "{}", place(stage));
                        assert!(*observed <= overheads.copy, "{}", place(stage));
                    }
                    Assumption::ExecutionTime => all.long += usize::from(*by == stage.job),
                    _ => all.late += usize::from(*by == stage.job),
                }
            }
            all.waited[usize::from(stage.waited == Nanos::ZERO)] +=
                usize::from(stage.exceeds_ahead);
        }
        for [cause, expected] in &twin.causes {
            assert!(cause.is_some() && cause == expected, "seed {seed}: {cause:?}, {expected:?}");
        }
        all.excused += twin.excused;
        all.blamed = [all.blamed[0] + twin.blamed[0], all.blamed[1] + twin.blamed[1]];
        let told = twin.stages.iter().filter(|stage| stage.exceeds_ahead).count();
        assert!(twin.told >= told, "seed {seed}: {told} of {}", twin.told);
    }
    all
}

#[test]
fn where_nothing_is_wrong_nothing_is_named_and_nothing_is_told_of_uploads() {
    let all = run(0..150, NOTHING);
    assert_eq!([all.long, all.late, all.left, all.excused], [0; 4], "{all:?}");
    let mut world = world(7, NOTHING);
    world.run_for(Nanos(80_000));
    assert_eq!(Twin::read(world.trace(), Overheads::NONE).told, 0, "the log is as short as it was");
}

#[test]
fn what_a_failed_launch_left_on_its_way_is_held_against_it_and_nobody_else() {
    let all = run(0..1_000, Wrong { unlaunched: true, ..NOTHING });
    assert_eq!([all.long, all.late, all.blamed[0]], [0; 3], "{all:?}");
    assert!(all.left > 100 && all.blamed[1] > 100, "{all:?}");
}

#[test]
fn a_late_decision_is_not_called_a_long_stage_where_nothing_of_its_inputs_was_left() {
    let all = run(0..500, Wrong { stall: Nanos(40), slow: true, ..NOTHING });
    assert!(all.late > 10_000 && all.long > 500 && all.excused > 100, "{all:?}");
    assert!(all.waited[0] > 10 && all.waited[1] > 100, "{all:?}");
}

#[test]
fn a_long_stage_is_not_called_a_late_decision_where_it_waited_for_its_inputs() {
    let all = run(1_000..1_400, Wrong { slow: true, ..NOTHING });
    assert!(all.long > 10_000 && all.late == 0, "{all:?}");
    assert!(all.waited[0] > 10, "{all:?}");
}

#[test]
fn all_of_it_at_once_is_told_apart() {
    let all = run(2_000..2_600, Wrong { unlaunched: true, stall: Nanos(40), slow: true });
    assert!(all.left > 10 && all.late > 10_000 && all.long > 500, "{all:?}");
    assert!(all.blamed[0] > 5 && all.excused > 100, "{all:?}");
}

fn us(n: u64) -> Nanos {
    Nanos::from_micros(n)
}

fn at(offset: Nanos, priority: u32, model: Model) -> Model {
    let behaviour = Behaviour { arrivals: Arrivals::Periodic { offset }, ..model.behaviour };
    Model { priority, behaviour, ..model }
}

/// R runs from 0 to 110; K comes at 105 and cannot be launched, with 50 of inputs on their way until 155.
/// N comes at 106, waits behind them, and has to copy 50 itself.
#[test]
fn the_stage_that_waits_for_a_left_upload_names_whose_it_is_and_how_long_it_waited() {
    let overheads =
        Overheads { look_ahead: true, uploads_ahead: true, copy: us(50), ..Overheads::NONE };
    let config = WorldConfig {
        policy: PolicyKind::Priority,
        charged: overheads,
        real: overheads,
        ..WorldConfig::new(Seed(3))
    };
    let mut world = World::new(config);
    let first = at(us(0), 0, Model::periodic("first", us(10), us(4_000)));
    world.admit(first).expect("3 %");
    let mut second = at(us(105), 0, Model::periodic("second", us(10), us(4_000)));
    second.behaviour.faults = vec![(StageIndex(0), 0, SimFault::LaunchFailure)];
    let second = world.admit(second).expect("3 %");
    let third = world.admit(at(us(106), 0, Model::periodic("third", us(10), us(4_000))));
    let third = third.expect("3 %");
    world.run_for(us(1_000));
    let job = |model| JobId { model, sequence: 0 };
    let about = |event: &TraceEvent| {
        matches!(event, TraceEvent::AssumptionBroken { .. } | TraceEvent::UploadAwaited { .. })
    };
    let found: Vec<(Timestamp, TraceEvent)> =
        world.trace().records.iter().map(|record| (record.at, record.event.clone())).collect();
    let found: Vec<_> = found.into_iter().filter(|(_, event)| about(event)).collect();
    let end = Timestamp::ZERO + us(265);
    let of = job(second);
    let (took, before) = (us(50), Nanos::ZERO);
    let told =
        TraceEvent::UploadAwaited { job: job(third), stage: StageIndex(0), of, took, before };
    let (assumption, assumed, observed) = (Assumption::LeftUpload, Nanos::ZERO, us(45));
    let broken = TraceEvent::AssumptionBroken { assumption, job: of, assumed, observed };
    assert_eq!(found, [(end, told), (end, broken)], "from 110, when the first had ended, to 155");
}
