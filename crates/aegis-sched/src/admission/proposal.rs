//! What a model of some terms is to the analysis.
//!
//! Whoever plans an admission beforehand, or writes down why one was refused, must see exactly what
//! admission sees: hence one function for all of them.

use aegis_trace::{ModelId, Nanos, Refusal, ServiceTerms};

use super::{AdmissionError, Terms};
use crate::task::{Overheads, ServerSpec, Task, TaskError, TaskSpec};

/// A model, not yet analysed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// Its task; `None` in the background.
    pub task: Option<Task>,
    /// The longest piece of one in the background, without the overhead of one dispatch; else zero.
    pub piece: Nanos,
}

impl Terms {
    /// What `model` is to the analysis on these terms.
    ///
    /// # Errors
    /// Permanent: the timing makes no sense, or a piece exceeds the budget of its server.
    pub fn proposed(
        &self,
        model: ModelId,
        overheads: &Overheads,
    ) -> Result<Proposal, AdmissionError> {
        let (task, piece) = match self.service {
            ServiceTerms::Guaranteed { period, deadline, jitter, priority } => {
                let stages = self.costs.clone();
                let spec = TaskSpec { model, period, deadline, jitter, priority, stages };
                let task = Task::new(spec)?;
                let whole = !self.may_be_suspended;
                (Some(if whole { task.never_suspended() } else { task }), Nanos::ZERO)
            }
            ServiceTerms::Background => (None, self.longest_piece(model, overheads)?),
            ServiceTerms::Server { budget, period, priority } => {
                self.longest_piece(model, overheads)?; // For its checks.
                let chunk = match self.may_be_suspended {
                    true => overheads.longest(&self.costs),
                    false => overheads.total(&self.costs),
                };
                if chunk > budget {
                    let refusal = Refusal::ServerBudget { stage: chunk, budget };
                    return Err(AdmissionError::Refused(refusal));
                }
                let spec = ServerSpec { model, period, priority, budget, chunk };
                (Some(Task::server(spec)?), Nanos::ZERO)
            }
        };
        Ok(Proposal { task, piece })
    }

    /// The longest piece of a model of best effort that nobody preempts, without the overhead of one
    /// dispatch; checked as the stages of a task are.
    fn longest_piece(&self, model: ModelId, overheads: &Overheads) -> Result<Nanos, TaskError> {
        let (period, deadline) = (Task::LONGEST, Task::LONGEST);
        let (jitter, priority, stages) = (Nanos::ZERO, 0, self.costs.clone());
        let unhurried = TaskSpec { model, period, deadline, jitter, priority, stages };
        let task = Task::new(unhurried)?;
        if self.may_be_suspended {
            return Ok(task.longest_stage());
        }
        // Whatever its stages are charged together, less what the analysis charges to a piece.
        let piece = overheads.total(&self.costs).saturating_sub(overheads.most());
        Ok(piece.max(Nanos::EPSILON))
    }
}
