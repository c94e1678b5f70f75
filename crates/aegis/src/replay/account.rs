//! The account of one job in words: a column that adds up, beside the terms of its bound.

use std::collections::BTreeMap;

use aegis_sched::analysis::{Case, Share};
use aegis_sched::replay::{Account, Broken, Ending, Held, Piece, Sums, Term, Why};
use aegis_trace::{JobId, Nanos, Reason};
use serde_json::{Value, json};

use super::{TraceFile, place, shown};

impl TraceFile {
    /// The account in words, without a line end.
    #[must_use]
    pub fn explain(&self, account: &Account) -> String {
        let mut lines = vec![headline(account)];
        lines.extend(promised(account));
        lines.push(submitted(account));
        lines.extend(column(account.terms.iter().map(|term| (*term, self.piece(term)))));
        lines.push(format!("  = {:>12} ns  from release to end", account.response().as_nanos()));
        lines.push(String::new());
        lines.extend(self.beside_the_bound(account));
        lines.extend(self.blame(account));
        lines.join("\n")
    }

    /// The account as JSON; `docs/formats.md` has every key.
    #[must_use]
    pub fn account_json(&self, account: &Account) -> Value {
        let terms = account.terms.iter().map(|term| {
            let mut value = json!({
                "from": term.from, "to": term.to, "length": term.length(),
                "piece": name(term.what), "explained": self.piece(term),
            });
            if let Piece::Blocking(held) | Piece::Interference(held) | Piece::Earlier(held) =
                term.what
            {
                value["job"] = json!(held.by);
                value["stage"] = json!(held.stage);
                value["model"] = json!(self.name_of(held.by.model));
            } else if let Piece::LeftUpload { stage, of } = term.what {
                value["job"] = json!(of);
                value["stage"] = json!(stage);
                value["model"] = json!(self.name_of(of.model));
            } else if let Piece::Overhead(stage)
            | Piece::Upload(stage)
            | Piece::Execution(stage)
            | Piece::Download(stage) = term.what
            {
                value["stage"] = json!(stage);
            }
            value
        });
        let case = account.argument.as_ref().and_then(|argument| argument.case.as_ref());
        json!({
            "job": account.job,
            "model": account.name,
            "partition": account.config.partition,
            "policy": account.config.policy,
            "ending": ended(account),
            "submitted": account.record.stamp,
            "accepted": account.record.seen,
            "released": account.record.release,
            "from": account.from,
            "to": account.to,
            "response": account.response(),
            "deadline": account.record.deadline,
            "late": account.record.late,
            "bound": account.bound,
            "exceeded": account.record.exceeded.map(exceeded_json),
            "terms": terms.collect::<Vec<_>>(),
            "sums": sums_json(&account.sums()),
            "at_the_bound": case.map(|case| case_json(account, case)),
            "broken": account.broken.iter().map(broken_json).collect::<Vec<_>>(),
        })
    }

    /// What a piece of a response is, in words.
    fn piece(&self, term: &Term) -> String {
        match term.what {
            Piece::NotSubmitted => "released and not submitted yet".into(),
            Piece::NoBudget => "waiting for the next refill of its server".into(),
            Piece::WakeUp => "the device was free, and the executor had not woken up".into(),
            Piece::Blocking(held) => format!("blocking by {}", self.held(&held)),
            Piece::Interference(held) => format!("interference by {}", self.held(&held)),
            Piece::Earlier(held) => format!("earlier job: {}", self.held(&held)),
            Piece::Overhead(stage) => {
                format!("own stage {stage}: launching it or noticing its end")
            }
            Piece::LeftUpload { stage, of } => format!(
                "own stage {stage}: waiting for the inputs of {of} ({}), which were left on their way",
                self.name_of(of.model)
            ),
            Piece::Upload(stage) => {
                format!("own stage {stage}: its inputs on their way to the device")
            }
            Piece::Execution(stage) => format!("own stage {stage}: on the device"),
            Piece::Download(stage) => {
                format!("own stage {stage}: its outputs on their way from the device")
            }
        }
    }

    fn held(&self, held: &Held) -> String {
        let Held { by, stage, why } = held;
        let why = match why {
            Why::Began => "which had begun before".into(),
            Why::WentOn => {
                "which went on, as nobody strictly more urgent waited or it must not be \
                            suspended"
                    .into()
            }
            Why::Preferred(reason) => preferred(reason),
            Why::Foreground => "since work in the background waits for all other".into(),
            Why::InLine => "which was before it in line".into(),
        };
        format!("stage {stage} of {by} ({}), {why}", self.name_of(by.model))
    }

