//! Stages: chosen, put on the device, run, and gone.
//!
//! # Invariants
//! 1. The row of an executor shows one stage at a time, since an executor is serial. With look-ahead
//!    the stage that waits on the device is shown from the end of the one before it on; until then its
//!    job is shown as waiting, which it does.

use super::canvas::{Arg, Canvas, Flow, Mark, Name, Step};
use super::job::{JobText, Phase};
use super::model::Submission;
use super::partition::Behind;
use super::word::Word;
use super::{LAST, Timeline, remark};
use crate::error::TraceError;
use crate::event::{Reason, TraceEvent};
use crate::id::{JobId, StageIndex, StreamId};
use crate::unit::{Nanos, Timestamp};

/// When the device ran a stage, and where its copies end and begin; in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct OnDevice {
    started: Timestamp,
    uploaded: Timestamp,
    downloading: Timestamp,
    finished: Timestamp,
    /// How long its inputs took to arrive before it began.
    ahead: Nanos,
}

impl OnDevice {
    /// What `event` tells, where it tells of a stage that ran. Cuts what a damaged trace may say down to
    /// what can be drawn.
    pub(super) fn told_by(event: &TraceEvent) -> Option<Self> {
        let &TraceEvent::StageCompleted { started, finished, upload, download, ahead, .. } = event
        else {
            return None;
        };
        let [started, finished] = [started, finished].map(|point| point.min(LAST));
        let uploaded = started.saturating_add(upload).min(finished.max(started));
        let downloading = finished.saturating_sub(download).max(uploaded);
        Some(Self { started, uploaded, downloading, finished, ahead })
    }

    /// The copies that took time, by name.
    fn copies(self) -> impl Iterator<Item = (Word, [Timestamp; 2])> {
        let Self { started, uploaded, downloading, finished, .. } = self;
        let copies =
            [(Word::Upload, [started, uploaded]), (Word::Download, [downloading, finished])];
        copies.into_iter().filter(|(_, [from, to])| from < to)
    }
}

impl<C: Canvas> Timeline<C> {
    /// Draws a decision of the policy with its reason.
    pub(super) fn decided(
        &mut self,
        at: Timestamp,
        id: JobId,
        stage: StageIndex,
        waiting: u32,
        why: Reason,
    ) -> Result<(), TraceError> {
        let slot = self.model(id.model)?;
        let model = self.models[slot].as_ref().expect("just made");
        let (reason, chosen, next) = remark::reason(why);
        let text = JobText::of(id);
        let args = [
            Arg(Word::Job, text.as_str().into()),
            Arg(Word::Stage, u32::from(stage.0).into()),
            Arg(Word::Waiting, waiting.into()),
            Arg(Word::Reason, reason.into()),
            Arg(Word::Chosen, chosen.into()),
            Arg(Word::Next, next.into()),
        ];
        let on = self.partitions[model.partition].row.track;
        let name = Name::Word(Word::Dispatch);
        self.canvas.instant(Mark { on, at, name, args: &args, flow: None })
    }

    /// A stage was put on the device: it runs or, with look-ahead, waits there behind another.
    pub(super) fn dispatched(
        &mut self,
        at: Timestamp,
        id: JobId,
        stage: StageIndex,
        stream: StreamId,
    ) -> Result<(), TraceError> {
        if self.find(id).is_none() {
            // Its submission was lost, so it is drawn from here on.
            self.submitted(id, Submission { at, arrival: at, release: at, deadline: None })?;
        }
        let (slot, _) = self.find(id).expect("just made");
        let partition =
            &mut self.partitions[self.models[slot].as_ref().expect("as above").partition];
        let behind = Behind { id, stage, stream };
        let waits = partition.looks_ahead && partition.row.is_open() && partition.behind.is_none();
        if waits {
            partition.behind = Some(behind);
            return Ok(());
        }
        self.runs(at, behind)
    }

    /// A stage has the device.
    fn runs(&mut self, at: Timestamp, stage: Behind) -> Result<(), TraceError> {
        let Behind { id, stage, stream } = stage;
        let Some((slot, index)) = self.find(id) else { return Ok(()) };
        let model = self.models[slot].as_mut().expect("it was found");
        let was = model.jobs[index].phase;
        if was == Phase::Ended {
            return Ok(());
        }
        model.jobs[index].stream = stream;
        let shown = Some(Name::Stage(stage.0));
        model.turn(&mut self.canvas, index, at, Phase::Running, shown)?;
        let row = &mut self.partitions[model.partition].row;
        row.abandon(&mut self.canvas, at)?; // A serial executor: nothing is open but by a defect.
        let mark = Mark { on: row.track, at, name: model.label(), args: &[], flow: None };
        row.begin(&mut self.canvas, mark)?;
        if was == Phase::Waiting { self.queue(slot, at, -1) } else { Ok(()) }
    }

    /// The stage of a model's executor left the device, which is that of the one behind it now.
    pub(super) fn left(&mut self, slot: usize, at: Timestamp) -> Result<(), TraceError> {
        let partition = self.models[slot].as_ref().expect("it was found").partition;
        let partition = &mut self.partitions[partition];
        partition.row.end(&mut self.canvas, at, &[])?;
        match partition.behind.take() {
            Some(behind) => self.runs(at, behind),
            None => Ok(()),
        }
    }

    pub(super) fn stage_completed(
        &mut self,
        at: Timestamp,
        id: JobId,
        stage: StageIndex,
        device: OnDevice,
    ) -> Result<(), TraceError> {
        let Some((slot, index)) = self.find(id) else { return Ok(()) };
        self.on_stream(slot, index, stage, device)?;
        let model = self.models[slot].as_mut().expect("it was found");
        let was = model.jobs[index].phase;
        match was {
            Phase::Ended => self.forget(slot, index), // It hung, and only now lets go of the device.
            _ => model.turn(&mut self.canvas, index, at, Phase::Between, None)?,
        }
        if was == Phase::Waiting {
            self.queue(slot, at, -1)?;
        }
        self.left(slot, at)
    }

    /// Draws the device time of a stage, and in it that of its copies.
    fn on_stream(
        &mut self,
        slot: usize,
        index: usize,
        stage: StageIndex,
        device: OnDevice,
    ) -> Result<(), TraceError> {
        let OnDevice { started, finished, ahead, .. } = device;
        let stream = self.models[slot].as_ref().expect("it was found").jobs[index].stream;
        self.add_stream(slot, stream)?;
        let model = self.models[slot].as_ref().expect("it was found");
        let job = &model.jobs[index];
        let partition = &mut self.partitions[model.partition];
        let row = partition.streams.get_mut(&stream).expect("just made");
        let args = [
            Arg(Word::Job, job.text.as_str().into()),
            Arg(Word::Stage, u32::from(stage.0).into()),
            Arg(Word::Execution, finished.saturating_since(started).into()),
            // When within the stage before is not told: a length, and no slice.
            Arg(Word::UploadAhead, ahead.into()),
        ];
        let told = args.len() - usize::from(ahead == Nanos::ZERO);
        let flow = Some(Flow { id: job.flow, step: Step::Passes });
        let args = &args[..told];
        let mark = Mark { on: row.track, at: started, name: model.label(), args, flow };
        row.begin(&mut self.canvas, mark)?;
        for (word, [from, to]) in device.copies() {
            let (on, name) = (row.track, Name::Word(word));
            row.begin(&mut self.canvas, Mark { on, at: from, name, args: &[], flow: None })?;
            row.end(&mut self.canvas, to, &[])?;
        }
        row.end(&mut self.canvas, finished, &[])?;
        partition.load.add(&mut self.canvas, started, finished)
    }
}
