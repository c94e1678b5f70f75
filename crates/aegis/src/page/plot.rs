//! Pictures as SVG that follow the page: its width, its colours, its text size.
//!
//! Places across are percentages of the width, so a picture gets narrower without its text getting
//! smaller. Colours are classes of the page's style.
//!
//! # Invariants
//! 1. Floats place ink; every figure is printed from integers.

use aegis_trace::Nanos;
use maud::{Markup, html};

use super::times::{Bar, Times};

/// Height of a distribution's field, in pixels.
const HEIGHT: f64 = 160.0;
/// Above the field: two lines of labels.
const ABOVE: f64 = 36.0;
/// Below it: the ticks.
const BELOW: f64 = 38.0;
/// Bars of a distribution.
const BARS: u32 = 44;
/// The most labels of an axis that fit a narrow window.
const TICKS_MAX: usize = 6;

/// The upright marks of a distribution.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marks {
    pub(super) bound: Option<Nanos>,
    pub(super) deadline: Option<Nanos>,
}

/// A logarithmic axis of time.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// From below the first to beyond the last of `times`, none of which is zero.
    fn around(low: Nanos, high: Nanos) -> Self {
        let (low, high) = ((low.0.max(1)) as f64, (high.0.max(1)) as f64);
        Self { low: (low * 0.85).max(1.0).ln(), high: (high * 1.15).max(2.0).ln() }
    }

    /// Where a time is, in per cent of the width.
    fn place(&self, time: Nanos) -> f64 {
        let place = ((time.0.max(1) as f64).ln() - self.low) / (self.high - self.low);
        (place * 100.0).clamp(0.0, 100.0)
    }

    /// Edges that cut the axis into equal bars, each a different nanosecond.
    fn edges(&self) -> Vec<Nanos> {
        let step = (self.high - self.low) / f64::from(BARS);
        let edge = |n: u32| nanos((self.low + step * f64::from(n)).exp());
        let mut edges: Vec<Nanos> = (0..=BARS).map(edge).collect();
        edges.dedup();
        edges
    }

    /// Round times on the axis, few enough to be read.
    fn ticks(&self) -> Vec<Nanos> {
        let inside = |time: &Nanos| {
            let at = (time.0 as f64).ln();
            at >= self.low && at <= self.high
        };
        let decades = || (0..19).map(|power| 10_u64.pow(power));
        for steps in [&[1, 2, 5][..], &[1, 3], &[1]] {
            let all = decades().flat_map(|ten| steps.iter().map(move |n| ten.saturating_mul(*n)));
            let ticks: Vec<Nanos> = all.map(Nanos).filter(inside).collect();
            if ticks.len() <= TICKS_MAX {
                return ticks;
            }
        }
        let all: Vec<Nanos> = decades().map(Nanos).filter(inside).collect();
        let every = all.len().div_ceil(TICKS_MAX);
        all.into_iter().step_by(every.max(1)).collect()
    }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an edge of ink")]
fn nanos(of: f64) -> Nanos {
    Nanos(of.round() as u64)
}

/// How many jobs took how long, with bound and deadline as upright lines.
pub(super) fn distribution(place: usize, name: &str, times: &Times, marks: Marks) -> Markup {
    let longest = times.max().map(|(time, _)| time).unwrap_or_default();
    let shortest = times.min().unwrap_or_default();
    let ends = [marks.bound, marks.deadline].into_iter().flatten();
    let high = ends.clone().chain([longest]).max().unwrap_or_default();
    let low = ends.chain([shortest]).min().unwrap_or_default();
    let axis = Axis::around(low, high);
    let bars = times.bars(&axis.edges());
    let most = bars.iter().map(|bar| bar.jobs).max().unwrap_or(1);
    let (title, about) = (format!("plot-{place}-title"), format!("plot-{place}-about"));
    html! {
        div.plot {
            svg.distribution role="img" aria-labelledby={ (title) " " (about) } width="100%"
                height=(ABOVE + HEIGHT + BELOW) {
                title id=(title) { "Response times of " (name) }
                desc id=(about) { (described(times, marks)) }
                (levels(most))
                @for bar in bars.iter().filter(|bar| bar.jobs > 0) { (drawn(bar, &axis, most)) }
                (ticks(&axis))
                @if let Some(bound) = marks.bound { (mark(axis.place(bound), "bound", bound, 30.0)) }
                @if let Some(deadline) = marks.deadline {
                    (mark(axis.place(deadline), "deadline", deadline, 14.0))
                }
            }
        }
    }
}

fn described(times: &Times, Marks { bound, deadline }: Marks) -> String {
    let shortest = times.min().unwrap_or_default();
    let (longest, _) = times.max().unzip();
    let mut text =
        format!("{} jobs, from {shortest} to {}", times.count(), longest.unwrap_or_default());
    for (name, time) in [("bound", bound), ("deadline", deadline)] {
        if let Some(time) = time {
            text.push_str(&format!("; {name} {time}"));
        }
    }
    text
}

/// How high a bar is: one job shows, ten times as many are one step more.
fn height(jobs: u64, most: u64) -> f64 {
    let steps = |jobs: u64| 1.0 + (jobs.max(1) as f64).log10();
    HEIGHT * steps(jobs) / steps(most)
}

