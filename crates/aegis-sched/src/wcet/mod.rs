//! From measured execution times to the cost the analysis uses.
//!
//! [`estimate`] asks how long a job takes at most, of the times of one [`Campaign`], and answers with a
//! bound and whether it carries a *claim*: with the stated confidence, at least the stated share of jobs
//! stays below it. [`order`] makes the claim from nothing but independent and identically distributed
//! samples; [`gpd`](self) and [`gev`] extrapolate with extreme value theory; [`margin`] is the plain rule
//! that claims nothing. [`stationarity`], [`independence`] and [`bursts`] test what the claims rest on, and
//! `rule.rs` holds the rule that picks.
//!
//! # Invariants
//! 1. Statistics are computed in floats; ranks are decided with their error on the safe side, and every
//!    bound is a whole number of nanoseconds, rounded up.
//! 2. An answer is a function of the samples and the question: the one random number generator has a
//!    fixed seed.
//! 3. No claim without a passed test of what it rests on, and no lost claim without the reason.

pub mod bursts;
pub mod campaign;
pub mod contention;
pub mod estimate;
pub mod experiment;
pub mod gev;
mod gpd;
pub mod independence;
pub mod lines;
pub mod margin;
pub mod monitor;
mod optimise;
pub mod order;
pub mod profile;
pub mod question;
mod ranks;
mod return_level;
mod rule;
pub mod samples;
pub mod share;
pub mod stationarity;
mod tail;
pub mod validity;
pub mod warning;

pub use campaign::{Campaign, CampaignError};
pub use contention::{ContentionFactor, Scenario};
pub use estimate::{Estimate, Kind};
pub use margin::compute_wcet;
pub use monitor::StageMonitor;
pub use profile::{CostRule, StageProfile, WcetProfile};
pub use question::{Method, Question};
pub use samples::{SampleError, Samples};
pub use share::{Share, ShareError};
pub use warning::{Diagnosis, Warning};