    /// The sums of the terms beside those of the job that attains the bound.
    fn beside_the_bound(&self, account: &Account) -> Vec<String> {
        let sums = account.sums();
        let own = sums.overhead.saturating_add(sums.execution);
        let case = account.argument.as_ref().and_then(|of| Some((of, of.case.as_ref()?)));
        let Some((argument, case)) = case else {
            let why = match account.bound {
                None => "no bound is promised to it",
                Some(_) => "no job that attains the bound is known: it was proved without one",
            };
            return vec![format!("{why}; its own sums:"), rows(&own_rows(&sums, own))];
        };
        let rivals = self.shares(account, case);
        let earlier =
            share_of(case, account).map_or(Nanos::ZERO, |own| own.work().saturating_sub(own.cost));
        let blocker = match case.blocked_by {
            _ if case.blocking == Nanos::ZERO => String::new(),
            None => "the wake-up or a piece in the background".into(),
            Some(model) => format!("a stage of {}", self.name_of(model)),
        };
        let held_up = case.blocking.saturating_add(case.committed);
        let blocker = match case.committed {
            Nanos::ZERO => blocker,
            ahead if blocker.is_empty() => format!("a stage of {ahead} ahead of it on the device"),
            ahead => format!("{blocker}, behind another stage of {ahead} on the device"),
        };
        let blocking = sums.blocking.saturating_add(sums.wake_up);
        let none = Nanos::ZERO;
        let lines = [
            ("blocking and wake-up", blocking, held_up, blocker),
            ("interference", sums.interference, rivals.0, rivals.1),
            ("earlier jobs of its model", sums.earlier, earlier, String::new()),
            ("its own stages with overheads", own, argument.cost, String::new()),
            ("refills of its server", sums.no_budget, none, String::new()),
            ("not submitted (jitter)", sums.not_submitted, argument.jitter, String::new()),
        ];
        let mut table = vec![
            "term by term, beside the job that attains its bound:".to_owned(),
            format!("  {:>12}  {:>12}", "this job ns", "at bound ns"),
        ];
        for (term, seen, bound, who) in lines {
            let who = if who.is_empty() { who } else { format!(": {who}") };
            let (seen, bound) = (seen.as_nanos(), bound.as_nanos());
            table.push(format!("  {seen:>12}  {bound:>12}  {term}{who}"));
        }
        if case.visible > none {
            let visible = case.visible.as_nanos();
            table.push(format!(
                "  {:>12}  {:>12}  of that before the job at the bound is visible",
                "",
                format!("-{visible}")
            ));
        }
        let bound = case.completion.saturating_sub(case.visible).saturating_add(argument.jitter);
        if sums.left_upload > none {
            let waited = sums.left_upload.as_nanos();
            table.push(format!("  {waited:>12}  {:>12}  {LEFT_UPLOADS}", 0));
        }
        let (response, bound) = (account.response().as_nanos(), bound.as_nanos());
        table.push(format!("  {response:>12}  {bound:>12}  response"));
        table
    }

    /// The work of other models at the bound, and whose it is.
    fn shares(&self, account: &Account, case: &Case) -> (Nanos, String) {
        let rivals = case.shares.iter().filter(|share| share.model != account.job.model);
        let work = rivals.clone().fold(Nanos::ZERO, |sum, share| sum.saturating_add(share.work()));
        let named: Vec<String> = rivals
            .map(|share| format!("{} of {}", jobs(share.jobs), self.name_of(share.model)))
            .collect();
        (work, named.join(", "))
    }

    /// Which assumption was broken, where the job is late or beyond its bound.
    fn blame(&self, account: &Account) -> Vec<String> {
        let mut lines = Vec::new();
        if account.record.late > Nanos::ZERO {
            lines.push(format!("it missed its deadline by {}", account.record.late));
        }
        if let Some((bound, cause)) = account.record.exceeded {
            let cause = cause.map_or_else(
                || "no assumption was broken before: a defect of AegisRT".into(),
                |job| format!("first broken by {job} ({})", self.name_of(job.model)),
            );
            lines.push(format!("it exceeded its bound of {bound}; {cause}"));
        }
        let broken = account.broken.iter().map(|broken| self.broken(broken));
        lines.extend(broken);
        if lines.is_empty() {
            lines.push("no assumption was broken in its busy period before it ended".into());
        }
        lines
    }

    fn broken(&self, broken: &Broken) -> String {
        let Broken { at, assumption, job, stage, assumed, observed, .. } = broken;
        let by = format!("{job} ({})", self.name_of(job.model));
        let of = match stage {
            Some((own, stage)) if own == job => format!("of stage {stage} of {by}"),
            Some((other, stage)) => {
                let name = self.name_of(other.model);
                format!("of {by}, before stage {stage} of {other} ({name})")
            }
            None => format!("of {by}"),
        };
        format!("broken at {at}: {assumption} {of}, {observed} > {assumed} assumed")
    }
}

/// The row of a sum that stands only where there is some.
const LEFT_UPLOADS: &str = "inputs that failed launches left on their way";

fn headline(account: &Account) -> String {
    let of = place(account.config.partition.as_deref());
    let policy = account.config.policy;
    let what = match account.ending {
        Ending::Completed => format!("response {}", account.response()),
        Ending::Dropped(why) => format!("dropped after {}: {why}", account.response()),
        Ending::Faulted(category) => {
            format!("failed after {} ({category})", account.response())
        }
    };
    format!("{} ({}), {of} under {policy}: {what}", account.job, shown(&account.name))
}

