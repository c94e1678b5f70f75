//! On which terms each model is admitted where models trigger one another.
//!
//! A model that is triggered has the jitter that the whole set gives its trigger, so nobody can be
//! admitted before it is known who else will be. The plan walks the models in file order, as
//! admission does, and keeps each with which the set so far still meets every deadline, the inherited
//! jitters found anew each time. What it keeps is then admitted with the jitters of the last set.
//!
//! # Invariants
//! 1. Every set that admission meets on the way is a part of the one whose jitters are used, so none
//!    of its bounds is longer than what was inherited.
//! 2. A model that was not kept is refused with the inequality that failed, and is not tried again:
//!    admission, which takes the jitters of the others as given, could accept it.
//! 3. Without triggered chains there is nothing to plan: all terms are as stated.

use std::collections::BTreeMap;

use aegis_sched::admission::{AdmissionError, Proposal, Terms};
use aegis_sched::analysis::Setting;
use aegis_sched::analysis::chain::Chain;
use aegis_sched::analysis::inherit::{InheritError, with_inherited_jitter};
use aegis_sched::policy::PolicyKind;
use aegis_sched::task::{Background, TaskError, TaskSet};
use aegis_trace::{ModelId, Nanos, Refusal, ServiceTerms};

use crate::wording;
use crate::workload::{ChainKind, Workload};

/// What is done about one model.
#[derive(Debug)]
pub(super) enum Planned {
    /// It asks for admission on these terms.
    Ask(Terms),
    /// It is refused already.
    Refuse(Box<Unkept>),
}

/// A model that is not kept.
#[derive(Debug)]
pub(super) struct Unkept {
    /// The inequality.
    pub(super) why: Refusal,
    /// The same with the names of the models.
    pub(super) explained: String,
    /// The id by which the inequality knows it.
    pub(super) id: ModelId,
    /// The models that were kept before it, by id, and itself.
    pub(super) names: BTreeMap<ModelId, String>,
}

/// Plans the admission of all models on `terms`, which are in file order.
pub(super) fn plan(workload: &Workload, terms: Vec<Terms>, has_triggers: bool) -> Vec<Planned> {
    if !has_triggers {
        return terms.into_iter().map(Planned::Ask).collect();
    }
    // Partitions do not know of each other, and no chain is in two of them.
    let mut of_partition: BTreeMap<usize, Kept<'_>> = BTreeMap::new();
    let partition = |place: usize| workload.models[place].partition.unwrap_or(0);
    let try_next = |place: usize| {
        let index = partition(place);
        let kept = of_partition.entry(index).or_insert_with(|| Kept::new(workload, &terms, index));
        kept.try_next(place)
    };
    let refused: Vec<_> = (0..terms.len()).map(try_next).collect();
    let jitter = |place: usize| of_partition.get(&partition(place))?.jitter(place);
    let jitters: Vec<Option<Nanos>> = (0..terms.len()).map(jitter).collect();
    let decided = terms.into_iter().zip(jitters).zip(refused);
    decided
        .map(|((terms, jitter), refused)| {
            refused.unwrap_or(Planned::Ask(inheriting(terms, jitter)))
        })
        .collect()
}

/// The terms with another jitter, if one is inherited.
fn inheriting(mut terms: Terms, inherited: Option<Nanos>) -> Terms {
    if let (ServiceTerms::Guaranteed { jitter, .. }, Some(inherited)) =
        (&mut terms.service, inherited)
    {
        *jitter = inherited;
    }
    terms
}

/// The models of one partition that were kept so far.
struct Kept<'a> {
    workload: &'a Workload,
    terms: &'a [Terms],
    policy: PolicyKind,
    /// The lowest index of an id in this partition.
    first_model: u16,
    /// Which they are. Admission gives ids in this order, and so does the plan.
    places: Vec<usize>,
    /// Their tasks, with inherited jitters.
    set: TaskSet,
}

