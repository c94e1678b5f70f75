//! Ranks, their correlation over time, and how much a series knows less than it is long.
//!
//! Every validity test reads ranks, never the times themselves: a heavy tail would otherwise decide
//! the test. Deciding whether a series is stationary needs its correlation, and measuring
//! correlation needs a series that is stationary; the way out is to centre the ranks segment by
//! segment, which removes a trend or a step and keeps what is faster.
//!
//! # Sources
//! The window of the autocorrelation time: Sokal, "Monte Carlo Methods in Statistical Mechanics"
//! (1997), section 3.

/// The automatic window ends at this many autocorrelation times.
const WINDOW_FACTOR: f64 = 5.0;
/// The longest lag that is looked at: a series that remembers longer carries no claim anyway.
const LAG_MAX: usize = 1_000;
/// Segments that are centred each for itself, at most.
const SEGMENTS_MAX: usize = 8;
/// Samples of one segment, at least, while there are two of them.
const SEGMENT_MIN: usize = 50;
/// The largest part of the segments' own correlation that is corrected for.
const CORRECTION_MAX: f64 = 0.75;

/// Ranks from one; equal values share the mean of theirs. `O(n log n)`.
pub(super) fn mid_ranks(values: &[u64]) -> Vec<f64> {
    let mut order: Vec<(u64, usize)> = values.iter().copied().zip(0..).collect();
    order.sort_unstable();
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for tied in order.chunk_by(|a, b| a.0 == b.0) {
        let rank = start as f64 + (tied.len() + 1) as f64 / 2.0;
        for (_, index) in tied {
            ranks[*index] = rank;
        }
        start += tied.len();
    }
    ranks
}

/// The mean square deviation from the mean.
pub(super) fn variance(values: &[f64]) -> f64 {
    let mean = mean(values);
    values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64
}

/// `values` less their mean.
pub(super) fn centred(values: &[f64]) -> Vec<f64> {
    let mean = mean(values);
    values.iter().map(|value| value - mean).collect()
}

/// The autocorrelation time of `values`, centred segment by segment so that a trend or a step does not
/// pass for memory; at least one.
///
/// Centring `m` samples lowers each of their correlations by about `time / m`, hence the sum over a
/// window of `w` lags by `(2 w + 1) / m` of itself, which is corrected for.
pub(super) fn segment_time(values: &[f64]) -> f64 {
    let segments = (values.len() / SEGMENT_MIN).clamp(2, SEGMENTS_MAX);
    let length = values.len().div_ceil(segments).max(1);
    let centred: Vec<f64> = values.chunks(length).flat_map(centred).collect();
    let (time, window) = integrated(&centred);
    let lowered = (2 * window + 1) as f64 / length as f64;
    (time / (1.0 - lowered.min(CORRECTION_MAX))).max(1.0)
}

/// The correlations of a centred series with itself 1, 2, 3 ... later; zeros for a constant series.
/// `O(n)` each.
pub(super) fn autocorrelations(centred: &[f64]) -> impl Iterator<Item = f64> {
    let square: f64 = centred.iter().map(|value| value * value).sum();
    (1..centred.len()).map(move |lag| {
        let product: f64 = centred.iter().zip(&centred[lag..]).map(|(a, b)| a * b).sum();
        if square > 0.0 { product / square } else { 0.0 }
    })
}

/// The integrated autocorrelation time `1 + 2 sum rho` of a centred series, at least one: `n` such
/// samples know as much about their mean as `n` over it independent ones. `O(n)` for each lag of the
/// window.
pub(super) fn autocorrelation_time(centred: &[f64]) -> f64 {
    integrated(centred).0.max(1.0)
}

/// `1 + 2 sum rho` over Sokal's window, and the last lag of that.
fn integrated(centred: &[f64]) -> (f64, usize) {
    let longest = (centred.len() / 4).min(LAG_MAX);
    let (mut time, mut window) = (1.0, 0);
    for (lag, correlation) in (1..=longest).zip(autocorrelations(centred)) {
        time += 2.0 * correlation;
        window = lag;
        if lag as f64 >= WINDOW_FACTOR * time.max(1.0) {
            break;
        }
    }
    (time, window)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{Random, Seed};

    fn near(found: f64, expected: f64, within: f64) {
        assert!((found - expected).abs() <= within, "{found} is not {expected}");
    }

    #[test]
    fn equal_values_share_their_rank() {
        assert_eq!(mid_ranks(&[30, 10, 30, 20]), [3.5, 1.0, 3.5, 2.0]);
        assert_eq!(mid_ranks(&[]), Vec::<f64>::new());
        near(variance(&[1.0, 2.0, 3.0, 4.0]), 1.25, 1e-12);
    }

    /// An autoregressive series with coefficient `phi`, whose time is `(1 + phi) / (1 - phi)`.
    fn autoregressive(phi: f64, n: usize) -> Vec<f64> {
        let mut random = Random::new(Seed(3));
        let mut value = 0.0;
        let uniform = |random: &mut Random| (random.bits() >> 11) as f64 / (1u64 << 53) as f64;
        (0..n)
            .map(|_| {
                value = phi * value + uniform(&mut random) - 0.5;
                value
            })
            .collect()
    }

    #[test]
    fn the_autocorrelation_time_is_that_of_the_process() {
        near(autocorrelation_time(&centred(&autoregressive(0.0, 50_000))), 1.0, 0.1);
        near(autocorrelation_time(&centred(&autoregressive(0.5, 50_000))), 3.0, 0.3);
        near(autocorrelation_time(&centred(&autoregressive(0.9, 50_000))), 19.0, 3.0);
        let second = autocorrelations(&centred(&autoregressive(0.5, 50_000))).nth(1);
        near(second.expect("a second lag"), 0.25, 0.02);
        assert!(autocorrelations(&[0.0; 3]).eq([0.0, 0.0]));
    }

    #[test]
    fn a_step_does_not_pass_for_memory_in_centred_segments() {
        let step: Vec<f64> = autoregressive(0.0, 8_000)
            .into_iter()
            .enumerate()
            .map(|(index, value)| value + if index < 4_000 { 0.0 } else { 10.0 })
            .collect();
        assert!(autocorrelation_time(&centred(&step)) > 100.0);
        near(segment_time(&step), 1.0, 0.2);
        near(segment_time(&autoregressive(0.5, 2_000)), 3.0, 0.8);
    }
}
