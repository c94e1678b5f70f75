//! The kinds of service that a model can be admitted to.
//!
//! Admission is asked for one of them and the trace says which one was given, so that both speak of
//! the same thing. Read [`ServiceTerms`].

use serde::{Deserialize, Serialize};

use crate::unit::Nanos;

/// What a model is promised, if anything. All times are whole nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "service", rename_all = "snake_case")]
pub enum ServiceTerms {
    /// Every job completes within its deadline.
    Guaranteed {
        /// `T`: least time between two releases.
        period: Nanos,
        /// `D`: from release to completion; less than, equal to or beyond the period.
        deadline: Nanos,
        /// `J`: from nominal release to submission.
        jitter: Nanos,
        /// Smaller is more urgent; only fixed-priority policies read it.
        priority: u32,
    },
    /// Best effort: jobs run while nothing else is ready, first come, first served. There is no
    /// deadline, no bound, and no least distance between two jobs.
    Background,
    /// Best effort under a polling server: jobs share a budget of device time in each period, and
    /// compete within it. There is no deadline and no bound for a single job.
    Server {
        /// Device time in each period, overheads included.
        budget: Nanos,
        /// Least time between two refills; also the deadline by which a refill can be used up.
        period: Nanos,
        /// Smaller is more urgent; only fixed-priority policies read it.
        priority: u32,
    },
}

impl ServiceTerms {
    /// Whether jobs have a deadline.
    #[must_use]
    pub fn is_guaranteed(&self) -> bool {
        matches!(self, Self::Guaranteed { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_service_is_a_key_among_its_numbers() {
        let server = ServiceTerms::Server { budget: Nanos(2), period: Nanos(10), priority: 3 };
        let text = serde_json::to_string(&server).expect("numbers serialise");
        expect_test::expect![[r#"{"service":"server","budget":2,"period":10,"priority":3}"#]]
            .assert_eq(&text);
        assert_eq!(serde_json::from_str::<ServiceTerms>(&text).expect("our own"), server);
        let text = serde_json::to_string(&ServiceTerms::Background).expect("a name serialises");
        assert_eq!(text, r#"{"service":"background"}"#);
    }
}
