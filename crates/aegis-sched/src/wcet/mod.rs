//! From measured execution times to the cost the analysis uses.
//!
//! [`samples`] holds what was measured, [`estimate`] turns it into a [`WcetProfile`]. Contention
//! and statistical estimators with a stated confidence take their place beside these.

pub mod estimate;
pub mod samples;

pub use estimate::{StageProfile, WcetProfile};
pub use samples::{SampleError, Samples};
