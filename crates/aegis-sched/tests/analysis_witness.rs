//! Every exact answer has its schedule: what is refused misses, and every bound is reached.
//!
//! For random sets larger than can be explored, the release pattern that a theorem speaks of is
//! built and run on the device of `device/mod.rs`: everybody at once, each held back for its
//! jitter, an instant after the longest blocking stage began. Under EDF and first in, first out
//! the victim's release is varied over all instants up to the end of what was found. For what is
//! accepted, hostile random patterns must stay within the bounds.
//!
//! Refused sets are printed with the schedule that misses (`--nocapture` shows all of them).

mod device;

use aegis_sched::analysis::{Findings, Setting, TimeModel, examine};
use aegis_sched::policy::PolicyKind;
use aegis_sched::sim::{Random, Seed};
use aegis_sched::task::{Overheads, Task, TaskSet, TaskSpec};
use aegis_trace::{ModelId, Nanos, Refusal};

use device::{Device, Done, Job};

const POLICIES: [PolicyKind; 5] =
    [PolicyKind::Fifo, PolicyKind::Rms, PolicyKind::Dm, PolicyKind::Edf, PolicyKind::Priority];

/// What random sets look like.
#[derive(Clone, Copy)]
struct Shape {
    stages: u64,
    /// The longest jitter, in percent of the period.
    jitter: u64,
    /// How many tasks share a priority.
    alike: u32,
}

const SHAPES: [Shape; 4] = [
    Shape { stages: 1, jitter: 0, alike: 1 },
    Shape { stages: 1, jitter: 60, alike: 1 },
    Shape { stages: 1, jitter: 220, alike: 2 },
    Shape { stages: 3, jitter: 40, alike: 1 },
];

impl Shape {
    /// A set that asks for less than the device.
    fn draw(self, random: &mut Random) -> TaskSet {
        loop {
            let tasks = random.between(2, 6);
            let tasks = (0..tasks).map(|index| self.task(random, index)).collect();
            let set = TaskSet::new(tasks).expect("every model once");
            if set.utilisation_ppm() < 1_000_000 {
                return set;
            }
        }
    }

    fn task(self, random: &mut Random, index: u64) -> Task {
        let index = u16::try_from(index).expect("a handful");
        let period = random.between(6, 90);
        let stages: Vec<Nanos> = (0..random.between(1, self.stages))
            .map(|_| Nanos(random.between(1, (period / 3).min(9))))
            .collect();
        let cost: u64 = stages.iter().map(|stage| stage.0).sum();
        let jitter = random.up_to(period * self.jitter / 100);
        Task::new(TaskSpec {
            model: ModelId::first(index),
            period: Nanos(period),
            deadline: Nanos(cost + jitter + random.up_to(2 * period)),
            jitter: Nanos(jitter),
            priority: u32::from(index) / self.alike,
            stages,
        })
        .expect("a valid task")
    }
}

/// The same set in units half as long.
fn halved(set: &TaskSet) -> TaskSet {
    let twice = |time: Nanos| time * 2;
    let tasks = set.tasks().iter().map(|task| {
        Task::new(TaskSpec {
            model: task.model(),
            period: twice(task.period()),
            deadline: twice(task.deadline()),
            jitter: twice(task.jitter()),
            priority: task.priority(),
            stages: task.stages().iter().copied().map(twice).collect(),
        })
        .expect("a valid task")
    });
    TaskSet::new(tasks.collect()).expect("the same models")
}

fn found(set: &TaskSet, policy: PolicyKind, time: TimeModel) -> Findings {
    let admission = Setting::admission(policy, Overheads::default());
    examine(set, &Setting { time, ..admission })
}

fn ticks(time: Nanos) -> i64 {
    i64::try_from(time.0).expect("small numbers")
}

/// Release patterns against one victim under one policy.
struct Attack<'a> {
    set: &'a TaskSet,
    policy: PolicyKind,
    victim: usize,
}

