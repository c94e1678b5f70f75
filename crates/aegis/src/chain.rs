//! What the chains of a workload were promised.
//!
//! # Invariants
//! 1. A chain without [`refused`](ChainReport::refused) has a bound, and keeps what it asks for.
//! 2. Bounds are those of the admitted set, and for inputs that are handed over with a job's
//!    submission.

use aegis_trace::Nanos;
use serde::Serialize;

use crate::workload::ChainKind;

/// One chain: what it asks for and what is proved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ChainReport {
    /// Its name.
    pub name: String,
    /// How its members hand over.
    pub kind: ChainKind,
    /// The names of its members, in the order in which data goes through them.
    pub models: Vec<String>,
    /// Triggered: from the chain's arrival to the end of its last member's job, at most. Sampled: the
    /// reaction time, at most. `None` where a member is not admitted.
    pub bound: Option<Nanos>,
    /// What the bound may be.
    pub deadline: Option<Nanos>,
    /// Deadline minus bound; `None` without either, and where it would be negative.
    pub slack: Option<Nanos>,
    /// The data age, at most; of sampled chains alone.
    pub age: Option<Nanos>,
    /// What the age may be.
    pub max_age: Option<Nanos>,
    /// What keeps it from being promised what it asks for.
    pub refused: Vec<ChainRefusal>,
}

/// Why a chain is not promised what it asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(tag = "refusal", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ChainRefusal {
    /// A member was not admitted, so nothing goes through the chain.
    #[error("its member {model} is not admitted")]
    MemberNotAdmitted {
        /// The first such member.
        model: String,
    },
    /// A triggered chain can take too long.
    #[error("end-to-end response {bound} > deadline {}", .deadline.cut())]
    ResponseExceedsDeadline {
        /// How long it can take.
        bound: Nanos,
        /// How long it may.
        deadline: Nanos,
    },
    /// A sampled chain can react too late.
    #[error("reaction {bound} > deadline {}", .deadline.cut())]
    ReactionExceedsDeadline {
        /// How long it can take.
        bound: Nanos,
        /// How long it may.
        deadline: Nanos,
    },
    /// A sampled chain can work on data that is too old.
    #[error("data age {age} > {max_age}")]
    AgeExceedsMaximum {
        /// How old it can be.
        age: Nanos,
        /// How old it may be.
        max_age: Nanos,
    },
}

/// What is proved of a chain: bound and, if it is a sampled one, age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Proved {
    pub(crate) bound: Nanos,
    pub(crate) age: Option<Nanos>,
}

impl Proved {
    /// Of a triggered chain, whose last member responds within `bound`.
    pub(crate) fn end_to_end(bound: Nanos) -> Self {
        Self { bound, age: None }
    }

    /// Of a sampled chain that reacts within `reaction`, whose last member has the period `last`.
    /// Every member reads between its release and its start, hence the age is `sum (T + R)` too, but
    /// for the last period.
    pub(crate) fn sampled(reaction: Nanos, last: Nanos) -> Self {
        Self { bound: reaction, age: Some(reaction.saturating_sub(last)) }
    }
}

impl ChainReport {
    /// The report of a chain that asks for `deadline` and `max_age`, of which this is `proved`.
    pub(crate) fn promised(asked: Self, proved: Proved) -> Self {
        let Proved { bound, age } = proved;
        let mut refused = Vec::new();
        if let Some(deadline) = asked.deadline.filter(|deadline| bound > *deadline) {
            refused.push(match asked.kind {
                ChainKind::Triggered => ChainRefusal::ResponseExceedsDeadline { bound, deadline },
                ChainKind::Sampled => ChainRefusal::ReactionExceedsDeadline { bound, deadline },
            });
        }
        if let (Some(age), Some(max_age)) = (age, asked.max_age)
            && age > max_age
        {
            refused.push(ChainRefusal::AgeExceedsMaximum { age, max_age });
        }
        let slack = asked.deadline.and_then(|deadline| deadline.checked_sub(bound));
        Self { bound: Some(bound), slack, age, refused, ..asked }
    }

    /// The report of a chain of which `model` is not there.
    pub(crate) fn without(asked: Self, model: String) -> Self {
        Self { refused: vec![ChainRefusal::MemberNotAdmitted { model }], ..asked }
    }
}
