//! `aegis wcet`: a bound from measured samples, with the confidence it carries.

use std::path::PathBuf;

use aegis::Nanos;
use aegis::wcet::{
    self, Estimate, Kind, Lines, Method, Question, SAFETY_MARGIN_PERCENT, Share, Tests, Verdict,
};
use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::Answer;
use crate::output::{print, say};
use crate::table;

#[derive(Args)]
pub(crate) struct WcetArgs {
    /// Samples: one whole number of nanoseconds a line, in the order of measuring; a header is
    /// allowed. `-` reads standard input.
    file: PathBuf,
    /// The share of jobs that shall stay below the bound: 0.999 or 99.9%.
    #[arg(long)]
    coverage: Share,
    /// The probability, over campaigns of samples, that they do: 0.99 or 99%.
    #[arg(long)]
    confidence: Share,
    /// How the bound is made.
    #[arg(long, value_enum, default_value_t = MethodArg::Auto)]
    method: MethodArg,
    /// What the margin rule adds, in percent.
    #[arg(long, default_value_t = SAFETY_MARGIN_PERCENT, value_parser = clap::value_parser!(u32).range(0..=1000))]
    margin_percent: u32,
    /// Answer with exit status 1 when the bound carries no claim.
    #[arg(long)]
    require_claim: bool,
    /// Print JSON instead of a report.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum MethodArg {
    /// The order statistic where there are enough samples, else the tail, else the maximum.
    Auto,
    /// Distribution-free tolerance bound.
    Order,
    /// Peaks over threshold with a generalised Pareto tail.
    Gpd,
    /// Block maxima with a generalised extreme value law; no claim.
    Gev,
    /// A quantile of the samples plus a margin; no claim.
    Margin,
}

pub(crate) fn run(args: &WcetArgs) -> Result<Answer> {
    let Lines { header, campaign } = wcet::read(&args.file)?;
    if let Some(header) = header {
        say(format!("the first line, `{header}`, was skipped as a header"));
    }
    let question = Question {
        coverage: args.coverage,
        confidence: args.confidence,
        method: args.method.into(),
        margin_percent: args.margin_percent,
    };
    let estimate = Estimate::of(&campaign, &question);
    if args.json {
        print(serde_json::to_string_pretty(&estimate)?)?;
    } else {
        print(show(&estimate))?;
    }
    Ok(if args.require_claim && !estimate.claim { Answer::No } else { Answer::Yes })
}

impl From<MethodArg> for Method {
    fn from(method: MethodArg) -> Self {
        match method {
            MethodArg::Auto => Self::Auto,
            MethodArg::Order => Self::Order,
            MethodArg::Gpd => Self::Gpd,
            MethodArg::Gev => Self::Gev,
            MethodArg::Margin => Self::Margin,
        }
    }
}

/// Everything of the answer, for a person.
fn show(estimate: &Estimate) -> String {
    let mut parts = vec![headline(estimate)];
    parts.extend(estimate.warnings.iter().map(|warning| format!("note: {warning}")));
    parts.push(estimates(estimate));
    if let Some(tests) = &estimate.tests {
        parts.push(validity(tests));
    }
    parts.join("\n")
}

fn headline(estimate: &Estimate) -> String {
    let Estimate { bound_ns, coverage, confidence, n, n_eff, .. } = estimate;
    let kind = match estimate.kind {
        Kind::OrderStatistic => "order statistic",
        Kind::Evt => "extreme value limit",
        Kind::ObservedMax => "observed maximum",
        _ => "margin rule",
    };
    let exact = format!("bound: {bound_ns} ({} ns), by {kind}", bound_ns.as_nanos());
    let claim = if estimate.claim {
        format!("claim: a share of {coverage} of jobs stays below it, with confidence {confidence}")
    } else {
        format!("no claim to a coverage of {coverage} at confidence {confidence}")
    };
    let interval = estimate.lower_ns.map_or_else(String::new, |lower| {
        format!(
            "\nthe time that this share does not exceed lies between {} and {bound_ns}, each end \
             with that confidence",
            lower.cut()
        )
    });
    let counted = match n == n_eff {
        true => format!("{n} samples"),
        false => format!("{n} samples, which say as much as {n_eff} independent ones"),
    };
    let supported = match estimate.supported_coverage {
        Some(coverage) => format!("their maximum covers {} at that confidence", share(coverage)),
        None => "their maximum covers no stated share".into(),
    };
    format!("{exact}\n{claim}{interval}\n{counted}; {supported}")
}

/// One row for each estimate, in ascending trust in samples alone.
fn estimates(estimate: &Estimate) -> String {
    let more = &estimate.estimates;
    let evt = estimate.evt.as_ref();
    let mut shown = table::new(&["estimate", "ns", "with"]);
    let mut add = |name: &str, time: Option<Nanos>, of: String| {
        let time = time.map_or_else(|| "-".into(), |time| time.as_nanos().to_string());
        table::add(&mut shown, &[name.into(), time, of]);
    };
    add("minimum", Some(more.observed_min), String::new());
    add("median", Some(more.p50), String::new());
    let mean = more.mean_limits.map_or_else(String::new, |[low, high]| {
        format!("between {} and {}, ", low.as_nanos(), high.as_nanos())
    });
    add("mean", Some(more.mean), format!("{mean}variation {:.2} %", 100.0 * more.variation));
    add("90 %", Some(more.p90), String::new());
    add("99 %", Some(more.p99), String::new());
    add("maximum", Some(more.observed_max), String::new());
    add("order statistic", estimate.order_statistic, String::new());
    let fit = evt.map(|evt| {
        format!(
            "xi {:.3} ({:.3} to {:.3}), sigma {:.0} ns, {} samples above {} ns",
            evt.xi,
            evt.xi_lower,
            evt.xi_upper,
            evt.sigma,
            evt.exceedances,
            evt.threshold_ns.as_nanos()
        )
    });
    add("generalised Pareto", evt.and_then(|evt| evt.bound_ns), fit.unwrap_or_default());
    add("  likeliest", evt.and_then(|evt| evt.return_level_ns), String::new());
    add("  lower limit", evt.and_then(|evt| evt.lower_ns), String::new());
    let gev = more.gev.as_ref();
    let fit = gev.map(|gev| {
        let (xi, sigma, mu) = (gev.xi, gev.sigma, gev.mu);
        format!(
            "xi {xi:.3}, sigma {sigma:.0} ns, mu {mu:.0} ns, {} blocks of {}",
            gev.blocks, gev.block
        )
    });
    add("block maxima", gev.and_then(|gev| gev.bound_ns), fit.unwrap_or_default());
    add("exponential tail", more.exponential, String::new());
    add("margin rule", Some(more.margin), String::new());
    shown.to_string()
}

/// One row for each test: its probability by chance, and the level it is held to.
fn validity(tests: &Tests) -> String {
    let mut shown = table::new(&["test", "p", "level", "verdict"]);
    for Verdict { name, p, level, passed } in tests.verdicts() {
        let verdict = if passed { "passed" } else { "rejected" };
        let cells = [name.into(), format!("{p:.4}"), format!("{level:.4}"), verdict.into()];
        table::add(&mut shown, &cells);
    }
    let wide = &tests.resolution;
    format!(
        "{shown}\nresolution: {} different values in the tail, {} needed; the clock steps by {}",
        wide.distinct, wide.needed, wide.quantum_ns
    )
}

/// A share rounded down to six decimals: a coverage shown is never larger than it is.
fn share(value: f64) -> String {
    format!("{:.6}", (value * 1e6).floor() / 1e6)
}
