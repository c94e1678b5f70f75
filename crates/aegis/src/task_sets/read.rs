//! The reader of one line.
//!
//! # Invariants
//! 1. A [`Request`] is valid: every policy it is asked under is an answer or a named fault.
//! 2. Every fault of a line is found, not only the first, as far as the line can be read; the first
//!    [`FAULTS_KEPT_MAX`] are kept.

use aegis_sched::analysis::chain::Chain;
use aegis_sched::task::{Overheads, Task, TaskSet, TaskSpec};
use aegis_trace::{ModelId, Nanos};

use super::fault::{Fault, FaultKind, Invalid};
use super::json::Json;
use super::{Id, LINE_BYTES_MAX, Line, Policy, Unit};

/// The mark that some programs put before UTF-8 text.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The most faults of one line that are kept.
const FAULTS_KEPT_MAX: usize = 64;

/// The most ignored keys of one line that are told.
const IGNORED_SHOWN_MAX: usize = 16;

/// The most policies of one line, known or not.
const POLICIES_MAX: usize = 16;

/// The keys of a line, and of a task.
const LINE_KEYS: [&str; 6] = ["id", "unit", "policies", "overhead", "tasks", "chain"];
const TASK_KEYS: [&str; 6] = ["C", "T", "D", "P", "J", "seg"];

/// A set and what is asked about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What it is called.
    pub id: Id,
    /// The unit of its times.
    pub unit: Unit,
    /// The tasks, in the order of the line; the model of each has its index.
    pub set: TaskSet,
    /// What every started stage is charged.
    pub overheads: Overheads,
    /// The sampled chain, if there is one.
    pub chain: Option<Chain>,
    /// The policies, in the order of the line; or why there is no answer for one.
    pub policies: Vec<Result<Policy, Invalid>>,
    /// The keys that mean nothing here, with their places; the first 16.
    pub ignored: Vec<String>,
}

/// Reads line `number`; `None` for a blank one. Costs `O(n log n)` for a line of `n` bytes.
///
/// # Errors
/// Permanent: every fault, once for each policy that the line names.
pub fn read(line: Line<'_>, number: u64) -> Result<Option<Request>, Vec<Invalid>> {
    let whole = |kind| {
        let faults = vec![Fault { place: String::new(), kind }];
        let (id, ignored) = (Id::Number(number.into()), Vec::new());
        vec![Invalid { id, policy: None, line: number, faults, ignored }]
    };
    let Line::Whole(bytes) = line else {
        return Err(whole(FaultKind::TooLong { most: LINE_BYTES_MAX }));
    };
    let bytes = match number {
        1 => bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes),
        _ => bytes,
    };
    if number == 1 && (bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF")) {
        return Err(whole(FaultKind::Utf16));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| whole(FaultKind::NotUtf8))?;
    if text.trim_ascii().is_empty() {
        return Ok(None);
    }
    let json = serde_json::from_str(text).map(|mut json: Json| {
        json.quote(text);
        json
    });
    let entries = match json {
        Ok(Json::Object(entries)) => entries,
        Ok(other) => return Err(whole(wrong("one JSON object per line", &other))),
        Err(error) => return Err(whole(not_json(&error))),
    };
    let (faults, unranked, ignored) = (Vec::new(), Vec::new(), Vec::new());
    Reader { number, faults, unranked, ignored }.request(&entries).map(Some)
}

/// What the parser said, without its line number, which is always 1.
fn not_json(error: &serde_json::Error) -> FaultKind {
    let message = error.to_string();
    let message = match message.split(" at line ").next().unwrap_or(&message) {
        "expected ident" | "expected value" => "there is no value here".into(),
        "trailing characters" => "more follows; write one JSON object per line".into(),
        cut if cut.starts_with("EOF while parsing") => {
            "it ends too early; write one JSON object per line".into()
        }
        other => other.to_owned(),
    };
    FaultKind::NotJson { message, column: error.column() }
}

fn wrong(expected: &'static str, found: &Json) -> FaultKind {
    FaultKind::WrongType { expected, found: found.to_string() }
}

/// The keys of one object, each at most once.
struct Object<'a> {
    entries: &'a [(String, Json)],
}

impl<'a> Object<'a> {
    fn get(&self, key: &str) -> Option<&'a Json> {
        self.entries.iter().find(|(known, _)| known == key).map(|(_, value)| value)
    }
}

/// A task as it stands in the line.
struct Given {
    cost: Nanos,
    period: Nanos,
    deadline: Nanos,
    jitter: Nanos,
    priority: Option<i128>,
    stages: Vec<Nanos>,
}

