//! How far an admitted set is from the edge, and what would be admitted in place of what was not.

use aegis_sched::admission::AdmissionController;
use aegis_sched::analysis::Setting;
use aegis_sched::analysis::chain::Chain;
use aegis_sched::analysis::counter_offer::Offer;
use aegis_sched::analysis::inherit::with_inherited_jitter;
use aegis_sched::analysis::sensitivity::{
    TaskSensitivity, largest_background, largest_background_accepted, largest_scale_ppm,
    largest_scale_ppm_accepted, overrun_margin, task_sensitivities,
};
use aegis_sched::task::{Task, TaskSet, TaskSpec};
use aegis_trace::{ModelId, Nanos};
use serde::Serialize;

/// How far the whole set is from the edge, everything else as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Margins {
    /// The partition whose set it is, where the device is split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// All costs can be this many millionths of what they are, overheads unchanged.
    pub scale_ppm: u64,
    /// What stages may run beyond their costs inside one busy period, all together. `None` where
    /// models trigger one another: an overrun makes triggers late, which nothing is proved about.
    pub overrun: Option<Nanos>,
    /// The longest stage in the background that every model tolerates, without its overhead.
    pub background: Nanos,
}

impl Margins {
    /// `None` while nothing is admitted.
    pub(crate) fn of(admission: &AdmissionController) -> Option<Self> {
        let (set, setting) = (admission.tasks(), setting(admission));
        (!set.is_empty()).then_some(())?;
        Some(Self {
            partition: None,
            scale_ppm: largest_scale_ppm(set, &setting),
            overrun: Some(overrun_margin(set, &setting)?),
            background: largest_background(set, &setting)?,
        })
    }

    /// The same where the members of `chains` trigger one another, so that all jitters move with the
    /// costs. `declared` is the jitter of a member without what it inherits.
    pub(crate) fn of_chained(
        admission: &AdmissionController,
        chains: &[Chain],
        declared: impl Fn(ModelId) -> Option<Nanos>,
    ) -> Option<Self> {
        let (tasks, setting) = (admission.tasks(), setting(admission));
        let plain = |task: &Task| match declared(task.model()) {
            Some(jitter) => Task::new(TaskSpec { jitter, ..task.spec().clone() }).ok(),
            None => Some(task.clone()),
        };
        let plain: Option<Vec<Task>> = tasks.tasks().iter().map(plain).collect();
        let set = TaskSet::new(plain?).ok()?.with_background(tasks.background());
        let accepts = |set: &TaskSet| with_inherited_jitter(set, chains, &setting).is_ok();
        Some(Self {
            partition: None,
            scale_ppm: largest_scale_ppm_accepted(&set, accepts),
            overrun: None,
            background: largest_background_accepted(&set, accepts)?,
        })
    }
}

/// How far one admitted model is from the edge, everything else as it is. All `None` for a model under
/// a server: its jobs have no deadline, and the server's period and budget are what it is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelSensitivity {
    /// Its name.
    pub model: String,
    /// Deadline minus bound.
    pub slack: Option<Nanos>,
    /// The smallest period at which all deadlines are still met, its own deadline kept.
    pub smallest_period: Option<Nanos>,
    /// The smallest deadline of its own, its period kept.
    pub smallest_deadline: Option<Nanos>,
    /// The largest cost of a job, its stages growing alike, without overhead.
    pub largest_cost: Option<Nanos>,
    /// The longest stage of somebody else, overhead included, that it tolerates for itself.
    pub longest_foreign_stage: Option<Nanos>,
}

/// One for each task, in the order of admission, servers among them.
pub(crate) fn sensitivities(admission: &AdmissionController) -> Vec<ModelSensitivity> {
    let set = admission.tasks();
    let found = task_sensitivities(set, &setting(admission)).unwrap_or_default();
    let named = |task: TaskSensitivity| {
        let has_deadline = set.get(task.model).is_some_and(|of| !of.is_server());
        let figure = |figure: Nanos| has_deadline.then_some(figure);
        ModelSensitivity {
            model: admission.name_of(task.model),
            slack: figure(task.slack),
            smallest_period: figure(task.smallest_period),
            smallest_deadline: figure(task.smallest_deadline),
            largest_cost: figure(task.largest_cost),
            longest_foreign_stage: figure(task.longest_foreign_stage),
        }
    };
    found.into_iter().map(named).collect()
}

fn setting(admission: &AdmissionController) -> Setting {
    let config = admission.config();
    Setting::admission(config.policy, config.overheads)
}

/// A change with which a refused model would be admitted; tried before it is offered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CounterOffer {
    /// The change.
    #[serde(flatten)]
    pub offer: Offer,
    /// The name of the model that is cut or evicted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The same in words, with the names of the models: what follows "admitted if".
    pub explained: String,
}

impl CounterOffer {
    /// `kept_deadline` is that of the newcomer, if it stays where another period is offered.
    pub(crate) fn new(
        offer: Offer,
        kept_deadline: Option<Nanos>,
        name: impl Fn(ModelId) -> String,
    ) -> Self {
        let explained = match &offer {
            Offer::Period { period } => match kept_deadline {
                Some(deadline) => {
                    format!("its period is at least {period} (deadline kept at {})", deadline.cut())
                }
                None => format!("its period is at least {period} (and its deadline with it)"),
            },
            Offer::Deadline { deadline } => format!("its deadline is at least {deadline}"),
            Offer::Stages { model, stages } => {
                format!("{} runs in {stages} equal stages", name(*model))
            }
            Offer::Without { model } => format!("{} is not there", name(*model)),
            Offer::Priorities { priorities } => {
                let each = priorities.iter().map(|(model, of)| format!("{} {of}", name(*model)));
                format!("the priorities are {}", each.collect::<Vec<_>>().join(", "))
            }
            // `Offer` grows with the library; what is new there has no words here yet.
            other => format!("{other:?}"),
        };
        let named = match &offer {
            Offer::Stages { model, .. } | Offer::Without { model } => Some(name(*model)),
            _ => None,
        };
        Self { offer, name: named, explained }
    }
}
