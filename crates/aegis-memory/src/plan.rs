//! Requests and plans: which tensors, and at which offsets.
//!
//! A plan has two states, which are types. Any planner, and any caller, can write an
//! `AllocationPlan<Draft>`; only [`check`](AllocationPlan::check) turns it into an
//! `AllocationPlan<Checked>`, and only that can be bound to memory.
//!
//! ```text
//!   PlanRequest --place--> AllocationPlan<Draft> --check--> AllocationPlan<Checked> --bind--> ..
//!                                                   \--> PlanFault
//! ```
//!
//! # Invariants
//! 1. A [`PlanRequest`] lists every model that will share the range, also those already bound;
//!    [`PlanRequest::fixed`] says where the bound ones are.
//! 2. Totals are those of a checked plan; a draft has none, since nothing it says is known to hold.

use std::collections::BTreeSet;
use std::ops::Range;

use aegis_trace::{Bytes, ModelId, PartitionId, TensorId};

use crate::error::RequestFault;
use crate::lifetime::{ALIGNMENT_MAX, ModelMemory, TensorClass, TensorLifetime};
use crate::usage::Usage;

/// What is to be planned: every model of a device, in one range of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanRequest {
    /// The size of the range; offsets lie in `[0, capacity)`.
    pub capacity: Bytes,
    /// Every model that shares the range, each once.
    pub models: Vec<ModelMemory>,
    /// Tensors of `models` that are bound already and must not move.
    pub fixed: Vec<Placement>,
}

impl PlanRequest {
    /// Whether the request means something: every planner and the checker ask this first.
    ///
    /// O(n log n) in the number of tensors.
    ///
    /// # Errors
    /// The first [`RequestFault`] (permanent), in the order of the fields.
    pub fn validate(&self) -> Result<(), RequestFault> {
        let mut models = BTreeSet::new();
        let mut tensors = BTreeSet::new();
        for memory in &self.models {
            if !models.insert(memory.model) {
                return Err(RequestFault::RepeatedModel { model: memory.model });
            }
            for lifetime in &memory.tensors {
                check_tensor(memory.model, lifetime)?;
                if !tensors.insert((memory.model, lifetime.tensor)) {
                    let (model, tensor) = (memory.model, lifetime.tensor);
                    return Err(RequestFault::RepeatedTensor { model, tensor });
                }
            }
        }
        // Each fixed placement uses up its tensor, so that a second one finds none.
        for fixed in &self.fixed {
            if !tensors.remove(&(fixed.model, fixed.tensor)) {
                let Placement { model, tensor, .. } = *fixed;
                return Err(RequestFault::FixedUnknown { model, tensor });
            }
        }
        Ok(())
    }
}

fn check_tensor(model: ModelId, lifetime: &TensorLifetime) -> Result<(), RequestFault> {
    let TensorLifetime { tensor, size, alignment, .. } = *lifetime;
    if size == Bytes::ZERO {
        return Err(RequestFault::EmptyTensor { model, tensor });
    }
    if !alignment.is_power_of_two() || alignment > ALIGNMENT_MAX {
        return Err(RequestFault::BadAlignment { model, tensor, alignment });
    }
    Ok(())
}

/// One tensor at its address: bytes `[offset, offset + size)` of the range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Placement {
    /// Whose tensor.
    pub model: ModelId,
    /// Which tensor.
    pub tensor: TensorId,
    /// Its first byte, counted from the start of the range.
    pub offset: u64,
    /// How many bytes it takes.
    pub size: Bytes,
}

impl Placement {
    /// The first byte past the tensor, or `None` past 2^64.
    #[must_use]
    pub const fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.size.0)
    }
}

impl std::fmt::Display for Placement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = u128::from(self.offset) + u128::from(self.size.0);
        write!(f, "{} of {} at [{}, {end})", self.tensor, self.model, self.offset)
    }
}

/// The state of a plan that nobody has checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Draft(());

/// The state of a plan that passed the checker, with what the request said of each tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    owners: Vec<Owner>, // In the order of the placements.
}

/// The class of a tensor, and the partition of its model.
pub(crate) type Owner = (TensorClass, PartitionId);

/// An offset for every tensor of a [`PlanRequest`]. `State` is [`Draft`] or [`Checked`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a plan does nothing until it is checked and bound"]
pub struct AllocationPlan<State> {
    capacity: Bytes,
    placements: Vec<Placement>,
    state: State,
}

