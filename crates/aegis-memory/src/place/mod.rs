//! Placement: from a request to a draft. One file per algorithm; none is trusted.
//!
//! A planner is a function from a [`PlanRequest`](crate::PlanRequest) to an
//! `AllocationPlan<Draft>`. It may be as clever as it likes: whatever it writes must pass the
//! checker, which shares no code with this folder. What differs is only how much fits.
//!
//! One planner for whole requests and, below it, one for the bare problem, which knows neither
//! models nor classes and can be used by itself:
//!
//! | file          | what it does                                             | cost         |
//! |---------------|----------------------------------------------------------|--------------|
//! | `stacked.rs`  | a request from two ends: weights below, scratch above    | O(n^2)       |
//! | `bottom.rs`   | its lower end: best fit in the holes                     |              |
//! | `top.rs`      | its upper end: the scratch of one model                  |              |
//! | `problem.rs`  | the bare problem: buffers with lifetimes and sizes       |              |
//! | `solve.rs`    | all of the below, until proved least or out of budget    |              |
//! | `solution.rs` | what can be said of a plan: bound, witness, verdict      |              |
//! | `parts.rs`    | sections, independent parts, buffers with a forced place | O(n log n)   |
//! | `sweep.rs`    | twelve sweeps over time                                  | O(n log n)   |
//! | `greedy.rs`   | six orders, first and best fit                           | O(n^2)       |
//! | `search/`     | is there a plan within a capacity? exact                 | by budget    |

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
pub use solution::{BoundReason, Ended, Method, Solution, Verdict, Witness};
pub use solve::{Limits, solve};
pub use stacked::stacked;
