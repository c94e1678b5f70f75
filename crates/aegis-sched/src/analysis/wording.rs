//! The wording of an argument: columns that a reader can add up.
//!
//! Names of models and the unit of time are the caller's, since the analyses know neither.

use std::fmt;

use aegis_trace::{ModelId, Nanos, Refusal};

use super::argument::{Argument, Case, Explanation, Share, Window};
use super::findings::Response;
use super::time::TimeModel;
use crate::task::Overheads;

/// How models and times are written.
#[derive(Clone, Copy)]
pub struct Words<'a> {
    /// What a model is called.
    pub name: &'a dyn Fn(ModelId) -> String,
    /// How a time is written, with its unit.
    pub time: &'a dyn Fn(Nanos) -> String,
}

impl Words<'_> {
    /// The inequality of `why`. Where one job alone is late, it names what adds up: its jitter,
    /// which `jitter` knows, and overhead only if `overheads` has one.
    #[must_use]
    pub fn refusal(
        &self,
        why: &Refusal,
        overheads: &Overheads,
        jitter: impl Fn(ModelId) -> Nanos,
    ) -> String {
        let Refusal::CostExceedsDeadline { model, cost, deadline } = *why else {
            // Of whole units, which are shown exactly.
            return why.explain_in(self.name, |time, _| (self.time)(time));
        };
        let late = if jitter(model) > Nanos::ZERO { "jitter + " } else { "" };
        let with = if overheads.dispatch > Nanos::ZERO { " with overhead" } else { "" };
        let (cost, deadline) = ((self.time)(cost), (self.time)(deadline));
        format!("{}: {late}cost{with} {cost} > deadline {deadline}", (self.name)(model))
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = Words { name: &|model| model.to_string(), time: &|time| time.to_string() };
        f.write_str(&self.in_words(&words))
    }
}

impl Explanation {
    /// The answer, then a column for what was refused, then one for each task; without a line end.
    #[must_use]
    pub fn in_words(&self, words: &Words<'_>) -> String {
        let mut lines = vec![self.verdict(words)];
        if let Some(window) = &self.window {
            lines.extend(in_window(window, self.setting.time, words));
        }
        for task in &self.tasks {
            lines.push(headline(task, self.findings.verdict.is_ok(), words));
            match &task.case {
                Some(case) => lines.extend(in_case(task, case, self.setting.time, words)),
                None if task.response.bound().is_some() => {
                    lines.push("  its shares are not written out: the set is too large".into());
                }
                None => {}
            }
        }
        lines.join("\n")
    }

    fn refusal(&self, why: &Refusal, words: &Words<'_>) -> String {
        let task = |model| self.tasks.iter().find(|task| task.model == model);
        let jitter = |model| task(model).map_or(Nanos::ZERO, |task| task.jitter);
        words.refusal(why, &self.setting.overheads, jitter)
    }

    fn verdict(&self, words: &Words<'_>) -> String {
        let ppm = self.utilisation_ppm;
        let load = format!("utilisation {}.{:06}", ppm / 1_000_000, ppm % 1_000_000);
        let test = self.findings.test;
        let exact = if self.findings.exact { "exact" } else { "not exact" };
        let quick = self.quick.iter().map(|test| format!("\n  accepted at once by: {test}"));
        let quick: String = quick.collect();
        let decided = format!("{load}, decided by {test} ({exact} here){quick}");
        match &self.findings.verdict {
            Ok(()) => format!("schedulable\n  {decided}"),
            Err(why @ Refusal::Undecided { .. }) => {
                let why = self.refusal(why, words);
                format!("{why}\n  {load}, no answer by {test}")
            }
            Err(why) => {
                let why = self.refusal(why, words);
                format!("not schedulable: {why}\n  {decided}")
            }
        }
    }
}

fn headline(task: &Argument, on_time: bool, words: &Words<'_>) -> String {
    let time = words.time;
    let (name, deadline) = ((words.name)(task.model), time(task.deadline));
    match task.response {
        Response::Bounded(response) => match task.deadline.checked_sub(response) {
            Some(slack) => format!(
                "{name}: response {} <= deadline {deadline}, slack {}",
                time(response),
                time(slack)
            ),
            None => format!("{name}: response {} > deadline {deadline}", time(response)),
        },
        Response::Unbounded => format!("{name}: no bound, the backlog can grow for ever"),
        Response::Undecided(limit) if on_time => {
            format!("{name}: response <= deadline {deadline}, how much less is not known: {limit}")
        }
        Response::Undecided(limit) => format!("{name}: undecided, {limit}"),
    }
}

