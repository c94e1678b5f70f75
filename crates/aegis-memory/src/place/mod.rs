//! Placement: from a request to a draft. One file per algorithm; none is trusted.
//!
//! A planner is a function from a [`PlanRequest`](crate::PlanRequest) to an
//! `AllocationPlan<Draft>`. It may be as clever as it likes: whatever it writes must pass the
//! checker, which shares no code with this folder. What differs is only how much fits.
//!
//! | file         | algorithm                                                | cost   |
//! |--------------|----------------------------------------------------------|--------|
//! | `stacked.rs` | two ends: weights best fit upwards, scratch downwards    | O(n^2) |
//! | `bottom.rs`  | its lower end: best fit in the holes                     |        |
//! | `top.rs`     | its upper end: greedy first fit by size and lifespan     |        |

mod bottom;
mod greedy;
mod parts;
pub mod problem;
mod search;
pub mod solution;
pub mod solve;
pub mod stacked;
mod sweep;
mod top;

pub use problem::{Buffer, Problem};
pub use search::Stop;
pub use solution::{BoundReason, Method, Solution, Verdict, Witness};
pub use solve::{Limits, solve};
pub use stacked::stacked;
