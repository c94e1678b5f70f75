//! Every bound against everything that can happen: tiny task sets, all arrivals explored.
//!
//! `explorer.rs` is the slow, obvious twin of the analyses. It walks all states that a device on
//! ticks can reach, over every choice of arrivals, release delays, ties, wake-ups and background
//! pieces, and knows nothing of busy windows. `ticks.rs` compares the tick model with it, where all
//! numbers must be equal, of sets that miss too; `dense.rs` what admission answers in dense time;
//! `look_ahead.rs` what holds when a stage is committed behind the running one.

mod dense;
mod explorer;
mod look_ahead;
mod ticks;
