//! Sets whose members trigger one another, as admission takes them: task by task.
//!
//! Admission, the regulator of the dispatcher and its audit know tasks with a jitter, and no chains.
//! [`with_inherited_jitter`] gives each member of a triggered chain the jitter that it inherits in the
//! whole set, so that the set can be admitted like any other. See [`super::chain`] for why the
//! jitters may be taken from any fixed point: those of a set are also sound for each part of it, in
//! which no response is longer.
//!
//! # Invariants
//! 1. A set that is returned meets every deadline, counted from the arrival of the chain, and each
//!    member's jitter is at least its trigger's bound in that set plus what it declared itself.
//!
//! # Sources
//! Those of [`super::chain`].

use aegis_trace::{Category, Limit, ModelId, Nanos, Refusal};

use super::chain::{Chain, ChainError, triggered};
use super::findings::Response;
use super::fixed_point::LONGEST_WINDOW;
use super::workload::Workload;
use super::{Setting, decide};
use crate::task::{TaskSet, TaskSpec};

/// Why a set with triggered chains cannot be admitted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InheritError {
    /// The chains and the set do not go together.
    #[error("the chains do not fit the set")]
    Chain(#[from] ChainError),
    /// An inequality failed.
    #[error("{0}")]
    Refused(Refusal),
}

impl InheritError {
    /// What the caller can do.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Chain(cause) => cause.category(),
            Self::Refused(refusal) => refusal.category(),
        }
    }
}

impl From<Refusal> for InheritError {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// `set`, in which every member of a chain but the first has its inherited jitter.
///
/// A declared jitter is what [`triggered`] takes it for. Does not block or touch the device. Costs
/// two verdicts and one analysis a round of the fixed point.
///
/// # Errors
/// Permanent: a chain does not fit the set, or the set misses a deadline with these jitters, or
/// there is no bound to inherit.
pub fn with_inherited_jitter(
    set: &TaskSet,
    chains: &[Chain],
    setting: &Setting,
) -> Result<TaskSet, InheritError> {
    // Jitter only makes things worse, and this refusal is the simpler one to read.
    decide(set, setting)?;
    let found = triggered(set, chains, setting)?;
    let mut inherited = set.clone();
    for pair in chains.iter().flat_map(|chain| chain.members().windows(2)) {
        let trigger = bound(set, found.responses[place(set, pair[0])], setting)?;
        let to = place(set, pair[1]);
        let task = &set.tasks()[to];
        let jitter = trigger.saturating_add(task.jitter());
        let spec = TaskSpec { jitter, ..task.spec().clone() };
        let too_long = Refusal::Undecided { limit: Limit::Window { longest: LONGEST_WINDOW } };
        inherited = inherited.replaced(to, spec).ok_or(too_long)?;
    }
    decide(&inherited, setting)?;
    Ok(inherited)
}

/// Where a member is, which the fixed point has found in the set.
fn place(set: &TaskSet, model: ModelId) -> usize {
    let found = set.tasks().iter().position(|task| task.model() == model);
    found.expect("a chain that was analysed is of this set")
}

fn bound(set: &TaskSet, response: Response, setting: &Setting) -> Result<Nanos, Refusal> {
    match response {
        Response::Bounded(response) => Ok(response),
        Response::Unbounded => Err(Workload::new(set, setting).overutilised()),
        Response::Undecided(limit) => Err(Refusal::Undecided { limit }),
    }
}
