//! The proof that admitted work is on time: one file per theorem.
//!
//! [`analyse`] answers, for a set of tasks on one serial device and a policy, either with a sound
//! worst-case response time for every task or with the inequality that failed. [`Test`] lists the
//! theorems and says for which sets each is exact.
//!
//! The device does not preempt a running stage. At the end of a stage the job goes on unless a
//! strictly more urgent job is ready; a started job under FIFO always goes on.
//!
//! # Invariants
//! 1. Time is dense and its parameters are whole nanoseconds: a blocker counts in full, and windows
//!    that begin with one are open at their end. `arrivals.rs` alone knows this rule.
//! 2. Nothing is rounded in a task's favour: costs and demand round up, slack down, utilisation is
//!    compared as an exact rational, and no floating-point number takes part.
//! 3. Every search has a budget. Running out of it is a refusal ([`Refusal::GaveUp`]), or, where
//!    only a tighter bound was sought, the deadline itself.
//! 4. All bounds of one answer are sound together; one late task refuses the whole set.
//! 5. Answers are a pure function of the arguments and do not depend on the order of the tasks,
//!    except for which of several late tasks, or of equally long blockers, is named.
//!
//! # Sources
//! The [`Test`] variants name them; each theorem's file gives the titles and the recurrences.

mod arrivals;
mod fifo;
mod fixed_point;
mod np_edf;
mod np_edf_response;
mod np_fixed_priority;
mod offsets;
pub(crate) mod utilisation;
mod workload;

use aegis_trace::{ModelId, Nanos, Refusal};
use serde::{Deserialize, Serialize};

use crate::policy::PolicyKind;
use crate::task::{Overheads, TaskSet};

use self::fixed_point::Budget;
use self::workload::{Charged, Workload};

/// What was proved about an accepted set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Analysis {
    /// One bound for each task, in the set's order.
    pub bounds: Vec<Bound>,
    /// The theorem that accepted the set.
    pub test: Test,
    /// `sum C/T` in millionths with overheads charged, rounded down: for display alone.
    pub utilisation_ppm: u64,
}

impl Analysis {
    /// The bound of each task on its response, in the set's order.
    #[must_use]
    pub fn responses(&self) -> Vec<(ModelId, Nanos)> {
        self.bounds.iter().map(|bound| (bound.model, bound.response)).collect()
    }
}

/// The worst that can happen to the jobs of one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// Whose bound it is.
    pub model: ModelId,
    /// The cost of one job, overheads included.
    pub cost: Nanos,
    /// An upper bound on the time from a job's nominal release, hence with its own jitter, to its
    /// completion; at most the deadline.
    pub response: Nanos,
    /// The longest time that a job can be held up by something less urgent already on the device.
    pub blocking: Nanos,
    /// Whose stage that is; `None` for the wake-up latency, or when there is nothing.
    pub blocked_by: Option<ModelId>,
    /// Deadline minus response.
    pub slack: Nanos,
}

/// The theorem behind an answer.
///
/// All of them assume sporadic releases with bounded jitter, one serial device that does not idle
/// while a job is ready (up to the wake-up latency), stages within their costs, jobs of one task in
/// release order, and the policy's key computed from the **nominal** release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Test {
    /// Response times over the whole busy window under fixed priorities, explicit or by period.
    /// Exact for tasks of one stage without equal priorities; sound otherwise.
    ///
    /// Davis, Burns, Bril, Lukkien 2007; Bril, Lukkien, Verhaegh 2009; Bertogna, Buttazzo, Yao
    /// 2011.
    NpFixedPriority,
    /// Demand and blocking under EDF, windows searched downwards (QPA). The verdict is exact for
    /// tasks of one stage and sufficient for several. Responses are exact for tasks of one stage
    /// without jitter as long as the search stays within its budget, and the deadline otherwise.
    ///
    /// Jeffay, Stanat, Martel 1991; George, Rivierre, Spuri 1996; Spuri 1996; Baruah 2005; Zhang,
    /// Burns 2009.
    NpEdfDescent,
    /// Demand and blocking under EDF, every window searched, because a jitter exceeds its period.
    /// Sufficient; responses are the deadlines.
    ///
    /// George, Rivierre, Spuri 1996; Baruah 2005.
    NpEdfScan,
    /// All work released before or with the job, under first in, first out. Exact where jobs queue
    /// in the order in which they become ready, sound where they queue by nominal release. The
    /// theorem needs no source: a job waits for what came before it and for nothing else.
    Fifo,
}

