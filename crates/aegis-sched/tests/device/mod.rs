//! A device on ticks that runs a given pattern of releases: simple, and blind to the analyses.
//!
//! It knows what a policy orders by and nothing else; no code of the product takes part beyond the
//! tasks' own numbers. Where two jobs are equally urgent, the victim's comes last.

use aegis_sched::policy::PolicyKind;
use aegis_sched::task::{Task, TaskSet};

/// A released job. Time zero means nothing; a blocker is released before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    pub(crate) task: usize,
    pub(crate) nominal: i64,
    pub(crate) ready: i64,
}

/// A job that ran.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) job: Job,
    pub(crate) end: i64,
}

impl Done {
    pub(crate) fn response(&self) -> u64 {
        u64::try_from(self.end - self.job.nominal).expect("a job ends after its release")
    }

    pub(crate) fn is_late(&self, set: &TaskSet) -> bool {
        self.response() > set.tasks()[self.job.task].deadline().0
    }
}

/// One device, one policy, and whom ties fall against.
pub(crate) struct Device<'a> {
    pub(crate) set: &'a TaskSet,
    pub(crate) policy: PolicyKind,
    pub(crate) victim: usize,
}

impl Device<'_> {
    /// Runs `jobs`, any order, to their ends; `length` says how long a stage of a cost takes.
    pub(crate) fn run(&self, jobs: &[Job], mut length: impl FnMut(u64) -> u64) -> Vec<Done> {
        self.assert_legal(jobs);
        let mut waiting: Vec<Job> = jobs.to_vec();
        waiting.sort_by_key(|job| job.nominal);
        let mut stages_done = vec![0; self.set.len()];
        let mut between_stages = None;
        let mut now = i64::MIN;
        let mut done = Vec::new();
        while !waiting.is_empty() {
            if self.first(&waiting, now).is_none() {
                now = waiting.iter().map(|job| job.ready).min().unwrap_or(now);
            }
            let place = self.next(&waiting, between_stages, now);
            let (job, stages) = (waiting[place], self.set.tasks()[waiting[place].task].stages());
            let taken = length(stages[stages_done[job.task]].0);
            now += i64::try_from(taken).expect("a small cost");
            stages_done[job.task] += 1;
            between_stages = Some(job.task).filter(|task| stages_done[*task] < stages.len());
            if between_stages.is_none() {
                stages_done[job.task] = 0;
                done.push(Done { job: waiting.remove(place), end: now });
            }
        }
        done
    }

    /// The place of the job whose stage runs next.
    fn next(&self, waiting: &[Job], between_stages: Option<usize>, now: i64) -> usize {
        let first = self.first(waiting, now).expect("one is ready");
        let begun = between_stages
            .and_then(|task| self.heads(waiting, now).find(|place| waiting[*place].task == task));
        match begun {
            Some(begun) if self.policy == PolicyKind::Fifo => begun,
            Some(begun) if self.key(&waiting[begun]) <= self.key(&waiting[first]) => begun,
            _ => first,
        }
    }

    /// The place of the most urgent job that can start.
    fn first(&self, waiting: &[Job], now: i64) -> Option<usize> {
        self.heads(waiting, now).min_by_key(|place| {
            let job = &waiting[*place];
            (self.key(job), job.task == self.victim, job.task)
        })
    }

    /// The first job of every task, if it is ready. `waiting` is in the order of releases.
    fn heads<'w>(&self, waiting: &'w [Job], now: i64) -> impl Iterator<Item = usize> + use<'w> {
        let first = |task| waiting.iter().position(|job| job.task == task);
        (0..self.set.len()).filter_map(first).filter(move |place| waiting[*place].ready <= now)
    }

    /// Smaller is more urgent.
    fn key(&self, job: &Job) -> i64 {
        let task: &Task = &self.set.tasks()[job.task];
        let ticks = |value: u64| i64::try_from(value).expect("small numbers");
        match self.policy {
            PolicyKind::Fifo => job.ready,
            PolicyKind::Edf => job.nominal + ticks(task.deadline().0),
            PolicyKind::Rms => ticks(task.period().0),
            PolicyKind::Dm => ticks(task.deadline().0),
            PolicyKind::Priority => task.priority().into(),
        }
    }

    /// A pattern that the tasks do not allow would prove nothing.
    fn assert_legal(&self, jobs: &[Job]) {
        for (index, task) in self.set.tasks().iter().enumerate() {
            let mut own: Vec<&Job> = jobs.iter().filter(|job| job.task == index).collect();
            own.sort_by_key(|job| job.nominal);
            let late = |job: &&Job| u64::try_from(job.ready - job.nominal);
            assert!(own.iter().all(|job| late(job).is_ok_and(|late| late <= task.jitter().0)));
            assert!(own.is_sorted_by_key(|job| job.ready), "jobs of one task in order");
            let apart = |pair: &[&Job]| u64::try_from(pair[1].nominal - pair[0].nominal);
            assert!(own.windows(2).all(|pair| apart(pair).is_ok_and(|gap| gap >= task.period().0)));
        }
    }
}
