//! The kinds of events, to filter by.

use crate::event::TraceEvent;

/// The kind of an event, to filter by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each is the variant of TraceEvent of the same name")]
pub enum EventKind {
    Configured,
    Started,
    Admitted,
    BoundChanged,
    Refused,
    Evicting,
    Evicted,
    Freed,
    Stamped,
    Submitted,
    SubmissionRefused,
    Released,
    Dispatched,
    StageCompleted,
    UploadAwaited,
    StageFailed,
    LaunchFailed,
    Suspended,
    Completed,
    MissedDeadline,
    Dropped,
    Faulted,
    Fenced,
    AssumptionBroken,
    BoundExceeded,
    OutOfBudget,
    DebtIncurred,
    Postponed,
    GuaranteesRestored,
    Hanging,
    AllocationRefused,
    PressureChanged,
    EvidenceStale,
    Idle,
    Stopping,
    Stopped,
}

impl TraceEvent {
    /// Which kind of fact this is.
    #[must_use]
    pub fn kind(&self) -> EventKind {
        match self {
            Self::Configured { .. } => EventKind::Configured,
            Self::Started => EventKind::Started,
            Self::Admitted { .. } => EventKind::Admitted,
            Self::BoundChanged { .. } => EventKind::BoundChanged,
            Self::Refused { .. } => EventKind::Refused,
            Self::Evicting { .. } => EventKind::Evicting,
            Self::Evicted { .. } => EventKind::Evicted,
            Self::Freed { .. } => EventKind::Freed,
            Self::Stamped { .. } => EventKind::Stamped,
            Self::Submitted { .. } => EventKind::Submitted,
            Self::SubmissionRefused { .. } => EventKind::SubmissionRefused,
            Self::Released { .. } => EventKind::Released,
            Self::Dispatched { .. } => EventKind::Dispatched,
            Self::StageCompleted { .. } => EventKind::StageCompleted,
            Self::UploadAwaited { .. } => EventKind::UploadAwaited,
            Self::StageFailed { .. } => EventKind::StageFailed,
            Self::LaunchFailed { .. } => EventKind::LaunchFailed,
            Self::Suspended { .. } => EventKind::Suspended,
            Self::Completed { .. } => EventKind::Completed,
            Self::MissedDeadline { .. } => EventKind::MissedDeadline,
            Self::Dropped { .. } => EventKind::Dropped,
            Self::Faulted { .. } => EventKind::Faulted,
            Self::Fenced { .. } => EventKind::Fenced,
            Self::AssumptionBroken { .. } => EventKind::AssumptionBroken,
            Self::BoundExceeded { .. } => EventKind::BoundExceeded,
            Self::OutOfBudget { .. } => EventKind::OutOfBudget,
            Self::DebtIncurred { .. } => EventKind::DebtIncurred,
            Self::Postponed { .. } => EventKind::Postponed,
            Self::GuaranteesRestored { .. } => EventKind::GuaranteesRestored,
            Self::Hanging { .. } => EventKind::Hanging,
            Self::AllocationRefused { .. } => EventKind::AllocationRefused,
            Self::PressureChanged { .. } => EventKind::PressureChanged,
            Self::EvidenceStale { .. } => EventKind::EvidenceStale,
            Self::Idle => EventKind::Idle,
            Self::Stopping => EventKind::Stopping,
            Self::Stopped => EventKind::Stopped,
        }
    }
}
