//! The instants at which a sum of steps changes, and by how much.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use aegis_trace::Nanos;

/// The union of arithmetic progressions, ascending and each instant once, with the weight of all
/// that have a member there. Without end, as long as it has one progression and times do not
/// saturate.
pub(super) struct Offsets {
    next: BinaryHeap<Reverse<(Nanos, Nanos, Nanos)>>,
}

impl Offsets {
    /// What one instant costs, in terms: a few comparisons in a heap.
    pub(super) const TERMS: usize = 8;

    /// Progressions given as first instant, distance and weight; no distance may be zero.
    pub(super) fn new(progressions: impl Iterator<Item = (Nanos, Nanos, Nanos)>) -> Self {
        Self { next: progressions.map(Reverse).collect() }
    }
}

impl Iterator for Offsets {
    type Item = (Nanos, Nanos);

    fn next(&mut self) -> Option<(Nanos, Nanos)> {
        let Reverse((instant, ..)) = *self.next.peek()?;
        let mut sum = Nanos::ZERO;
        while let Some(mut soonest) = self.next.peek_mut() {
            let Reverse((same, distance, weight)) = *soonest;
            if same > instant {
                break;
            }
            sum = sum.saturating_add(weight);
            match same.checked_add(distance) {
                Some(following) => *soonest = Reverse((following, distance, weight)),
                None => drop(std::collections::binary_heap::PeekMut::pop(soonest)),
            }
        }
        Some((instant, sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progressions_merge_in_order_and_weights_add_up() {
        let progressions = [(0, 4, 1), (1, 3, 10), (4, 6, 100)];
        let progressions = progressions.map(|(a, d, w)| (Nanos(a), Nanos(d), Nanos(w)));
        let offsets: Vec<(u64, u64)> = Offsets::new(progressions.into_iter())
            .map(|(at, weight)| (at.0, weight.0))
            .take_while(|(at, _)| *at < 14)
            .collect();
        assert_eq!(
            offsets,
            [(0, 1), (1, 10), (4, 111), (7, 10), (8, 1), (10, 110), (12, 1), (13, 10)]
        );
        assert_eq!(Offsets::new([].into_iter()).next(), None);
    }

    #[test]
    fn the_end_of_time_ends_a_progression() {
        let last = Offsets::new([(Nanos::MAX, Nanos(1), Nanos(2))].into_iter());
        assert_eq!(last.collect::<Vec<_>>(), [(Nanos::MAX, Nanos(2))]);
    }
}
