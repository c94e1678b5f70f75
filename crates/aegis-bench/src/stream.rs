//! A CUDA stream with a priority, for a session that is not ours.
//!
//! The one unsafe call of this program: a runtime takes a caller's stream as an address.
#![allow(unsafe_code, reason = "the runtime takes a stream as an address")]

use std::sync::Arc;

use anyhow::Context as _;
use cudarc::driver::CudaContext;
use cudarc::driver::result::stream::{self, StreamKind};
use cudarc::driver::sys::CUstream;
use ort::ep::CUDA;

/// A stream on the first GPU. It is never destroyed: the process that measures ends soon, and a
/// session's threads may look at the stream until then.
pub(crate) struct PriorityStream {
    handle: CUstream,
    /// The stream lives in this context.
    _context: Arc<CudaContext>,
}

impl PriorityStream {
    /// A stream of priority `rank`, from 0 for the lowest that the device has to 1000 for the
    /// highest. A device has few: ranks near each other share one.
    ///
    /// # Errors
    /// There is no driver or no GPU, or it has no more streams.
    pub(crate) fn new(rank: u16) -> anyhow::Result<Self> {
        let context = CudaContext::new(0).context("the first GPU cannot be used")?;
        let (least, greatest) = stream::get_priority_range()?;
        let priority = priority(i64::from(least), i64::from(greatest), rank);
        let kind = StreamKind::NonBlocking;
        let handle = stream::create_with_priority(kind, i32::try_from(priority)?)?;
        Ok(Self { handle, _context: context })
    }

    /// `provider` with this stream as the one it works on.
    pub(crate) fn give_to(&self, provider: CUDA) -> CUDA {
        // SAFETY: 1. The address is that of a live stream of the primary context of device 0, which is
        // the device of the provider (this file and `session.rs`).
        // 2. The stream is never destroyed, so it outlives every session that uses it.
        unsafe { provider.with_compute_stream(self.handle.cast()) }
    }
}

/// Between the `least` urgent number and the `greatest`, which is the smaller one.
fn priority(least: i64, greatest: i64, rank: u16) -> i64 {
    least - (least - greatest) * i64::from(rank.min(1000)) / 1000
}

#[cfg(test)]
mod tests {
    use super::priority;

    #[test]
    fn ranks_spread_over_the_priorities_of_the_device() {
        let of = |rank| priority(0, -5, rank);
        assert_eq!([of(0), of(500), of(1000), of(2000)], [0, -2, -5, -5]);
    }
}
