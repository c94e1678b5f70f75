//! The work of a job without the runtime around it, to see what the runtime adds.

use aegis_sched::dispatch::orchestrator::Pace;
use aegis_trace::{Nanos, SubmitRefusal};

use super::{Phase, Runtime, lock};
use crate::error::Error;
use crate::handle::ModelHandle;
use crate::tensor::{self, Tensor};

impl Runtime {
    /// Runs an admitted model `runs` times in a bare loop before the start: the graph of its jobs, with
    /// the copies of a job, on the stream of its jobs, launched and waited for by the calling thread with
    /// nothing in between. Gives how long each took, from before the launch until the end was noticed.
    /// Blocks for all of it.
    ///
    /// # Errors
    /// [`Error::AlreadyStarted`] once started, [`Error::VirtualTime`] where time is simulated,
    /// [`Error::Input`] when the inputs do not fit the model, [`Error::Submission`] when the model is
    /// gone or submitted jobs hold all of its slots, [`Error::WarmUp`] when a run failed.
    pub fn bare_runs(
        &self,
        model: &ModelHandle,
        inputs: &[Tensor],
        runs: usize,
    ) -> Result<Vec<Nanos>, Error> {
        let ordered = tensor::in_order(model.description(), inputs)?;
        let inputs: Vec<&[u8]> = ordered.into_iter().map(Tensor::as_bytes).collect();
        let mut phase = lock(&self.phase);
        let Phase::Built(dispatchers) = &mut *phase else { return Err(Error::AlreadyStarted) };
        for (dispatcher, partition) in dispatchers.iter_mut().zip(&self.partitions) {
            if matches!(partition.pace, Pace::Virtual) {
                return Err(Error::VirtualTime);
            }
            let times = dispatcher.bare_runs(model.id(), &inputs, runs, &*partition.clock);
            let failed =
                |cause| Error::WarmUp { model: model.name().to_owned(), cause: Box::new(cause) };
            if let Some(times) = times.map_err(failed)? {
                return Ok(times);
            }
        }
        Err(Error::Submission { why: SubmitRefusal::NoSlot })
    }
}

#[cfg(test)]
mod tests {
    use aegis_context::{ModelDescription, SimModel};
    use aegis_sched::admission::Terms;
    use aegis_sched::policy::PolicyKind;
    use aegis_sched::task::Overheads;
    use aegis_trace::{Bytes, EventKind};

    use super::*;
    use crate::source::ModelSource;

    const COST: Nanos = Nanos::from_micros(200);

    /// A runtime with one declared model of two stages.
    fn admitted(host: bool) -> (Runtime, ModelHandle) {
        let builder = Runtime::builder().streams(1).policy(PolicyKind::Edf).queue_depth(8);
        let builder = builder.max_models(4).overheads(Overheads::default()).trace_capacity(256);
        let memory = Bytes::from_mib(8);
        let builder = if host { builder.host(memory) } else { builder.sim(memory) };
        let runtime = builder.build().expect("a device");
        let description = ModelDescription { inputs: vec![], outputs: vec![], stages: 2 };
        let (persistent, scratch, carried) = (Bytes(64), Bytes(64), Bytes::ZERO);
        let model = SimModel { description, persistent, scratch, carried };
        let source = ModelSource::Sim { model, costs: vec![COST; 2] };
        let loaded = runtime.load("a", &source).expect("it is declared");
        let costs = vec![COST; 2];
        let terms = Terms::periodic(COST, Nanos::from_secs(1), Bytes::from_mib(1));
        let handle = runtime.admit(loaded, &Terms { costs, ..terms }).expect("there is room");
        (runtime, handle)
    }

    #[test]
    fn bare_runs_take_the_work_of_a_job_and_are_none() {
        let (runtime, model) = admitted(true);
        let times = runtime.bare_runs(&model, &[], 5).expect("nothing fails");
        assert_eq!(times.len(), 5);
        assert!(times.iter().all(|time| *time >= COST + COST), "{times:?}");
        runtime.start().expect("the first start");
        let again = runtime.bare_runs(&model, &[], 1).expect_err("it runs");
        assert!(matches!(again, Error::AlreadyStarted), "{again}");
        let job = model.submit(&[]).expect("its slot is free again");
        job.wait().expect("it runs as ever");
        runtime.stop().expect("nothing hangs");
        let begun = runtime.take_trace();
        let begun = begun.iter().filter(|record| record.event.kind() == EventKind::Submitted);
        assert_eq!(begun.count(), 1, "only the job is in the trace");
    }

    #[test]
    fn bare_runs_need_time_that_passes_and_a_free_slot() {
        let (runtime, model) = admitted(false);
        let refused = runtime.bare_runs(&model, &[], 1).expect_err("time is simulated");
        assert!(matches!(refused, Error::VirtualTime), "{refused}");
        let (runtime, model) = admitted(true);
        let jobs: Vec<_> = (0..64).map_while(|_| model.submit(&[]).ok()).collect();
        assert!(!jobs.is_empty());
        let refused = runtime.bare_runs(&model, &[], 1).expect_err("every slot is taken");
        assert!(matches!(refused, Error::Submission { .. }), "{refused}");
    }
}
