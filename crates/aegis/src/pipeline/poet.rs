//! The admitted set as a problem for POET, whose bounds come with machine-checked proofs.
//!
//! POET reads a set of tasks on one processor as YAML, bounds every response, and writes a proof for
//! each bound that the Rocq prover checks against the Prosa library. It knows fixed priorities and EDF
//! with jobs that run to completion, so a set that has anything else is not exported, and the reason
//! says what that is.
//!
//! Costs contain their overheads. What can hold the device less urgently than every task (waking up,
//! or a piece in the background) is a task of its own, `0`, which is least urgent and not released
//! again within any busy period. Time there is discrete, a nanosecond a tick: a blocker counts a tick
//! less than here, and so does a bound that has one.
//!
//! # Sources
//! Maida, Bozhko, Brandenburg, "Foundational response-time analysis as explainable evidence of
//! timeliness", ECRTS 2022.

use std::fmt::Write;

use aegis_sched::admission::AdmissionController;
use aegis_sched::policy::PolicyKind;
use aegis_sched::task::{Overheads, Task};
use aegis_trace::{Category, Nanos};

use super::Pipeline;
use crate::runtime::Runtime;

/// The period and deadline of the task that stands for the floor where busy periods have no end that
/// can be told: 2^62 ns, 146 years.
const NEVER_AGAIN: Nanos = Nanos(1 << 62);

/// Why a set is no problem for POET.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoetError {
    /// Not one processor.
    #[error("POET analyses one processor, and the device is split into {partitions} partitions")]
    Split {
        /// How many.
        partitions: usize,
    },
    /// Neither fixed priorities nor EDF.
    #[error("POET knows fixed priorities and EDF, and not the policy {policy}")]
    Policy {
        /// Which.
        policy: PolicyKind,
    },
    /// Nothing to analyse.
    #[error("no model with a deadline is admitted")]
    Empty,
    /// Others may run within a job.
    #[error(
        "{model} may be suspended between its {stages} stages, and POET takes jobs to run to completion; \
         with `suspend = false` it would"
    )]
    Staged {
        /// Which model.
        model: String,
        /// How many stages.
        stages: usize,
    },
    /// Jobs that share a budget.
    #[error(
        "{model} is under a server, which runs in pieces, and POET takes jobs to run to completion"
    )]
    Server {
        /// Which model.
        model: String,
    },
    /// Stages that wait on the device.
    #[error(
        "a stage is put on the device behind the running one, and POET decides when a job has ended"
    )]
    LookAhead,
    /// Releases that are late.
    #[error("{model} has a release jitter of {jitter}, and POET counts responses from the arrival")]
    Jitter {
        /// Which model.
        model: String,
        /// Its jitter.
        jitter: Nanos,
    },
}

impl PoetError {
    /// Always [`Category::Permanent`]: the set must change.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Split { .. }
            | Self::Policy { .. }
            | Self::Empty
            | Self::Staged { .. }
            | Self::LookAhead
            | Self::Server { .. }
            | Self::Jitter { .. } => Category::Permanent,
        }
    }
}

impl Pipeline {
    /// The models that were admitted, as POET's YAML.
    ///
    /// # Errors
    /// Permanent: POET does not know such a set; the first thing that it does not know.
    pub fn poet(&self, runtime: &Runtime) -> Result<String, PoetError> {
        let admissions = runtime.lock_admissions();
        match admissions.all() {
            [controller] => yaml(controller),
            split => Err(PoetError::Split { partitions: split.len() }),
        }
    }
}