impl<State> AllocationPlan<State> {
    /// The size of the range the plan is for.
    #[must_use]
    pub fn capacity(&self) -> Bytes {
        self.capacity
    }

    /// Every tensor with its offset, ordered by model and tensor.
    #[must_use]
    pub fn placements(&self) -> &[Placement] {
        &self.placements
    }

    /// The placements of one model, ordered by tensor; empty for a model the plan does not know.
    /// O(log n) in the number of placements.
    #[must_use]
    pub fn placements_of(&self, model: ModelId) -> &[Placement] {
        let from = self.placements.partition_point(|placement| placement.model < model);
        let to = self.placements.partition_point(|placement| placement.model <= model);
        &self.placements[from..to]
    }
}

impl AllocationPlan<Draft> {
    /// A plan as some planner proposes it; believed by nobody until [`check`](Self::check)ed.
    /// O(n log n) in the number of placements.
    pub fn draft(capacity: Bytes, mut placements: Vec<Placement>) -> Self {
        placements.sort_by_key(|placement| (placement.model, placement.tensor));
        Self { capacity, placements, state: Draft(()) }
    }

    /// The same plan with the checker's verdict, and the owners in the order of the placements.
    /// Only `check.rs` calls this.
    pub(crate) fn accept(self, owners: Vec<Owner>) -> AllocationPlan<Checked> {
        assert_eq!(owners.len(), self.placements.len(), "the checker saw every placement");
        let Self { capacity, placements, state: Draft(()) } = self;
        AllocationPlan { capacity, placements, state: Checked { owners } }
    }
}

impl AllocationPlan<Checked> {
    /// The bytes of all tensors that are not scratch, without padding. O(n).
    #[must_use]
    pub fn resident(&self) -> Bytes {
        self.usage().resident
    }

    /// The bytes set aside for scratch of whichever model runs. O(n).
    #[must_use]
    pub fn scratch(&self) -> Bytes {
        self.usage().scratch
    }

    /// `resident() + scratch()`; at most the capacity. O(n).
    #[must_use]
    pub fn peak(&self) -> Bytes {
        self.usage().total()
    }

