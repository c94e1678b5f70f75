//! The time model: how many jobs of a sporadic task count in a window.
//!
//! Time is dense. Parameters are whole nanoseconds, but a job may arrive at any instant. A stage
//! that starts an instant before a job arrives blocks it for the stage's whole length as the
//! instant shrinks, so **a blocker counts in full**. In exchange every arrival after the blocker's
//! start is that same instant later than the window's, so while the window began with a blocker
//! **a job counts only if it arrives strictly before the window's end**; without one, a job that
//! arrives exactly at the end counts too. These two rules belong together: a full blocker with
//! closed windows is pessimistic by a job, `blocker - 1` with open windows optimistic by one.
//!
//! For integer parameters the dense bound is the bound of a world in which everything happens on
//! ticks, plus 1 where the job can be blocked and equal where it cannot.

use aegis_trace::Nanos;

/// Whether a job that arrives exactly at a window's end counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    /// It does not: the window began an instant after a blocker started.
    Open,
    /// It does: the window began with the arrivals themselves.
    Closed,
}

impl Edge {
    /// The edge of a window that begins with `blocking`.
    pub(super) fn after(blocking: Nanos) -> Self {
        if blocking == Nanos::ZERO { Self::Closed } else { Self::Open }
    }
}

/// The most jobs of one task that become ready inside a window: the first `jitter` late at its
/// start, the others as early as they can.
pub(super) fn jobs_within(window: Nanos, jitter: Nanos, period: Nanos, edge: Edge) -> u64 {
    let reach = window.saturating_add(jitter);
    match edge {
        Edge::Open => reach.div_ceil(period),
        Edge::Closed => (reach / period).saturating_add(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(window: u64, jitter: u64, edge: Edge) -> u64 {
        jobs_within(Nanos(window), Nanos(jitter), Nanos(5), edge)
    }

    #[test]
    fn only_the_end_of_the_window_tells_the_edges_apart() {
        assert_eq!((jobs(4, 0, Edge::Open), jobs(4, 0, Edge::Closed)), (1, 1));
        assert_eq!((jobs(5, 0, Edge::Open), jobs(5, 0, Edge::Closed)), (1, 2));
        assert_eq!((jobs(6, 0, Edge::Open), jobs(6, 0, Edge::Closed)), (2, 2));
    }

    #[test]
    fn jitter_lets_later_jobs_come_closer() {
        assert_eq!((jobs(3, 2, Edge::Open), jobs(3, 2, Edge::Closed)), (1, 2));
        assert_eq!((jobs(1, 11, Edge::Open), jobs(1, 11, Edge::Closed)), (3, 3));
    }

    #[test]
    fn windows_without_end_saturate() {
        let jobs = jobs_within(Nanos::MAX, Nanos::MAX, Nanos(1), Edge::Closed);
        assert_eq!(jobs, u64::MAX);
    }
}
