//! The models: one row each at a glance, then each one's distribution with its figures.

use aegis_trace::{Nanos, ServiceTerms};
use maud::{Markup, html};

use super::digest::{Digest, Model};
use super::html::{count, ms, ms_down, ms_or_dash, table};
use super::plot::{self, Marks};
use super::times::Times;

/// The quantiles of a card, in thousandths, with their names.
const QUANTILES: [(u32, &str); 4] = [(500, "50 %"), (900, "90 %"), (990, "99 %"), (999, "99.9 %")];

/// All models in one table.
pub(super) fn overview(digest: &Digest) -> Markup {
    html! {
        section #overview aria-labelledby="overview-title" {
            h2 #overview-title { "Models" }
            @if digest.models.is_empty() {
                p { "No model was admitted." }
            } @else {
                p.hint {
                    "In each bar the response times fill from zero to the longest, on a scale that ends at "
                    "the deadline; the dashed mark is the bound."
                }
                (table("Responses of each model against bound and deadline, in milliseconds", heads(), html! {
                    @for (place, model) in digest.models.iter().enumerate() { (row(place, model)) }
                }))
            }
        }
    }
}

fn heads() -> Markup {
    html! {
        tr {
            th scope="col" { "Model" }
            th.num scope="col" { "Jobs" }
            th.num scope="col" { "Missed" }
            th.num scope="col" { "50 %, ms" }
            th.num scope="col" { "99 %, ms" }
            th.num scope="col" { "Longest, ms" }
            th.num scope="col" { "Bound, ms" }
            th.num scope="col" { "Of bound" }
            th.num scope="col" { "Deadline, ms" }
            th.num scope="col" { "Slack, ms" }
            th scope="col" aria-hidden="true" { "To the deadline" }
        }
    }
}

fn row(place: usize, model: &Model) -> Markup {
    let longest = model.response.max().map(|(time, _)| time);
    let deadline = model.deadline();
    html! {
        tr {
            th scope="row" {
                a href={ "#model-" (place) } { (model.name()) }
                @if let Some(state) = state(model) { " " span.tag { (state) } }
            }
            td.num { (model.response.count()) }
            td.num.bad[model.missed > 0] { @if deadline.is_some() { (model.missed) } @else { "–" } }
            td.num { (ms_or_dash(model.response.quantile(500))) }
            td.num { (ms_or_dash(model.response.quantile(990))) }
            td.num { (ms_or_dash(longest)) }
            td.num { (ms_or_dash(model.bound)) }
            td.num.bad[exceeds(model)] { (share(longest, model.bound)) }
            td.num { (ms_or_dash(deadline)) }
            td.num { (model.slack().map_or_else(|| "–".to_owned(), ms_down)) }
            td.bar aria-hidden="true" {
                @if let Some(deadline) = deadline {
                    (plot::bullet(longest.unwrap_or_default(), model.bound, deadline))
                }
            }
        }
    }
}

fn state(model: &Model) -> Option<&'static str> {
    match (model.evicted, model.fenced, model.what.service) {
        (true, ..) => Some("evicted"),
        (false, true, _) => Some("fenced"),
        (_, _, ServiceTerms::Background) => Some("background"),
        (_, _, ServiceTerms::Server { .. }) => Some("server"),
        (_, _, ServiceTerms::Guaranteed { .. }) => None,
    }
}

fn exceeds(model: &Model) -> bool {
    model.response.max().zip(model.bound).is_some_and(|((longest, _), bound)| longest > bound)
}

/// The longest response over the bound, with two decimals, rounded up.
fn share(longest: Option<Nanos>, bound: Option<Nanos>) -> String {
    let Some((longest, bound)) = longest.zip(bound) else { return "–".into() };
    let hundredths = (u128::from(longest.0) * 100).div_ceil(u128::from(bound.0.max(1)));
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// Each model with its distribution.
pub(super) fn cards(digest: &Digest) -> Markup {
    html! {
        section #distributions aria-labelledby="distributions-title" {
            h2 #distributions-title { "Response distributions" }
            @if !digest.models.is_empty() {
                p.hint { "Both axes are logarithmic, so that one late job among thousands can be seen." }
            }
            @for (place, model) in digest.models.iter().enumerate() { (card(digest, place, model)) }
        }
    }
}