impl std::fmt::Display for Test {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::NpFixedPriority => "non-preemptive fixed-priority response times",
            Self::NpEdfDescent => "non-preemptive EDF demand and blocking, searched downwards",
            Self::NpEdfScan => "non-preemptive EDF demand and blocking, every window",
            Self::Fifo => "first in, first out response times",
        })
    }
}

/// Decides whether `set` meets every deadline under `policy`, and bounds every response.
///
/// Does not block or touch the device. Costs `O(n)` terms for each window, job and step looked at,
/// pseudo-polynomial in the parameters but cut off at a fixed budget, a fraction of a second.
/// Equal periods under [`PolicyKind::Rms`], equal priorities under [`PolicyKind::Priority`], equal
/// deadlines under [`PolicyKind::Edf`] and equal releases under [`PolicyKind::Fifo`] are taken to
/// fall against each task. An empty set is accepted.
///
/// # Errors
/// Permanent: the inequality that failed, with its numbers, or [`Refusal::GaveUp`].
///
/// # Examples
/// ```
/// use aegis_sched::analysis::analyse;
/// use aegis_sched::policy::PolicyKind;
/// use aegis_sched::task::{Overheads, Task, TaskSet, TaskSpec};
/// use aegis_trace::{ModelId, Nanos};
///
/// let task = |index, period, stages: &[u64]| {
///     Task::new(TaskSpec {
///         model: ModelId::first(index),
///         period: Nanos::from_millis(period),
///         deadline: Nanos::from_millis(period),
///         jitter: Nanos::ZERO,
///         priority: 0,
///         stages: stages.iter().copied().map(Nanos::from_millis).collect(),
///     })
/// };
/// let camera = task(0, 8, &[2])?;
/// let whole = TaskSet::new(vec![camera.clone(), task(1, 40, &[12])?])?;
/// let staged = TaskSet::new(vec![camera, task(1, 40, &[4, 4, 4])?])?;
///
/// let none = Overheads::default();
/// let refusal = analyse(&whole, PolicyKind::Rms, &none).expect_err("blocked for 12 ms");
/// assert_eq!(
///     refusal.to_string(),
///     "m0: response 14 ms > deadline 8 ms, of which 12 ms is blocking by a stage of m1"
/// );
/// let analysis = analyse(&staged, PolicyKind::Rms, &none).expect("blocked for 4 ms");
/// assert_eq!(analysis.bounds[0].response, Nanos::from_millis(6));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn analyse(
    set: &TaskSet,
    policy: PolicyKind,
    overheads: &Overheads,
) -> Result<Analysis, Refusal> {
    let workload = Workload::new(set, overheads)?;
    let mut budget = Budget::new(Budget::VERDICT);
    let (test, bounds) = match policy {
        PolicyKind::Fifo => (Test::Fifo, fifo::bounds(&workload, &mut budget)?),
        PolicyKind::Rms => by_urgency(&workload, |task| task.period.0, &mut budget)?,
        PolicyKind::Priority => {
            by_urgency(&workload, |task| u64::from(task.priority), &mut budget)?
        }
        PolicyKind::Edf => {
            let test = np_edf::check(&workload, &mut budget)?;
            (test, np_edf_response::bounds(&workload, Budget::RESPONSES)?)
        }
    };
    Ok(Analysis { bounds, test, utilisation_ppm: workload.utilisation.ppm() })
}

fn by_urgency(
    workload: &Workload,
    urgency: impl Fn(&Charged) -> u64,
    budget: &mut Budget,
) -> Result<(Test, Vec<Bound>), Refusal> {
    Ok((Test::NpFixedPriority, np_fixed_priority::bounds(workload, urgency, budget)?))
}
