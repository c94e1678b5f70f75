//! End-to-end bounds of chains: a camera, then a detector, then a tracker.
//!
//! A [`Chain`] names the models in the order in which data goes through them. How one hands over
//! to the next makes two different questions:
//!
//! **Triggered** ([`triggered`]): the end of one job releases the next. Every member keeps the
//! period and the nominal release of the chain, and a member is ready at most `J` after its
//! trigger, so its release jitter is inherited:
//!
//! ```text
//! J_1 = J,   J_{k+1} = R_k + (what member k+1 declares itself),   R_last is end to end
//! ```
//!
//! The responses `R` depend on all jitters, so they are iterated over the whole set until nothing
//! changes. Any such point is sound, not only the least: take the first instant at which a job of
//! some member is not complete `R` after its nominal release. Until then every trigger came in
//! time, so every job was ready within its jitter, and the bound of that job holds. Contradiction.
//! Deadlines of members count from the chain's nominal release, which is what the order under EDF
//! goes by.
//!
//! **Sampled** ([`sampled`]): every member runs at its own period, reads the latest output of the
//! one before when its first stage starts, and writes its own when its last stage ends. Let `x` be
//! a job of member `i` with nominal release `a`, and `L_i` such that a job of member `i+1` whose
//! nominal release is later than `a + L_i` reads the output of `x` or a newer one. Then
//!
//! ```text
//! reaction = T_1 + sum over i < n of (T_{i+1} + L_i) + R_n
//! data age =       sum over i < n of (T_i     + L_i) + R_n
//! ```
//!
//! *Reaction:* an event that a job of the first member just missed came after that job's release,
//! so the next one is released within `T_1`. A job of member `i+1` is released in
//! `(a + L_i, a + L_i + T_{i+1}]`, and so on. *Age:* if the job of member `i+1` released at `a'`
//! reads the output of `x`, it does not read that of the next job of `i`, released by `a + T_i`;
//! hence `a' <= a + T_i + L_i`.
//!
//! **What `L` is.** `L_i = R_i` always holds: `x` is complete by `a + R_i`, and nobody starts before
//! his release. This is the bound of Davare et al. Often less will do: a job of `i+1` that is
//! chosen while `x` is visible and *strictly* ahead of it in the queue proves that `x` is complete,
//! since on a device without preemption nothing is half done at the choice but staged jobs, and
//! those count as waiting. So with `x` visible by `a + J_i`:
//!
//! | order | condition | `L_i`, if less than `R_i` |
//! |---|---|---|
//! | fixed priorities | member `i` is strictly more urgent than `i+1` | `J_i` |
//! | EDF | none: a release later than `a + D_i - D_{i+1}` has the later deadline | `max(J_i, D_i - D_{i+1})` |
//! | first in, first out | none: whoever is released after `x` is visible queues behind it | `J_i` |
//!
//! Whoever reads earlier, at any instant between his release and his start, is bound to `L = R`: the
//! inputs of a job that is submitted to the dispatcher are handed over with it, so this is what holds
//! for them ([`Sampled::reaction_read_early`]).
//!
//! Equal priorities prove nothing, as ties may go either way. The wake-up latency and the time from
//! a choice to the start do no harm: the choice, too, comes after the release.
//!
//! # Assumptions
//! 1. Those of the policy's own theorem.
//! 2. Triggered: the members of a chain have one period, and a job of the first triggers exactly
//!    one of each of the others.
//! 3. Sampled: `T` is also the *longest* time between two nominal releases (the members are
//!    periodic), at any phase, and each has been released before the event. A value is read and
//!    written at once, as a whole.
//! 4. Age is counted up to the instant at which the output is written. It stays in place until the
//!    next one is.
//!
//! Costs, triggered: one analysis of the set a round, out of one budget. Sampled: `O(n)` members.
//!
//! # Sources
//! Tindell, Clark, "Holistic schedulability analysis for distributed hard real-time systems",
//! Microprocessing and Microprogramming 40, 1994, for inherited jitter; Spuri, "Holistic analysis
//! for deadline scheduled real-time distributed systems", INRIA RR-2873, 1996, under EDF. Davare,
//! Zhu, Di Natale, Pinello, Kanajan, Sangiovanni-Vincentelli, "Period optimization for hard
//! real-time distributed automotive systems", DAC 2007. Dürr, von der Brüggen, Chen, Chen,
//! "End-to-end timing analysis of sporadic cause-effect chains in distributed systems", ACM TECS
//! 18, 2019, for the case of a more urgent producer; theirs is for preemptive tasks without jitter
//! and takes `max(R_i, T_{i+1})` where `T_{i+1}` is enough. EDF and first in, first out are ours.

use aegis_trace::{Category, Limit, ModelId, Nanos};

use super::findings::Response;
use super::fixed_point::{Budget, LONGEST_WINDOW};
use super::outcome::Outcome;
use super::workload::{Charged, Workload};
use super::{Order, Setting, worst_cases};
use crate::policy::PolicyKind;
use crate::task::{Overheads, Task, TaskSet};

/// Models in the order in which data goes through them; at least one, each once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    members: Vec<ModelId>,
}