struct Reader {
    number: u64,
    /// What is wrong under every policy.
    faults: Vec<Fault>,
    /// The tasks without `P`, which is wrong under `np-fp` alone.
    unranked: Vec<usize>,
    ignored: Vec<String>,
}

/// A policy as it is named, known or not, with its place in the list.
struct Named {
    index: usize,
    name: String,
}

impl Reader {
    fn request(mut self, entries: &[(String, Json)]) -> Result<Request, Vec<Invalid>> {
        let line = self.object("", entries, &LINE_KEYS);
        let id = self.id(line.get("id"));
        let unit = self.unit(line.get("unit"));
        let names = self.names(line.get("policies"));
        let overhead = self.optional_time("overhead".into(), line.get("overhead"));
        let tasks = self.tasks(line.get("tasks"));
        let chain = self.chain(line.get("chain"), tasks.as_ref().map_or(0, Vec::len));
        match tasks {
            Some(tasks) if self.faults.is_empty() => {
                let policies = self.policies(&id, &names);
                let overheads = Overheads { dispatch: overhead, ..Overheads::NONE };
                let (set, ignored) = (set(&tasks), self.ignored);
                Ok(Request { id, unit, set, overheads, chain, policies, ignored })
            }
            _ => Err(self.invalid(&id, &names)),
        }
    }

    /// The faults of the line, each with those of one policy, as the answer to each that it names.
    fn invalid(self, id: &Id, names: &[Named]) -> Vec<Invalid> {
        let answer = |policy, faults| {
            let (id, ignored) = (id.clone(), self.ignored.clone());
            Invalid { id, policy, line: self.number, faults, ignored }
        };
        if names.is_empty() {
            return vec![answer(None, self.faults.clone())];
        }
        let of_policy = |named: &Named| {
            // The name first: it is one fault, and the others may fill what is shown.
            let unknown = unknown(named).into_iter().chain(self.faults.iter().cloned());
            let faults = unknown.chain(self.without_priority(named)).take(FAULTS_KEPT_MAX);
            answer(Some(named.name.clone()), faults.collect())
        };
        names.iter().map(of_policy).collect()
    }

    fn fault(&mut self, place: impl Into<String>, kind: FaultKind) {
        if self.faults.len() < FAULTS_KEPT_MAX {
            self.faults.push(Fault { place: place.into(), kind });
        }
    }