/// A column of times with what each is; the result comes last.
struct Column {
    entries: Vec<(&'static str, String, String)>,
}

impl Column {
    fn add(&mut self, sign: &'static str, time: String, what: impl Into<String>) {
        self.entries.push((sign, time, what.into()));
    }

    fn lines(self) -> Vec<String> {
        let width = self.entries.iter().map(|(_, time, _)| time.len()).max().unwrap_or(0);
        let line = |(sign, time, what): (&str, String, String)| {
            format!("  {sign:1} {time:>width$}  {what}")
        };
        self.entries.into_iter().map(line).collect()
    }
}

fn in_case(task: &Argument, case: &Case, at: TimeModel, words: &Words<'_>) -> Vec<String> {
    let time = words.time;
    let busy =
        case.busy.map_or("without a known end".into(), |busy| format!("of at most {}", time(busy)));
    let due = case.due.map_or(String::new(), |due| format!(", due at {}", time(due)));
    let mut lines = vec![format!(
        "  worst is job {} in a busy period {busy}: visible at {}{due}",
        case.job + 1,
        time(case.visible)
    )];
    let mut column = Column { entries: Vec::new() };
    blocked(&mut column, case.blocking, case.blocked_by, at, words);
    committed(&mut column, case.committed, words);
    overrun(&mut column, case.overrun, words);
    let others = case.shares.len().saturating_sub(1);
    shares(&mut column, &case.shares[..others], words);
    for own in &case.shares[others..] {
        let start = time(case.completion.saturating_sub(case.last_stage));
        let what = format!(
            "{}, its last stage ({}) from {start} on",
            jobs(own, words),
            time(case.last_stage)
        );
        column.add("+", time(own.work()), what);
    }
    column.add("=", time(case.completion), "when it ends");
    if case.visible > Nanos::ZERO {
        column.add("-", time(case.visible), "when it is visible");
    }
    if task.jitter > Nanos::ZERO {
        column.add("+", time(task.jitter), "by which that may be later than its release");
    }
    if let Response::Bounded(response) = task.response {
        column.add("=", time(response), "response");
    }
    lines.extend(column.lines());
    lines
}

fn in_window(window: &Window, at: TimeModel, words: &Words<'_>) -> Vec<String> {
    let time = words.time;
    let mut lines = vec![format!("  in a window of {}:", time(window.length))];
    let mut column = Column { entries: Vec::new() };
    blocked(&mut column, window.blocking, window.blocked_by, at, words);
    committed(&mut column, window.committed, words);
    overrun(&mut column, window.overrun, words);
    shares(&mut column, &window.demand, words);
    let held = window.blocking.saturating_add(window.committed).saturating_add(window.overrun);
    let work = window.demand.iter().map(Share::work).fold(held, Nanos::saturating_add);
    column.add("=", time(work), format!("which is more than {}", time(window.length)));
    lines.extend(column.lines());
    lines
}

/// Who blocks, and since when: an instant in dense time, a tick in discrete time.
fn blocked(
    column: &mut Column,
    blocking: Nanos,
    by: Option<ModelId>,
    at: TimeModel,
    words: &Words<'_>,
) {
    let since = match at {
        TimeModel::Dense => "had just started",
        TimeModel::Discrete => "had started a tick before",
    };
    if blocking > Nanos::ZERO {
        let by = by.map_or("the wake-up or a background piece".into(), |model| {
            format!("a stage of {}", (words.name)(model))
        });
        column.add("+", (words.time)(blocking), format!("blocking by {by} that {since}"));
    }
}

fn committed(column: &mut Column, committed: Nanos, words: &Words<'_>) {
    if committed > Nanos::ZERO {
        column.add("+", (words.time)(committed), "a stage that look-ahead had put it behind");
    }
}

fn overrun(column: &mut Column, overrun: Nanos, words: &Words<'_>) {
    if overrun > Nanos::ZERO {
        column.add("+", (words.time)(overrun), "by which jobs may exceed their costs");
    }
}

fn shares(column: &mut Column, shares: &[Share], words: &Words<'_>) {
    for share in shares {
        column.add("+", (words.time)(share.work()), jobs(share, words));
    }
}

/// `2 jobs of camera, 40 us each`.
fn jobs(share: &Share, words: &Words<'_>) -> String {
    let (name, cost) = ((words.name)(share.model), (words.time)(share.cost));
    match share.jobs {
        1 => format!("1 job of {name}"),
        jobs => format!("{jobs} jobs of {name}, {cost} each"),
    }
}