impl Chain {
    /// Checks that `members` make a chain.
    ///
    /// # Errors
    /// Permanent: there is none, or one occurs twice.
    pub fn new(members: Vec<ModelId>) -> Result<Self, ChainError> {
        if members.is_empty() {
            return Err(ChainError::Empty);
        }
        let mut sorted = members.clone();
        sorted.sort_unstable();
        match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(ChainError::Twice { model: pair[0] }),
            None => Ok(Self { members }),
        }
    }

    /// The models, from the source on.
    #[must_use]
    pub fn members(&self) -> &[ModelId] {
        &self.members
    }

    /// Where the members are in `set`.
    fn places(&self, set: &TaskSet) -> Result<Vec<usize>, ChainError> {
        let place = |model: &ModelId| {
            let found = set.tasks().iter().position(|task| task.model() == *model);
            let found = found.ok_or(ChainError::Unknown { model: *model })?;
            match set.tasks()[found].is_server() {
                true => Err(ChainError::Server { model: *model }),
                false => Ok(found),
            }
        };
        self.members.iter().map(place).collect()
    }
}

/// Models that do not make a chain of the kind asked about.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// A chain of nothing.
    #[error("the chain has no members")]
    Empty,
    /// A model that would have to come after itself.
    #[error("{model} occurs twice in triggered chains or in one chain")]
    Twice {
        /// The model.
        model: ModelId,
    },
    /// A model that is not in the set.
    #[error("{model} is in the chain and not in the set")]
    Unknown {
        /// The model.
        model: ModelId,
    },
    /// A server of best-effort jobs, whose refills are no jobs that read and write.
    #[error("{model} is in the chain and serves best-effort jobs")]
    Server {
        /// The model.
        model: ModelId,
    },
    /// A member of a triggered chain that cannot have one job for each of the first member's.
    #[error("{model} has the period {period} and the chain that triggers it {chain}")]
    Period {
        /// The model.
        model: ModelId,
        /// Its period.
        period: Nanos,
        /// The period of the chain's first member.
        chain: Nanos,
    },
}

impl ChainError {
    /// Always [`Category::Permanent`]: the chain or the set must change.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Empty
            | Self::Twice { .. }
            | Self::Unknown { .. }
            | Self::Server { .. }
            | Self::Period { .. } => Category::Permanent,
        }
    }
}

/// What is known of triggered chains and the set they are in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Triggered {
    /// The worst response of each task of the set, in its order, from the nominal release: for a
    /// member of a chain that of the chain.
    pub responses: Vec<Response>,
    /// From the nominal release of each chain to the completion of its last member.
    pub end_to_end: Vec<Response>,
    /// How often the set was analysed until nothing changed.
    pub rounds: u64,
}

/// Bounds the responses of a set in which the members of each chain trigger one another.
///
/// A declared jitter of the first member is that of the chain; of any other, how long after its
/// trigger it may become ready. A task that no chain has is left as it is. Where a trigger has no
/// bound, nothing in the set has one. Does not block; costs one analysis a round, all out of
/// `setting.terms`.
///
/// # Errors
/// Permanent: a model is not in the set or is in two places, or a member's period is not its
/// chain's.
pub fn triggered(
    set: &TaskSet,
    chains: &[Chain],
    setting: &Setting,
) -> Result<Triggered, ChainError> {
    let chains = links(set, chains)?;
    let mut workload = Workload::new(set, setting);
    let mut budget = Budget::new(setting.terms);
    let mut rounds = 0;
    let responses = loop {
        rounds += 1;
        let responses = round(&workload, setting.policy, &mut budget);
        match inherit(&mut workload, set, &chains, &responses) {
            Ok(false) => break responses,
            Ok(true) => {}
            Err(none) => break vec![none; set.len()],
        }
    };
    let end = |places: &Vec<usize>| responses[*places.last().expect("a chain has a member")];
    let end_to_end = chains.iter().map(end).collect();
    Ok(Triggered { responses, end_to_end, rounds })
}

/// The places of the members of each chain; no task is in two.
fn links(set: &TaskSet, chains: &[Chain]) -> Result<Vec<Vec<usize>>, ChainError> {
    let all = chains.iter().flat_map(|chain| chain.members.iter().copied());
    if !chains.is_empty() {
        Chain::new(all.collect())?;
    }
    for chain in chains {
        let places = chain.places(set)?;
        let first = set.tasks()[places[0]].period();
        let other = places.iter().map(|place| &set.tasks()[*place]).find(|t| t.period() != first);
        if let Some(task) = other {
            let (model, period) = (task.model(), task.period());
            return Err(ChainError::Period { model, period, chain: first });
        }
    }
    chains.iter().map(|chain| chain.places(set)).collect()
}

fn round(workload: &Workload, policy: PolicyKind, budget: &mut Budget) -> Vec<Response> {
    match budget.spend(workload.tasks.len()) {
        Ok(()) => worst_cases(workload, policy, budget).iter().map(Outcome::response).collect(),
        Err(spent) => vec![Response::Undecided(spent.limit); workload.tasks.len()],
    }
}

