//! The loan of a stream: what one stage holds from before it is enqueued until it was seen to end.
//!
//! # Invariants
//! 1. What the drop gives back, nobody on the device uses any more; what may still be used is kept for
//!    ever, or handed to whoever sees its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use aegis_cuda::{CudaStream, DeviceError, EventStatus, StageEvents, StageLengths, UploadEvents};
use aegis_trace::{Nanos, Timestamp};

use super::{Awaited, BusyStream, Entry, StageTimes, StreamPool, Whose};
use crate::slot::{JobSlot, SlotUse};
use crate::uploads::{Place, Upload};

/// The times of the stage of `loan` that ended at `finished`.
///
/// Its lengths are the device's own: a GPU tells when work ended only to who looks, but knows itself
/// how long it took. On the other drivers both are the same.
pub(super) fn times(loan: &Loan, finished: Timestamp) -> Result<StageTimes, DeviceError> {
    let StageLengths { whole, upload, download } = loan.edges().lengths()?;
    let (upload, ahead) = match loan.upload {
        Upload::None | Upload::Enqueued | Upload::Recorded | Upload::Before => {
            (upload, Nanos::ZERO)
        }
        // A graph that passes over its copies still marks their end, just behind its beginning.
        Upload::Awaited => (Nanos::ZERO, loan.uploads().length()?),
    };
    let started = finished.saturating_sub(whole);
    Ok(StageTimes { started, finished, upload, download, ahead, awaited: awaited(loan, ahead) })
}

/// The upload that the stage of `loan`, which has ended, was put behind; its own took `ahead`. Nothing but
/// a name depends on it: where the device does not tell, nothing is told.
fn awaited(loan: &Loan, ahead: Nanos) -> Option<Awaited> {
    let (whose, uploads) = loan.awaited()?;
    let took = match whose {
        _ if loan.is_upload_over => Nanos::ZERO,
        Whose::Own => ahead,
        Whose::Left => uploads.length().ok()?,
    };
    let before = uploads.ended_before(loan.edges()).ok()?;
    Some(Awaited { whose, took, before })
}

/// The right to use one stream for one stage; dropping the last of them gives the stream back.
#[derive(Debug)]
pub(super) struct Loan {
    pub(super) pool: Arc<StreamPool>,
    pub(super) index: usize,
    /// Which pair of events the stage lies between.
    pub(super) edges: usize,
    /// The buffers of the stage's job.
    job: Option<SlotUse>,
    /// The stage is on the stream, and its end was not recorded: nobody sees when it ends.
    is_endless: bool,
    /// The stage's inputs on their way ahead of it.
    upload: Upload,
    /// The upload of another stage that was left on its way and that this one begins behind. Its events
    /// are not recorded again before this stage was seen to end.
    pub(super) left: Option<Place>,
    /// The upload that the stage was put behind was seen to be over when it got the device.
    is_upload_over: bool,
}

impl Loan {
    pub(super) fn of(pool: &Arc<StreamPool>, index: usize, edges: usize) -> Self {
        let (job, is_endless, upload) = (None, false, Upload::None);
        let left = pool.uploads.as_ref().and_then(|uploads| uploads.left_before(index));
        let (pool, is_upload_over) = (Arc::clone(pool), false);
        Self { pool, index, edges, job, is_endless, upload, left, is_upload_over }
    }

    pub(super) fn entry(&self) -> &Entry {
        &self.pool.entries[self.index]
    }

    pub(super) fn edges(&self) -> &StageEvents {
        &self.entry().edges[self.edges]
    }

    pub(super) fn uploads(&self) -> &UploadEvents {
        &self.entry().uploads[self.edges]
    }

    /// The upload that the stage was launched behind, if it was behind one: its own, or else one that was
    /// left. It is never behind both, since nothing goes ahead beside one that is left; the stream waits
    /// for its own last.
    fn awaited(&self) -> Option<(Whose, &UploadEvents)> {
        match (self.upload, self.left) {
            (Upload::Awaited, _) => Some((Whose::Own, self.uploads())),
            (_, Some(place)) => Some((Whose::Left, self.pool.upload_events()(place))),
            (_, None) => None,
        }
    }

