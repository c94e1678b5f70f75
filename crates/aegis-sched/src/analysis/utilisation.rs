//! Exact utilisation: the sum of `C/T` as a rational number.
//!
//! `sum C/T <= 1` is necessary for any test here, and the whole question is sometimes one part in
//! 10^15, so the sum is never rounded: seven times 1/7 is 1. The denominator is the product of the
//! periods, which outgrows any machine word, hence the small natural numbers at the end.

use std::cmp::Ordering;

use aegis_trace::Nanos;

/// `sum C/T` of some tasks, exactly.
#[derive(Clone, Debug)]
pub(crate) struct Utilisation {
    numerator: Natural,
    denominator: Natural,
}

impl Utilisation {
    /// Adds up pairs of cost and period; no period may be zero. Costs `O(n^2)` word operations.
    pub(crate) fn of(shares: impl Iterator<Item = (Nanos, Nanos)>) -> Self {
        let mut sum = Self { numerator: Natural::from(0), denominator: Natural::from(1) };
        for (cost, period) in shares {
            let share = sum.denominator.times(cost.0); // a/b + C/T = (aT + bC) / bT
            sum.numerator = sum.numerator.times(period.0).plus(&share);
            sum.denominator = sum.denominator.times(period.0);
        }
        sum
    }

    /// How the sum compares to 1.
    pub(crate) fn cmp_one(&self) -> Ordering {
        self.numerator.cmp(&self.denominator)
    }

    /// The sum in millionths, rounded down, at most `u64::MAX`; for display alone.
    pub(crate) fn ppm(&self) -> u64 {
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

    fn of(shares: &[(u64, u64)]) -> Utilisation {
        Utilisation::of(shares.iter().map(|(cost, period)| (Nanos(*cost), Nanos(*period))))
    }

    #[test]
    fn seven_sevenths_are_one() {
        assert_eq!(of(&[(1, 7); 7]).cmp_one(), Ordering::Equal);
        assert_eq!(of(&[(1, 7); 7]).ppm(), 1_000_000);
        assert_eq!(of(&[(1, 7); 6]).ppm(), 857_142);
    }

    #[test]
    fn one_part_in_a_hundred_million_counts() {
        let half = 50_000_000;
        assert_eq!(of(&[(1, 2), (half + 1, 2 * half)]).cmp_one(), Ordering::Greater);
        assert_eq!(of(&[(1, 2), (half, 2 * half)]).cmp_one(), Ordering::Equal);
        assert_eq!(of(&[(1, 2), (half - 1, 2 * half)]).cmp_one(), Ordering::Less);
    }

    #[test]
    fn parameters_near_the_limits_neither_overflow_nor_round() {
        let period = (1 << 50) - 27;
        let mut shares = vec![(1, period); 1_024];
        shares.push((period - 1_024, period));
        assert_eq!(of(&shares).cmp_one(), Ordering::Equal);
        assert_eq!(of(&[(u64::MAX, 1); 3]).ppm(), u64::MAX);
        assert_eq!(of(&[]).ppm(), 0);
    }

    proptest::proptest! {
        #[test]
        fn small_sums_agree_with_machine_integers(
            shares in proptest::collection::vec((0u64..50, 1u64..20), 0..6)
        ) {
            let all: u64 = shares.iter().map(|(_, period)| period).product();
            let sum: u64 = shares.iter().map(|(cost, period)| cost * (all / period)).sum();
            proptest::prop_assert_eq!(of(&shares).cmp_one(), sum.cmp(&all));
            proptest::prop_assert_eq!(of(&shares).ppm(), sum * 1_000_000 / all);
        }
    }
}
