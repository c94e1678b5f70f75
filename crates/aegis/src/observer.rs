//! Whoever watches a run through its trace, off the path of the jobs.
//!
//! The [pump](crate::TracePump) empties the rings and shows each record to its observers before it
//! forgets it. They run on the pump's thread: an observer that is slow makes the pump late and the
//! rings fuller, and never delays a decision. [`Names`] is what each of them needs first.
//!
//! # Invariants
//! 1. An observer sees every record that was not lost, once, in the order in which the pump took it:
//!    sorted by time within one emptying, and a model's admission before its jobs.
//! 2. Nothing here is known to the orchestration thread.

use std::collections::BTreeMap;

use aegis_trace::{JobId, ModelId, Record, TraceEvent};

/// Sees a run go by. Metrics, the live view and the log are made of it.
pub trait TraceObserver: Send {
    /// Takes note of one record. Called on the pump's thread, never on that of a job; should not
    /// block.
    fn observe(&mut self, record: &Record);

    /// The rings are empty for now; `dropped` events were lost to full ones since the beginning.
    fn emptied(&mut self, dropped: u64);
}

/// The names of models by their ids, learnt from admissions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    known: BTreeMap<ModelId, String>,
}

impl Names {
    /// Learns from an admission; any other event changes nothing.
    pub fn learn(&mut self, event: &TraceEvent) {
        if let TraceEvent::Admitted { model, what } = event {
            self.known.insert(*model, what.name.clone());
        }
    }

    /// The name of `model`, if it is known.
    #[must_use]
    pub fn known(&self, model: ModelId) -> Option<&str> {
        self.known.get(&model).map(String::as_str)
    }

    /// The name of `model`; its id while the name is not known.
    #[must_use]
    pub fn model(&self, model: ModelId) -> String {
        self.known(model).map_or_else(|| model.to_string(), str::to_owned)
    }

    /// `camera#17`: the model's name and the number of the job.
    #[must_use]
    pub fn job(&self, job: JobId) -> String {
        format!("{}#{}", self.model(job.model), job.sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_called_by_its_id_until_its_admission_was_seen() {
        let mut names = Names::default();
        let job = JobId { model: ModelId::first(3), sequence: 17 };
        assert_eq!(names.job(job), "m3#17");
        let admitted = r#"{"event":"admitted","model":"m3","what":{"name":"camera",
            "service":"background","may_be_suspended":true,"compute":0,"streams":1,"slots":2,"stages":[],
            "overhead":0,"bound":null,"persistent":0,"scratch":0}}"#;
        names.learn(&serde_json::from_str(admitted).expect("an event of the trace"));
        assert_eq!(names.job(job), "camera#17");
    }
}
