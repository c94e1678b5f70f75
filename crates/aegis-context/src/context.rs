//! The execution context: one model, its backend, its budget, its state.
//!
//! ```text
//!             launch              stage_done
//!   Ready ------------> Running ------------> Ready
//!     |                    |
//!     |      fault         |  fault
//!     +-----> Faulted <----+
//!     |          |
//!     +--> Evicted <--+        (evict; never from Running)
//! ```
//! | from    | launch  | stage_done | fault   | evict   |
//! |---------|---------|------------|---------|---------|
//! | Ready   | Running | -          | Faulted | Evicted |
//! | Running | -       | Ready      | Faulted | -       |
//! | Faulted | refused | -          | Faulted | Evicted |
//! | Evicted | refused | -          | -       | -       |
//!
//! `-` marks a transition that would be a defect of the orchestrator; it panics.
//!
//! A second stage of the same job may wait on the device behind the running one
//! ([`ExecutionContext::launch_behind`]): `stage_done` then leads from Running to Running.

use std::sync::Arc;

use aegis_trace::{ModelId, StageIndex};

use crate::backend::{RuntimeBackend, UploadsAhead};
use crate::budget::{Charge, ComputeAccount, ResourceBudget};
use crate::error::{BackendError, ContextError};
use crate::slot::{JobSlot, SlotPool};
use crate::streams::{BusyStream, IdleStream};

/// Where a context stands; see the module's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContextState {
    /// Nothing of it is on the device.
    Ready,
    /// A stage is on the device.
    Running {
        /// Which.
        stage: StageIndex,
    },
    /// It failed; its memory stays reserved until eviction.
    Faulted,
    /// It is gone.
    Evicted,
}

impl ContextState {
    fn name(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Running { .. } => "running",
            Self::Faulted => "faulted",
            Self::Evicted => "evicted",
        }
    }
}

/// One admitted model: everything it owns, and the only way to launch it.
pub struct ExecutionContext {
    model: ModelId,
    budget: ResourceBudget,
    backend: Box<dyn RuntimeBackend>,
    slots: SlotPool,
    state: ContextState,
    /// The stage on the device behind the running one, if it is of the same job.
    behind: Option<StageIndex>,
    account: ComputeAccount,
    last_error: Option<Arc<str>>,
    // Refunds the model's memory when the context goes.
    _charge: Charge,
}

impl std::fmt::Debug for ExecutionContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecutionContext")
            .field("model", &self.model)
            .field("state", &self.state)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}

impl ExecutionContext {
    /// A ready context around a bound backend.
    pub fn new(
        model: ModelId,
        budget: ResourceBudget,
        backend: Box<dyn RuntimeBackend>,
        slots: SlotPool,
        charge: Charge,
    ) -> Self {
        Self {
            model,
            budget,
            backend,
            slots,
            state: ContextState::Ready,
            behind: None,
            account: ComputeAccount::new(budget.compute),
            last_error: None,
            _charge: charge,
        }
    }

    /// Whose context it is.
    #[must_use]
    pub fn model(&self) -> ModelId {
        self.model
    }

    /// Its budget.
    #[must_use]
    pub fn budget(&self) -> &ResourceBudget {
        &self.budget
    }

    /// Its backend.
    #[must_use]
    pub fn backend(&self) -> &dyn RuntimeBackend {
        &*self.backend
    }

