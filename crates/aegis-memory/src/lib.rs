//! Decides, at admission, where every tensor of every model lives.
//!
//! Read [`lifetime`] first: what a model needs, and which of it may share addresses. Then [`plan`]:
//! a request, and a plan with its two states. [`MemoryOrchestrator`] puts the parts together for
//! one device:
//!
//! ```text
//!   ModelMemory -> plan -> PlannedModel -> bind -> MemoryBinding -> .. -> release
//!                   |                        |
//!                   | place/: a draft        | the arena hands out exactly the planned addresses
//!                   | check:  the verdict    |
//!                   changes nothing          all or nothing
//! ```
//!
//! [`FirstFit`] stands apart: it serves a foreign runtime that allocates while it runs, inside the
//! range that was bound to it.
//!
//! # Invariants
//! 1. All device memory is taken when the arena is reserved; a plan only names addresses in it.
//!    Nothing here allocates device memory at run time.
//! 2. Only a plan that passed the checker can be bound, which the types say:
//!
//!    ```compile_fail,E0308
//!    # use aegis_memory::{place, MemoryBinding, PlanRequest};
//!    # fn bind(arena: &aegis_cuda::DeviceArena, request: &PlanRequest) {
//!    # let model = request.models[0].model;
//!    let draft = place::stacked(request).expect("fits");
//!    MemoryBinding::new(arena, &draft, model); // expected `Checked`, found `Draft`
//!    # }
//!    ```
//!
//!    ```no_run
//!    # use aegis_memory::{place, MemoryBinding, PlanRequest};
//!    # fn bind(arena: &aegis_cuda::DeviceArena, request: &PlanRequest) {
//!    # let model = request.models[0].model;
//!    let plan = place::stacked(request).expect("fits").check(request).expect("sound");
//!    let binding = MemoryBinding::new(arena, &plan, model);
//!    # }
//!    ```
//! 3. The checker shares no code with `place/` and judges every plan, whoever made it.
//! 4. The capacity is a hard limit. A refused request changes nothing, and says which inequality
//!    failed with its numbers.
//! 5. Tensors of a bound model never move.
//! 6. Scratch is shared by the models of one partition, which runs one stage at a time. Models of
//!    different partitions run at once and share no byte.
//!
//! Deliberately absent: clocks, streams, scheduling, and any knowledge of what a tensor means.
#![forbid(unsafe_code)]

pub mod binding;
pub mod check;
pub mod check_offsets;
pub mod error;
pub mod first_fit;
pub mod lifetime;
pub mod orchestrator;
pub mod place;
pub mod plan;
pub mod pressure;
pub mod usage;
pub mod view;

pub use binding::{MemoryBinding, POISON};
pub use check_offsets::{CheckedOffsets, check_offsets};
pub use error::{
    MemoryError, OffsetFault, PlanFault, PressureError, ProblemFault, RequestFault, UnknownBlock,
    ViewError,
};
pub use first_fit::FirstFit;
pub use lifetime::{ALIGNMENT_MAX, Lifespan, ModelMemory, TensorClass, TensorLifetime};
pub use orchestrator::{MemoryOrchestrator, PlannedModel};
pub use plan::{AllocationPlan, Checked, Draft, Placement, PlanRequest};
pub use pressure::{Band, PressureChange, PressureLevel, PressurePolicy, PressureThresholds};
pub use usage::Usage;
pub use view::{Element, TensorView};