fn card(digest: &Digest, place: usize, model: &Model) -> Markup {
    let title = format!("model-{place}-title");
    html! {
        article.card id={ "model-" (place) } aria-labelledby=(title) {
            h3 id=(title) { (model.name()) }
            p.sub { (promised(digest, model)) }
            @if model.response.count() == 0 {
                p { "No job was completed." }
            } @else {
                div.beside {
                    figure { (plot::distribution(place, model.name(), &model.response, marks(model))) }
                    (figures(digest, model))
                }
            }
        }
    }
}

fn marks(model: &Model) -> Marks {
    Marks { bound: model.bound, deadline: model.deadline() }
}

fn promised(digest: &Digest, model: &Model) -> String {
    let service = match model.what.service {
        ServiceTerms::Guaranteed { period, deadline, jitter, priority } => {
            let jitter =
                if jitter > Nanos::ZERO { format!(", jitter {jitter}") } else { String::new() };
            let priority =
                if priority > 0 { format!(", priority {priority}") } else { String::new() };
            format!("every {period}{jitter}, deadline {deadline}{priority}")
        }
        ServiceTerms::Background => "best effort, in the background".into(),
        ServiceTerms::Server { budget, period, .. } => {
            format!("best effort, {budget} of the device every {period}")
        }
    };
    let partition = model.what.partition.as_ref();
    let partition = partition.map(|name| format!(", in partition {name}")).unwrap_or_default();
    let stages = count(model.what.stages.len() as u64, "stage", "stages");
    format!(
        "{}: {service}{partition}; {stages}, cost {} with overheads",
        model.id,
        digest.cost(model)
    )
}

fn figures(digest: &Digest, model: &Model) -> Markup {
    let caption = format!("Figures of {}, in milliseconds", model.name());
    let (response, execution) = (&model.response, &model.execution);
    table(
        &caption,
        html! {
            tr { th scope="col" { "Share of jobs" } th.num scope="col" { "Response, ms" } th.num scope="col" { "On the device, ms" } }
        },
        html! {
            (pair("shortest", response.min(), execution.min()))
            @for (permille, name) in QUANTILES {
                (pair(name, response.quantile(permille), execution.quantile(permille)))
            }
            (pair("longest", longest(response), longest(execution)))
            @if let Some((_, job)) = response.max() {
                tr { th scope="row" { "longest response" } td.num colspan="2" { (digest.names.job(job)) } }
            }
            @if let Some(bound) = model.bound {
                tr { th scope="row" { "bound, and cost" } td.num { (ms(bound)) } td.num { (ms(stages(model))) } }
            }
            @if let Some(deadline) = model.deadline() {
                tr { th scope="row" { "deadline" } td.num { (ms(deadline)) } td.num { "–" } }
            }
            @if let Some((late, job)) = model.latest {
                tr.bad { th scope="row" { (count(model.missed, "miss", "misses")) }
                     td.num colspan="2" { "worst " (digest.names.job(job)) ", " (late) " late" } }
            }
        },
    )
}

/// `C` without overheads: what no job may use on the device.
fn stages(model: &Model) -> Nanos {
    model.what.stages.iter().copied().fold(Nanos::ZERO, Nanos::saturating_add)
}

fn pair(name: &str, response: Option<Nanos>, execution: Option<Nanos>) -> Markup {
    html! {
        tr { th scope="row" { (name) } td.num { (ms_or_dash(response)) } td.num { (ms_or_dash(execution)) } }
    }
}

fn longest(times: &Times) -> Option<Nanos> {
    times.max().map(|(time, _)| time)
}
