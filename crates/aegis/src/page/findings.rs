//! What went wrong, in tables: broken assumptions, bounds, evidence, refusals, jobs without a result.

use maud::{Markup, html};

use super::digest::{Digest, Listed, Loss, Model};
use super::html::{count, table};

/// Two sections: what was found, and what was refused.
pub(super) fn sections(digest: &Digest) -> Markup {
    html! {
        section #findings aria-labelledby="findings-title" {
            h2 #findings-title { "Findings" }
            (broken(digest))
            (exceeded(digest))
            (missed(digest))
            (stale(digest))
        }
        section #refusals aria-labelledby="refusals-title" {
            h2 #refusals-title { "Refusals" }
            (refused(digest))
            (lost(digest))
        }
    }
}

fn broken(digest: &Digest) -> Markup {
    html! {
        h3 { "Broken assumptions" }
        @if digest.broken.is_empty() {
            p { "None: every job kept what the proof takes for granted." }
        } @else {
            p {
                "What the proof takes for granted and a job did not keep. "
                (count(digest.restored, "busy period", "busy periods"))
                " ended with all guarantees holding again."
            }
            (table("Broken assumptions", html! {
                tr { th scope="col" { "Model" } th scope="col" { "Assumption" } th.num scope="col" { "Times" }
                     th scope="col" { "Worst job" } th.num scope="col" { "Observed" }
                     th.num scope="col" { "Assumed" } }
            }, html! {
                @for ((whose, assumption), of) in &digest.broken {
                    tr {
                        th scope="row" { (digest.name_of(*whose)) }
                        td { (assumption) }
                        td.num { (of.count) }
                        td { (digest.names.job(of.job)) }
                        td.num { (of.observed) }
                        td.num { (of.assumed) }
                    }
                }
            }))
        }
    }
}

fn exceeded(digest: &Digest) -> Markup {
    html! {
        h3 { "Exceeded bounds" }
        @if digest.exceeded.is_empty() {
            p { "None: every job stayed within its bound." }
        } @else {
            (table("Exceeded bounds", html! {
                tr { th scope="col" { "Model" } th scope="col" { "Cause" } th.num scope="col" { "Times" }
                     th scope="col" { "Worst job" } th.num scope="col" { "Response" }
                     th.num scope="col" { "Bound" } th scope="col" { "Caused by" } }
            }, html! {
                @for ((whose, is_excused), of) in &digest.exceeded {
                    tr.bad[!*is_excused] {
                        th scope="row" { (digest.name_of(*whose)) }
                        td { @if *is_excused { "a broken assumption" } @else { "none: a defect of AegisRT" } }
                        td.num { (of.count) }
                        td { (digest.names.job(of.job)) }
                        td.num { (of.response) }
                        td.num { (of.bound) }
                        td { @match of.cause { Some(job) => (digest.names.job(job)), None => "–" } }
                    }
                }
            }))
        }
    }
}

fn missed(digest: &Digest) -> Markup {
    let late: Vec<&Model> = digest.models.iter().filter(|model| model.latest.is_some()).collect();
    html! {
        h3 { "Missed deadlines" }
        @if late.is_empty() {
            p { "None." }
        } @else {
            (table("Missed deadlines", html! {
                tr { th scope="col" { "Model" } th.num scope="col" { "Times" } th scope="col" { "Worst job" }
                     th.num scope="col" { "Late by" } }
            }, html! {
                @for model in late {
                    tr.bad {
                        th scope="row" { (model.name()) }
                        td.num { (model.missed) }
                        @if let Some((late, job)) = model.latest {
                            td { (digest.names.job(job)) } td.num { (late) }
                        }
                    }
                }
            }))
        }
    }
}

fn stale(digest: &Digest) -> Markup {
    html! {
        @if digest.stale.all > 0 {
            h3 { "Evidence gone stale" }
            (table("Evidence that does not describe what runs any more", html! {
                tr { th.num scope="col" { "At" } th scope="col" { "Job" } th.num scope="col" { "Stage" }
                     th scope="col" { "What was seen" } }
            }, html! {
                @for of in &digest.stale.kept {
                    tr {
                        td.num { (aegis_trace::Nanos(of.at.0)) }
                        th scope="row" { (digest.names.job(of.job)) }
                        td.num { (of.stage) }
                        td { (of.why) }
                    }
                }
            }))
            (more(&digest.stale))
        }
    }
}

fn refused(digest: &Digest) -> Markup {
    html! {
        h3 { "Models not admitted" }
        @if digest.refused.all == 0 {
            p { "None." }
        } @else {
            (table("Models not admitted", html! {
                tr { th scope="col" { "Model" } th scope="col" { "The inequality that failed" }
                     th.num scope="col" { "At" } }
            }, html! {
                @for of in &digest.refused.kept {
                    tr {
                        th scope="row" { (of.name) }
                        td { (of.words) }
                        td.num { (aegis_trace::Nanos(of.at.0)) }
                    }
                }
            }))
            (more(&digest.refused))
        }
    }
}

fn lost(digest: &Digest) -> Markup {
    html! {
        h3 { "Jobs without a result" }
        @if digest.lost.is_empty() {
            p { "None: every job that was submitted was accepted and completed." }
        } @else {
            (table("Jobs without a result", html! {
                tr { th scope="col" { "Model" } th scope="col" { "What happened" } th scope="col" { "Why" }
                     th.num scope="col" { "Times" } }
            }, html! {
                @for ((whose, loss), times) in &digest.lost {
                    @let (what, why) = told(loss);
                    tr {
                        th scope="row" { (digest.name_of(*whose)) }
                        td { (what) }
                        td { (why) }
                        td.num { (times) }
                    }
                }
            }))
        }
    }
}

fn told(loss: &Loss) -> (&'static str, &str) {
    match loss {
        Loss::TurnedAway(why) => ("turned away", why),
        Loss::Dropped(why) => ("dropped", why),
        Loss::Failed(category) => ("failed", category),
        Loss::Hanging => ("hanging", "a stage held the device far beyond its charge"),
        Loss::AllocationRefused => ("refused memory", "beyond the model's binding"),
    }
}

fn more<T>(of: &Listed<T>) -> Markup {
    html! { @if of.more() > 0 { p { "And " (of.more()) " more, which are not listed." } } }
}
