//! What it takes the processor to put a stage behind a running one, with its inputs ahead of it.
//!
//! A dispatcher does so while the stage in front runs, and that may end the moment after: then all of it
//! lies between that end and its notice. So where inputs go ahead the charge for a stage has to hold this
//! besides what its launch and its notice take, and the rounds that measure those put nothing behind
//! anything.
//!
//! # Invariants
//! 1. What is timed is the call that a dispatcher makes, `ExecutionContext::launch_behind`, on streams
//!    like its own: waits, recordings, copies and changes of nodes are all in it.
//! 2. A job is put where a dispatcher may put it: its first stage, behind the last of another model's job.
//!    A model that is never put behind another has no times, which is no lack of them.

use std::sync::Arc;

use aegis_context::{BusyStream, ContextError, StreamPool};
use aegis_trace::{Clock, Nanos, StageIndex};

use super::{Group, Measured, pause_after};
use crate::error::Error;

impl Group {
    /// Puts a job of each model behind one of the model before it, `rounds` times.
    pub(super) fn commits(&mut self, clock: &dyn Clock, rounds: usize) -> Result<(), Error> {
        let count = self.models.len();
        for model in self.models.iter_mut() {
            model.commits.get_or_insert_default();
        }
        if count < 2 {
            return Ok(());
        }
        for place in (0..rounds).flat_map(|_| 0..count) {
            self.commit([(place + count - 1) % count, place], clock)?;
        }
        Ok(())
    }

    /// One job of the second model behind one of the first, and a pause.
    fn commit(&mut self, places: [usize; 2], clock: &dyn Clock) -> Result<(), Error> {
        let [front, next] =
            self.models.get_disjoint_mut(places).expect("two different models of the group");
        if !next.context.backend().enqueues_behind() {
            return Ok(());
        }
        let (streams, began) = (&self.streams, clock.now());
        next.refill(); // As callers write it: before anything is decided.
        let running = front.run_to_last(streams).map_err(|cause| front.failed(cause))?;
        let (behind, took) = next.behind(&running, clock).map_err(|cause| next.failed(cause))?;
        front.end(running).map_err(|cause| front.failed(cause))?;
        next.end(behind)
            .and_then(|()| (1..next.stages).try_for_each(|stage| next.run_stage(stage, streams)))
            .map_err(|cause| next.failed(cause))?;
        next.commits.get_or_insert_default().push(took.max(Nanos::EPSILON));
        pause_after(clock.now().saturating_since(began).into());
        Ok(())
    }
}

impl Measured {
    fn failed(&self, cause: ContextError) -> Error {
        Error::Profile { model: self.name.clone(), cause: Box::new(cause) }
    }

    /// Runs a job up to its last stage, which is launched.
    fn run_to_last(&mut self, streams: &Arc<StreamPool>) -> Result<BusyStream, ContextError> {
        self.refill();
        let last = self.stages - 1;
        (0..last).try_for_each(|stage| self.run_stage(stage, streams))?;
        self.context.launch(index_of(last), &self.slot, streams.lease()?)
    }

    fn run_stage(&mut self, stage: usize, streams: &Arc<StreamPool>) -> Result<(), ContextError> {
        let busy = self.context.launch(index_of(stage), &self.slot, streams.lease()?)?;
        self.end(busy)
    }

    /// Puts the first stage of the job in the slot behind the running one; how long that took.
    fn behind(
        &mut self,
        running: &BusyStream,
        clock: &dyn Clock,
    ) -> Result<(BusyStream, Nanos), ContextError> {
        let began = clock.now();
        let behind = self.context.launch_behind(index_of(0), &self.slot, running)?;
        Ok((behind, clock.now().saturating_since(began)))
    }

    fn end(&mut self, busy: BusyStream) -> Result<(), ContextError> {
        busy.wait()?;
        self.context.stage_done();
        Ok(())
    }
}

fn index_of(stage: usize) -> StageIndex {
    StageIndex(u16::try_from(stage).expect("a model counts its stages in 16 bits"))
}

#[cfg(test)]
mod tests {
    use aegis_context::sim::SimModel;
    use aegis_context::{DType, ModelDescription, TensorSpec};
    use aegis_cuda::DeviceState;
    use aegis_sched::wcet::Scenario;
    use aegis_trace::Bytes;

