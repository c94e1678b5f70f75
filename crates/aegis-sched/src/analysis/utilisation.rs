//! Exact utilisation: how the sum of `C/T` compares with 1.
//!
//! `sum C/T <= 1` is necessary for any test here, and the whole question is sometimes one part in
//! 10^15: seven times 1/7 is 1. [`Utilisation`] keeps the sum as an interval in units of 2^-64,
//! which settles nearly every set with one division for each task. Only a set whose interval
//! contains 1 is summed as a rational, whose denominator outgrows any machine word, hence the
//! small natural numbers at the end.

use std::cmp::Ordering;

use aegis_trace::Nanos;

/// Bounds on `sum C/T` of some tasks, in units of 2^-64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Utilisation {
    low: u128,
    high: u128,
}

const ONE: u128 = 1 << 64;

impl Utilisation {
    /// Adds up pairs of cost and period; no period may be zero. Costs `O(n)`.
    pub(crate) fn of(shares: impl Iterator<Item = (Nanos, Nanos)>) -> Self {
        shares.fold(Self::default(), |sum, (cost, period)| sum.plus(Self::share(cost, period)))
    }

    /// The sum of shares that are known. Costs `O(n)` additions.
    pub(super) fn sum(shares: impl Iterator<Item = Self>) -> Self {
        shares.fold(Self::default(), Self::plus)
    }

    /// `C/T` of one task. The one division that a task costs: whoever needs sums keeps it.
    pub(crate) fn share(cost: Nanos, period: Nanos) -> Self {
        let (cost, period) = (u128::from(cost.0) << 64, u128::from(period.0));
        let low = cost / period;
        Self { low, high: low + u128::from(low * period < cost) }
    }

    /// The sum with another one.
    pub(super) fn plus(self, more: Self) -> Self {
        Self { low: self.low.saturating_add(more.low), high: self.high.saturating_add(more.high) }
    }

    /// How the sum compares to 1. `shares` gives the pairs once more for the rare set that the
    /// interval cannot settle, which costs `O(m^2)` word operations for `m` different periods.
    pub(crate) fn cmp_one<I: Iterator<Item = (Nanos, Nanos)>>(
        &self,
        shares: impl FnOnce() -> I,
    ) -> Ordering {
        if self.high < ONE {
            Ordering::Less
        } else if self.low > ONE {
            Ordering::Greater
        } else {
            Rational::sum(shares()).cmp_one()
        }
    }

    /// A window no longer than the least that holds `base` and all work released in it at these
    /// rates, hence a lower bound on every least fixed point of `w = base + work(w)`. Below half the
    /// device that is `base` itself: a division gains no more than a step of the climb.
    pub(super) fn reach(&self, base: Nanos) -> Nanos {
        let free = ONE.saturating_sub(self.low);
        if free > ONE / 2 || free == 0 {
            return base;
        }
        let reached = (u128::from(base.0) << 64) / free;
        Nanos(u64::try_from(reached).unwrap_or(u64::MAX))
    }

    /// The sum in millionths, rounded down, at most `u64::MAX`; for display alone. `shares` as for
    /// [`Utilisation::cmp_one`].
    pub(crate) fn ppm<I: Iterator<Item = (Nanos, Nanos)>>(
        &self,
        shares: impl FnOnce() -> I,
    ) -> u64 {
        let cut = |sum: u128| (sum.saturating_mul(1_000_000)) >> 64;
        if self.high < u128::MAX / 1_000_000 && cut(self.low) == cut(self.high) {
            u64::try_from(cut(self.low)).unwrap_or(u64::MAX)
        } else {
            Rational::sum(shares()).ppm()
        }
    }
}

/// `sum C/T` of some tasks, exactly.
#[derive(Clone, Debug)]
struct Rational {
    numerator: Natural,
    denominator: Natural,
}

impl Rational {
    /// Adds up pairs of cost and period, those of one period first, which keeps the denominator
    /// short.
    fn sum(shares: impl Iterator<Item = (Nanos, Nanos)>) -> Self {
        let mut shares: Vec<_> = shares.map(|(cost, period)| (period.0, cost.0)).collect();
        shares.sort_unstable();
        let mut sum = Self { numerator: Natural::from(0), denominator: Natural::from(1) };
        for same in shares.chunk_by(|a, b| a.0 == b.0) {
            sum.add(same[0].0, same.iter().map(|(_, cost)| *cost));
        }
        sum
    }

    fn add(&mut self, period: u64, costs: impl Iterator<Item = u64>) {
        let cost = costs.fold(Natural::from(0), |sum, cost| sum.plus(&Natural::from(cost)));
        let share = self.denominator.multiplied(&cost); // a/b + C/T = (aT + bC) / bT
        self.numerator = self.numerator.times(period).plus(&share);
        self.denominator = self.denominator.times(period);
    }

    fn cmp_one(&self) -> Ordering {
        self.numerator.cmp(&self.denominator)
    }

    fn ppm(&self) -> u64 {
        let millionfold = self.numerator.times(1_000_000);
        let reaches = |ppm: u64| self.denominator.times(ppm) <= millionfold;
        let (mut low, mut high) = (0, u64::MAX); // `reaches(low)` holds throughout.
        while low < high {
            let middle = high - (high - low) / 2;
            if reaches(middle) { low = middle } else { high = middle - 1 }
        }
        low
    }
}

/// A natural number: words from the least significant up, the last never zero.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Natural {
    words: Vec<u64>,
}