impl Attack<'_> {
    /// The victim's longest response over the theorem's patterns, and the pattern; jobs are
    /// released before `until`.
    fn worst(&self, until: i64) -> (Vec<Done>, Done) {
        self.worst_of(self.patterns(until)).expect("a pattern with a job of the victim")
    }

    fn worst_of(&self, patterns: impl Iterator<Item = Vec<Job>>) -> Option<(Vec<Done>, Done)> {
        let device = Device { set: self.set, policy: self.policy, victim: self.victim };
        let runs = patterns.map(|jobs| device.run(&jobs, |cost| cost));
        runs.filter_map(|run| {
            let of_victim = run.iter().filter(|done| done.job.task == self.victim);
            let worst = *of_victim.max_by_key(|done| done.response())?;
            Some((run, worst))
        })
        .max_by_key(|(_, worst)| worst.response())
    }

    /// The pattern that `refusal` speaks of, in units half as long as its own.
    fn refuted(&self, refusal: &Refusal) -> Option<(Vec<Done>, Done)> {
        match refusal {
            Refusal::DemandExceedsWindow { window, .. } => {
                self.worst_of(std::iter::once(self.due_at(2 * ticks(*window))))
            }
            _ => Some(self.worst(FIRST)),
        }
    }

    fn patterns(&self, until: i64) -> Box<dyn Iterator<Item = Vec<Job>> + '_> {
        match self.policy {
            PolicyKind::Edf => Box::new(self.due_instants(until).map(|due| self.due_at(due))),
            PolicyKind::Fifo => Box::new((0..until).map(|ready| self.ready_at(ready))),
            _ => Box::new(std::iter::once(self.synchronous(until))),
        }
    }

    fn task(&self, index: usize) -> &Task {
        &self.set.tasks()[index]
    }

    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let victim = self.victim;
        (0..self.set.len()).filter(move |index| *index != victim)
    }

    /// Jobs of one task as soon as they can be from time 0 on, the first held back until then.
    fn burst(&self, index: usize, until: i64) -> impl Iterator<Item = Job> + use<> {
        let (period, jitter) = (ticks(self.task(index).period()), ticks(self.task(index).jitter()));
        let nominal = (0..).map(move |job| job * period - jitter);
        nominal
            .map(move |nominal| Job { task: index, nominal, ready: nominal.max(0) })
            .take_while(move |job| job.ready < until)
    }

    /// A job whose longest stage starts a tick before time 0.
    fn blocker(&self, of: impl Iterator<Item = usize>) -> Option<Job> {
        let task = of.max_by_key(|index| self.task(*index).longest_stage())?;
        let longest = self.task(task).longest_stage();
        let before = self.task(task).stages().iter().take_while(|stage| **stage < longest);
        let before: Nanos = before.copied().sum();
        let nominal = -1 - ticks(before);
        Some(Job { task, nominal, ready: nominal })
    }

    fn urgency(&self, index: usize) -> u64 {
        let task = self.task(index);
        match self.policy {
            PolicyKind::Rms => task.period().0,
            PolicyKind::Dm => task.deadline().0,
            _ => task.priority().into(),
        }
    }

    /// Everybody as urgent as the victim at time 0, behind the longest stage of the others.
    fn synchronous(&self, until: i64) -> Vec<Job> {
        let level = self.urgency(self.victim);
        let (rivals, below): (Vec<_>, Vec<_>) =
            self.others().partition(|index| self.urgency(*index) <= level);
        let all = rivals.into_iter().chain([self.victim]);
        let jobs = all.flat_map(|index| self.burst(index, until));
        self.blocker(below.into_iter()).into_iter().chain(jobs).collect()
    }

    /// All instants up to `until` after the victim's first deadline.
    fn due_instants(&self, until: i64) -> std::ops::Range<i64> {
        let task = self.task(self.victim);
        let first = ticks(task.deadline()) - ticks(task.jitter());
        first..first + until
    }

    /// A job of the victim due at `due`, everybody else's jobs that are due by then from time 0 on,
    /// behind the longest job that is due later even if held back.
    fn due_at(&self, due: i64) -> Vec<Job> {
        let deadline = |index: usize| ticks(self.task(index).deadline());
        let first = |index: usize| deadline(index) - ticks(self.task(index).jitter());
        let jobs = self.others().flat_map(|index| {
            let due_by = move |job: &Job| job.nominal + deadline(index) <= due;
            self.burst(index, due).filter(due_by)
        });
        let own = self.ending_with(due - deadline(self.victim));
        let blocker = self.blocker(self.others().filter(|index| first(*index) > due));
        blocker.into_iter().chain(jobs).chain(own).collect()
    }

    /// Jobs of the victim, the last nominally released at `last`, all from time 0 on.
    fn ending_with(&self, last: i64) -> impl Iterator<Item = Job> + use<> {
        let (period, jitter) =
            (ticks(self.task(self.victim).period()), ticks(self.task(self.victim).jitter()));
        let nominal = (0..).map(move |before| last - before * period);
        let task = self.victim;
        nominal.take_while(move |nominal| *nominal >= -jitter).map(move |nominal| Job {
            task,
            nominal,
            ready: nominal.max(0),
        })
    }

    /// A job of the victim held back until `ready`, those before it too, and everybody else's from
    /// time 0 on.
    fn ready_at(&self, ready: i64) -> Vec<Job> {
        let (period, jitter) =
            (ticks(self.task(self.victim).period()), ticks(self.task(self.victim).jitter()));
        let own = (0..=ready / period).map(|before| ready - before * period);
        let own = own.map(|ready| Job { task: self.victim, nominal: ready - jitter, ready });
        let others = self.others().flat_map(|index| self.burst(index, ready + 1));
        others.chain(own).collect()
    }
}

