//! Jobs in a bare loop: the work of a job without the dispatcher, to see what the dispatcher adds.
//!
//! The same slot, graph, stream and events as a job's, and one run right after the other on the calling
//! thread, each with its inputs written anew, as a job's are before it is submitted: a copy from memory
//! that the processor has just written takes longer. What a job takes beyond such a run is what taking it,
//! choosing it and answering for it cost.
//!
//! # Invariants
//! 1. Nothing is recorded, counted or charged: a bare run is no job.

use aegis_context::ContextError;
use aegis_trace::{Clock, ModelId, Nanos, StageIndex};

use super::{Dispatcher, lane_of};

impl Dispatcher {
    /// Runs `model` with `inputs`, in the order of its description, `runs` times in a bare loop; how long
    /// each took, from before its first stage is launched until the end of its last is noticed. `None`
    /// where there is no such model, or none of its slots is free. For a dispatcher that nobody steps
    /// yet, on a device whose time is real. Blocks for all of it.
    ///
    /// # Errors
    /// How a run failed; the others were not run.
    ///
    /// # Panics
    /// When an input is not of the size that the model describes.
    pub fn bare_runs(
        &mut self,
        model: ModelId,
        inputs: &[&[u8]],
        runs: usize,
        clock: &dyn Clock,
    ) -> Result<Option<Vec<Nanos>>, ContextError> {
        let streams = &self.streams;
        let Some(lane) = lane_of(&mut self.lanes, model) else { return Ok(None) };
        let stages = (0..).map(StageIndex).take(lane.costs.len());
        let mut times = Vec::with_capacity(runs);
        for _ in 0..runs {
            let Some(slot) = lane.context.slots().claim() else { return Ok(None) };
            inputs.iter().enumerate().for_each(|(index, input)| slot.write_input(index, input));
            slot.queue();
            let began = clock.now();
            for stage in stages.clone() {
                lane.context.launch(stage, &slot, streams.lease()?)?.wait()?;
                lane.context.stage_done();
            }
            times.push(clock.now().saturating_since(began));
            slot.unqueue();
            slot.release();
        }
        Ok(Some(times))
    }
}
