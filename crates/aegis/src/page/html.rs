//! The page as a whole: its head, its sections in order, and what they share.

use aegis_trace::export::json::Ending;
use aegis_trace::{Bytes, Nanos};
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::digest::{Digest, Model};
use super::{findings, gantt, models, plot};

const STYLE: &str = include_str!("style.css");
/// Forbids the page everything but its own style.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/// The page of `digest`, which was made of the trace called `trace`.
pub(super) fn page(digest: &Digest, trace: &str) -> String {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content={ "AegisRT " (env!("CARGO_PKG_VERSION")) };
                title { "AegisRT report: " (trace) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#main" { "Skip to the report" }
                header { (head(digest, trace)) }
                main #main {
                    (verdict(digest))
                    (models::overview(digest))
                    (gantt::section(digest))
                    (findings::sections(digest))
                    (memory(digest))
                    (models::cards(digest))
                }
                footer {
                    p {
                        "Times count from the release of a job. Quantiles are rounded up, by less than "
                        "1 %; minimum and maximum are exact. Bound: the worst-case response time that "
                        "was proved. Slack: deadline less bound."
                    }
                }
            }
        }
    };
    document.into_string()
}

fn head(digest: &Digest, trace: &str) -> Markup {
    let links = [
        ("#verdict", "Verdict"),
        ("#overview", "Models"),
        ("#window", "Worst window"),
        ("#findings", "Findings"),
        ("#refusals", "Refusals"),
        ("#memory", "Memory"),
        ("#distributions", "Distributions"),
    ];
    html! {
        h1 { "Report of a run" }
        p.sub {
            code { (trace) } " · " (count(digest.records, "event", "events")) " over "
            (digest.span()) " · " (count(digest.completed(), "job", "jobs")) " completed"
        }
        nav aria-label="Sections" { ul { @for (to, name) in links { li { a href=(to) { (name) } } } } }
    }
}

/// What an engineer wants to know first.
fn verdict(digest: &Digest) -> Markup {
    let broken: u64 = digest.broken.values().map(|broken| broken.count).sum();
    let lost: u64 = digest.lost.values().sum();
    let facts = [
        Fact::bad_if(digest.missed(), "deadlines missed"),
        Fact::bad_if(digest.exceeded_by(false), "bounds violated, all assumptions intact"),
        Fact::care_if(digest.exceeded_by(true), "bounds exceeded, an assumption broken"),
        Fact::care_if(broken, "assumptions broken"),
        Fact::care_if(digest.refused.all, "models refused"),
        Fact::care_if(lost, "jobs without a result"),
    ];
    html! {
        section #verdict aria-labelledby="verdict-title" {
            h2 #verdict-title { "Verdict" }
            (integrity(digest))
            ul.facts { @for fact in &facts { (fact.shown()) } }
        }
    }
}

/// Whether the trace tells the whole story.
fn integrity(digest: &Digest) -> Markup {
    let problem = match digest.ending {
        Some(Ending::Closed { dropped, .. }) if dropped > 0 => Some(format!(
            "{} lost to full rings: counts on this page are too low, and what is missing may be what \
             mattered.",
            if dropped == 1 { "1 event was".into() } else { format!("{dropped} events were") }
        )),
        Some(Ending::Closed { records, .. }) if records != digest.records => {
            Some(format!("The trace counts {records} events and holds {}.", digest.records))
        }
        Some(Ending::Closed { .. }) => None,
        Some(Ending::Cut { .. }) | None => {
            Some("The trace was cut short: it ends without its closing line.".into())
        }
    };
    html! { @if let Some(problem) = problem { p.warning role="note" { strong { "Not whole. " } (problem) } } }
}

/// One figure of the verdict.
struct Fact {
    count: u64,
    words: &'static str,
    class: &'static str,
    mark: &'static str,
}

impl Fact {
    fn bad_if(count: u64, words: &'static str) -> Self {
        let (class, mark) = if count > 0 { ("bad", "✗") } else { ("good", "✓") };
        Self { count, words, class, mark }
    }

    fn care_if(count: u64, words: &'static str) -> Self {
        let (class, mark) = if count > 0 { ("care", "!") } else { ("good", "✓") };
        Self { count, words, class, mark }
    }

    fn shown(&self) -> Markup {
        html! {
            li class=(self.class) {
                span.mark aria-hidden="true" { (self.mark) }
                span.figure { (self.count) }
                span.words { (self.words) }
            }
        }
    }
}

/// What the admitted models took together, at most.
fn memory(digest: &Digest) -> Markup {
    let memory = &digest.memory;
    let present: Vec<&Model> = memory.models.iter().map(|place| &digest.models[*place]).collect();
    let largest = present.iter().map(|of| of.what.persistent.0.max(of.what.scratch.0)).max();
    let largest = largest.unwrap_or(0).max(1);
    let resident = present
        .iter()
        .fold(Bytes::ZERO, |sum, of| Bytes(sum.0.saturating_add(of.what.persistent.0)));
    html! {
        section #memory aria-labelledby="memory-title" {
            h2 #memory-title { "Memory plan" }
            @if present.is_empty() {
                p { "No model was admitted." }
            } @else {
                p {
                    "Resident memory adds up; scratch is shared, so the largest of each partition counts. "
                    "At most " strong { (memory.peak) } ": " (resident) " resident"
                    @for (partition, scratch) in &memory.scratch {
                        " + " (scratch) " shared scratch"
                        @if let Some(name) = partition { " of " (name) }
                    }
                    "."
                }
                (table("Memory of each model", html! {
                    tr { th scope="col" { "Model" } th.num scope="col" { "Resident" } th scope="col" aria-hidden="true" {}
                         th.num scope="col" { "Scratch" } th scope="col" aria-hidden="true" {} }
                }, html! {
                    @for of in &present {
                        tr {
                            th scope="row" { (of.name()) }
                            td.num { (of.what.persistent) }
                            td.bar aria-hidden="true" { (plot::meter(of.what.persistent.0, largest, "resident")) }
                            td.num { (of.what.scratch) }
                            td.bar aria-hidden="true" { (plot::meter(of.what.scratch.0, largest, "scratch")) }
                        }
                    }
                }))
            }
        }
    }
}

/// A table that can be scrolled sideways, by keyboard as well.
pub(super) fn table(caption: &str, head: Markup, body: Markup) -> Markup {
    html! {
        div.scroll role="region" tabindex="0" aria-label=(caption) {
            table { caption { (caption) } thead { (head) } tbody { (body) } }
        }
    }
}

/// Milliseconds with three decimals, rounded up.
pub(super) fn ms(time: Nanos) -> String {
    let micros = time.0.div_ceil(1_000);
    format!("{}.{:03}", micros / 1_000, micros % 1_000)
}

/// The same rounded down: for slack, which is never shown too large.
pub(super) fn ms_down(time: Nanos) -> String {
    let micros = time.0 / 1_000;
    format!("{}.{:03}", micros / 1_000, micros % 1_000)
}

/// The time rounded up, or a dash.
pub(super) fn ms_or_dash(time: Option<Nanos>) -> String {
    time.map_or_else(|| "–".to_owned(), ms)
}

/// `1 job`, `2 jobs`.
pub(super) fn count(of: u64, one: &str, many: &str) -> String {
    format!("{of} {}", if of == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_round_against_us() {
        assert_eq!(ms(Nanos(1)), "0.001");
        assert_eq!(ms(Nanos(1_234_000)), "1.234");
        assert_eq!(ms_down(Nanos(15_346_374)), "15.346");
        assert_eq!(ms_or_dash(None), "–");
    }
}