fn yaml(controller: &AdmissionController) -> Result<String, PoetError> {
    let (config, set) = (controller.config(), controller.tasks());
    let urgency: Option<fn(&Task) -> u64> = match config.policy {
        PolicyKind::Rms => Some(|task| task.period().0),
        PolicyKind::Dm => Some(|task| task.deadline().0),
        PolicyKind::Priority => Some(|task| u64::from(task.priority())),
        PolicyKind::Edf => None,
        policy => return Err(PoetError::Policy { policy }),
    };
    if config.overheads.look_ahead {
        return Err(PoetError::LookAhead);
    }
    let name = |task: &Task| controller.name_of(task.model());
    if set.is_empty() {
        return Err(PoetError::Empty);
    }
    set.tasks().iter().try_for_each(|task| check(task, &name))?;
    let policy = if urgency.is_some() { "FP" } else { "EDF" };
    let mut text = format!(
        "# Written by `aegis check --poet`. Times are nanoseconds, overheads included.\n\
         # POET's bounds are for discrete time: where something blocks, those of AegisRT are 1 longer.\n\
         scheduling policy: {policy}\npreemption model: NP\ntask set:\n"
    );
    let floor = floor(set.background().longest, &config.overheads);
    if floor > Nanos::ZERO {
        let never = never_again(controller, floor);
        write_task(
            &mut text,
            0,
            "waking up, or work in the background",
            floor,
            (never, never),
            urgency.map(|_| 0),
        );
    }
    for (id, task) in (1..).zip(set.tasks()) {
        let cost = config.overheads.total(task.stages());
        // A larger number is more urgent there, and equal ones delay each other, as here.
        let priority = urgency.map(|urgency| {
            let later = set.tasks().iter().map(urgency).filter(|other| *other > urgency(task));
            1 + later.collect::<std::collections::BTreeSet<_>>().len()
        });
        write_task(&mut text, id, &name(task), cost, (task.period(), task.deadline()), priority);
    }
    Ok(text)
}

/// Whether POET knows such a task.
fn check(task: &Task, name: &impl Fn(&Task) -> String) -> Result<(), PoetError> {
    let model = || name(task);
    if task.is_server() {
        return Err(PoetError::Server { model: model() });
    }
    if task.may_be_suspended() && task.stages().len() > 1 {
        return Err(PoetError::Staged { model: model(), stages: task.stages().len() });
    }
    match task.jitter() {
        Nanos::ZERO => Ok(()),
        jitter => Err(PoetError::Jitter { model: model(), jitter }),
    }
}

/// What is less urgent than every task and can hold the device.
fn floor(background: Nanos, overheads: &Overheads) -> Nanos {
    match background {
        Nanos::ZERO => overheads.wake,
        piece => overheads.wake.max(piece.saturating_add(overheads.most())),
    }
}

/// A time that is longer than any busy period and any deadline after its beginning.
///
/// `L <= (floor + sum C) / (1 - U)`, since no more than `L/T + 1` jobs of a task are released in `L`. It
/// is as short as that allows: under EDF POET goes through the releases of all others up to it.
fn never_again(controller: &AdmissionController, floor: Nanos) -> Nanos {
    const ONE: u128 = 1 << 63;
    let overheads = &controller.config().overheads;
    let tasks = controller.tasks().tasks();
    let costs = || tasks.iter().map(|task| u128::from(overheads.total(task.stages()).0));
    let shares =
        costs().zip(tasks).map(|(cost, task)| (cost * ONE).div_ceil(task.period().0.into()));
    let ahead = costs().sum::<u128>() + u128::from(floor.0);
    let latest = tasks.iter().map(|task| u128::from(task.deadline().0)).max().unwrap_or(0);
    let free = ONE.checked_sub(shares.sum()).filter(|free| *free > 0);
    let longest = free.and_then(|free| Some(ahead.checked_mul(ONE)?.div_ceil(free)));
    let never = longest.and_then(|longest| u64::try_from(longest.checked_add(latest)?).ok());
    never.map_or(NEVER_AGAIN, Nanos).min(NEVER_AGAIN)
}

fn write_task(
    text: &mut String,
    id: usize,
    name: &str,
    cost: Nanos,
    (period, deadline): (Nanos, Nanos),
    priority: Option<usize>,
) {
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "- id: {id} # {name}\n  worst-case execution time: {}\n  period: {}\n  deadline: {}\n",
        cost.0, period.0, deadline.0
    );
    if let Some(priority) = priority {
        let _ = writeln!(text, "  priority: {priority}");
    }
}
