//! The terms of a response by kind.
//!
//! A column of an account has a term for each stage that a job waited for; beside the terms of its bound
//! stand their sums.
//!
//! # Invariants
//! 1. Each term is in one sum; together they are the response.

use aegis_trace::Nanos;

use super::account::{Account, Piece};

/// A sum of terms of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Released and not submitted.
    pub not_submitted: Nanos,
    /// Without budget.
    pub no_budget: Nanos,
    /// Not noticed on an idle device.
    pub wake_up: Nanos,
    /// Behind less urgent stages.
    pub blocking: Nanos,
    /// Behind more urgent ones.
    pub interference: Nanos,
    /// Behind earlier jobs of its model.
    pub earlier: Nanos,
    /// Its own overheads.
    pub overhead: Nanos,
    /// Behind inputs that failed launches of others left on their way.
    pub left_upload: Nanos,
    /// Its own stages on the device, copies included.
    pub execution: Nanos,
    /// Of that, the copies that are told apart; not another part of the total.
    pub copies: Nanos,
}

impl Account {
    /// The terms by kind; they add up to the response.
    #[must_use]
    pub fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for term in &self.terms {
            if let Piece::Upload(_) | Piece::Download(_) = term.what {
                sums.copies = sums.copies.saturating_add(term.length());
            }
            let sum = match term.what {
                Piece::NotSubmitted => &mut sums.not_submitted,
                Piece::NoBudget => &mut sums.no_budget,
                Piece::WakeUp => &mut sums.wake_up,
                Piece::Blocking(_) => &mut sums.blocking,
                Piece::Interference(_) => &mut sums.interference,
                Piece::Earlier(_) => &mut sums.earlier,
                Piece::Overhead(_) => &mut sums.overhead,
                Piece::LeftUpload { .. } => &mut sums.left_upload,
                Piece::Upload(_) | Piece::Execution(_) | Piece::Download(_) => &mut sums.execution,
            };
            *sum = sum.saturating_add(term.length());
        }
        sums
    }
}

impl Sums {
    /// All of them together.
    #[must_use]
    pub fn total(&self) -> Nanos {
        let Self { not_submitted, no_budget, wake_up, blocking, interference, .. } = *self;
        let waits = [not_submitted, no_budget, wake_up, blocking, interference];
        let rest = [self.earlier, self.overhead, self.left_upload, self.execution];
        waits.into_iter().chain(rest).fold(Nanos::ZERO, Nanos::saturating_add)
    }
}
