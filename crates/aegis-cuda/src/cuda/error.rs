//! Codes of the CUDA driver, and what each leaves to be done.
//!
//! The driver answers with a number. Ours are plain `u32`, not the enum of a binding: a newer driver
//! may answer with a number that no enum of today knows, and holding that in an enum would be
//! undefined behaviour.
//!
//! # Invariants
//! 1. A code that [`is_sticky`] ends the context: each later call fails with the same code, so the
//!    device is lost for this process.

use aegis_trace::Category;

/// Success.
pub(crate) const SUCCESS: u32 = 0;
/// The device has no memory left.
pub(crate) const OUT_OF_MEMORY: u32 = 2;
/// The work asked about is not done.
pub(crate) const NOT_READY: u32 = 600;
/// A captured graph differs from the executable one in more than its parameters.
pub(crate) const GRAPH_EXEC_UPDATE_FAILURE: u32 = 910;
/// `CUDA_ERROR_INVALID_RESOURCE_CONFIGURATION`.
pub(crate) const INVALID_RESOURCE_CONFIGURATION: u32 = 915;

/// Whether `code` leaves the context unusable for good.
///
/// The driver's manual says of each of these that "the process must be terminated and relaunched",
/// or that the context "cannot be used".
pub(crate) fn is_sticky(code: u32) -> bool {
    matches!(
        code,
        4           // DEINITIALIZED
            | 46    // DEVICE_UNAVAILABLE
            | 214   // ECC_UNCORRECTABLE
            | 220   // NVLINK_UNCORRECTABLE
            | 226   // CONTAINED: memory of this process was poisoned
            | 700   // ILLEGAL_ADDRESS
            | 702   // LAUNCH_TIMEOUT
            | 709   // CONTEXT_IS_DESTROYED
            | 710   // ASSERT
            | 714   // HARDWARE_STACK_ERROR
            | 715   // ILLEGAL_INSTRUCTION
            | 716   // MISALIGNED_ADDRESS
            | 717   // INVALID_ADDRESS_SPACE
            | 718   // INVALID_PC
            | 719   // LAUNCH_FAILED
            | 721   // TENSOR_MEMORY_LEAK
            | 810   // MPS_CLIENT_TERMINATED: the server ended this client with another's fault
            | 999 // UNKNOWN: nothing can be relied on any more
    )
}

/// What the caller can do about `code`.
pub(crate) fn category(code: u32) -> Category {
    match code {
        NOT_READY => Category::Transient,
        code if is_sticky(code) => Category::Fatal,
        _ => Category::Permanent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_the_context_is_fatal_and_nothing_else_is() {
        assert_eq!(category(700), Category::Fatal);
        assert_eq!(category(719), Category::Fatal);
        assert_eq!(category(810), Category::Fatal);
        assert_eq!(category(OUT_OF_MEMORY), Category::Permanent);
        assert_eq!(category(NOT_READY), Category::Transient);
        assert_eq!(category(GRAPH_EXEC_UPDATE_FAILURE), Category::Permanent);
        assert_eq!(category(123_456), Category::Permanent, "a code of tomorrow");
    }
}