fn drawn(bar: &Bar, axis: &Axis, most: u64) -> Markup {
    let (from, to) = (axis.place(bar.from), axis.place(bar.to));
    let height = height(bar.jobs, most);
    html! {
        rect.bar x=(per_cent(from)) width=(per_cent((to - from) * 0.94))
            y=(pixels(ABOVE + HEIGHT - height)) height=(pixels(height)) {
            title { (bar.jobs) " jobs between " (bar.from) " and " (bar.to) }
        }
    }
}

/// Lines at 1, 10, 100, ... jobs.
fn levels(most: u64) -> Markup {
    let tens = (0..19).map(|power| 10_u64.pow(power)).take_while(|jobs| *jobs <= most);
    html! {
        @for jobs in tens {
            @let y = ABOVE + HEIGHT - height(jobs, most);
            line.grid x1="0" x2="100%" y1=(pixels(y)) y2=(pixels(y)) {}
            text.tick x="-6" y=(pixels(y + 4.0)) text-anchor="end" { (short(jobs)) }
        }
        line.axis x1="0" x2="100%" y1=(pixels(ABOVE + HEIGHT)) y2=(pixels(ABOVE + HEIGHT)) {}
        text.tick x="-6" y=(pixels(ABOVE - 8.0)) text-anchor="end" { "jobs" }
    }
}

fn ticks(axis: &Axis) -> Markup {
    let y = ABOVE + HEIGHT;
    html! {
        @for time in axis.ticks() {
            @let x = axis.place(time);
            line.axis x1=(per_cent(x)) x2=(per_cent(x)) y1=(pixels(y)) y2=(pixels(y + 5.0)) {}
            text.tick x=(per_cent(x)) y=(pixels(y + 18.0)) text-anchor=(anchor(x)) { (time) }
        }
        text.tick x="50%" y=(pixels(y + 34.0)) text-anchor="middle" { "response time" }
    }
}

/// An upright line with its name above the field.
fn mark(x: f64, class: &str, time: Nanos, label: f64) -> Markup {
    html! {
        g class=(class) {
            line x1=(per_cent(x)) x2=(per_cent(x)) y1=(pixels(label - 10.0)) y2=(pixels(ABOVE + HEIGHT)) {}
            text x=(per_cent(x)) dx=(if x > 60.0 { "-5" } else { "5" }) y=(pixels(label))
                text-anchor=(if x > 60.0 { "end" } else { "start" }) { (class) " " (time) }
        }
    }
}

/// A bar of `of` against `largest`.
pub(super) fn meter(of: u64, largest: u64, class: &str) -> Markup {
    let width = of as f64 / largest.max(1) as f64 * 100.0;
    html! {
        svg.meter width="100%" height="14" {
            rect.back width="100%" height="14" {}
            rect class=(class) width=(per_cent(width)) height="14" {}
        }
    }
}

/// The longest response and the bound on a scale that ends at the deadline, or at the longest.
pub(super) fn bullet(longest: Nanos, bound: Option<Nanos>, deadline: Nanos) -> Markup {
    let end = deadline.max(longest).max(bound.unwrap_or_default()).0.max(1) as f64;
    let place = |time: Nanos| time.0 as f64 / end * 100.0;
    let class = if longest > deadline { "late" } else { "resident" };
    html! {
        svg.meter width="100%" height="14" {
            rect.back width=(per_cent(place(deadline))) height="14" {}
            rect class=(class) y="3" width=(per_cent(place(longest))) height="8" {}
            @if let Some(bound) = bound {
                line.bound-mark x1=(per_cent(place(bound))) x2=(per_cent(place(bound))) y1="0" y2="14" {}
            }
        }
    }
}

/// Text at the ends of an axis stays inside.
pub(super) fn anchor(x: f64) -> &'static str {
    match x {
        left if left < 4.0 => "start",
        right if right > 96.0 => "end",
        _ => "middle",
    }
}

pub(super) fn per_cent(of: f64) -> String {
    format!("{of:.3}%")
}

pub(super) fn pixels(of: f64) -> String {
    format!("{of:.1}")
}

/// `1`, `10`, `1k`, `1M`.
fn short(jobs: u64) -> String {
    match jobs {
        0..1_000 => jobs.to_string(),
        1_000..1_000_000 => format!("{}k", jobs / 1_000),
        1_000_000..1_000_000_000 => format!("{}M", jobs / 1_000_000),
        _ => format!("{}G", jobs / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        let ticks = |low, high| -> Vec<String> {
            Axis::around(Nanos(low), Nanos(high)).ticks().iter().map(Nanos::to_string).collect()
        };
        assert_eq!(ticks(4_000_000, 20_000_000), ["5 ms", "10 ms", "20 ms"]);
        assert_eq!(
            ticks(200_000, 90_000_000),
            ["300 us", "1 ms", "3 ms", "10 ms", "30 ms", "100 ms"]
        );
    }

    proptest! {
        #[test]
        fn every_axis_has_ticks_that_fit_and_places_inside(a in 1_u64.., b in 1_u64..) {
            let axis = Axis::around(Nanos(a.min(b)), Nanos(a.max(b)));
            prop_assert!(axis.ticks().len() <= TICKS_MAX);
            for time in [a, b] {
                prop_assert!((0.0..=100.0).contains(&axis.place(Nanos(time))));
            }
            prop_assert!(axis.edges().is_sorted());
        }
    }
}
