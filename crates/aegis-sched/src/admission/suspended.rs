//! Admission under a limit on how many models may be suspended.
//!
//! What a suspended job keeps costs memory that nobody else may use meanwhile. The limit bounds it,
//! and its price is paid in time: a model that may not be suspended is analysed, and dispatched, as
//! one stage that nobody preempts ([`Terms::may_be_suspended`]). Which models are to pay is the
//! caller's choice; here the limit is enforced, whoever asks.
//!
//! # Invariants
//! 1. No more models that may be suspended are admitted than the limit says, so no more than that
//!    many are ever suspended at once.
//! 2. A model of one stage never counts: there is nothing between its stages.

use aegis_trace::Refusal;

use super::{AdmissionController, Slot, Terms};

impl Terms {
    /// Whether a job of these terms can stand between two stages while others run.
    pub(super) fn has_stages_between_which_others_run(&self) -> bool {
        self.may_be_suspended && self.costs.len() > 1
    }
}

impl AdmissionController {
    /// The same controller, which admits at most `limit` models that may be suspended; any number
    /// for `None`.
    #[must_use]
    pub fn suspending_at_most(self, limit: Option<u32>) -> Self {
        Self { max_suspended: limit, ..self }
    }

    /// How many admitted models may be suspended. O(models).
    #[must_use]
    pub fn suspendable(&self) -> usize {
        let is_one = |slot: &&Slot| matches!(slot, Slot::Taken { may_be_suspended: true, .. });
        self.slots.iter().filter(is_one).count()
    }

    /// Whether the limit leaves room for a newcomer of these terms.
    pub(super) fn check_suspended(&self, terms: &Terms) -> Result<(), Refusal> {
        match self.max_suspended {
            Some(limit)
                if terms.has_stages_between_which_others_run()
                    && self.suspendable() as u64 >= u64::from(limit) =>
            {
                Err(Refusal::TooManySuspended { limit })
            }
            _ => Ok(()),
        }
    }
}