    use super::super::{Bench, Block, ProfileOptions, Subject};
    use crate::builder::DeviceChoice;
    use crate::evidence::Evidence;
    use crate::profile;
    use crate::source::ModelSource;

    use super::*;

    /// Evidence of models with so many stages each, on a host that stands for a device with uploads ahead:
    /// the call that puts a stage behind another is the same, but for what goes on the other stream.
    fn measured(stages: &[u16], uploads_ahead: bool) -> Evidence {
        let x = TensorSpec { name: "x".into(), dtype: DType::F32, shape: vec![4] };
        let subject = |(index, stages): (usize, &u16)| {
            let (inputs, outputs) = (vec![x.clone()], vec![x.clone()]);
            let description = ModelDescription { inputs, outputs, stages: *stages };
            let (size, carried) = (Bytes(64), Bytes::ZERO);
            let model = SimModel { description, persistent: size, scratch: size, carried };
            let costs = vec![Nanos::from_micros(50); usize::from(*stages)];
            let source = ModelSource::Sim { model, costs };
            Subject { name: format!("m{index}"), source, partition: None }
        };
        let subjects: Vec<Subject> = stages.iter().enumerate().map(subject).collect();
        let options = ProfileOptions {
            device: DeviceChoice::Host,
            memory: Bytes::from_mib(64),
            partitions: Vec::new(),
            rounds: 3,
            spin: Nanos::ZERO,
            realtime: false,
            uploads_ahead: false,
        };
        let mut bench = Bench::new(&subjects, &options).expect("a host");
        bench.uploads_ahead = uploads_ahead;
        let block = Block { scenario: Scenario::Turns, rounds: 3, settle: 0 };
        let mut told = 0;
        bench.block(block, &mut || told += 1).expect("nothing fails");
        assert_eq!(told, 3, "rounds of commits are no rounds of their own");
        let environment = bench.environment();
        bench.evidence(&subjects, environment, DeviceState::default()).expect("evidence")
    }

    fn commits(evidence: &Evidence) -> Vec<Option<usize>> {
        let of = evidence.models.values().map(|model| model.commits.as_ref());
        of.map(|commits| Some(commits?.iter().filter(|took| **took > Nanos::ZERO).count()))
            .collect()
    }

    #[test]
    fn each_model_is_put_behind_another_once_a_round_and_runs_its_jobs_whole() {
        let evidence = measured(&[1, 3, 2], true);
        assert_eq!(commits(&evidence), [Some(3); 3]);
        // None of it is a sample.
        let samples = |name: &str| evidence.models[name].samples.stages()[0].len();
        assert_eq!(["m0", "m1", "m2"].map(samples), [3; 3]);
        assert!(evidence.models.values().all(|model| model.overheads.len() == 3));
    }

    #[test]
    fn a_model_that_is_alone_is_put_behind_nobody_which_is_no_lack_of_times() {
        assert_eq!(commits(&measured(&[2], true)), [Some(0)]);
    }

    #[test]
    fn what_a_charge_has_to_hold_is_what_the_slowest_model_takes() {
        let mut evidence = measured(&[1, 1, 1], false);
        let none: Vec<&str> = profile::without_commits(&evidence).collect();
        assert_eq!(none, ["m0", "m1", "m2"]);
        assert_eq!(profile::commit_overhead(&evidence), None);
        let mut say = |name: &str, took: Vec<u64>| {
            let model = evidence.models.get_mut(name).expect("profiled");
            model.commits = Some(took.into_iter().map(Nanos).collect());
        };
        say("m0", (1..=200).rev().collect());
        say("m1", vec![150; 3]);
        say("m2", Vec::new());
        let seen = profile::commit_overhead(&evidence).expect("of two");
        assert_eq!(seen.p50, Nanos(150), "of the second");
        assert_eq!((seen.p99, seen.max), (Nanos(199), Nanos(200)), "of the first");
        assert_eq!(profile::without_commits(&evidence).count(), 0);
    }

    #[test]
    fn where_inputs_do_not_go_ahead_nothing_is_said_of_it() {
        let evidence = measured(&[1, 1], false);
        assert_eq!(commits(&evidence), [None; 2]);
        let text = serde_json::to_string(&evidence).expect("plain data");
        assert!(!text.contains("commits"), "{text}");
        let read: Evidence = serde_json::from_str(&text).expect("as files of before are");
        assert_eq!(read, evidence);
    }
}
