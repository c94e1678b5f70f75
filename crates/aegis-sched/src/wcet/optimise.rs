//! Maximising and solving in one and two variables, for likelihoods.
//!
//! # Invariants
//! 1. Every search has a fixed number of steps and depends on its arguments alone, so a bound is the
//!    same on every run.
//!
//! # Sources
//! Golden section: Kiefer, "Sequential Minimax Search for a Maximum", Proceedings of the AMS 4
//! (1953). Simplex: Nelder and Mead, "A Simplex Method for Function Minimization", The Computer
//! Journal 7 (1965).

/// Steps of a golden-section search that is to be exact: the interval shrinks by 0.618 each, to 3e-10 of
/// its length.
pub(super) const EXACT: usize = 46;
/// Steps of one that is to be quick: to 1e-4.
pub(super) const QUICK: usize = 19;
/// Steps of a bisection: to 1e-12 of its interval.
const BISECT_STEPS: usize = 40;
/// Most steps of the simplex.
const SIMPLEX_STEPS: usize = 160;

/// The `x` in `low..=high` where `f` is largest, and its value there: the best of `cells + 1` points
/// at equal distances, refined between its neighbours. `f` may have other maxima if they are not in
/// the best cell.
pub(super) fn maximise(
    low: f64,
    high: f64,
    cells: u32,
    steps: usize,
    mut f: impl FnMut(f64) -> f64,
) -> (f64, f64) {
    let width = (high - low) / f64::from(cells);
    let at = |cell: u32| low + width * f64::from(cell);
    let (best, _) = (0..=cells)
        .map(|cell| (cell, f(at(cell))))
        .fold((0, f64::NEG_INFINITY), |best, next| if next.1 > best.1 { next } else { best });
    golden(at(best.saturating_sub(1)), at((best + 1).min(cells)), steps, f)
}

/// The `x` in `low..=high` where the unimodal `f` is largest, and its value.
pub(super) fn golden(
    low: f64,
    high: f64,
    steps: usize,
    mut f: impl FnMut(f64) -> f64,
) -> (f64, f64) {
    let ratio = (5.0_f64.sqrt() - 1.0) / 2.0;
    let (mut low, mut high) = (low, high);
    let (mut left, mut right) = (high - ratio * (high - low), low + ratio * (high - low));
    let (mut at_left, mut at_right) = (f(left), f(right));
    let ends = [(low, f(low)), (high, f(high))];
    for _ in 0..steps {
        if at_left >= at_right {
            (high, right, at_right) = (right, left, at_left);
            left = high - ratio * (high - low);
            at_left = f(left);
        } else {
            (low, left, at_left) = (left, right, at_right);
            right = low + ratio * (high - low);
            at_right = f(right);
        }
    }
    let inner = if at_left >= at_right { (left, at_left) } else { (right, at_right) };
    // A maximum at an end is approached but never reached from inside.
    ends.into_iter().fold(inner, |best, end| if end.1 >= best.1 { end } else { best })
}

/// The upper end of the last interval of a bisection for the place in `low..=high` where `holds`
/// turns from true to false.
pub(super) fn last_true(low: f64, high: f64, mut holds: impl FnMut(f64) -> bool) -> f64 {
    let (mut low, mut high) = (low, high);
    for _ in 0..BISECT_STEPS {
        let middle = f64::midpoint(low, high);
        if holds(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

/// The point near `start` where `f` is largest and its value, by the simplex method with the usual
/// coefficients; `reach` is the length of its first edges.
pub(super) fn simplex<const N: usize>(
    start: [f64; N],
    reach: [f64; N],
    mut f: impl FnMut(&[f64; N]) -> f64,
) -> ([f64; N], f64) {
    let mut corners = vec![(start, f(&start))];
    for axis in 0..N {
        let mut corner = start;
        corner[axis] += reach[axis];
        corners.push((corner, f(&corner)));
    }
    for _ in 0..SIMPLEX_STEPS {
        corners.sort_by(|a, b| b.1.total_cmp(&a.1));
        if corners[0].1 - corners[N].1 < 1e-10 {
            break;
        }
        step(&mut corners, &mut f);
    }
    corners.into_iter().max_by(|a, b| a.1.total_cmp(&b.1)).expect("a simplex has corners")
}

/// One step on corners that are sorted, the best first.
fn step<const N: usize>(corners: &mut [([f64; N], f64)], f: &mut impl FnMut(&[f64; N]) -> f64) {
    let (worst, at_worst) = corners[N];
    let mut centre = [0.0; N];
    for (corner, _) in &corners[..N] {
        for axis in 0..N {
            centre[axis] += corner[axis] / N as f64;
        }
    }
    let mut towards = |factor: f64| {
        let mut point = centre;
        for axis in 0..N {
            point[axis] += factor * (centre[axis] - worst[axis]);
        }
        (point, f(&point))
    };
    let reflected = towards(1.0);
    let found = if reflected.1 > corners[0].1 {
        let expanded = towards(2.0);
        if expanded.1 > reflected.1 { expanded } else { reflected }
    } else if reflected.1 > corners[N - 1].1 {
        reflected
    } else {
        let contracted = towards(if reflected.1 > at_worst { 0.5 } else { -0.5 });
        if contracted.1 <= at_worst.max(reflected.1) {
            return shrink(corners, f);
        }
        contracted
    };
    corners[N] = found;
}

/// Moves every corner half way to the best.
fn shrink<const N: usize>(corners: &mut [([f64; N], f64)], f: &mut impl FnMut(&[f64; N]) -> f64) {
    let best = corners[0].0;
    for (corner, value) in &mut corners[1..] {
        for axis in 0..N {
            corner[axis] = f64::midpoint(corner[axis], best[axis]);
        }
        *value = f(corner);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maxima_inside_and_at_the_ends_are_found() {
        let near = |found: (f64, f64), x: f64| assert!((found.0 - x).abs() < 1e-6, "{found:?}");
        near(golden(0.0, 3.0, EXACT, |x| -(x - 1.0) * (x - 1.0)), 1.0);
        near(golden(0.0, 3.0, EXACT, |x| x), 3.0);
        near(golden(0.0, 3.0, EXACT, |x| -x), 0.0);
        // Two maxima: the higher one is narrow, but in a cell of its own.
        near(
            maximise(0.0, 8.0, 8, EXACT, |x| (-(x - 6.1).powi(2)).exp() + 0.5 * (-x * x).exp()),
            6.1,
        );
    }

    #[test]
    fn a_bisection_ends_above_the_turn() {
        let root = last_true(0.0, 4.0, |x| x * x < 2.0);
        assert!(root * root >= 2.0 && root - 2.0_f64.sqrt() < 1e-12, "{root}");
    }

    #[test]
    fn a_simplex_climbs_a_bent_ridge() {
        // Rosenbrock's valley, upside down.
        let f = |x: &[f64; 2]| -(1.0 - x[0]).powi(2) - 10.0 * (x[1] - x[0] * x[0]).powi(2);
        let (point, value) = simplex([-1.0, 1.0], [0.5, 0.5], f);
        assert!((point[0] - 1.0).abs() < 1e-3 && (point[1] - 1.0).abs() < 1e-3, "{point:?}");
        assert!(value > -1e-6);
    }
}
