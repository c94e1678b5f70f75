//! A job between its submission and its end, as far as a picture needs it.

use std::fmt::Write;

use crate::id::{JobId, StreamId};
use crate::unit::Timestamp;

/// What is remembered of a job while it is open.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) sequence: u64,
    pub(super) text: JobText,
    /// Its row among those of its model.
    pub(super) row: usize,
    /// Its arrow.
    pub(super) flow: u64,
    pub(super) deadline: Option<Timestamp>,
    pub(super) phase: Phase,
    /// The stream of the stage that runs or ran last.
    pub(super) stream: StreamId,
    /// A stage that was reported as hanging may end after its job did.
    pub(super) hangs: bool,
}

/// What a job does. The slice that shows it is open while it waits or runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// In a queue.
    Waiting,
    /// A stage is with the device.
    Running,
    /// Neither: between two stages, or before its end.
    Between,
    /// It has ended for its caller, while its stage still holds the device.
    Ended,
}

/// A job's id as text, without an allocation.
#[derive(Clone, Copy, Debug)]
pub(super) struct JobText {
    bytes: [u8; Self::LENGTH_MAX],
    length: usize,
}

impl JobText {
    /// `m65535g65535#18446744073709551615` has 33 bytes.
    const LENGTH_MAX: usize = 40;

    pub(super) fn of(job: JobId) -> Self {
        let mut text = Self { bytes: [0; Self::LENGTH_MAX], length: 0 };
        write!(text, "{job}").expect("the longest id fits");
        text
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).expect("ids are ASCII")
    }
}

impl Write for JobText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        self.bytes
            .get_mut(self.length..end)
            .ok_or(std::fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ModelId;

    #[test]
    fn the_longest_id_fits() {
        let model = ModelId { index: u16::MAX, generation: u16::MAX };
        let job = JobId { model, sequence: u64::MAX };
        assert_eq!(JobText::of(job).as_str(), job.to_string());
    }
}
