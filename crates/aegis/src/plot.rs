//! A picture of a profile: for each stage, how often which time is exceeded.
//!
//! The share of samples above a time is drawn over that time, on a logarithmic scale, one curve for each
//! scenario; behind the worst one the fitted tail goes on beyond the samples, and upright lines mark the
//! bound and the cost. On such a scale a light tail falls off and a heavy one runs straight on.

use std::fmt;

use aegis_sched::wcet::{Campaign, Estimate, StageProfile, WcetProfile};
use plotters::coord::Shift;
use plotters::prelude::*;

/// The size of one panel, in pixels.
const PANEL: (u32, u32) = (640, 360);
/// Panels side by side.
const COLUMNS: usize = 2;
/// The most panels of one picture: what a browser still opens.
const PANELS_MAX: usize = 400;
/// Points of the curve of the fitted tail.
const TAIL_POINTS: u32 = 80;
/// Points of a curve of samples, beyond which only every so many is drawn.
const CURVE_POINTS_MAX: usize = 1_500;
/// The lowest share that is drawn, as a part of the smaller of one sample's and the target's.
const FLOOR_FACTOR: f64 = 0.3;

/// Tells scenarios apart in print and for those who do not see red and green apart.
const COLOURS: [RGBColor; 5] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
];
const TAIL_COLOUR: RGBColor = RGBColor(110, 110, 110);
const BOUND_COLOUR: RGBColor = RGBColor(213, 94, 0);

/// Why there is no picture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlotError {
    /// Nothing to draw, or more than one picture holds.
    #[error("there are {stages} stages to draw, and a picture holds between 1 and {PANELS_MAX}")]
    Stages {
        /// How many there are.
        stages: usize,
    },
    /// The drawing failed.
    #[error("the picture could not be drawn: {reason}")]
    Drawing {
        /// What the drawing library said.
        reason: String,
    },
}

impl PlotError {
    /// Always Permanent.
    #[must_use]
    pub fn category(&self) -> aegis_trace::Category {
        match self {
            Self::Stages { .. } | Self::Drawing { .. } => aegis_trace::Category::Permanent,
        }
    }
}

/// The picture of all stages of `profiles`, each with its model's name, as SVG.
///
/// # Errors
/// [`PlotError`].
pub fn svg(profiles: &[(String, WcetProfile)]) -> Result<String, PlotError> {
    let panels: Vec<(String, &StageProfile, f64)> = profiles.iter().flat_map(panels_of).collect();
    let stages = panels.len();
    if stages == 0 || stages > PANELS_MAX {
        return Err(PlotError::Stages { stages });
    }
    let (columns, rows) = (COLUMNS.min(stages), stages.div_ceil(COLUMNS));
    let mut text = String::new();
    {
        let count = |n: usize| u32::try_from(n).expect("at most 400 panels");
        let size = (PANEL.0 * count(columns), PANEL.1 * count(rows));
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        for (area, (title, stage, target)) in root.split_evenly((rows, columns)).iter().zip(panels)
        {
            panel(area, &title, stage, target)?;
        }
        root.present().map_err(failed)?;
    }
    Ok(text)
}

fn panels_of((name, profile): &(String, WcetProfile)) -> Vec<(String, &StageProfile, f64)> {
    let target = profile.rule.question.coverage.complement().as_f64();
    let title = |stage: usize| match profile.stages.len() {
        1 => name.clone(),
        all => format!("{name}, stage {} of {all}", stage + 1),
    };
    let stages = profile.stages.iter().enumerate();
    stages.map(|(index, stage)| (title(index), stage, target)).collect()
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn panel(area: &Area<'_>, title: &str, stage: &StageProfile, target: f64) -> Result<(), PlotError> {
    let most = stage.evidence.values().map(|(campaign, _)| campaign.count()).max().unwrap_or(1);
    let floor = (1.0 / most as f64).min(target) * FLOOR_FACTOR;
    let (low, high) =
        (milliseconds(stage.best_case.0), milliseconds(stage.worst_case.0.max(stage.high_water.0)));
    let space = ((high - low) * 0.06).max(high * 1e-3);
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{title}: {}", claim(stage)), ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d((low - space).max(0.0)..high + space, (floor..1.3).log_scale())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("execution time, ms")
        .y_desc("share of jobs above")
        .y_label_formatter(&|share| format!("{share}"))
        .draw()
        .map_err(failed)?;
    for (colour, (scenario, (campaign, _))) in COLOURS.iter().cycle().zip(&stage.evidence) {
        let curve = LineSeries::new(exceedance(campaign), colour.stroke_width(2));
        let drawn = chart.draw_series(curve).map_err(failed)?;
        let label = format!("{scenario}, {} samples", campaign.count());
        drawn.label(label).legend(move |(x, y)| key(x, y, *colour));
    }
    let (campaign, estimate) = &stage.evidence[&stage.worst_scenario];
    if let Some(tail) = tail(campaign, estimate, floor, high + space) {
        let drawn = chart.draw_series(LineSeries::new(tail, TAIL_COLOUR.stroke_width(1)));
        drawn.map_err(failed)?.label("fitted tail").legend(|(x, y)| key(x, y, TAIL_COLOUR));
    }
    for (time, name, width) in [(stage.bound, "bound", 1), (stage.worst_case, "cost", 3)] {
        let at = milliseconds(time.0);
        let line = LineSeries::new([(at, floor), (at, 1.3)], BOUND_COLOUR.stroke_width(width));
        let drawn = chart.draw_series(line).map_err(failed)?;
        let label = format!("{name} {time}");
        drawn.label(label).legend(move |(x, y)| {
            PathElement::new([(x, y), (x + 16, y)], BOUND_COLOUR.stroke_width(width))
        });
    }
    // Above the curves, which fall, and behind the upright lines at worst.
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.2))
        .label_font(("sans-serif", 12))
        .draw()
        .map_err(failed)
}

