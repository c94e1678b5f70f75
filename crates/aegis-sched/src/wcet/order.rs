//! The distribution-free upper tolerance bound by order statistics.
//!
//! With `x(1) <= ... <= x(n)` the sorted samples, `x(k)` is at least the `p`-quantile of whatever
//! distribution they were drawn from with probability `P(Bin(n, p) <= k - 1)`; more where it has
//! atoms. [`tolerance_rank`] is the least `k` for which that reaches the confidence `g`. It asks
//! for nothing but independent, identically distributed samples.
//!
//! # Invariants
//! 1. A rank never claims too much: what rounding could decide either way is decided for the next
//!    larger rank. The tests hold the rank against an exact twin in big integers.
//! 2. Ranks do not fall when coverage, confidence or the number of samples rise.
//!
//! # Sources
//! Wilks, "Determination of Sample Sizes for Setting Tolerance Limits", Annals of Mathematical
//! Statistics 12 (1941), pp. 91-96, for the maximum; David and Nagaraja, "Order Statistics",
//! 3rd edition, section 7.2, for the general rank.

use super::share::Share;

/// Where the running term and sum are scaled down.
const SCALE_AT: f64 = 1e200;
/// The logarithm of [`SCALE_AT`].
const LN_SCALE_AT: f64 = 200.0 * std::f64::consts::LN_10;

/// The least `k` with `P(Bin(n, coverage) <= k - 1) >= confidence`; `None` when even the maximum
/// has too little confidence. Costs `O(n - k)`.
#[must_use]
pub fn tolerance_rank(n: usize, coverage: Share, confidence: Share) -> Option<usize> {
    let above = most_above(n, coverage, confidence)?;
    Some(n - above)
}

/// The largest `k` for which `x(k)` is at most the quantile at `coverage` with probability
/// `confidence`: the mirror image of [`tolerance_rank`]. `None` when even the minimum is not.
#[must_use]
pub fn lower_rank(n: usize, coverage: Share, confidence: Share) -> Option<usize> {
    tolerance_rank(n, coverage.complement(), confidence).map(|rank| n + 1 - rank)
}

/// The fewest samples whose maximum covers `coverage` with `confidence`: the least `n` with
/// `coverage^n <= 1 - confidence`.
#[must_use]
pub fn samples_needed(coverage: Share, confidence: Share) -> u64 {
    let per_sample = ln_share(coverage);
    let target = confidence.complement().as_f64().ln();
    // The quotient is below 28 / 1e-12, far inside 2^53.
    let estimate = (target / per_sample).ceil();
    let mut n = to_u64(estimate).saturating_sub(2).max(1);
    while !reaches(n, per_sample, target) {
        n += 1;
    }
    n
}

/// The share that the maximum of `n` samples covers with `confidence`: `(1 - g)^(1/n)`, rounded
/// down to a trillionth; zero without samples. For display.
#[must_use]
pub fn supported_coverage(n: usize, confidence: Share) -> f64 {
    if n == 0 {
        return 0.0;
    }
    let exact = (confidence.complement().as_f64().ln() / n as f64).exp();
    ((exact - 1e-14) * 1e12).floor().max(0.0) / 1e12
}

/// The largest `m` with `P(Bin(n, q) <= m) <= 1 - g`, where `q` is the share above the quantile:
/// how many samples may lie above the bound.
fn most_above(n: usize, coverage: Share, confidence: Share) -> Option<usize> {
    let odds = coverage.complement().as_f64() / coverage.as_f64();
    // The term, `C(n, j) q^j p^(n - j)`, and the sum of the terms so far, both times exp(-scale):
    // p^n alone is far below the smallest float for large n.
    let mut scale = n as f64 * ln_share(coverage);
    let allowed = confidence.complement().as_f64().ln() - ln_error(n, -scale);
    let (mut term, mut sum) = (1.0_f64, 1.0_f64);
    let mut most = None;
    for j in 0..n {
        if sum.ln() + scale > allowed {
            return most;
        }
        most = Some(j);
        term *= odds * (n - j) as f64 / (j + 1) as f64;
        sum += term;
        if sum > SCALE_AT {
            term /= SCALE_AT;
            sum /= SCALE_AT;
            scale += LN_SCALE_AT;
        }
    }
    most
}

