//! The answer to one line under one policy.

use aegis_sched::analysis::chain::sampled;
use aegis_sched::analysis::priority_assignment::some_order;
use aegis_sched::analysis::sensitivity::{largest_background, largest_scale_ppm};
use aegis_sched::analysis::{Findings, Response, Setting, TimeModel, Words, examine, explain};
use aegis_trace::{ModelId, Nanos, Refusal};
use serde::{Serialize, Serializer};

use super::{Id, Policy, Request};

/// How sets are analysed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// At which instants things happen.
    pub time: TimeModel,
    /// How much work each verdict may cost, in terms of a nanosecond or a few; response times may
    /// cost as much again, and each figure of [`Sensitivity`] some sixty times as much.
    pub terms: u64,
    /// Whether to work out how far the set is from the edge.
    pub sensitivity: bool,
}

/// What was found about a set. Serialises as the answer to its line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found {
    /// What the set is called.
    pub id: Id,
    /// Under which policy.
    pub policy: Policy,
    /// Whether every deadline is met; not if that is undecided.
    pub schedulable: bool,
    /// The longest response of each task, in the order and the unit of the line, met or not; the
    /// deadline where the search for it gave up and the verdict is *yes*; `None` where there is no
    /// bound or none was found.
    pub wcrt: Vec<Option<u64>>,
    /// The tasks for which that is the deadline because the search gave up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub wcrt_not_tight: Vec<usize>,
    /// The theorem that decided.
    #[serde(serialize_with = "in_words")]
    pub test: aegis_sched::analysis::Test,
    /// Whether a refused set of this kind has a legal schedule that misses; not if undecided.
    pub exact: bool,
    /// The inequality that failed, with its numbers.
    pub refusal: Option<String>,
    /// If it was asked for.
    #[serde(flatten)]
    pub sensitivity: Option<Sensitivity>,
    /// The keys of the line that mean nothing here, with their places; the first 16.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignored: Vec<String>,
}

/// How far a set is from the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Sensitivity {
    /// The largest `k` such that the set is schedulable with every stage times `k / 10^6`, rounded
    /// up, overhead apart; 0 if there is none, `None` if the set as it is has no answer.
    pub max_scale_ppm: Option<u64>,
    /// The longest non-preemptive piece of background work that the set tolerates; `None` if it is
    /// refused without one, or has no answer.
    pub max_best_effort_chunk: Option<u64>,
    /// Under explicit priorities, whether some order of the tasks is schedulable; `Some(None)` if
    /// undecided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feasible_with_some_priority_order: Option<Option<bool>>,
    /// With a chain, from an event to the end of the first output that shows it; `Some(None)` if a
    /// member has no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain_reaction: Option<Option<u64>>,
    /// With a chain, from the release that sampled to the end of an output that uses the sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain_age: Option<Option<u64>>,
}

fn in_words<T: ToString, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

impl Request {
    /// The answer under `policy`. Does not block; costs as [`examine`], with a budget.
    #[must_use]
    pub fn answer(&self, policy: Policy, options: &Options) -> Found {
        let setting = self.setting(policy, options);
        let findings = examine(&self.set, &setting);
        let bound = |response: &Response| response.bound().map(|time| time.0);
        let responses = findings.responses.iter().enumerate();
        let not_tight = responses.filter(|(_, response)| is_deadline(response, &findings));
        Found {
            id: self.id.clone(),
            policy,
            schedulable: findings.verdict.is_ok(),
            wcrt: self.proved(&findings).iter().map(bound).collect(),
            wcrt_not_tight: not_tight.map(|(index, _)| index).collect(),
            test: findings.test,
            exact: findings.exact && !is_undecided(&findings),
            refusal: findings.verdict.as_ref().err().map(|why| self.in_unit(why)),
            sensitivity: options.sensitivity.then(|| self.sensitivity(policy, &setting, &findings)),
            ignored: self.ignored.clone(),
        }
    }