    /// What all tensors occupy. O(n) in the number of tensors.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.usage_where(|_| true, self.capacity.0)
    }

    /// What the tensors of `model` occupy; nothing for a model the plan does not know. Scratch of other
    /// partitions above its own is not counted. O(n) in the number of tensors of all models.
    #[must_use]
    pub fn usage_of(&self, model: ModelId) -> Usage {
        let scratch = || self.tensors().filter(|(_, (class, _))| !class.is_exclusive());
        let own = scratch().filter(|(placed, _)| placed.model == model);
        let lowest = own.min_by_key(|(placed, _)| placed.offset);
        let ceiling = lowest.and_then(|(lowest, (_, own))| {
            let others = scratch().filter(|(placed, (_, partition))| {
                *partition != own && placed.offset > lowest.offset
            });
            others.map(|(placed, _)| placed.offset).min()
        });
        self.usage_where(|placement| placement.model == model, ceiling.unwrap_or(self.capacity.0))
    }

    /// The exclusive tensors of `model` with their addresses, in order of tensor.
    pub(crate) fn buffers_of(
        &self,
        model: ModelId,
    ) -> impl Iterator<Item = (TensorId, Range<u64>)> {
        self.ranges_of(model, TensorClass::is_exclusive)
    }

    /// The scratch tensors of `model` with their addresses, in order of tensor.
    pub(crate) fn regions_of(
        &self,
        model: ModelId,
    ) -> impl Iterator<Item = (TensorId, Range<u64>)> {
        self.ranges_of(model, |class| !class.is_exclusive())
    }

    fn ranges_of(
        &self,
        model: ModelId,
        belongs: impl Fn(TensorClass) -> bool,
    ) -> impl Iterator<Item = (TensorId, Range<u64>)> {
        let of_model = self.tensors().filter(move |(placed, _)| placed.model == model);
        of_model.filter(move |(_, (class, _))| belongs(*class)).map(|(placed, _)| {
            let end = placed.end().expect("a checked plan ends inside its range");
            (placed.tensor, placed.offset..end)
        })
    }

    fn tensors(&self) -> impl Iterator<Item = (&Placement, Owner)> {
        self.placements.iter().zip(self.state.owners.iter().copied())
    }

    /// Scratch is what lies between its lowest byte and `ceiling`.
    ///
    /// No sum overflows: exclusive tensors are disjoint and lie inside the range, and none reaches
    /// across the lowest scratch byte, nor across a ceiling where scratch begins.
    fn usage_where(&self, belongs: impl Fn(&Placement) -> bool, ceiling: u64) -> Usage {
        let exclusive = || self.tensors().filter(|(_, (class, _))| class.is_exclusive());
        let scratch = self.tensors().filter(|(_, (class, _))| !class.is_exclusive());
        let offsets =
            scratch.filter(|(placed, _)| belongs(placed)).map(|(placed, _)| placed.offset);
        let base = offsets.min().unwrap_or(ceiling);
        let between = exclusive().filter(|(placed, _)| (base..ceiling).contains(&placed.offset));
        let owned_between: Bytes = between.map(|(placed, _)| placed.size).sum();
        Usage {
            resident: exclusive()
                .filter(|(placed, _)| belongs(placed))
                .map(|(placed, _)| placed.size)
                .sum(),
            scratch: Bytes(ceiling - base) - owned_between,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifetime::Lifespan;

    fn tensor(index: u16) -> TensorLifetime {
        TensorLifetime {
            tensor: TensorId::first(index),
            class: TensorClass::Persistent,
            span: Lifespan::new(0, 1).expect("not empty"),
            size: Bytes(256),
            alignment: 256,
        }
    }

    fn placed(model: u16, index: u16, offset: u64) -> Placement {
        Placement {
            model: ModelId::first(model),
            tensor: TensorId::first(index),
            offset,
            size: Bytes(256),
        }
    }

    fn check(models: Vec<ModelMemory>, fixed: Vec<Placement>, expect: &expect_test::Expect) {
        let request = PlanRequest { capacity: Bytes(4096), models, fixed };
        let verdict = match request.validate() {
            Ok(()) => "valid".into(),
            Err(fault) => fault.to_string(),
        };
        expect.assert_eq(&verdict);
    }

    fn model(index: u16, tensors: Vec<TensorLifetime>) -> ModelMemory {
        ModelMemory { model: ModelId::first(index), partition: PartitionId::WHOLE, tensors }
    }

    #[test]
    fn a_request_must_mean_something() {
        use expect_test::expect;
        let two = || vec![model(0, vec![tensor(0), tensor(1)]), model(1, vec![tensor(0)])];
        check(two(), vec![placed(1, 0, 0)], &expect!["valid"]);
        check(
            vec![model(0, vec![]), model(0, vec![])],
            vec![],
            &expect!["m0 is listed more than once"],
        );
        check(
            vec![model(0, vec![tensor(3), tensor(3)])],
            vec![],
            &expect!["t3 of m0 is listed more than once"],
        );
        let empty = TensorLifetime { size: Bytes::ZERO, ..tensor(2) };
        check(vec![model(0, vec![empty])], vec![], &expect!["t2 of m0 has no bytes"]);
        for alignment in [0, 3, 384, 8192] {
            let odd = TensorLifetime { alignment, ..tensor(2) };
            let request = PlanRequest {
                capacity: Bytes(4096),
                models: vec![model(0, vec![odd])],
                fixed: vec![],
            };
            let (model, tensor) = (ModelId::first(0), TensorId::first(2));
            let fault = RequestFault::BadAlignment { model, tensor, alignment };
            assert_eq!(request.validate(), Err(fault));
        }
        check(
            two(),
            vec![placed(1, 1, 0)],
            &expect!["t1 of m1 is fixed but not requested, or fixed twice"],
        );
        check(
            two(),
            vec![placed(1, 0, 0), placed(1, 0, 0)],
            &expect!["t0 of m1 is fixed but not requested, or fixed twice"],
        );
    }

    #[test]
    fn a_draft_is_ordered_and_answers_by_model() {
        let plan = AllocationPlan::draft(
            Bytes(4096),
            vec![placed(2, 0, 0), placed(0, 1, 256), placed(2, 1, 512), placed(0, 0, 768)],
        );
        let offsets = |model| {
            let of = plan.placements_of(ModelId::first(model));
            of.iter().map(|placement| placement.offset).collect::<Vec<_>>()
        };
        assert_eq!(offsets(0), [768, 256]);
        assert_eq!(offsets(1), [0; 0]);
        assert_eq!(offsets(2), [0, 512]);
    }
}