fn key(x: i32, y: i32, colour: RGBColor) -> PathElement<(i32, i32)> {
    PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2))
}

fn claim(stage: &StageProfile) -> String {
    let claim = if stage.claim { "with a claim" } else { "no claim" };
    format!("{}, {claim}", stage.worst_scenario)
}

/// The share of samples at or above each of them: a step for each, thinned out but for the tail.
fn exceedance(campaign: &Campaign) -> Vec<(f64, f64)> {
    let n = campaign.count();
    let step = n.div_ceil(CURVE_POINTS_MAX);
    let in_tail = |at: usize| at + CURVE_POINTS_MAX / 2 >= n;
    let drawn = (0..n).filter(|at| at % step == 0 || in_tail(*at));
    let point = |at: usize| {
        let share = (n - at) as f64 / n as f64;
        (milliseconds(campaign.sorted()[at].0), share)
    };
    drawn.map(point).collect()
}

/// The likeliest tail from its threshold to where it leaves the picture.
fn tail(
    campaign: &Campaign,
    estimate: &Estimate,
    floor: f64,
    right: f64,
) -> Option<Vec<(f64, f64)>> {
    let evt = estimate.evt.as_ref()?;
    let begin = evt.exceedances as f64 / campaign.count() as f64;
    let point = |index: u32| {
        // Equal steps of the logarithm of the share.
        let part = f64::from(index) / f64::from(TAIL_POINTS);
        let share = begin * (floor / begin).powf(part);
        let reach = (begin / share).ln();
        let ratio = if evt.xi.abs() < 1e-9 { reach } else { (evt.xi * reach).exp_m1() / evt.xi };
        ((evt.threshold_ns.0 as f64 + evt.sigma * ratio) / 1e6, share)
    };
    Some((0..=TAIL_POINTS).map(point).take_while(|(time, _)| *time <= right).collect())
}

fn milliseconds(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

fn failed(error: impl fmt::Display) -> PlotError {
    PlotError::Drawing { reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use aegis_sched::sim::{Random, Seed};
    use aegis_sched::wcet::experiment::Family;
    use aegis_sched::wcet::{CostRule, Question, Samples, Scenario, Share};

    use super::*;

    fn profile(stages: usize, n: usize) -> WcetProfile {
        let mut random = Random::new(Seed(3));
        let mut samples = |family: Family| {
            let stage = |_| family.draw(n, &mut random).times().to_vec();
            Samples::new((0..stages).map(stage).collect()).expect("valid times")
        };
        let (turns, mixed) = (samples(Family::Lognormal(0.05)), samples(Family::Gumbel));
        let question = Question::auto(Share::P99, Share::P99);
        let scenarios = BTreeMap::from([(Scenario::Turns, &turns), (Scenario::Mixed, &mixed)]);
        WcetProfile::of(&scenarios, CostRule { question, margin_percent: 20 })
    }

    #[test]
    fn a_picture_names_every_stage_scenario_and_bound() {
        let profiles = [("camera".to_owned(), profile(2, 500)), ("arm".to_owned(), profile(1, 30))];
        let text = svg(&profiles).expect("a picture");
        for told in [
            "camera, stage 1 of 2",
            "camera, stage 2 of 2",
            "arm: ",
            "mixed, 500 samples",
            "turns, 30 samples",
            "fitted tail",
            "bound ",
            "cost ",
            "share of jobs above",
        ] {
            assert!(text.contains(told), "{told}");
        }
        assert!(text.starts_with("<svg ") && text.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn no_stage_is_no_picture_and_one_sample_is_one() {
        assert!(matches!(svg(&[]), Err(PlotError::Stages { stages: 0 })));
        let one = Samples::new(vec![vec![aegis_trace::Nanos(5)]]).expect("valid times");
        svg(&[("one".to_owned(), WcetProfile::with_margin(&one, 20))]).expect("a picture");
    }
}