impl<'a> Kept<'a> {
    /// None yet, of the partition at `place`; of the whole device, if it is not split.
    fn new(workload: &'a Workload, terms: &'a [Terms], place: usize) -> Self {
        let own = workload.partitions.get(place).and_then(|of| of.policy);
        let policy = own.unwrap_or(workload.scheduler.policy);
        let first = place * workload.models.len();
        let first_model = u16::try_from(first).expect("few partitions of a few hundred models");
        Self { workload, terms, policy, first_model, places: Vec::new(), set: TaskSet::default() }
    }

    /// The ids that admission gives here, in order.
    fn ids(&self) -> impl Iterator<Item = ModelId> {
        (self.first_model..).map(ModelId::first)
    }

    /// Keeps the next model of the file, or says why not.
    fn try_next(&mut self, place: usize) -> Option<Planned> {
        self.places.push(place);
        match self.with_jitters() {
            Ok(set) => {
                self.set = set;
                None
            }
            Err(NotKept::Invalid) => {
                self.places.pop();
                None
            }
            Err(NotKept::Refused(why)) => {
                let explained = wording::explain(&why, |model| self.name(model), &[]);
                let ids = self.ids().zip(&self.places);
                let names: BTreeMap<_, _> = ids.map(|(id, _)| (id, self.name(id))).collect();
                let id = *names.keys().next_back().expect("the model itself is among them");
                self.places.pop();
                Some(Planned::Refuse(Box::new(Unkept { why, explained, id, names })))
            }
        }
    }

    /// The tasks of all kept models, the last of which is new.
    fn with_jitters(&self) -> Result<TaskSet, NotKept> {
        let overheads = self.workload.overheads;
        let mut tasks = Vec::with_capacity(self.places.len());
        let mut background = Background::default();
        for (model, place) in self.ids().zip(&self.places) {
            let terms = &self.terms[*place];
            let Proposal { task, piece } = terms.proposed(model, &overheads)?;
            tasks.extend(task);
            if piece > background.longest {
                background = Background { longest: piece, of: Some(model) };
            }
        }
        let set = TaskSet::new(tasks)?.with_background(background);
        let setting = Setting::admission(self.policy, overheads);
        Ok(with_inherited_jitter(&set, &self.chains(), &setting)?)
    }

    /// The triggered chains, as far as their members are kept.
    fn chains(&self) -> Vec<Chain> {
        let triggered = self.workload.chains.iter().filter(|c| c.kind == ChainKind::Triggered);
        let members =
            triggered.map(|chain| chain.models.iter().filter_map(|place| self.id(*place)));
        let chains = members.map(Iterator::collect).filter(|members: &Vec<_>| !members.is_empty());
        chains.map(|members| Chain::new(members).expect("a workload names a member once")).collect()
    }

    /// The jitter of a kept model in the set of all of them.
    fn jitter(&self, place: usize) -> Option<Nanos> {
        let task = self.set.get(self.id(place)?)?;
        (!task.is_server()).then(|| task.jitter())
    }

    fn id(&self, place: usize) -> Option<ModelId> {
        let at = self.places.iter().position(|kept| *kept == place)?;
        self.ids().nth(at)
    }

    fn name(&self, model: ModelId) -> String {
        let place = self.places.get(usize::from(model.index - self.first_model));
        place.map_or_else(|| model.to_string(), |p| self.workload.models[*p].name.clone())
    }
}

/// Why a model is not kept.
enum NotKept {
    /// Its terms make no sense, or no analysis is needed to refuse it: admission will say so.
    Invalid,
    Refused(Refusal),
}

impl From<AdmissionError> for NotKept {
    fn from(_: AdmissionError) -> Self {
        Self::Invalid
    }
}

impl From<TaskError> for NotKept {
    fn from(_: TaskError) -> Self {
        Self::Invalid
    }
}

impl From<InheritError> for NotKept {
    fn from(error: InheritError) -> Self {
        match error {
            InheritError::Refused(why) => Self::Refused(why),
            other => unreachable!("the chains of a workload fit its models: {other}"),
        }
    }
}
