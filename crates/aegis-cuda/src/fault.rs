//! How a piece of work fails, and how the failure waits for the event that reports it.

use aegis_trace::{Bytes, Category, StreamId};

use crate::error::DeviceError;

/// The error a piece of work ended with.
///
/// A fault of category [`Category::Fatal`] takes the device with it: see
/// [`DeviceError::DeviceLost`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct WorkFault {
    /// What the owner of the work can do.
    pub category: Category,
    /// What happened, lowercase and without a final stop.
    pub message: Box<str>,
    /// The allocation that was refused, if that is what happened.
    pub refused: Option<RefusedAllocation>,
}

/// Memory that work asked for beyond what is bound to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedAllocation {
    /// What it asked for.
    pub requested: Bytes,
    /// What was left.
    pub available: Bytes,
}

impl WorkFault {
    /// A fault of `category` described by `message`. Allocates for the text.
    #[must_use]
    pub fn new(category: Category, message: impl Into<Box<str>>) -> Self {
        Self { category, message: message.into(), refused: None }
    }

    /// A permanent fault: an allocation was refused. Allocates for the text.
    #[must_use]
    pub fn out_of_memory(refused: RefusedAllocation, message: impl Into<Box<str>>) -> Self {
        Self { refused: Some(refused), ..Self::new(Category::Permanent, message) }
    }
}

/// The faults on one stream that no event has reported yet: the first, and a count of the others.
#[derive(Debug, Default)]
pub(crate) struct Unreported {
    first: Option<WorkFault>,
    further: u32,
}

impl Unreported {
    /// Remembers `fault`, unless an earlier one already stands for the failure.
    pub(crate) fn note(&mut self, fault: WorkFault) {
        match self.first {
            None => self.first = Some(fault),
            Some(_) => self.further = self.further.saturating_add(1),
        }
    }

    /// Hands the faults over to the event or call that reports them.
    pub(crate) fn take(&mut self, stream: StreamId) -> Option<Failure> {
        let further = std::mem::take(&mut self.further);
        self.first.take().map(|cause| Failure { stream, further, cause })
    }
}

/// What an event reports instead of a completion.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    stream: StreamId,
    further: u32,
    cause: WorkFault,
}

/// What an event reports whose recording the driver refused.
pub(crate) fn refused(stream: StreamId, error: &DeviceError) -> Option<Failure> {
    let cause = WorkFault::new(error.category(), error.to_string());
    Some(Failure { stream, further: 0, cause })
}

impl From<Failure> for DeviceError {
    fn from(failure: Failure) -> Self {
        let Failure { stream, further, cause } = failure;
        Self::Work { stream, further, cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_fault_stands_for_all_and_the_others_are_counted() {
        let mut faults = Unreported::default();
        for text in ["first", "second", "third"] {
            faults.note(WorkFault::new(Category::Permanent, text));
        }
        let failure = faults.take(StreamId::first(0)).expect("three faults were noted");
        assert_eq!((&*failure.cause.message, failure.further), ("first", 2));
        assert!(faults.take(StreamId::first(0)).is_none());
    }
}
