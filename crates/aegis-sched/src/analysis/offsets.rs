//! The instants at which a busy window's demand steps.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use aegis_trace::Nanos;

/// The union of arithmetic progressions, ascending and each instant once. Without end, as long as
/// it has one progression and times do not saturate.
pub(super) struct Offsets {
    next: BinaryHeap<Reverse<(Nanos, Nanos)>>,
}

impl Offsets {
    /// Progressions given as first instant and distance; no distance may be zero.
    pub(super) fn new(progressions: impl Iterator<Item = (Nanos, Nanos)>) -> Self {
        Self { next: progressions.map(Reverse).collect() }
    }
}

impl Iterator for Offsets {
    type Item = Nanos;

    fn next(&mut self) -> Option<Nanos> {
        let Reverse((instant, _)) = *self.next.peek()?;
        while let Some(Reverse((same, distance))) = self.next.peek().copied() {
            if same > instant {
                break;
            }
            self.next.pop();
            if let Some(following) = same.checked_add(distance) {
                self.next.push(Reverse((following, distance)));
            }
        }
        Some(instant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progressions_merge_in_order_without_repeats() {
        let progressions = [(0, 4), (1, 3), (4, 6)].map(|(a, d)| (Nanos(a), Nanos(d)));
        let offsets: Vec<u64> = Offsets::new(progressions.into_iter())
            .map(|at| at.0)
            .take_while(|at| *at < 17)
            .collect();
        assert_eq!(offsets, [0, 1, 4, 7, 8, 10, 12, 13, 16]);
        assert_eq!(Offsets::new([].into_iter()).next(), None);
    }

    #[test]
    fn the_end_of_time_ends_a_progression() {
        let last = Offsets::new([(Nanos::MAX, Nanos(1))].into_iter());
        assert_eq!(last.collect::<Vec<_>>(), [Nanos::MAX]);
    }
}