/// The schedule, from the first job on: whose jobs ended when.
fn shown(run: &[Done], late: &Done) -> String {
    let ends = run.iter().take_while(|done| done.end <= late.end);
    let ends = ends.map(|done| format!("m{}@{}-{}", done.job.task, done.job.nominal, done.end));
    ends.collect::<Vec<_>>().join(" ")
}

/// A length by which every window of these small sets has ended.
const UNTIL: i64 = 8_000;
/// Releases up to here are enough for a first miss.
const FIRST: i64 = 500;

#[test]
fn every_exact_bound_on_ticks_is_reached() {
    let mut random = Random::new(Seed(1));
    let mut reached = 0;
    for round in 0..60 {
        let set = SHAPES[round % SHAPES.len()].draw(&mut random);
        for policy in POLICIES {
            let findings = found(&set, policy, TimeModel::Discrete);
            if !findings.exact {
                continue;
            }
            for (victim, response) in findings.responses.iter().enumerate() {
                let bound = response.bound().expect("less than the device");
                let varied = matches!(policy, PolicyKind::Edf | PolicyKind::Fifo);
                let until = if varied { ticks(bound) + 200 } else { UNTIL };
                let (run, worst) = Attack { set: &set, policy, victim }.worst(until);
                let text = || format!("{policy} {victim} {set:#?}: {}", shown(&run, &worst));
                assert_eq!(Nanos(worst.response()), bound, "{}", text());
                reached += 1;
            }
        }
    }
    assert!(reached > 500, "{reached} bounds");
}

#[test]
fn every_set_that_an_exact_test_refuses_misses_in_dense_time_too() {
    let mut random = Random::new(Seed(2));
    let mut shown_misses = 0;
    for round in 0..160 {
        let set = SHAPES[round % SHAPES.len()].draw(&mut random);
        for policy in POLICIES {
            let findings = found(&set, policy, TimeModel::Dense);
            let (Err(refusal), true) = (&findings.verdict, findings.exact) else { continue };
            // Between two ticks of the set there is now another, at which a blocker can start.
            let halved = halved(&set);
            let miss = (0..set.len()).find_map(|victim| {
                let attack = Attack { set: &halved, policy, victim };
                let (run, worst) = attack.refuted(refusal)?;
                let late = run.iter().find(|done| done.is_late(&halved)).unwrap_or(&worst);
                late.is_late(&halved).then(|| shown(&run, late))
            });
            let miss = miss.unwrap_or_else(|| panic!("{policy}: {refusal}, but {set:#?}"));
            println!("{policy}: {refusal}\n  in half units, model@release-end: {miss}");
            shown_misses += 1;
        }
    }
    assert!(shown_misses > 100, "{shown_misses} refused sets");
}

#[test]
fn hostile_patterns_stay_within_the_bounds() {
    let mut random = Random::new(Seed(3));
    let mut jobs_seen = 0;
    for round in 0..400 {
        let set = SHAPES[round % SHAPES.len()].draw(&mut random);
        for policy in POLICIES {
            let findings = found(&set, policy, TimeModel::Discrete);
            for _ in 0..3 {
                let jobs = hostile(&set, &mut random);
                let victim = round % set.len();
                let early = random.once_in(2);
                let run = Device { set: &set, policy, victim }
                    .run(&jobs, |cost| if early { random.between(1, cost) } else { cost });
                for done in &run {
                    let bound = findings.responses[done.job.task].bound().expect("an end");
                    assert!(done.response() <= bound.0, "{policy} {done:?} {findings:?} {set:#?}");
                    assert!(findings.verdict.is_err() || !done.is_late(&set), "{policy} {set:#?}");
                }
                jobs_seen += run.len();
            }
        }
    }
    assert!(jobs_seen > 100_000, "{jobs_seen} jobs");
}

/// A legal pattern that mixes bursts after waits with releases just apart.
fn hostile(set: &TaskSet, random: &mut Random) -> Vec<Job> {
    let mut jobs = Vec::new();
    for (task, spec) in set.tasks().iter().enumerate() {
        let (period, jitter) = (spec.period().0, spec.jitter().0);
        let (mut nominal, mut ready) = (random.up_to(20), 0);
        for _ in 0..20 {
            let late = if random.once_in(2) { jitter } else { random.up_to(jitter) };
            ready = (nominal + late).max(ready).min(nominal + jitter);
            let ticks = |time: u64| i64::try_from(time).expect("small numbers");
            jobs.push(Job { task, nominal: ticks(nominal), ready: ticks(ready) });
            nominal += period + if random.once_in(3) { random.up_to(2 * period) } else { 0 };
        }
    }
    jobs
}
