//! What a trace looks like: tracks, slices, arrows, counters and instants, in no format yet.
//!
//! ```text
//!   partition   dispatch|[camera      ][lidar             ]     launch to noticing, and decisions
//!     stream s0            [camera   ]   [lidar          ]      device time
//!     queue depth, load
//!     camera    [job [queued][stage 0 ]]                        one row for each job that overlaps
//!     lidar     [job [queued      ][stage 0            ]]
//!   memory of camera, ...
//! ```
//! [`Timeline`] goes through the records once and draws on a [`Canvas`], of which each format has
//! one. An arrow leads from the submission of a job over its stages on the device to its end.
//!
//! # Invariants
//! 1. Slices are balanced and nest, and every one ends, whatever the records say: what does not fit
//!    together (a stage that ends without a beginning, times that go back) is moved or left out.
//! 2. What is remembered are open jobs and present models, partitions and streams, each at most as
//!    many as a constant says, so memory does not grow with the trace.

mod canvas;
mod job;
mod load;
mod model;
mod partition;
mod remark;
mod stages;
mod strip;
mod word;

use std::collections::BTreeMap;

pub(crate) use self::canvas::{
    Arg, Canvas, Flow, Mark, Name, NameId, Step, Track, TrackId, TrackKind, Value,
};
use self::job::{Job, JobText, Phase};
use self::load::Load;
use self::model::{Model, Submission};
use self::partition::Partition;
use self::stages::OnDevice;
use self::strip::Strip;
pub(crate) use self::word::Word;
use crate::collector::Record;
use crate::error::TraceError;
use crate::event::TraceEvent;
use crate::id::{JobId, ModelId, StreamId};
use crate::model::AdmittedModel;
use crate::unit::{Nanos, Timestamp};

/// Jobs that may be open at once: 256 models of 64 slots, four times over.
const JOBS_MAX: usize = 1 << 16;
/// Executors there may be; a workload has at most 16.
const PARTITIONS_MAX: usize = 256;
/// Rows that are remembered at once.
const ROWS_MAX: usize = 1 << 18;
/// The longest name that is drawn, in bytes. Those of a workload have at most 64.
const NAME_MAX: usize = 200;
/// The last point that readers of pictures can hold, whose times are signed.
const LAST: Timestamp = Timestamp(i64::MAX as u64);

/// How what is drawn ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With everything that was recorded but `dropped` events, which found their rings full.
    Whole {
        /// How many.
        dropped: u64,
    },
    /// With a log whose closing line counts other records than it has.
    Miscounted {
        /// Events that found their rings full.
        dropped: u64,
        /// How many more the closing line counts; below zero for fewer.
        missing: i64,
    },
    /// In the middle: nobody knows what followed, or was lost.
    Cut,
}

/// Draws records on a canvas, in the order of the file.
#[derive(Debug)]
pub(crate) struct Timeline<C> {
    canvas: C,
    /// By their slots.
    models: Vec<Option<Box<Model>>>,
    partitions: Vec<Partition>,
    /// The executor of each recorder that has dispatched something.
    executors: BTreeMap<u32, usize>,
    /// The counter of free memory, once it is known.
    free_memory: Option<TrackId>,
    next_track: u64,
    next_name: u64,
    next_flow: u64,
    jobs: usize,
    rows: usize,
    records: u64,
    /// The latest time of any record.
    until: Timestamp,
}

impl<C: Canvas> Timeline<C> {
    pub(crate) fn new(mut canvas: C) -> Result<Self, TraceError> {
        let run = Track { parent: TrackId::RUN, name: "AegisRT", kind: TrackKind::Slices };
        canvas.track(TrackId::RUN, run)?;
        Ok(Self {
            canvas,
            models: Vec::new(),
            partitions: Vec::new(),
            executors: BTreeMap::new(),
            free_memory: None,
            next_track: TrackId::RUN.0 + 1,
            next_name: 0,
            next_flow: 1,
            jobs: 0,
            rows: 0,
            records: 0,
            until: Timestamp::ZERO,
        })
    }

