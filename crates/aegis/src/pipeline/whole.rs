//! A split workload beside the same one on the whole device: what splitting gains or loses.
//!
//! The costs of a model depend on where it runs, so the comparison needs evidence of both: that of the
//! split device lies in `NAME.evidence.json`, that of the whole one in `NAME.whole.evidence.json`.

use std::sync::OnceLock;

use crate::error::Error;
use crate::pipeline::{Pipeline, Verdict};
use crate::runtime::Runtime;
use crate::workload::{BestEffort, Model};
use aegis_sched::policy::PolicyKind;

impl Pipeline {
    /// The same workload on the whole device as one partition, under the policy of the file, with
    /// evidence of its own; `None` where it is not split.
    #[must_use]
    pub fn unsplit(&self) -> Option<Self> {
        if self.workload.partitions.is_empty() {
            return None;
        }
        let mut workload = self.workload.clone();
        workload.partitions.clear();
        workload.models.iter_mut().for_each(|model| model.partition = None);
        let evidence_path = workload.source.path.with_extension("whole.evidence.json");
        Some(Self { workload, evidence_path, facts: OnceLock::new() })
    }

    /// Decides about the whole device as one partition, as [`Pipeline::check`] does; `None` where it
    /// is not split.
    ///
    /// # Errors
    /// As [`Pipeline::check`]; [`Error::Unordered`] when the policy of the file goes by priorities, and
    /// a model of a partition of another policy states none.
    pub fn check_unsplit(&self) -> Option<Result<(Runtime, Vec<Verdict>), Error>> {
        let whole = self.unsplit()?;
        let mut models = whole.workload.models.iter();
        let unordered = models.find(|model| {
            whole.workload.policy_of(model) == PolicyKind::Priority && !states_priority(model)
        });
        Some(match unordered {
            Some(model) => Err(Error::Unordered { model: model.name.clone() }),
            None => whole.check(),
        })
    }
}

/// Whether a model that needs a priority under the policy of that name has one.
fn states_priority(model: &Model) -> bool {
    match model.best_effort {
        None => model.priority.is_some(),
        Some(BestEffort::Server(server)) => server.priority.is_some(),
        Some(BestEffort::Background) => true,
    }
}