/// Bound and deadline, where there are some.
fn promised(account: &Account) -> Option<String> {
    let deadline = account.record.deadline?;
    let relative = deadline.saturating_since(account.from);
    let bound = account.bound.map_or_else(|| "none".into(), |bound| bound.to_string());
    Some(format!("bound {bound}, deadline {relative} after its release"))
}

fn submitted(account: &Account) -> String {
    let record = &account.record;
    let mut line = format!("submitted at {}, accepted at {}", record.stamp, record.seen);
    if record.release != record.arrival {
        line.push_str(&format!(", released at {}", record.release));
    }
    line.push_str(&format!(", ended at {}; what that time was spent on:", account.to));
    line
}

/// The terms as a column; those of one kind that follow each other stay apart.
fn column(terms: impl Iterator<Item = (Term, String)>) -> Vec<String> {
    terms.map(|(term, what)| format!("  + {:>12} ns  {what}", term.length().as_nanos())).collect()
}

fn own_rows(sums: &Sums, own: Nanos) -> BTreeMap<&'static str, Nanos> {
    let left = (sums.left_upload > Nanos::ZERO).then_some((LEFT_UPLOADS, sums.left_upload));
    let rows = BTreeMap::from([
        ("blocking", sums.blocking),
        ("interference", sums.interference),
        ("earlier jobs of its model", sums.earlier),
        ("its own stages with overheads", own),
        ("refills of its server", sums.no_budget),
        ("not submitted", sums.not_submitted),
        ("wake-up", sums.wake_up),
    ]);
    rows.into_iter().chain(left).collect()
}

fn rows(of: &BTreeMap<&'static str, Nanos>) -> String {
    let line = |(what, time): (&&str, &Nanos)| format!("  {:>12} ns  {what}", time.as_nanos());
    of.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn share_of<'a>(case: &'a Case, account: &Account) -> Option<&'a Share> {
    case.shares.iter().find(|share| share.model == account.job.model)
}

fn jobs(count: u64) -> String {
    if count == 1 { "1 job".into() } else { format!("{count} jobs") }
}

/// The comparison by which a rival went first: its key, and that of the job.
fn preferred(reason: &Reason) -> String {
    match reason {
        Reason::EarliestRelease { chosen, next } => {
            format!("released at {chosen}, and this job at {next}")
        }
        Reason::EarliestDeadline { chosen, next } => {
            format!("due at {chosen}, and this job at {next}")
        }
        Reason::ShortestPeriod { chosen, next } => {
            format!("whose period is {chosen}, and that of this job {next}")
        }
        Reason::ShortestDeadline { chosen, next } => {
            format!("whose relative deadline is {chosen}, and that of this job {next}")
        }
        Reason::MostUrgent { chosen, next } => {
            format!("whose priority is {chosen}, and that of this job {next}")
        }
        _ => "which goes first".into(),
    }
}

fn name(piece: Piece) -> &'static str {
    match piece {
        Piece::NotSubmitted => "not_submitted",
        Piece::NoBudget => "no_budget",
        Piece::WakeUp => "wake_up",
        Piece::Blocking(_) => "blocking",
        Piece::Interference(_) => "interference",
        Piece::Earlier(_) => "earlier",
        Piece::Overhead(_) => "overhead",
        Piece::LeftUpload { .. } => "left_upload",
        Piece::Upload(_) => "upload",
        Piece::Execution(_) => "execution",
        Piece::Download(_) => "download",
    }
}

fn ended(account: &Account) -> Value {
    match account.ending {
        Ending::Completed => json!("completed"),
        Ending::Dropped(why) => json!({ "dropped": why }),
        Ending::Faulted(category) => json!({ "faulted": category }),
    }
}

fn sums_json(sums: &Sums) -> Value {
    json!({
        "not_submitted": sums.not_submitted,
        "no_budget": sums.no_budget,
        "wake_up": sums.wake_up,
        "blocking": sums.blocking,
        "interference": sums.interference,
        "earlier": sums.earlier,
        "overhead": sums.overhead,
        "left_upload": sums.left_upload,
        "execution": sums.execution,
        "copies": sums.copies,
    })
}

fn case_json(account: &Account, case: &Case) -> Value {
    let share =
        |share: &Share| json!({ "model": share.model, "jobs": share.jobs, "cost": share.cost });
    json!({
        "blocking": case.blocking,
        "blocked_by": case.blocked_by,
        "committed": case.committed,
        "shares": case.shares.iter().map(share).collect::<Vec<_>>(),
        "completion": case.completion,
        "visible": case.visible,
        "jitter": account.argument.as_ref().map(|argument| argument.jitter),
    })
}

fn exceeded_json((bound, cause): (Nanos, Option<JobId>)) -> Value {
    json!({ "bound": bound, "cause": cause })
}

fn broken_json(broken: &Broken) -> Value {
    let Broken { at, assumption, job, stage, assumed, observed, .. } = broken;
    let (of, stage) = stage.unzip();
    json!({
        "at": at, "assumption": assumption, "job": job, "stage": stage, "stage_of": of,
        "assumed": assumed, "observed": observed,
    })
}