    pub(crate) fn canvas_mut(&mut self) -> &mut C {
        &mut self.canvas
    }

    /// Draws one record.
    ///
    /// # Errors
    /// The canvas's, and [`TraceError::TooMany`] where no run of AegisRT leaves so much open.
    pub(crate) fn draw(&mut self, record: &Record) -> Result<(), TraceError> {
        let at = record.at.min(LAST);
        self.until = self.until.max(at);
        self.records += 1;
        if record.event.model().is_some_and(|model| self.is_gone(model)) {
            return Ok(());
        }
        match &record.event {
            TraceEvent::Submitted { job, arrival, release, deadline } => {
                let (arrival, release, deadline) = (*arrival, *release, *deadline);
                self.submitted(*job, Submission { at, arrival, release, deadline })
            }
            TraceEvent::Dispatched { job, stage, stream, waiting, why } => {
                self.learn_executor(record.by, *job)?;
                self.decided(at, *job, *stage, *waiting, *why)?;
                self.dispatched(at, *job, *stage, *stream)
            }
            TraceEvent::StageCompleted { job, stage, .. } => {
                let device = OnDevice::told_by(&record.event).expect("it is that of a stage");
                self.stage_completed(at, *job, *stage, device)
            }
            TraceEvent::Suspended { job, .. } => self.waits_again(at, *job, Word::Suspended),
            TraceEvent::OutOfBudget { job, .. } => {
                self.waits_again(at, *job, Word::OutOfBudget)?;
                self.remark(at, record)
            }
            TraceEvent::Completed { job, response, execution } => {
                self.completed(at, *job, *response, *execution)
            }
            TraceEvent::Dropped { job, why } => {
                let why = Arg(Word::Reason, remark::drop_reason(*why).into());
                self.ended(at, *job, Word::Dropped, &[why])
            }
            TraceEvent::Faulted { job, category } => {
                let category = Arg(Word::Category, remark::category(*category).into());
                self.ended(at, *job, Word::Faulted, &[category])
            }
            TraceEvent::Postponed { job, deadline, .. } => {
                if let Some((model, job)) = self.job_mut(*job) {
                    model.jobs[job].deadline = Some(*deadline);
                }
                self.remark(at, record)
            }
            TraceEvent::Hanging { job, .. } => {
                if let Some((model, job)) = self.job_mut(*job) {
                    model.jobs[job].hangs = true;
                }
                self.remark(at, record)
            }
            TraceEvent::Admitted { model, what } => self.admitted(at, *model, what),
            TraceEvent::Configured { what } if what.overheads.look_ahead => {
                let partition = self.partition(what.partition.as_deref())?;
                self.partitions[partition].looks_ahead = true;
                Ok(())
            }
            TraceEvent::BoundChanged { model, bound } => {
                let slot = self.model(*model)?;
                self.models[slot].as_mut().expect("just made").bound = Some(*bound);
                self.remark(at, record)
            }
            TraceEvent::Evicted { model } => {
                self.remark(at, record)?;
                self.evicted(at, *model)
            }
            _ => self.remark(at, record),
        }
    }

    /// Ends what is open, and says how much of the trace was lost, as far as that is known.
    pub(crate) fn finish(mut self, end: End) -> Result<C, TraceError> {
        let (canvas, at) = (&mut self.canvas, self.until);
        for model in self.models.iter_mut().flatten() {
            model.rows.iter_mut().try_for_each(|row| row.abandon(canvas, at))?;
        }
        for partition in &mut self.partitions {
            partition.row.abandon(canvas, at)?;
            partition.load.finish(canvas)?;
        }
        let (lost, more) = match end {
            End::Whole { dropped } => (dropped.into(), Arg(Word::RecordsMissing, Value::Absent)),
            End::Miscounted { dropped, missing } => {
                (dropped.into(), Arg(Word::RecordsMissing, Value::Signed(missing)))
            }
            End::Cut => (Value::Absent, Arg(Word::Unfinished, Word::Yes.into())),
        };
        let args = [Arg(Word::Records, self.records.into()), Arg(Word::EventsLost, lost), more];
        let name = Name::Word(Word::EndOfTrace);
        canvas.instant(Mark { on: TrackId::RUN, at, name, args: &args, flow: None })?;
        Ok(self.canvas)
    }

