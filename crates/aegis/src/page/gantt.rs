//! The worst window as a picture and as a table.

use aegis_trace::{ModelId, Nanos, Timestamp};
use maud::{Markup, html};

use super::digest::Digest;
use super::html::{count, ms, table};
use super::plot::{anchor, per_cent, pixels};
use super::window::{Slice, Window};
use crate::narrate;

/// Height of a model's row: its name, and its bars below.
const ROW: f64 = 40.0;
/// Height of a bar.
const BAR: f64 = 16.0;
/// Height of the axis below the rows.
const AXIS: f64 = 40.0;
/// Marks of the axis.
const TICKS: u64 = 5;

/// The section, also where there is nothing to show.
pub(super) fn section(digest: &Digest) -> Markup {
    html! {
        section #window aria-labelledby="window-title" {
            h2 #window-title { "Worst window" }
            @match digest.worst_window() {
                None => p { "No job was completed." },
                Some(window) => (shown(digest, window)),
            }
        }
    }
}

fn shown(digest: &Digest, window: &Window) -> Markup {
    html! {
        p { (account(digest, window)) }
        @if window.is_cut {
            p.warning role="note" { "The window is longer than the stages that are kept; some are missing." }
        }
        figure { (picture(digest, window)) (legend(window)) }
        details open {
            summary { "The stages of this window as a table" }
            (stages(digest, window))
        }
    }
}

/// Where the response went, in one sentence.
fn account(digest: &Digest, window: &Window) -> Markup {
    let others = window.others();
    let elsewhere: Vec<String> = others
        .iter()
        .map(|(model, time)| format!("{} {time}", digest.names.model(*model)))
        .collect();
    html! {
        strong { (digest.names.job(window.job)) } " took " strong { (window.response) }
        @match window.bound {
            Some(bound) if window.response > bound => {
                ", more than its bound of " (bound) ", and relative to it the most of all jobs"
            },
            Some(bound) => { ", closer to its bound of " (bound) " than any other job" },
            None => ", longer than any other job; no model has a bound",
        }
        ". In that time its own stages ran for " (window.own())
        @if elsewhere.is_empty() {
            ", and nothing else ran"
        } @else {
            ", and stages of others: " (elsewhere.join(", "))
        }
        "; for " (window.idle()) " no stage was on the device."
    }
}

/// Places of the window across the picture.
struct Scale {
    from: Timestamp,
    length: f64,
}

impl Scale {
    fn of(window: &Window) -> Self {
        // A little room behind the completion, so that its mark is not on the edge.
        Self { from: window.from(), length: window.length().0 as f64 * 1.02 }
    }

    fn place(&self, at: Timestamp) -> f64 {
        let since = at.0.saturating_sub(self.from.0) as f64;
        (since / self.length * 100.0).clamp(0.0, 100.0)
    }

    fn is_inside(&self, at: Timestamp) -> bool {
        at >= self.from && (at.0 - self.from.0) as f64 <= self.length
    }
}

fn picture(digest: &Digest, window: &Window) -> Markup {
    let scale = Scale::of(window);
    let rows = rows(window);
    let bottom = ROW * rows.len() as f64;
    html! {
        div.plot.flush {
            svg.gantt role="img" aria-labelledby="gantt-title gantt-about" width="100%"
                height=(bottom + AXIS) {
                title #gantt-title { "Stages on the device around " (digest.names.job(window.job)) }
                desc #gantt-about {
                    (count(window.slices.len() as u64, "stage", "stages")) " of "
                    (count(rows.len() as u64, "model", "models")) " over " (window.length())
                    "; the table below lists them"
                }
                @for (place, model) in rows.iter().enumerate() {
                    (row(digest, window, *model, ROW * place as f64, &scale))
                }
                (upright(&scale, window.release, bottom, "release"))
                @if let Some(deadline) = window.deadline.filter(|at| scale.is_inside(*at)) {
                    (upright(&scale, deadline, bottom, "deadline"))
                }
                (axis(window, bottom, &scale))
            }
        }
    }
}

/// The models of the window, that of the worst job first, then in the order in which they ran.
fn rows(window: &Window) -> Vec<ModelId> {
    let mut rows = vec![window.job.model];
    for slice in &window.slices {
        if !rows.contains(&slice.job.model) {
            rows.push(slice.job.model);
        }
    }
    rows
}

fn row(digest: &Digest, window: &Window, model: ModelId, top: f64, scale: &Scale) -> Markup {
    let y = top + ROW - BAR - 4.0;
    let is_worst = model == window.job.model;
    html! {
        line.grid x1="0" x2="100%" y1=(pixels(top + ROW)) y2=(pixels(top + ROW)) {}
        text.row x="0" y=(pixels(top + 14.0)) { (digest.names.model(model)) }
        @if is_worst {
            @let (from, to) = (scale.place(window.release), scale.place(window.completed));
            rect.waiting x=(per_cent(from)) width=(per_cent(to - from)) y=(pixels(y)) height=(pixels(BAR)) {
                title { (digest.names.job(window.job)) ", from release to completion" }
            }
        }
        @for slice in window.slices.iter().filter(|slice| slice.job.model == model) {
            (bar(digest, window, slice, y, scale))
        }
    }
}