    /// Notes keys that mean nothing, and complains about those that come twice. Costs `O(n)` for
    /// `n` entries.
    fn object<'a>(
        &mut self,
        place: &str,
        entries: &'a [(String, Json)],
        known: &[&str; 6],
    ) -> Object<'a> {
        let mut seen = [false; 6];
        for (key, _) in entries {
            let dot = if place.is_empty() { "" } else { "." };
            let Some(at) = known.iter().position(|known| known == key) else {
                if self.ignored.len() < IGNORED_SHOWN_MAX {
                    let shown: String = key.chars().take(40).collect();
                    self.ignored.push(format!("{place}{dot}{shown}"));
                }
                continue;
            };
            if std::mem::replace(&mut seen[at], true) {
                self.fault(format!("{place}{dot}{key}"), FaultKind::Twice);
            }
        }
        Object { entries }
    }

    fn id(&mut self, given: Option<&Json>) -> Id {
        match given {
            Some(Json::Text(text)) => return Id::Text(text.clone()),
            Some(Json::Integer(number)) => return Id::Number(*number),
            Some(other) => self.fault("id", wrong("a text or an integer", other)),
            None => {}
        }
        Id::Number(self.number.into())
    }

    fn unit(&mut self, given: Option<&Json>) -> Unit {
        let Some(given) = given else { return Unit::default() };
        let unit = match given {
            Json::Text(text) => Unit::ALL.into_iter().find(|unit| unit.name() == text),
            _ => None,
        };
        unit.unwrap_or_else(|| {
            let known = Unit::ALL.map(Unit::name).join(", ");
            self.fault("unit", FaultKind::Name { known, found: given.to_string() });
            Unit::default()
        })
    }

    /// The policies as they are named, known or not.
    fn names(&mut self, given: Option<&Json>) -> Vec<Named> {
        let list = match given {
            Some(Json::List(list)) => list.as_slice(),
            Some(other) => {
                self.fault("policies", wrong("a list", other));
                return Vec::new();
            }
            None => {
                self.fault("policies", FaultKind::Missing);
                return Vec::new();
            }
        };
        if list.is_empty() {
            self.fault("policies", FaultKind::Empty { of: "policy" });
        }
        if list.len() > POLICIES_MAX {
            self.fault("policies", too_many(POLICIES_MAX, list.len(), "policies"));
            return Vec::new();
        }
        let mut names: Vec<Named> = Vec::new();
        for (index, item) in list.iter().enumerate() {
            match item {
                Json::Text(name) if names.iter().any(|named| named.name == *name) => {
                    self.fault(format!("policies[{index}]"), FaultKind::Twice);
                }
                Json::Text(name) => names.push(Named { index, name: name.clone() }),
                other => self.fault(format!("policies[{index}]"), wrong("a text", other)),
            }
        }
        names
    }

    /// What can be answered, and why the rest cannot.
    fn policies(&self, id: &Id, names: &[Named]) -> Vec<Result<Policy, Invalid>> {
        let answer = |named: &Named| {
            let faults: Vec<Fault> =
                unknown(named).into_iter().chain(self.without_priority(named)).collect();
            match policy(&named.name) {
                Some(policy) if faults.is_empty() => Ok(policy),
                _ => {
                    let (id, ignored) = (id.clone(), self.ignored.clone());
                    let policy = Some(named.name.clone());
                    Err(Invalid { id, policy, line: self.number, faults, ignored })
                }
            }
        };
        names.iter().map(answer).collect()
    }

    /// Each task without the priority that the policy reads; of other policies none.
    fn without_priority(&self, named: &Named) -> impl Iterator<Item = Fault> {
        let policy = Policy::FixedPriority.name();
        let lacking = if named.name == policy { self.unranked.as_slice() } else { &[] };
        lacking.iter().map(move |index| Fault {
            place: format!("tasks[{index}].P"),
            kind: FaultKind::MissingFor { policy },
        })
    }

    fn tasks(&mut self, given: Option<&Json>) -> Option<Vec<Given>> {
        let list = match given {
            Some(Json::List(list)) => list,
            Some(other) => {
                self.fault("tasks", wrong("a list", other));
                return None;
            }
            None => {
                self.fault("tasks", FaultKind::Missing);
                return None;
            }
        };
        if list.is_empty() {
            self.fault("tasks", FaultKind::Empty { of: "task" });
        }
        if list.len() > TaskSet::MOST_TASKS {
            self.fault("tasks", too_many(TaskSet::MOST_TASKS, list.len(), "tasks"));
            return None;
        }
        // All of them, so that the faults of each are found.
        let tasks: Vec<Option<Given>> =
            list.iter().enumerate().map(|(index, task)| self.task(index, task)).collect();
        tasks.into_iter().collect()
    }

    fn task(&mut self, index: usize, given: &Json) -> Option<Given> {
        let place = format!("tasks[{index}]");
        let Json::Object(entries) = given else {
            self.fault(place, wrong("an object", given));
            return None;
        };
        let task = self.object(&place, entries, &TASK_KEYS);
        let cost = self.required_time(format!("{place}.C"), task.get("C"));
        let period = self.required_time(format!("{place}.T"), task.get("T"));
        let deadline = self.required_time(format!("{place}.D"), task.get("D"));
        let jitter = self.optional_time(format!("{place}.J"), task.get("J"));
        let priority = match task.get("P") {
            None => {
                self.unranked.push(index);
                None
            }
            Some(Json::Integer(priority)) => Some(*priority),
            Some(other) => {
                self.fault(
                    format!("{place}.P"),
                    wrong("an integer of 64 bits, without point or exponent", other),
                );
                None
            }
        };
        let stages = match task.get("seg") {
            None => Some(Vec::new()),
            Some(list) => self.stages(&format!("{place}.seg"), list, cost),
        };
        let (cost, period, deadline, mut stages) = (cost?, period?, deadline?, stages?);
        if stages.is_empty() {
            stages.push(cost);
        }
        Some(Given { cost, period, deadline, jitter, priority, stages })
    }

    fn stages(&mut self, place: &str, given: &Json, cost: Option<Nanos>) -> Option<Vec<Nanos>> {
        let Json::List(list) = given else {
            self.fault(place, wrong("a list", given));
            return None;
        };
        if list.is_empty() {
            self.fault(place, FaultKind::Empty { of: "stage" });
            return None;
        }
        if list.len() > Task::MOST_STAGES {
            self.fault(place, too_many(Task::MOST_STAGES, list.len(), "stages"));
            return None;
        }
        let stages: Vec<Option<Nanos>> = list
            .iter()
            .enumerate()
            .map(|(index, stage)| self.time(format!("{place}[{index}]"), stage, 1))
            .collect();
        let stages: Vec<Nanos> = stages.into_iter().collect::<Option<_>>()?;
        let sum = stages.iter().map(|stage| i128::from(stage.0)).sum();
        if let Some(cost) = cost.map(|cost| i128::from(cost.0)).filter(|cost| *cost != sum) {
            self.fault(place, FaultKind::Sum { sum, cost });
        }
        Some(stages)
    }

    fn chain(&mut self, given: Option<&Json>, tasks: usize) -> Option<Chain> {
        let list = match given? {
            Json::List(list) => list,
            other => {
                self.fault("chain", wrong("a list", other));
                return None;
            }
        };
        if list.is_empty() {
            self.fault("chain", FaultKind::Empty { of: "task" });
        }
        let mut known = vec![false; tasks];
        let mut members = Vec::new();
        for (index, item) in list.iter().enumerate() {
            let place = format!("chain[{index}]");
            let Some(member) = self.member(&place, item, tasks) else { continue };
            if std::mem::replace(&mut known[usize::from(member)], true) {
                self.fault(place, FaultKind::Twice);
            } else {
                members.push(ModelId::first(member));
            }
        }
        Chain::new(members).ok()
    }

    /// The index of a task. Where the tasks cannot be read, none is complained about.
    fn member(&mut self, place: &str, given: &Json, tasks: usize) -> Option<u16> {
        let Json::Integer(index) = given else {
            self.fault(place, wrong("an index of a task, counted from 0", given));
            return None;
        };
        let most = i128::try_from(tasks).unwrap_or(i128::MAX) - 1;
        match u16::try_from(*index) {
            Ok(member) if *index <= most => return Some(member),
            _ if tasks == 0 => {}
            _ if *index < 0 => {
                self.fault(place, FaultKind::TooSmall { least: 0, found: *index });
            }
            _ => self.fault(place, FaultKind::TooLarge { most, found: *index }),
        }
        None
    }

    fn required_time(&mut self, place: String, given: Option<&Json>) -> Option<Nanos> {
        match given {
            Some(given) => self.time(place, given, 1),
            None => {
                self.fault(place, FaultKind::Missing);
                None
            }
        }
    }

    /// Zero if there is none; what is at fault is recorded, so its value does not matter.
    fn optional_time(&mut self, place: String, given: Option<&Json>) -> Nanos {
        given.and_then(|given| self.time(place, given, 0)).unwrap_or(Nanos::ZERO)
    }

    fn time(&mut self, place: String, given: &Json, least: i128) -> Option<Nanos> {
        let most = i128::from(Task::LONGEST.0);
        let kind = match given {
            Json::Integer(found) if *found < least => FaultKind::TooSmall { least, found: *found },
            Json::Integer(found) if *found > most => FaultKind::TooLarge { most, found: *found },
            Json::Integer(found) => return u64::try_from(*found).ok().map(Nanos),
            other => wrong("an integer up to 2^62, without point or exponent", other),
        };
        self.fault(place, kind);
        None
    }
}