    fn submitted(&mut self, id: JobId, what: Submission) -> Result<(), TraceError> {
        let slot = self.model(id.model)?;
        if self.find(id).is_some() {
            return Ok(()); // It was accepted before; no run of ours says so twice.
        }
        self.make_room(slot, what.at)?;
        let begin = what.arrival.min(what.at);
        let model = self.models[slot].as_ref().expect("just made");
        let row = match model.row_at(begin) {
            Some(row) => row,
            None => self.add_row(slot)?,
        };
        let flow = self.next_flow;
        self.next_flow += 1;
        self.jobs += 1;
        let job = Job {
            sequence: id.sequence,
            text: JobText::of(id),
            row,
            flow,
            deadline: what.deadline,
            phase: Phase::Waiting,
            stream: StreamId::first(0),
            hangs: false,
        };
        let model = self.models[slot].as_mut().expect("just made");
        model.open(&mut self.canvas, &job, what)?;
        model.jobs.push(job);
        self.queue(slot, what.at, 1)
    }

    fn waits_again(&mut self, at: Timestamp, id: JobId, shown: Word) -> Result<(), TraceError> {
        let Some((slot, index)) = self.find(id) else { return Ok(()) };
        let model = self.models[slot].as_mut().expect("it was found");
        if matches!(model.jobs[index].phase, Phase::Ended | Phase::Waiting) {
            return Ok(());
        }
        model.turn(&mut self.canvas, index, at, Phase::Waiting, Some(Name::Word(shown)))?;
        self.queue(slot, at, 1)
    }

    fn completed(
        &mut self,
        at: Timestamp,
        id: JobId,
        response: Nanos,
        execution: Nanos,
    ) -> Result<(), TraceError> {
        let Some((slot, index)) = self.find(id) else { return Ok(()) };
        let model = self.models[slot].as_ref().expect("it was found");
        let deadline = model.jobs[index].deadline;
        let slack = deadline.map(|deadline| Value::difference(deadline.0, at.0));
        let bound = deadline.and(model.bound);
        let below = bound.map(|bound| Value::difference(bound.0, response.0));
        let args = [
            Arg(Word::Response, response.into()),
            Arg(Word::Execution, execution.into()),
            Arg(Word::Slack, slack.unwrap_or(Value::Absent)),
            Arg(Word::BelowBound, below.unwrap_or(Value::Absent)),
        ];
        self.ended(at, id, Word::Completed, &args)
    }

