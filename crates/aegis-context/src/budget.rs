//! Budgets as hard limits: memory, streams, compute time per period.
//!
//! Memory is charged to a [`MemoryLedger`]; a [`Charge`] is a guard that refunds on drop, so the
//! ledger is exact after any sequence of successes and failures. Compute time is kept in a
//! [`ComputeAccount`], which knows how to stop an overrun from repeating without preemption.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use aegis_trace::{Bytes, Nanos};

use crate::error::ContextError;

/// What one model may use at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceBudget {
    /// Device memory, resident and scratch together.
    pub memory: Bytes,
    /// Streams leased at once.
    pub streams: u32,
    /// Device time per job (and so per period), overheads included.
    pub compute: Nanos,
}

/// Counts bytes against a limit. Clones share the count.
#[derive(Clone, Debug)]
pub struct MemoryLedger {
    limit: Bytes,
    used: Arc<AtomicU64>,
}

impl MemoryLedger {
    /// An empty ledger.
    #[must_use]
    pub fn new(limit: Bytes) -> Self {
        Self { limit, used: Arc::default() }
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> Bytes {
        self.limit
    }

    /// What is charged now.
    #[must_use]
    pub fn used(&self) -> Bytes {
        Bytes(self.used.load(Ordering::Acquire))
    }

    /// Charges `amount`, all or nothing.
    ///
    /// # Errors
    /// [`ContextError::MemoryBudget`], Permanent, when it does not fit; nothing is charged then.
    pub fn charge(&self, amount: Bytes) -> Result<Charge, ContextError> {
        let add = |used: u64| used.checked_add(amount.0).filter(|sum| *sum <= self.limit.0);
        match self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, add) {
            Ok(_) => Ok(Charge { ledger: self.clone(), amount }),
            Err(used) => Err(ContextError::MemoryBudget {
                requested: amount,
                used: Bytes(used),
                limit: self.limit,
            }),
        }
    }
}

/// Bytes charged to a ledger; dropping it refunds them.
#[derive(Debug)]
#[must_use = "dropping the charge refunds it"]
pub struct Charge {
    ledger: MemoryLedger,
    amount: Bytes,
}

impl Charge {
    /// How much is charged.
    #[must_use]
    pub fn amount(&self) -> Bytes {
        self.amount
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.ledger.used.fetch_sub(self.amount.0, Ordering::AcqRel);
    }
}

/// The compute time of one model, enforced without preemption.
///
/// A job that exceeds the budget at a stage boundary loses its remaining stages. What its last
/// stage took beyond the budget becomes *debt*; while there is debt, the model's jobs are skipped,
/// and each skipped job repays one budget. So over any window of `k` periods the model uses at
/// most `k` budgets plus one stage's excess.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComputeAccount {
    budget: Nanos,
    debt: Nanos,
}

impl ComputeAccount {
    /// An account without debt.
    #[must_use]
    pub fn new(budget: Nanos) -> Self {
        Self { budget, debt: Nanos::ZERO }
    }

    /// The time granted per job.
    #[must_use]
    pub fn budget(&self) -> Nanos {
        self.budget
    }

    /// What is owed.
    #[must_use]
    pub fn debt(&self) -> Nanos {
        self.debt
    }

    /// Whether a job that has used `consumed` may begin another stage.
    #[must_use]
    pub fn allows_more(&self, consumed: Nanos) -> bool {
        consumed < self.budget
    }

    /// Books a job that ended after `consumed`; the excess becomes debt.
    pub fn settle(&mut self, consumed: Nanos) {
        self.debt = self.debt.saturating_add(consumed.saturating_sub(self.budget));
    }

    /// Asks whether a new job may run. While there is debt it may not, and the skipped job repays
    /// one budget.
    pub fn admit_job(&mut self) -> bool {
        if self.debt == Nanos::ZERO {
            return true;
        }
        self.debt = self.debt.saturating_sub(self.budget);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_is_all_or_nothing_and_refunds_on_drop() {
        let ledger = MemoryLedger::new(Bytes(100));
        let first = ledger.charge(Bytes(60)).expect("fits");
        let refusal = ledger.charge(Bytes(41)).expect_err("does not fit");
        assert_eq!(
            refusal.to_string(),
            "41 B more would exceed the memory budget of 100 B, of which 60 B are used"
        );
        assert_eq!(ledger.used(), Bytes(60));
        drop(first);
        assert_eq!(ledger.used(), Bytes(0));
        assert_eq!(ledger.charge(Bytes(100)).expect("fits").amount(), Bytes(100));
    }

    #[test]
    fn a_charge_of_absurd_size_does_not_wrap() {
        let ledger = MemoryLedger::new(Bytes(u64::MAX));
        let _all = ledger.charge(Bytes(u64::MAX)).expect("fits");
        assert!(ledger.charge(Bytes(1)).is_err());
    }

    #[test]
    fn an_overrun_is_repaid_by_skipped_jobs() {
        let mut account = ComputeAccount::new(Nanos(10));
        account.settle(Nanos(25));
        assert_eq!(account.debt(), Nanos(15));
        assert!(!account.admit_job());
        assert!(!account.admit_job());
        assert!(account.admit_job());
    }

    #[test]
    fn a_job_within_its_budget_owes_nothing() {
        let mut account = ComputeAccount::new(Nanos(10));
        account.settle(Nanos(10));
        assert!(account.admit_job());
        assert!(account.allows_more(Nanos(9)));
        assert!(!account.allows_more(Nanos(10)));
    }

    proptest::proptest! {
        #[test]
        fn the_ledger_is_exact_after_any_sequence(amounts in proptest::collection::vec(0u64..50, 0..40)) {
            let ledger = MemoryLedger::new(Bytes(200));
            let mut held = Vec::new();
            for (step, amount) in amounts.into_iter().enumerate() {
                if let Ok(charge) = ledger.charge(Bytes(amount)) {
                    held.push(charge);
                }
                if step % 3 == 2 && !held.is_empty() {
                    drop(held.remove(0));
                }
                let sum: Bytes = held.iter().map(Charge::amount).sum();
                proptest::prop_assert_eq!(ledger.used(), sum);
                proptest::prop_assert!(sum <= ledger.limit());
            }
        }
    }
}
