//! The rows of one model: its jobs, each with what it waited for and ran.

use super::canvas::{Arg, Canvas, Flow, Mark, Name, NameId, Step, TrackId, Value};
use super::job::{Job, Phase};
use super::strip::Strip;
use super::word::Word;
use crate::error::TraceError;
use crate::id::ModelId;
use crate::model::AdmittedModel;
use crate::service::ServiceTerms;
use crate::unit::{Nanos, Timestamp};

/// Jobs of one model that may be open: twice the slots that it can have, since the end of one may come
/// out of a ring later than the submission of the next.
pub(super) const JOBS_MAX: usize = 128;
/// Rows that one model may have. Jobs that overlap need one each; beyond that, beginnings are moved.
const ROWS_MAX: usize = JOBS_MAX;

/// What is remembered of a model from its admission until its slot is given to another.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) id: ModelId,
    pub(super) name: NameId,
    pub(super) text: String,
    /// Its place among the partitions.
    pub(super) partition: usize,
    /// `D`, from which the slack of its proof follows.
    pub(super) deadline: Option<Nanos>,
    pub(super) bound: Option<Nanos>,
    /// The counter of its memory, if its admission is in the trace.
    pub(super) memory: Option<TrackId>,
    /// The rows of its jobs; the first stands for the model itself.
    pub(super) rows: Vec<Strip>,
    /// Jobs that have not ended.
    pub(super) jobs: Vec<Job>,
}

/// A submission, as the event tells it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Submission {
    pub(super) at: Timestamp,
    pub(super) arrival: Timestamp,
    pub(super) release: Timestamp,
    pub(super) deadline: Option<Timestamp>,
}

impl Model {
    /// The track of what is about the model and not about one of its jobs.
    pub(super) fn track(&self) -> TrackId {
        self.rows[0].track
    }

    pub(super) fn label(&self) -> Name<'_> {
        Name::Model { id: self.name, text: &self.text }
    }

    /// Takes over what admission promised.
    pub(super) fn promise(&mut self, what: &AdmittedModel) {
        self.bound = what.bound;
        self.deadline = match what.service {
            ServiceTerms::Guaranteed { deadline, .. } => Some(deadline),
            ServiceTerms::Background | ServiceTerms::Server { .. } => None,
        };
    }

    /// The row for a job that begins at `at`, or `None` if there is to be a new one. Fewer than
    /// [`JOBS_MAX`] jobs are open.
    pub(super) fn row_at(&self, at: Timestamp) -> Option<usize> {
        let free = self.rows.iter().position(|row| row.is_free_at(at));
        let full = self.rows.len() >= ROWS_MAX;
        free.or_else(|| self.rows.iter().position(|row| full && !row.is_open()))
    }

    /// Begins the slices of a job and of its waiting.
    pub(super) fn open(
        &mut self,
        canvas: &mut impl Canvas,
        job: &Job,
        what: Submission,
    ) -> Result<(), TraceError> {
        let Submission { at, arrival, release, deadline } = what;
        let relative = deadline.map(|deadline| deadline.saturating_since(release));
        let proved = match (self.deadline, self.bound) {
            (Some(deadline), Some(bound)) => Value::difference(deadline.0, bound.0),
            _ => Value::Absent,
        };
        let args = [
            Arg(Word::Job, job.text.as_str().into()),
            Arg(Word::Release, release.into()),
            Arg(Word::Deadline, relative.into()),
            Arg(Word::Bound, deadline.and(self.bound).into()),
            Arg(Word::ProvedSlack, if deadline.is_some() { proved } else { Value::Absent }),
        ];
        let flow = Some(Flow { id: job.flow, step: Step::Starts });
        let row = &mut self.rows[job.row];
        let (on, at) = (row.track, arrival.min(at));
        row.begin(canvas, Mark { on, at, name: Name::Word(Word::Job), args: &args, flow })?;
        row.begin(canvas, Mark { on, at, name: Name::Word(Word::Queued), args: &[], flow: None })
    }

    /// The slice of a job changes to `phase`, shown as `name`.
    pub(super) fn turn(
        &mut self,
        canvas: &mut impl Canvas,
        job: usize,
        at: Timestamp,
        phase: Phase,
        name: Option<Name<'_>>,
    ) -> Result<(), TraceError> {
        let job = &mut self.jobs[job];
        let row = &mut self.rows[job.row];
        if matches!(job.phase, Phase::Waiting | Phase::Running) {
            row.end(canvas, at, &[])?;
        }
        job.phase = phase;
        match name {
            Some(name) => {
                row.begin(canvas, Mark { on: row.track, at, name, args: &[], flow: None })
            }
            None => Ok(()),
        }
    }

    /// Ends the slices of a job, with what is said at its end, and the arrow that followed it.
    pub(super) fn close(
        &mut self,
        canvas: &mut impl Canvas,
        job: usize,
        at: Timestamp,
        end: Word,
        args: &[Arg<'_>],
    ) -> Result<(), TraceError> {
        self.turn(canvas, job, at, Phase::Ended, None)?;
        let job = &self.jobs[job];
        let row = &mut self.rows[job.row];
        let flow = Some(Flow { id: job.flow, step: Step::Ends });
        canvas.instant(Mark { on: row.track, at, name: Name::Word(end), args: &[], flow })?;
        row.end(canvas, at, args)
    }
}