fn too_many(most: usize, found: usize, of: &'static str) -> FaultKind {
    FaultKind::TooMany { most, found, of }
}

fn policy(name: &str) -> Option<Policy> {
    Policy::ALL.into_iter().find(|policy| policy.name() == name)
}

/// The fault of a name that is none.
fn unknown(named: &Named) -> Option<Fault> {
    let Named { index, name } = named;
    let fault = || {
        let known = Policy::ALL.map(Policy::name).join(", ");
        let found = Json::Text(name.clone()).to_string();
        Fault { place: format!("policies[{index}]"), kind: FaultKind::Name { known, found } }
    };
    policy(name).is_none().then(fault)
}

/// The set of checked tasks. Only the order of priorities matters, so each is replaced by its rank.
fn set(tasks: &[Given]) -> TaskSet {
    let mut ranks: Vec<i128> = tasks.iter().filter_map(|task| task.priority).collect();
    ranks.sort_unstable();
    ranks.dedup();
    let rank = |priority: i128| ranks.partition_point(|less| *less < priority);
    let task = |(given, index): (&Given, u16)| {
        debug_assert_eq!(given.stages.iter().copied().sum::<Nanos>(), given.cost);
        let spec = TaskSpec {
            model: ModelId::first(index),
            period: given.period,
            deadline: given.deadline,
            jitter: given.jitter,
            priority: given.priority.map_or(0, |priority| {
                u32::try_from(rank(priority)).expect("there are at most 65536 tasks")
            }),
            stages: given.stages.clone(),
        };
        Task::new(spec).expect("every field was checked")
    };
    let tasks = tasks.iter().zip(0..=u16::MAX).map(task);
    TaskSet::new(tasks.collect()).expect("at most 65536 tasks, each its own model")
}
