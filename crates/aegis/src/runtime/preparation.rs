//! When a model may be prepared: on a GPU, only while no job runs.
//!
//! A GPU's runtime measures a model in free memory, and at its admission runs it again in its place: in
//! scratch that the stages of other models use, and on the time that their jobs were promised. So both
//! halves are refused once jobs run, also for a model of which the first half was done before the
//! start. On the host and in virtual time nothing is run at admission, and a model comes at any time.

use aegis_trace::PartitionId;

use super::{Phase, Runtime};
use crate::error::Error;

impl Runtime {
    /// Whether models of `partition` are prepared on the device that jobs use.
    pub(super) fn prepares_beside_jobs(&self, partition: PartitionId) -> bool {
        self.partition(partition).preparation.is_some()
    }

    /// Refuses what would prepare `model` beside running jobs. The caller holds the phase, so that none
    /// begin meanwhile.
    pub(super) fn may_prepare(
        &self,
        model: &str,
        partition: PartitionId,
        phase: &Phase,
    ) -> Result<(), Error> {
        if self.prepares_beside_jobs(partition) && matches!(phase, Phase::Running(_)) {
            return Err(Error::PreparedWhileRunning { model: model.to_owned() });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use aegis_context::{ModelDescription, SimModel};
    use aegis_cuda::{DeviceContext, SimConfig};
    use aegis_sched::admission::Terms;
    use aegis_sched::policy::PolicyKind;
    use aegis_sched::task::Overheads;
    use aegis_trace::{Bytes, Category, Nanos};

    use super::*;
    use crate::source::{LoadedModel, ModelSource, Preparation};

    const COST: Nanos = Nanos::from_millis(1);

    /// A simulated device; with `on_gpu`, one that prepares models as a GPU does.
    fn runtime(on_gpu: bool) -> Runtime {
        let builder = Runtime::builder().streams(1).policy(PolicyKind::Edf).queue_depth(8);
        let builder = builder.max_models(4).overheads(Overheads::default()).trace_capacity(64);
        let mut runtime = builder.sim(Bytes::from_mib(64)).build().expect("a simulated device");
        if on_gpu {
            let config = SimConfig { memory_limit: Bytes(1), max_streams: 1, stream_depth: 1 };
            let device = DeviceContext::sim(config).expect("limits are stated");
            let stream = device.create_stream().expect("the first");
            let preparation = Preparation { ordinal: 0, stream: Arc::new(stream) };
            runtime.partitions[0].preparation = Some(preparation);
        }
        runtime
    }

    fn load(runtime: &Runtime, name: &str) -> Result<LoadedModel, Error> {
        let description = ModelDescription { inputs: vec![], outputs: vec![], stages: 1 };
        let (scratch, carried) = (Bytes::from_kib(4), Bytes::ZERO);
        let model = SimModel { description, persistent: Bytes::from_kib(4), scratch, carried };
        runtime.load(name, &ModelSource::Sim { model, costs: vec![COST] })
    }

    fn admit(runtime: &Runtime, model: LoadedModel) -> Result<(), Error> {
        let terms = Terms::periodic(COST, Nanos::from_millis(10), Bytes::from_mib(1));
        runtime.admit(model, &terms).map(drop)
    }

    #[test]
    fn a_model_loaded_before_the_start_is_not_admitted_after_it_on_a_gpu() {
        let runtime = runtime(true);
        let (early, late) = (load(&runtime, "early"), load(&runtime, "late"));
        admit(&runtime, early.expect("nothing runs")).expect("nothing runs");
        runtime.start().expect("the first start");
        for refused in [admit(&runtime, late.expect("loaded")), load(&runtime, "b").map(drop)] {
            let error = refused.expect_err("jobs run");
            assert!(matches!(error, Error::PreparedWhileRunning { .. }), "{error}");
            assert_eq!(error.category(), Category::Permanent);
        }
        assert_eq!(runtime.report().models.len(), 1, "nothing has changed");
        runtime.stop().expect("nothing hangs");
    }

    #[test]
    fn elsewhere_a_model_comes_at_any_time() {
        let runtime = runtime(false);
        let early = load(&runtime, "early").expect("loaded");
        runtime.start().expect("the first start");
        admit(&runtime, early).expect("there is room");
        let late = load(&runtime, "late").expect("loaded");
        admit(&runtime, late).expect("there is room");
        runtime.stop().expect("nothing hangs");
    }
}