    /// The stage has the device from now on: asks whether the upload that it was put behind is over.
    pub(super) fn note_device(&mut self) {
        let Some((_, uploads)) = self.awaited() else { return };
        let end = uploads.ended().query();
        self.is_upload_over = matches!(end, Ok(EventStatus::Complete { .. }));
    }

    pub(super) fn using(mut self, slot: &Arc<JobSlot>) -> Self {
        self.job = Some(slot.put_to_use());
        self
    }

    pub(super) fn launch<E: From<DeviceError>>(
        mut self,
        enqueue: impl FnOnce(&CudaStream) -> Result<(), E>,
    ) -> Result<BusyStream, E> {
        let mut is_enqueued = false;
        let launched = self.entry().stream.between(self.edges(), |stream| {
            enqueue(stream)?;
            is_enqueued = true;
            Ok(())
        });
        match launched {
            Ok(()) => {
                if self.upload != Upload::None {
                    self.upload = Upload::Awaited; // The stream waits for it: see `upload`.
                }
                Ok(BusyStream { loan: self })
            }
            Err(error) => {
                self.is_endless = is_enqueued;
                Err(error)
            }
        }
    }

    /// Puts the inputs of the loan's job on their way, behind the upload of the stage `before`, and makes
    /// the stream wait for them.
    pub(super) fn upload<E: From<DeviceError>>(
        &mut self,
        before: &StageEvents,
        enqueue: impl FnOnce(&CudaStream) -> Result<(), E>,
    ) -> Result<(), E> {
        assert!(self.left.is_none(), "inputs go ahead beside an upload that is left");
        let pool = Arc::clone(&self.pool);
        let entry = &pool.entries[self.index];
        let uploads = pool.uploads.as_ref().expect("whoever uploads ahead asked whether it can");
        let events = &entry.uploads[self.edges];
        let enqueued = uploads.enqueue(before, events, &mut self.upload, enqueue);
        if self.upload == Upload::Recorded {
            // Also behind a part of it: whoever comes next begins behind it, and can tell what it cost.
            let waits = entry.stream.wait_for(events.ended());
            self.upload = if waits.is_ok() { Upload::Before } else { Upload::Recorded };
            enqueued?;
            return Ok(waits?);
        }
        enqueued
    }

    /// Hands the buffers of an upload that no stage waits for to whoever looks when it ends.
    fn leave_upload(&mut self) {
        if !self.is_upload_unawaited() {
            return;
        }
        let place = Place { stream: self.index, edges: self.edges };
        if let (Some(uploads), Some(job)) = (&self.pool.uploads, self.job.take()) {
            uploads.leave(job, place, self.upload);
        }
    }

    /// Whether something of an upload is on its way, and no stage was launched behind it.
    fn is_upload_unawaited(&self) -> bool {
        match self.upload {
            Upload::None | Upload::Awaited => false,
            Upload::Enqueued | Upload::Recorded | Upload::Before => true,
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let end = self.edges().poll();
        // A stage that was not enqueued leaves nothing on the stream, whatever the event tells of an
        // earlier one; so does one that was seen to end. Of a lost device nothing is known.
        let is_over = match end {
            Ok(Some(_)) => !self.is_endless,
            Ok(None) | Err(DeviceError::DeviceLost { .. }) => false,
            Err(_) => !self.is_endless,
        };
        let is_unlaunched = self.is_upload_unawaited() && !self.is_endless;
        if let Some(job) = self.job.take_if(|_| !is_over && !is_unlaunched) {
            std::mem::forget(job); // Invariant 3.
        }
        self.leave_upload();
        // A stream with work still on it stays taken: the pool must not lend it again. Only a stage
        // that hung or is without an end leaves one behind, and then its stream is lost with it.
        if !self.is_endless && !matches!(end, Ok(None)) {
            self.entry().loans.fetch_sub(1, Ordering::Release);
        }
    }
}