impl From<u64> for Natural {
    fn from(word: u64) -> Self {
        Self { words: if word == 0 { Vec::new() } else { vec![word] } }
    }
}

impl Natural {
    fn times(&self, factor: u64) -> Self {
        let wide = self.words.iter().map(|word| u128::from(*word) * u128::from(factor));
        let mut product = Self::carried(wide);
        while product.words.last() == Some(&0) {
            product.words.pop(); // Only for `factor == 0`.
        }
        product
    }

    /// Word by word; `other` has one or two.
    fn multiplied(&self, other: &Self) -> Self {
        other.words.iter().enumerate().fold(Self::from(0), |sum, (shift, word)| {
            let mut part = self.times(*word);
            part.words.splice(0..0, std::iter::repeat_n(0, shift));
            sum.plus(&part)
        })
    }

    fn plus(&self, other: &Self) -> Self {
        let longer = self.words.len().max(other.words.len());
        let word = |of: &Self, i: usize| of.words.get(i).copied().map_or(0, u128::from);
        Self::carried((0..longer).map(|i| word(self, i) + word(other, i)))
    }

    /// Carries whatever exceeds a word into the next one. Each item is at most `(2^64 - 1)^2`, so
    /// an item and a carry below 2^64 fit 128 bits.
    fn carried(items: impl Iterator<Item = u128>) -> Self {
        let mut words = Vec::new();
        let mut carry = 0;
        for item in items {
            let sum = item + carry;
            words.push(low_word(sum));
            carry = sum >> 64;
        }
        if carry > 0 {
            words.push(low_word(carry));
        }
        Self { words }
    }
}

fn low_word(wide: u128) -> u64 {
    u64::try_from(wide & u128::from(u64::MAX)).expect("the mask leaves one word")
}

impl Ord for Natural {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_length = self.words.len().cmp(&other.words.len());
        by_length.then_with(|| self.words.iter().rev().cmp(other.words.iter().rev()))
    }
}

impl PartialOrd for Natural {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(shares: &[(u64, u64)]) -> impl Iterator<Item = (Nanos, Nanos)> {
        shares.iter().map(|(cost, period)| (Nanos(*cost), Nanos(*period)))
    }

    fn cmp(shares: &[(u64, u64)]) -> Ordering {
        Utilisation::of(pairs(shares)).cmp_one(|| pairs(shares))
    }

    fn ppm(shares: &[(u64, u64)]) -> u64 {
        Utilisation::of(pairs(shares)).ppm(|| pairs(shares))
    }

    #[test]
    fn seven_sevenths_are_one() {
        assert_eq!(cmp(&[(1, 7); 7]), Ordering::Equal);
        assert_eq!(ppm(&[(1, 7); 7]), 1_000_000);
        assert_eq!(ppm(&[(1, 7); 6]), 857_142);
    }

    #[test]
    fn one_part_in_a_hundred_million_counts() {
        let half = 50_000_000;
        assert_eq!(cmp(&[(1, 2), (half + 1, 2 * half)]), Ordering::Greater);
        assert_eq!(cmp(&[(1, 2), (half, 2 * half)]), Ordering::Equal);
        assert_eq!(cmp(&[(1, 2), (half - 1, 2 * half)]), Ordering::Less);
    }

    #[test]
    fn what_the_interval_cannot_tell_the_rational_can() {
        // 1/3 + 2/3, with the last unit of 2^62 more or less.
        let third = ((1 << 62) - 1) / 3;
        let sum = |cost| cmp(&[(1, 3), (cost, 3 * third)]);
        assert_eq!(sum(2 * third - 1), Ordering::Less);
        assert_eq!(sum(2 * third), Ordering::Equal);
        assert_eq!(sum(2 * third + 1), Ordering::Greater);
    }

    #[test]
    fn parameters_near_the_limits_neither_overflow_nor_round() {
        let period = (1 << 62) - 57;
        let mut shares = vec![(1, period); 1_024];
        shares.push((period - 1_024, period));
        assert_eq!(cmp(&shares), Ordering::Equal);
        assert_eq!(ppm(&[(u64::MAX, 1); 3]), u64::MAX);
        assert_eq!(ppm(&[]), 0);
    }

    #[test]
    fn the_reach_is_a_lower_bound() {
        // Half the device: 6 units of base end at 12 at the earliest.
        assert_eq!(Utilisation::of(pairs(&[(1, 2)])).reach(Nanos(6)), Nanos(12));
        assert_eq!(Utilisation::of(pairs(&[(1, 3); 2])).reach(Nanos(6)), Nanos(17));
        assert_eq!(Utilisation::of(pairs(&[(1, 3)])).reach(Nanos(6)), Nanos(6));
        assert_eq!(Utilisation::of(pairs(&[(2, 2)])).reach(Nanos(6)), Nanos(6));
    }

    proptest::proptest! {
        #[test]
        fn small_sums_agree_with_machine_integers(
            shares in proptest::collection::vec((0u64..50, 1u64..20), 0..6)
        ) {
            let all: u64 = shares.iter().map(|(_, period)| period).product();
            let sum: u64 = shares.iter().map(|(cost, period)| cost * (all / period)).sum();
            proptest::prop_assert_eq!(cmp(&shares), sum.cmp(&all));
            proptest::prop_assert_eq!(Rational::sum(pairs(&shares)).cmp_one(), sum.cmp(&all));
            proptest::prop_assert_eq!(ppm(&shares), sum * 1_000_000 / all);
        }
    }
}