/// Above the error of the logarithm of the sum: `size` is `-n ln p`, which is rounded when it is
/// made and with each scaling, of which there are at most `size / LN_SCALE_AT + 1`; the recurrence
/// rounds four times for each of at most `n` terms.
fn ln_error(n: usize, size: f64) -> f64 {
    let scalings = size / LN_SCALE_AT + 4.0;
    1e-12 + 2.0 * f64::EPSILON * (size * scalings + 4.0 * n as f64)
}

/// Whether `coverage^n <= 1 - confidence`, surely.
fn reaches(n: u64, per_sample: f64, target: f64) -> bool {
    let size = n as f64 * per_sample;
    size <= target - 1e-12 + 4.0 * f64::EPSILON * size
}

/// The logarithm of a share, accurate close to one as well.
fn ln_share(share: Share) -> f64 {
    (-share.complement().as_f64()).ln_1p()
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates by design")]
fn to_u64(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn share(text: &str) -> Share {
        text.parse().expect("a share")
    }

    #[test]
    fn the_published_sample_sizes_come_out() {
        for (p, g, n) in [
            ("0.95", "0.95", 59),
            ("0.99", "0.95", 299),
            ("0.99", "0.99", 459),
            ("0.999", "0.99", 4603),
            ("0.9999", "0.99", 46_050),
        ] {
            assert_eq!(samples_needed(share(p), share(g)), n, "{p} {g}");
            let n = usize::try_from(n).expect("small");
            assert_eq!(tolerance_rank(n, share(p), share(g)), Some(n));
            assert_eq!(tolerance_rank(n - 1, share(p), share(g)), None);
        }
    }

    #[test]
    fn the_lower_rank_is_the_upper_one_of_the_mirrored_samples() {
        // P(Bin(100, 0.5) >= 41) = 0.972 and P(Bin(100, 0.5) >= 42) = 0.956; of 43, 0.933.
        assert_eq!(lower_rank(100, share("0.5"), Share::P95), Some(42));
        assert_eq!(tolerance_rank(100, share("0.5"), Share::P95), Some(59));
        assert_eq!(lower_rank(10, share("0.01"), Share::P99), None);
    }

    #[test]
    fn extreme_shares_neither_hang_nor_lie() {
        let finest = Share::from_trillionths(999_999_999_999).expect("a share");
        let coarsest = Share::from_trillionths(1).expect("a share");
        assert_eq!(tolerance_rank(10_000_000, finest, finest), None);
        assert_eq!(tolerance_rank(1, coarsest, coarsest), Some(1));
        assert_eq!(tolerance_rank(0, coarsest, coarsest), None);
        assert!(samples_needed(finest, finest) > 27_000_000_000_000);
        // Half of ten million samples: the terms run through thousands of scalings.
        let rank = tolerance_rank(1_000_000, share("0.5"), share("0.99")).expect("enough");
        assert!((501_150..501_170).contains(&rank), "{rank}"); // 5e5 + 2.326 * 500, plus one.
    }

    #[test]
    fn a_hundred_samples_support_what_the_note_says() {
        let supported = supported_coverage(100, Share::P99);
        assert!((0.9549..0.9550).contains(&supported), "{supported}");
        assert!(supported_coverage(0, Share::P99).abs() < f64::EPSILON);
    }

    /// The rank in exact arithmetic, and whether a tie decided it: every term is a whole number over
    /// `10^(4 n)`.
    fn exact_rank(n: u32, p: u32, g: u32) -> (Option<u32>, bool) {
        const ONE: u32 = 10_000;
        let q = ONE - p;
        let mut term = Big::from(1);
        let mut allowed = Big::from(ONE - g);
        for _ in 0..n {
            term.times(p);
            allowed.times(ONE);
        }
        // Compare `sum * 10^4` with `(10^4 - g) * 10^(4 n)`.
        let mut sum = Big::from(0);
        let (mut most, mut tie) = (None, false);
        for j in 0..n {
            sum.add(&term);
            let mut scaled = sum.clone();
            scaled.times(ONE);
            if scaled.exceeds(&allowed) {
                break;
            }
            tie = !allowed.exceeds(&scaled);
            most = Some(j);
            // C(n, j+1) q^(j+1) p^(n-j-1): the product is divisible by both.
            term.times(n - j);
            term.times(q);
            term.over(j + 1);
            term.over(p);
        }
        (most.map(|above| n - above), tie)
    }

    /// A whole number in limbs of 32 bits, the least significant first.
    #[derive(Clone)]
    struct Big(Vec<u32>);

    impl From<u32> for Big {
        fn from(value: u32) -> Self {
            Self(vec![value])
        }
    }

    impl Big {
        fn times(&mut self, factor: u32) {
            let mut carry = 0u64;
            for limb in &mut self.0 {
                carry += u64::from(*limb) * u64::from(factor);
                *limb = low(carry);
                carry >>= 32;
            }
            if carry > 0 {
                self.0.push(low(carry));
            }
        }

        fn over(&mut self, divisor: u32) {
            let mut rest = 0u64;
            for limb in self.0.iter_mut().rev() {
                let value = (rest << 32) | u64::from(*limb);
                *limb = low(value / u64::from(divisor));
                rest = value % u64::from(divisor);
            }
            assert_eq!(rest, 0, "the division is exact");
        }

        fn add(&mut self, other: &Self) {
            let mut carry = 0u64;
            for index in 0..self.0.len().max(other.0.len()) {
                if index == self.0.len() {
                    self.0.push(0);
                }
                carry += u64::from(self.0[index]);
                carry += other.0.get(index).copied().map_or(0, u64::from);
                self.0[index] = low(carry);
                carry >>= 32;
            }
            if carry > 0 {
                self.0.push(low(carry));
            }
        }

        fn exceeds(&self, other: &Self) -> bool {
            let limb = |big: &Self, index| big.0.get(index).copied().unwrap_or(0);
            let length = self.0.len().max(other.0.len());
            let differing = (0..length).rev().find(|i| limb(self, *i) != limb(other, *i));
            differing.is_some_and(|index| limb(self, index) > limb(other, index))
        }
    }

    fn low(value: u64) -> u32 {
        u32::try_from(value & 0xffff_ffff).expect("masked")
    }

    fn of_ten_thousand(value: u32) -> Share {
        Share::from_trillionths(u64::from(value) * 100_000_000).expect("a share")
    }

    fn check_against_twin(n: u32, p: u32, g: u32) {
        let rank = tolerance_rank(n as usize, of_ten_thousand(p), of_ten_thousand(g));
        let (exact, tie) = exact_rank(n, p, g);
        let exact = exact.map(|rank| rank as usize);
        // Rounding cannot tell a tie from less: then the next larger rank is safe.
        let next = exact.map(|rank| rank + 1).filter(|rank| *rank <= n as usize);
        assert!(rank == exact || (tie && rank == next), "n {n} p {p} g {g}: {rank:?} {exact:?}");
    }

    #[test]
    fn ranks_equal_the_exact_twin_on_a_grid() {
        for p in [100, 5_000, 9_000, 9_500, 9_900, 9_990, 9_999] {
            for g in [1_000, 5_000, 9_000, 9_900, 9_999] {
                for n in [1, 2, 3, 5, 10, 30, 59, 100, 299, 458, 459, 500] {
                    check_against_twin(n, p, g);
                }
            }
        }
    }

    #[test]
    fn a_tie_never_claims_too_much() {
        // P(Bin(1, 0.5) <= 0) = 0.5 exactly; the twin says rank 1, and none is as safe.
        check_against_twin(1, 5_000, 5_000);
        assert_eq!(tolerance_rank(1, share("0.5"), share("0.4999")), Some(1));
        assert_eq!(tolerance_rank(1, share("0.5"), share("0.5001")), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn ranks_equal_the_exact_twin(n in 1u32..400, p in 1u32..10_000, g in 1u32..10_000) {
            check_against_twin(n, p, g);
        }

        #[test]
        fn ranks_are_monotone(n in 1usize..20_000, p in 5_000u32..9_998, g in 1u32..9_999) {
            let rank = |n, p, g| {
                tolerance_rank(n, of_ten_thousand(p), of_ten_thousand(g)).unwrap_or(usize::MAX)
            };
            let here = rank(n, p, g);
            prop_assert!(here <= rank(n, p + 1, g), "coverage");
            prop_assert!(here <= rank(n, p, g + 1), "confidence");
            prop_assert!(here == usize::MAX || here <= rank(n + 1, p, g), "samples");
        }
    }
}
