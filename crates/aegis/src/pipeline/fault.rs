//! A workload with a fault in one of its models.

use super::{Pipeline, Verdict};
use crate::error::Error;
use crate::inject::{FaultSwitch, InjectedFault};
use crate::runtime::Runtime;
use crate::source::LoadedModel;

impl Pipeline {
    /// As [`Pipeline::admit`], with `fault` in the model called `victim`; the switch turns it on.
    ///
    /// # Errors
    /// As [`Pipeline::admit`] and [`Runtime::inject`]; [`Error::UnknownModel`] without a model of that
    /// name.
    pub fn admit_with_fault(
        &self,
        victim: &str,
        fault: InjectedFault,
    ) -> Result<(Runtime, Vec<Verdict>, FaultSwitch), Error> {
        let mut switch = None;
        let prepare = |runtime: &Runtime, loaded: LoadedModel| {
            if loaded.name() != victim {
                return Ok(loaded);
            }
            let (faulty, found) = runtime.inject(loaded, fault)?;
            switch = Some(found);
            Ok(faulty)
        };
        let (runtime, verdicts) = self.admit_prepared(|_| {}, prepare)?;
        let switch = switch.ok_or(Error::UnknownModel)?;
        Ok((runtime, verdicts, switch))
    }
}