/// Hands the responses of triggers on as jitter. Whether anything changed, or why there is no
/// bound.
fn inherit(
    workload: &mut Workload,
    set: &TaskSet,
    chains: &[Vec<usize>],
    responses: &[Response],
) -> Result<bool, Response> {
    let mut changed = false;
    for pair in chains.iter().flat_map(|places| places.windows(2)) {
        let Response::Bounded(trigger) = responses[pair[0]] else { return Err(responses[pair[0]]) };
        let jitter = trigger.saturating_add(set.tasks()[pair[1]].jitter());
        if jitter > Task::LONGEST {
            let limit = Limit::Window { longest: LONGEST_WINDOW };
            return Err(Response::Undecided(limit));
        }
        let known = &mut workload.tasks[pair[1]].jitter;
        // More jitter never helps, so this only climbs; the maximum keeps it so in any case.
        changed |= jitter > *known;
        *known = jitter.max(*known);
    }
    Ok(changed)
}

/// How late data is that goes through registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampled {
    /// From an external event to the end of the first job whose output takes it into account, at
    /// most.
    pub reaction: Nanos,
    /// From the nominal release of the job that sampled to the end of the last member's job that
    /// uses the sample, at most.
    pub data_age: Nanos,
    /// `sum (T + R)`: the reaction where members read between their release and their start, such as
    /// jobs that are submitted together with their inputs. The data age is then this less the last
    /// member's period. Never less than [`Sampled::reaction`].
    pub reaction_read_early: Nanos,
}

/// Bounds the reaction time and the data age of `chain`, whose members sample one another.
///
/// `responses` are those of `set`, in its order, as [`super::examine`] finds them under `policy`.
/// `None` if a member's response has no bound. Sums saturate upwards.
///
/// # Errors
/// Permanent: a member is not in the set, or is a server.
///
/// # Examples
/// ```
/// use aegis_sched::analysis::{Setting, chain, examine};
/// use aegis_sched::policy::PolicyKind;
/// use aegis_sched::task::{Overheads, Task, TaskSet, TaskSpec};
/// use aegis_trace::{ModelId, Nanos};
///
/// let task = |index, cost, period| {
///     Task::new(TaskSpec {
///         model: ModelId::first(index),
///         period: Nanos::from_millis(period),
///         deadline: Nanos::from_millis(period),
///         jitter: Nanos::ZERO,
///         priority: index.into(),
///         stages: vec![Nanos::from_millis(cost)],
///     })
/// };
/// let set = TaskSet::new(vec![task(0, 5, 33)?, task(1, 20, 100)?])?;
/// let setting = Setting::admission(PolicyKind::Priority, Overheads::default());
/// let responses = examine(&set, &setting).responses;
/// let chain = chain::Chain::new(vec![ModelId::first(0), ModelId::first(1)])?;
///
/// let bounds = chain::sampled(&set, &chain, PolicyKind::Priority, &responses)?.expect("bounded");
/// assert_eq!(bounds.reaction, Nanos::from_millis(33 + 100 + 25)); // The camera goes first.
/// assert_eq!(bounds.reaction_read_early, Nanos::from_millis(33 + 25 + 100 + 25));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn sampled(
    set: &TaskSet,
    chain: &Chain,
    policy: PolicyKind,
    responses: &[Response],
) -> Result<Option<Sampled>, ChainError> {
    let places = chain.places(set)?;
    let bounds: Option<Vec<Nanos>> =
        places.iter().map(|place| responses.get(*place)?.bound()).collect();
    let Some(bounds) = bounds else { return Ok(None) };
    let members: Vec<&Task> = places.iter().map(|place| &set.tasks()[*place]).collect();
    let hops = members.windows(2).zip(&bounds).map(|(pair, response)| {
        let lag = lag(policy, pair[0], pair[1]).map_or(*response, |lag| lag.min(*response));
        (pair[0].period().saturating_add(lag), pair[1].period().saturating_add(lag))
    });
    let end = bounds[bounds.len() - 1];
    let from = (end, end.saturating_add(members[0].period()));
    let (data_age, reaction) = hops.fold(from, |(age, reaction), (back, forth)| {
        (age.saturating_add(back), reaction.saturating_add(forth))
    });
    let steps = members.iter().zip(&bounds).map(|(task, r)| task.period().saturating_add(*r));
    let reaction_read_early = steps.fold(Nanos::ZERO, Nanos::saturating_add);
    Ok(Some(Sampled { reaction, data_age, reaction_read_early }))
}

/// How long after a job of `producer` a job of `consumer` may be released and still start without
/// its output, if the order of the queue says more than the response does.
fn lag(policy: PolicyKind, producer: &Task, consumer: &Task) -> Option<Nanos> {
    match Order::of(policy) {
        Order::Release => Some(producer.jitter()),
        Order::Deadline => {
            let earlier = producer.deadline().saturating_sub(consumer.deadline());
            Some(earlier.max(producer.jitter()))
        }
        Order::Fixed(urgency) => {
            let urgency = |task: &Task| urgency(&Charged::new(task, &Overheads::NONE));
            (urgency(producer) < urgency(consumer)).then_some(producer.jitter())
        }
    }
}
