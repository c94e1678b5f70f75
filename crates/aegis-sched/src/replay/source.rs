//! Where a replay reads its records from.
//!
//! A replay goes through them several times, each time from the first to the last: once for who is
//! there, once for each executor's decisions. So it need not hold them.

use aegis_trace::{Record, Trace, TraceError};

/// One pass over records, in the order of their file.
pub type Pass<'r> = Box<dyn Iterator<Item = Result<Record, TraceError>> + 'r>;

/// Records that can be gone through more than once, and are the same each time. Of records that are not,
/// a replay says something wrong or fails; it does not panic.
pub trait Records {
    /// How many events were lost while recording.
    fn dropped(&self) -> u64;

    /// All of them, from the first.
    ///
    /// # Errors
    /// They cannot be read, now or at some record; nothing follows an error.
    fn pass(&self) -> Result<Pass<'_>, TraceError>;
}

impl Records for Trace {
    fn dropped(&self) -> u64 {
        self.dropped
    }

    fn pass(&self) -> Result<Pass<'_>, TraceError> {
        Ok(Box::new(self.records.iter().cloned().map(Ok)))
    }
}