    /// The argument behind the answer under `policy`, for people; several lines, the last without
    /// an end. Costs as [`Request::answer`].
    #[must_use]
    pub fn explain(&self, policy: Policy, options: &Options) -> String {
        let setting = self.setting(policy, options);
        let explanation = explain(&self.set, &setting);
        let (name, time) = (|model: ModelId| name(model), |time| self.unit.write(time));
        let argument = explanation.in_words(&Words { name: &name, time: &time });
        let model = match options.time {
            TimeModel::Dense => "dense",
            TimeModel::Discrete => "discrete",
        };
        let mut text = format!("{}, {policy}, {model} time: {argument}", self.id);
        if options.sensitivity {
            let found = self.sensitivity(policy, &setting, &explanation.findings);
            text.push_str(&self.spelled(&found));
        }
        if !self.ignored.is_empty() {
            text.push_str(&format!("\nignored keys: {}", self.ignored.join(", ")));
        }
        text
    }

    fn setting(&self, policy: Policy, options: &Options) -> Setting {
        let Options { time, terms, .. } = *options;
        Setting { time, terms, ..Setting::admission(policy.kind(), self.overheads) }
    }

    fn in_unit(&self, why: &Refusal) -> String {
        let words = Words { name: &name, time: &|time| self.unit.write(time) };
        let jitter = |model: ModelId| self.set.tasks()[usize::from(model.index)].jitter();
        words.refusal(why, &self.overheads, jitter)
    }

    fn sensitivity(&self, policy: Policy, setting: &Setting, findings: &Findings) -> Sensitivity {
        let order = || match some_order(&self.set, setting) {
            Ok(_) => Some(true),
            Err(Refusal::Undecided { .. }) => None,
            Err(_) => Some(false),
        };
        let chain = self.chain.as_ref().map(|chain| {
            let responses = self.proved(findings);
            let bounds = sampled(&self.set, chain, setting.policy, &responses);
            bounds.expect("the members were checked to be in the set")
        });
        // A figure about a smaller set would pass for one about a set that was refused.
        let decided = !is_undecided(findings);
        let chunk = || largest_background(&self.set, setting).map(|piece| piece.0);
        Sensitivity {
            max_scale_ppm: decided.then(|| largest_scale_ppm(&self.set, setting)),
            max_best_effort_chunk: decided.then(chunk).flatten(),
            feasible_with_some_priority_order: (policy == Policy::FixedPriority).then(order),
            chain_reaction: chain.map(|bounds| bounds.map(|bounds| bounds.reaction.0)),
            chain_age: chain.map(|bounds| bounds.map(|bounds| bounds.data_age.0)),
        }
    }

    /// The responses, or where the search for one gave up and the verdict did not, the deadline
    /// that it proved.
    fn proved(&self, findings: &Findings) -> Vec<Response> {
        let tasks = findings.responses.iter().zip(self.set.tasks());
        tasks
            .map(|(response, task)| match response {
                given_up if is_deadline(given_up, findings) => Response::Bounded(task.deadline()),
                known => *known,
            })
            .collect()
    }

    /// The figures in words, each on a line of its own.
    fn spelled(&self, found: &Sensitivity) -> String {
        let time = |time: Option<u64>| time.map_or("none".into(), |t| self.unit.write(Nanos(t)));
        let mut text = match found.max_scale_ppm {
            Some(k) => format!(
                "\nall stages may be {}.{:06} times as long\nlongest best-effort chunk: {}",
                k / 1_000_000,
                k % 1_000_000,
                time(found.max_best_effort_chunk)
            ),
            None => "\nhow much longer stages may be: undecided\n\
                     longest best-effort chunk: undecided"
                .into(),
        };
        if let Some(some) = found.feasible_with_some_priority_order {
            let some = some.map_or("undecided", |yes| if yes { "yes" } else { "no" });
            text.push_str(&format!("\nschedulable in some order of priorities: {some}"));
        }
        if let (Some(reaction), Some(age)) = (found.chain_reaction, found.chain_age) {
            let (reaction, age) = (time(reaction), time(age));
            text.push_str(&format!("\nchain: reaction at most {reaction}, data age {age}"));
        }
        text
    }
}

fn is_undecided(findings: &Findings) -> bool {
    matches!(findings.verdict, Err(Refusal::Undecided { .. }))
}

/// Whether all that is known of a response is that the verdict proved it to be in time.
fn is_deadline(response: &Response, findings: &Findings) -> bool {
    findings.verdict.is_ok() && matches!(response, Response::Undecided(_))
}

/// Tasks are named by their position in the line.
fn name(model: ModelId) -> String {
    format!("tasks[{}]", model.index)
}
