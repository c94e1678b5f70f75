//! How a run ended whose allocations were served from its model's scratch.

use aegis_cuda::RefusedAllocation;
use aegis_trace::Bytes;

use crate::error::BackendError;

/// How a run ended, for its scratch.
#[derive(Debug)]
pub struct Served<T> {
    /// What the run returned.
    pub result: T,
    /// The first request that did not fit; what was free then was perhaps not in one piece.
    pub refused: Option<RefusedAllocation>,
    /// The bytes of all blocks that the run neither gave back nor returned.
    pub kept: Bytes,
}

impl Served<Result<(), String>> {
    /// What became of the run, on the host or enqueued on a GPU: its own result, unless its scratch was
    /// too small or it kept some.
    ///
    /// # Errors
    /// [`BackendError::OutOfScratch`], whatever the runtime made of the refusal, or
    /// [`BackendError::Runtime`], both Permanent.
    pub fn accept(self) -> Result<(), BackendError> {
        let Self { result, refused, kept } = self;
        if let Some(RefusedAllocation { requested, available }) = refused {
            return Err(BackendError::OutOfScratch { requested, available });
        }
        result.map_err(BackendError::runtime)?;
        if kept > Bytes::ZERO {
            let reason = format!("it kept {kept} of scratch beyond its run");
            return Err(BackendError::runtime(reason));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(
        result: Result<(), &str>,
        refused: Option<RefusedAllocation>,
        kept: u64,
    ) -> Result<(), String> {
        let served = Served { result: result.map_err(str::to_owned), refused, kept: Bytes(kept) };
        served.accept().map_err(|error| error.to_string())
    }

    #[test]
    fn a_refusal_goes_before_what_the_runtime_made_of_it() {
        let refused = RefusedAllocation { requested: Bytes(100), available: Bytes(24) };
        let said = "the runtime asked for 100 B with 24 B of its scratch left";
        assert_eq!(accept(Err("terminated"), Some(refused), 8), Err(said.into()));
        assert_eq!(accept(Ok(()), Some(refused), 0), Err(said.into()));
    }

    #[test]
    fn a_run_that_keeps_scratch_failed() {
        assert_eq!(accept(Ok(()), None, 0), Ok(()));
        assert_eq!(accept(Err("no"), None, 8), Err("the runtime failed: no".into()));
        let said = "the runtime failed: it kept 8 B of scratch beyond its run";
        assert_eq!(accept(Ok(()), None, 8), Err(said.into()));
    }
}