    /// Its job slots.
    #[must_use]
    pub fn slots(&self) -> &SlotPool {
        &self.slots
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> ContextState {
        self.state
    }

    /// Its compute time.
    pub fn account(&mut self) -> &mut ComputeAccount {
        &mut self.account
    }

    /// What it last failed with.
    #[must_use]
    pub fn last_error(&self) -> Option<&Arc<str>> {
        self.last_error.as_ref()
    }

    /// Launches one stage on a leased stream. Does not wait and does not allocate.
    ///
    /// # Errors
    /// [`ContextError::NotReady`] unless the context is Ready; else what the backend says, and
    /// then the context stays Ready and the caller decides to [`fault`](Self::fault) it.
    ///
    /// # Panics
    /// When the slot is not queued.
    pub fn launch(
        &mut self,
        stage: StageIndex,
        slot: &Arc<JobSlot>,
        stream: IdleStream,
    ) -> Result<BusyStream, ContextError> {
        if self.state != ContextState::Ready {
            let state = self.state.name();
            return Err(ContextError::NotReady { model: self.model, state });
        }
        let backend = &mut self.backend;
        let busy = stream.launch_job(slot, |stream| backend.enqueue(stage, slot, stream))?;
        self.state = ContextState::Running { stage };
        Ok(busy)
    }

    /// Launches one stage behind the one on `busy`, which is of another model or of the same job. Does
    /// not wait and does not allocate. The inputs of a first stage go ahead of it, on a stream of their
    /// own, where both the streams and the backend can do that.
    ///
    /// # Errors
    /// As [`launch`](Self::launch); a running context takes the next stage of its job, and no more.
    ///
    /// # Panics
    /// As [`launch`](Self::launch).
    pub fn launch_behind(
        &mut self,
        stage: StageIndex,
        slot: &Arc<JobSlot>,
        busy: &BusyStream,
    ) -> Result<BusyStream, ContextError> {
        let follows = match self.state {
            ContextState::Ready => false,
            ContextState::Running { stage: before } if self.behind.is_none() => {
                assert_eq!(stage.0, before.0 + 1, "a stage of another job of {}", self.model);
                true
            }
            ContextState::Running { .. } | ContextState::Faulted | ContextState::Evicted => {
                let state = self.state.name();
                return Err(ContextError::NotReady { model: self.model, state });
            }
        };
        let ahead = if stage.0 == 0 && busy.can_upload_ahead() {
            self.backend.uploads_ahead()
        } else {
            None
        };
        let behind = match ahead {
            Some(backend) => launch_uploaded_behind(backend, slot, busy)?,
            None => busy.launch_job_behind(slot, |stream| {
                self.backend.enqueue(stage, slot, stream).map_err(ContextError::from)
            })?,
        };
        if follows {
            self.behind = Some(stage);
        } else {
            self.state = ContextState::Running { stage };
        }
        Ok(behind)
    }

    /// The stage on the device ended well.
    ///
    /// # Panics
    /// Unless the context is Running.
    pub fn stage_done(&mut self) {
        assert!(
            matches!(self.state, ContextState::Running { .. }),
            "a stage of {} ended while {}",
            self.model,
            self.state.name()
        );
        self.state = match self.behind.take() {
            Some(stage) => ContextState::Running { stage },
            None => ContextState::Ready,
        };
    }

    /// Fences the model: nothing more is launched. The reason is kept.
    ///
    /// # Panics
    /// When the context is evicted.
    pub fn fault(&mut self, reason: Arc<str>) {
        assert_ne!(self.state, ContextState::Evicted, "{} is evicted", self.model);
        self.state = ContextState::Faulted;
        self.last_error = Some(reason);
    }

    /// Ends the model and gives everything back: the backend with its binding, then the charge.
    ///
    /// # Panics
    /// While a stage is on the device.
    pub fn evict(mut self) {
        assert!(
            !matches!(self.state, ContextState::Running { .. }),
            "{} has a stage on the device",
            self.model
        );
        self.state = ContextState::Evicted;
    }
}

/// Puts the inputs of the job in `slot` on their way, and its first stage behind the one on `busy`.
fn launch_uploaded_behind(
    backend: &mut dyn UploadsAhead,
    slot: &Arc<JobSlot>,
    busy: &BusyStream,
) -> Result<BusyStream, ContextError> {
    let failed = |error: BackendError| ContextError::from(error);
    let uploaded =
        busy.upload_behind(slot, |stream| backend.upload(slot, stream).map_err(failed))?;
    uploaded.launch(|stream| backend.enqueue_uploaded(slot, stream).map_err(failed))
}

/// The chain of causes of an error, outermost first, as one line.
#[must_use]
pub fn error_line(error: &dyn std::error::Error) -> Arc<str> {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    line.into()
}
