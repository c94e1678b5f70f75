//! The `[[chain]]` tables: pipelines of models with promises from end to end.
//!
//! A [`Chain`] names guaranteed models in the order in which data goes through them. How one hands
//! over to the next is its [`ChainKind`], and what is promised follows from it; see
//! [`aegis_sched::analysis::chain`] for the theory.
//!
//! # Invariants
//! 1. The members of a [`Chain`] that was read are models of the same workload, guaranteed, each at
//!    most once, and at least two.
//! 2. The members of a triggered chain have one period, and no model is in two triggered chains.
//! 3. The members of a chain run in one partition.

use aegis_trace::Nanos;
use serde::Serialize;

use super::{Model, Overheads};

/// The most chains in one workload.
pub const CHAINS_MAX: usize = 64;
/// The fewest models that make a chain.
pub const MEMBERS_MIN: u32 = 2;

/// One `[[chain]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Unique among the chains of the workload, made of the same characters as that of a model.
    pub name: String,
    /// Places in [`models`](super::Workload::models), in the order in which data goes through them.
    pub models: Vec<usize>,
    /// How one member hands over to the next.
    pub kind: ChainKind,
    /// What the bound may be at most: of a triggered chain the time from its arrival to the end of
    /// its last member's job, of a sampled one the reaction time.
    pub deadline: Option<Nanos>,
    /// What the data age may be at most; of sampled chains alone.
    pub max_age: Option<Nanos>,
}

/// How the members of a chain hand over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChainKind {
    /// Each runs at its own period and takes the latest output of the one before, when its job is
    /// submitted.
    Sampled,
    /// The end of one's job releases the next one's.
    Triggered,
}

impl ChainKind {
    /// The name in a workload file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sampled => "sampled",
            Self::Triggered => "triggered",
        }
    }
}

impl Chain {
    /// Whether the member at `place` of the workload's models is released by another one.
    #[must_use]
    pub fn triggers(&self, place: usize) -> bool {
        self.kind == ChainKind::Triggered && self.models[1..].contains(&place)
    }
}

/// A fault of a chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainFault {
    /// More chains than are planned for.
    #[error("there are {found} chains; at most {most} are taken")]
    TooMany {
        /// How many there are.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// A member that no `[[model]]` has the name of.
    #[error("there is no model `{name}`")]
    UnknownModel {
        /// What was written.
        name: String,
    },
    /// A member that would have to come after itself; the related place is the first.
    #[error("`{name}` is in the chain already")]
    Twice {
        /// The member.
        name: String,
    },
    /// A member without deadlines; the related place is its name.
    #[error("`{name}` is of best effort, and a chain is made of promises")]
    BestEffort {
        /// The member.
        name: String,
    },
    /// A member that cannot have one job for each of the first member's; the related place is its
    /// period.
    #[error(
        "`{name}` has the period {period} and the chain that triggers it {chain}; they must be equal"
    )]
    OtherPeriod {
        /// The member.
        name: String,
        /// Its period.
        period: Nanos,
        /// The period of the chain's first member.
        chain: Nanos,
    },
    /// A member of two triggered chains; the related place is in the other one.
    #[error("`{name}` is in two triggered chains")]
    TwoTriggers {
        /// The member.
        name: String,
    },
    /// A member in another partition than the first, which is the related place: bounds and jitters
    /// are found within one.
    #[error("`{name}` runs in another partition than the chain's first model")]
    OtherPartition {
        /// The member.
        name: String,
    },
    /// A data age where every sample is used at once; the related place is the kind.
    #[error("`max_age` is for sampled chains alone")]
    AgeOfTriggered,
}

impl ChainFault {
    /// What would be right, in a few words; may be empty.
    pub(super) fn hint(&self) -> String {
        match self {
            Self::TooMany { .. } => "the first one too many".into(),
            Self::UnknownModel { .. } => "the name of a [[model]]".into(),
            Self::Twice { .. } | Self::AgeOfTriggered => "leave it out".into(),
            Self::BestEffort { .. } => "a model with deadlines".into(),
            Self::OtherPeriod { chain, .. } => format!("its period must be {chain}"),
            Self::OtherPartition { .. } => "one partition for all of the chain".into(),
            Self::TwoTriggers { .. } => "give it a model of its own".into(),
        }
    }
}

/// Which keys of a model were written down; the others depend on the chains it is in.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stated {
    pub(super) deadline: bool,
    pub(super) jitter: bool,
}

/// Fills in what members of triggered chains have where nothing is stated.
///
/// A deadline counts from the chain's arrival, so that of the chain stands for it, if longer than the
/// period. The jitter of a member that is triggered is how long the trigger may take, and it takes
/// the waking of a thread.
pub(super) fn fill_in(
    models: &mut [Model],
    stated: &[Stated],
    chains: &[Chain],
    overheads: &Overheads,
) {
    for chain in chains.iter().filter(|chain| chain.kind == ChainKind::Triggered) {
        for place in &chain.models {
            let (model, stated) = (&mut models[*place], stated[*place]);
            if let (false, Some(deadline)) = (stated.deadline, chain.deadline) {
                model.deadline = model.deadline.max(deadline);
            }
            if !stated.jitter && chain.triggers(*place) {
                model.jitter = overheads.wake;
            }
        }
    }
}
