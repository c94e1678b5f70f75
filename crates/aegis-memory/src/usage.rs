//! How much memory is spoken for, in two numbers that must not be confused.

use aegis_trace::Bytes;

/// Device memory in use by one model or by all of them.
///
/// Resident memory of several models adds up; of their scratch the largest counts where they share
/// it, which is within a partition. That is why there is no sum of two usages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Usage {
    /// The bytes of weights, runtime state, inputs, outputs and carried tensors, without padding.
    pub resident: Bytes,
    /// The bytes from the lowest scratch address to the end of the range which no resident tensor
    /// owns. As scratch is stacked at the end, that is the largest scratch of any
    /// model, or of several partitions the sum of the largest of each.
    pub scratch: Bytes,
}

impl Usage {
    /// No memory.
    pub const NONE: Self = Self { resident: Bytes::ZERO, scratch: Bytes::ZERO };

    /// Both together: what is not available to others.
    ///
    /// # Panics
    /// When the sum exceeds 2^64 bytes, which no range holds.
    #[must_use]
    pub fn total(self) -> Bytes {
        self.resident + self.scratch
    }
}

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "resident {} + scratch {}", self.resident, self.scratch)
    }
}