    /// Ends a job; `end` names how, and `args` stand on its slice.
    fn ended(
        &mut self,
        at: Timestamp,
        id: JobId,
        end: Word,
        args: &[Arg<'_>],
    ) -> Result<(), TraceError> {
        let Some((slot, index)) = self.find(id) else { return Ok(()) };
        let model = self.models[slot].as_mut().expect("it was found");
        let (was, hangs) = (model.jobs[index].phase, model.jobs[index].hangs);
        if was == Phase::Ended {
            return Ok(());
        }
        model.close(&mut self.canvas, index, at, end, args)?;
        if was == Phase::Running && hangs {
            return Ok(()); // The device is still held.
        }
        self.forget(slot, index);
        match was {
            Phase::Running => self.left(slot, at),
            Phase::Waiting => self.queue(slot, at, -1),
            Phase::Between | Phase::Ended => Ok(()),
        }
    }

    fn admitted(
        &mut self,
        at: Timestamp,
        id: ModelId,
        what: &AdmittedModel,
    ) -> Result<(), TraceError> {
        let partition = self.partition(what.partition.as_deref())?;
        let slot = self.add_model(id, &what.name, partition)?;
        let name = format!("memory of {}", short(&what.name));
        let memory = self.add_track(TrackId::RUN, &name, TrackKind::Bytes)?;
        let model = self.models[slot].as_mut().expect("just made");
        model.promise(what);
        model.memory = Some(memory);
        self.canvas.count(memory, at, what.persistent.0)?;
        self.remark_admission(at, slot, what)
    }

    /// The slot stays until another takes it: a stage that hung may still end.
    fn evicted(&mut self, at: Timestamp, id: ModelId) -> Result<(), TraceError> {
        let Some(model) = self.models.get_mut(usize::from(id.index)).and_then(Option::as_mut)
        else {
            return Ok(());
        };
        match model.memory {
            Some(memory) if model.id == id => self.canvas.count(memory, at, 0),
            _ => Ok(()),
        }
    }

    /// Changes the count of waiting jobs of the executor of a model.
    fn queue(&mut self, slot: usize, at: Timestamp, by: i64) -> Result<(), TraceError> {
        let partition = self.models[slot].as_ref().expect("it was found").partition;
        let partition = &mut self.partitions[partition];
        partition.waiting = partition.waiting.saturating_add_signed(by);
        self.canvas.count(partition.queue, at, partition.waiting)
    }

    /// The slot and place of a job that is open.
    fn find(&self, id: JobId) -> Option<(usize, usize)> {
        let slot = usize::from(id.model.index);
        let model = self.models.get(slot)?.as_ref().filter(|model| model.id == id.model)?;
        let index = model.jobs.iter().position(|job| job.sequence == id.sequence)?;
        Some((slot, index))
    }

    fn job_mut(&mut self, id: JobId) -> Option<(&mut Model, usize)> {
        let (slot, index) = self.find(id)?;
        Some((self.models[slot].as_mut()?, index))
    }

    /// Whether the slot of a model has been given to a later one.
    fn is_gone(&self, id: ModelId) -> bool {
        let present = self.models.get(usize::from(id.index)).and_then(Option::as_ref);
        present.is_some_and(|model| model.id.generation > id.generation)
    }

    /// Gives up the oldest job of a model where more are open than a model has slots: their ends were
    /// lost.
    fn make_room(&mut self, slot: usize, at: Timestamp) -> Result<(), TraceError> {
        let jobs = &self.models[slot].as_ref().expect("just made").jobs;
        if jobs.len() >= model::JOBS_MAX {
            let oldest = (0..jobs.len()).min_by_key(|index| jobs[*index].flow);
            self.abandon(slot, oldest.expect("there are many"), at)?;
        }
        if self.jobs >= JOBS_MAX {
            return Err(TraceError::TooMany { what: "open jobs", limit: JOBS_MAX });
        }
        Ok(())
    }

    /// Ends the slices of a job whose end is not in the trace.
    fn abandon(&mut self, slot: usize, index: usize, at: Timestamp) -> Result<(), TraceError> {
        let model = self.models[slot].as_mut().expect("it was found");
        let job = &model.jobs[index];
        let was = job.phase;
        model.rows[job.row].abandon(&mut self.canvas, at)?;
        self.forget(slot, index);
        if was == Phase::Waiting { self.queue(slot, at, -1) } else { Ok(()) }
    }

    fn forget(&mut self, slot: usize, index: usize) {
        self.models[slot].as_mut().expect("it was found").jobs.swap_remove(index);
        self.jobs -= 1;
    }

    /// The slot of a model, which is made up if its admission is not in the trace.
    fn model(&mut self, id: ModelId) -> Result<usize, TraceError> {
        let slot = usize::from(id.index);
        match self.models.get(slot).and_then(Option::as_ref) {
            Some(model) if model.id == id => Ok(slot),
            _ => {
                let partition = self.partition(None)?;
                self.add_model(id, &id.to_string(), partition)
            }
        }
    }

    /// Puts a model into its slot, and ends what its predecessor left open.
    fn add_model(
        &mut self,
        id: ModelId,
        name: &str,
        partition: usize,
    ) -> Result<usize, TraceError> {
        let slot = usize::from(id.index);
        if self.models.len() <= slot {
            self.models.resize_with(slot + 1, || None);
        }
        while self.models[slot].as_ref().is_some_and(|before| !before.jobs.is_empty()) {
            self.abandon(slot, 0, self.until)?;
        }
        if let Some(before) = self.models[slot].take() {
            self.rows -= before.rows.len();
            before.memory.iter().for_each(|track| self.canvas.retire(*track));
        }
        let text = short(name).to_owned();
        let name = NameId(self.next_name);
        self.next_name += 1;
        self.canvas.introduce(name, &text)?;
        let model = Model {
            id,
            name,
            text,
            partition,
            deadline: None,
            bound: None,
            memory: None,
            rows: Vec::new(),
            jobs: Vec::new(),
        };
        self.models[slot] = Some(Box::new(model));
        self.add_row(slot)?;
        Ok(slot)
    }

    /// A further row for the jobs of a model, with the name of the others.
    fn add_row(&mut self, slot: usize) -> Result<usize, TraceError> {
        let model = self.models[slot].as_ref().expect("just made");
        let (name, partition) = (format!("model {}", model.text), model.partition);
        let parent = self.partitions[partition].row.track;
        let row = self.new_strip(parent, &name)?;
        let rows = &mut self.models[slot].as_mut().expect("just made").rows;
        rows.push(row);
        Ok(rows.len() - 1)
    }

    fn add_stream(&mut self, slot: usize, stream: StreamId) -> Result<(), TraceError> {
        let index = self.models[slot].as_ref().expect("it was found").partition;
        let partition = &self.partitions[index];
        if partition.streams.contains_key(&stream) {
            return Ok(());
        }
        let row = self.new_strip(partition.row.track, &format!("stream {stream}"))?;
        self.partitions[index].streams.insert(stream, row);
        Ok(())
    }

    /// The place of an executor, which is made if it is new.
    fn partition(&mut self, name: Option<&str>) -> Result<usize, TraceError> {
        let name = name.map(short);
        let known = self.partitions.iter().position(|known| known.name.as_deref() == name);
        if let Some(known) = known {
            return Ok(known);
        }
        if self.partitions.len() >= PARTITIONS_MAX {
            return Err(TraceError::TooMany { what: "partitions", limit: PARTITIONS_MAX });
        }
        let label = Partition::label(name);
        let row = self.new_strip(TrackId::RUN, &label)?;
        let counter = |what: &str| match name {
            None => what.to_owned(),
            Some(_) => format!("{what} of {label}"),
        };
        let queue = self.add_track(row.track, &counter("queue depth"), TrackKind::Count)?;
        let load = self.add_track(row.track, &counter("load"), TrackKind::Percent)?;
        self.partitions.push(Partition {
            name: name.map(str::to_owned),
            row,
            looks_ahead: false,
            behind: None,
            streams: BTreeMap::new(),
            queue,
            waiting: 0,
            load: Load::new(load),
        });
        Ok(self.partitions.len() - 1)
    }

    fn new_strip(&mut self, parent: TrackId, name: &str) -> Result<Strip, TraceError> {
        if self.rows >= ROWS_MAX {
            return Err(TraceError::TooMany { what: "rows", limit: ROWS_MAX });
        }
        self.rows += 1;
        Ok(Strip::new(self.add_track(parent, name, TrackKind::Slices)?))
    }

    fn add_track(
        &mut self,
        parent: TrackId,
        name: &str,
        kind: TrackKind,
    ) -> Result<TrackId, TraceError> {
        let id = TrackId(self.next_track);
        self.next_track += 1;
        self.canvas.track(id, Track { parent, name, kind })?;
        Ok(id)
    }

    /// The recorder of a dispatch is the dispatcher of the job's executor.
    fn learn_executor(&mut self, by: u32, job: JobId) -> Result<(), TraceError> {
        if !self.executors.contains_key(&by) && self.executors.len() < PARTITIONS_MAX {
            let slot = self.model(job.model)?;
            let partition = self.models[slot].as_ref().expect("just made").partition;
            self.executors.insert(by, partition);
        }
        Ok(())
    }
}

/// The beginning of a name, where it is too long to be drawn.
fn short(name: &str) -> &str {
    &name[..name.floor_char_boundary(NAME_MAX)]
}