fn bar(digest: &Digest, window: &Window, slice: &Slice, y: f64, scale: &Scale) -> Markup {
    let (from, to) = (scale.place(slice.started), scale.place(slice.finished));
    let class = if slice.job == window.job { "worst" } else { "other" };
    html! {
        rect class=(class) x=(per_cent(from)) width=(per_cent((to - from).max(0.15)))
            y=(pixels(y)) height=(pixels(BAR)) {
            title { (digest.names.job(slice.job)) ", stage " (slice.stage) ": " (length(slice)) }
        }
    }
}

fn upright(scale: &Scale, at: Timestamp, bottom: f64, class: &str) -> Markup {
    let x = scale.place(at);
    html! { line class=(class) x1=(per_cent(x)) x2=(per_cent(x)) y1="0" y2=(pixels(bottom)) {} }
}

/// Marks at equal distances from the release on.
fn axis(window: &Window, bottom: f64, scale: &Scale) -> Markup {
    let step = step(Nanos(window.completed.0.saturating_sub(window.release.0)));
    // One more than fits: where times saturate, marks beyond the end would never come.
    let ticks = (0..=TICKS + 1).map(|n| Nanos(step.0.saturating_mul(n)));
    let at = |tick: &Nanos| Timestamp(window.release.0.saturating_add(tick.0));
    html! {
        @for tick in ticks.take_while(|tick| scale.is_inside(at(tick))) {
            @let x = scale.place(at(&tick));
            line.axis x1=(per_cent(x)) x2=(per_cent(x)) y1=(pixels(bottom)) y2=(pixels(bottom + 5.0)) {}
            text.tick x=(per_cent(x)) y=(pixels(bottom + 18.0)) text-anchor=(anchor(x)) { @if tick == Nanos::ZERO { "0" } @else { (tick) } }
        }
        text.tick x="50%" y=(pixels(bottom + 34.0)) text-anchor="middle" { "time since the release" }
    }
}

/// A round step that gives a handful of marks; never zero.
fn step(length: Nanos) -> Nanos {
    let least = length.0 / TICKS;
    let round = (0..18).flat_map(|power| [1, 2, 5].map(|n| 10_u64.pow(power) * n));
    Nanos(round.into_iter().find(|step| *step >= least).unwrap_or(u64::MAX).max(1))
}

fn legend(window: &Window) -> Markup {
    html! {
        figcaption.legend {
            span { span.key.worst {} "the worst job on the device" }
            span { span.key.waiting {} "the worst job, not on the device" }
            span { span.key.other {} "other jobs" }
            span { span.key.release {} "its release" }
            @if window.deadline.is_some_and(|deadline| Scale::of(window).is_inside(deadline)) {
                span { span.key.deadline {} "its deadline" }
            }
        }
    }
}

fn stages(digest: &Digest, window: &Window) -> Markup {
    table(
        "Stages in order of their starts, times since the release in milliseconds",
        html! {
            tr { th.num scope="col" { "From, ms" } th.num scope="col" { "To, ms" }
                 th.num scope="col" { "Length, ms" }
                 th scope="col" { "Job" } th.num scope="col" { "Stage" } th scope="col" { "Stream" }
                 th scope="col" { "Why it was chosen" } }
        },
        html! {
            @for slice in &window.slices {
                tr.worst[slice.job == window.job] {
                    td.num { (since(window, slice.started)) }
                    td.num { (since(window, slice.finished)) }
                    td.num { (ms(length(slice))) }
                    th scope="row" { (digest.names.job(slice.job)) }
                    td.num { (slice.stage) }
                    @match slice.chosen {
                        Some((stream, why)) => { td { (stream) } td { (narrate::reason(why)) } },
                        None => { td { "–" } td { "its dispatch is not in the trace" } },
                    }
                }
            }
        },
    )
}

fn length(slice: &Slice) -> Nanos {
    Nanos(slice.finished.0.saturating_sub(slice.started.0))
}

/// Milliseconds since the release; negative before it.
fn since(window: &Window, at: Timestamp) -> String {
    match at.0.checked_sub(window.release.0) {
        Some(after) => ms(Nanos(after)),
        None => format!("−{}", ms(Nanos(window.release.0 - at.0))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_never_zero() {
        assert_eq!(step(Nanos::ZERO), Nanos(1));
        assert_eq!(step(Nanos::from_millis(16)), Nanos::from_millis(5));
        assert_eq!(step(Nanos::from_millis(81)), Nanos::from_millis(20));
        assert!(step(Nanos::MAX).0 >= u64::MAX / TICKS);
    }
}
