//! A trace file and the thread that writes it.
//!
//! The [pump](crate::TracePump) hands over what it took from the rings and goes on; what a disk or the
//! reader of a pipe makes of that holds up this thread alone.
//!
//! # Invariants
//! 1. Handing over never waits. At most [`WAITING_MAX`] records and what was taken at once wait for a
//!    file; one that lets more come together has failed.
//! 2. A file is flushed after each hand-over, so what is on disk is readable up to then.
//! 3. A file fails once. It keeps what it holds, and at most what was being written then is added.

use std::fs::File;
use std::io::BufWriter;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Instant;

use aegis_trace::Record;
use aegis_trace::export::format::TraceWriter;

use crate::error::Error;
use crate::trace_pump::TraceSink;

/// Records that may wait for a file: some tens of megabytes, and seconds of a busy run.
const WAITING_MAX: usize = 1 << 18;
/// What is gathered of a file before it is written.
const BUFFER: usize = 64 << 10;

/// A file that is being written.
#[derive(Debug)]
pub(crate) struct Output {
    path: PathBuf,
    /// Device and number of the file: what it is, by whatever name.
    identity: (u64, u64),
    batches: Sender<Batch>,
    shared: Arc<Shared>,
    /// Tells the first failure, and by closing that the thread has ended.
    ended: Receiver<Error>,
}

/// What the thread is handed.
enum Batch {
    Records(Arc<Vec<Record>>),
    /// The last: how many events were lost.
    End {
        dropped: u64,
    },
}

#[derive(Debug, Default)]
struct Shared {
    /// Records that wait or are being written.
    waiting: AtomicUsize,
    /// Whether nothing more is to be written.
    is_left: AtomicBool,
}

impl Output {
    /// Creates the file, writes its beginning through, and starts its thread. Blocks for that: a full
    /// disk is known before anything runs.
    ///
    /// # Errors
    /// [`Error::Trace`], [`Error::Thread`].
    pub(crate) fn create(file: &TraceSink) -> Result<Self, Error> {
        let path = file.path.clone();
        let open = || {
            let created = File::create(&path)?;
            let about = created.metadata()?;
            let out = BufWriter::with_capacity(BUFFER, created);
            let mut writer = TraceWriter::new(file.format, out)?;
            writer.flush()?;
            Ok((writer, (about.dev(), about.ino())))
        };
        let opened = open().map_err(|cause| Error::Trace { path: path.clone(), cause });
        let (writer, identity) = opened?;
        let ((batches, inbox), (failed, ended)) = (channel(), channel());
        let shared = Arc::new(Shared::default());
        let (of_thread, told) = (Arc::clone(&shared), path.clone());
        let work = move || {
            if let Err(cause) = write_all(writer, &inbox, &of_thread) {
                // Whoever gave up on this file does not listen any more.
                let _ = failed.send(Error::Trace { path: told, cause });
            }
        };
        let spawned = thread::Builder::new().name("aegis-trace-out".into()).spawn(work);
        spawned.map_err(Error::Thread)?;
        Ok(Self { path, identity, batches, shared, ended })
    }

    /// Refuses files of which one would be written into another.
    ///
    /// # Errors
    /// [`Error::SameTrace`].
    pub(crate) fn check_distinct(outputs: &[Self]) -> Result<(), Error> {
        for (place, output) in outputs.iter().enumerate() {
            let same = outputs[..place].iter().find(|before| before.identity == output.identity);
            if let Some(Self { path, .. }) = same {
                let (path, other) = (output.path.clone(), path.clone());
                return Err(Error::SameTrace { path, other });
            }
        }
        Ok(())
    }

    /// Hands over what is to be written next. Does not block.
    ///
    /// # Errors
    /// [`Error::Trace`] or [`Error::TraceBehind`]: the file has failed.
    pub(crate) fn hand_over(&self, records: &Arc<Vec<Record>>) -> Result<(), Error> {
        if let Ok(failure) = self.ended.try_recv() {
            return Err(failure);
        }
        if records.is_empty() {
            return Ok(());
        }
        let waiting = self.shared.waiting.fetch_add(records.len(), Ordering::Relaxed);
        if waiting > WAITING_MAX {
            return Err(self.leave(waiting));
        }
        // A thread that has just ended is noticed at the next call.
        let _ = self.batches.send(Batch::Records(Arc::clone(records)));
        Ok(())
    }

    /// Says that nothing follows but the count of lost events. Does not block.
    pub(crate) fn end(&self, dropped: u64) {
        let _ = self.batches.send(Batch::End { dropped });
    }

    /// Waits until the file is closed, but not beyond `until`.
    ///
    /// # Errors
    /// As [`Output::hand_over`].
    pub(crate) fn closed(self, until: Instant) -> Result<(), Error> {
        match self.ended.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(failure) => Err(failure),
            Err(RecvTimeoutError::Disconnected) => Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                let waiting = self.shared.waiting.load(Ordering::Relaxed);
                Err(self.leave(waiting))
            }
        }
    }

    /// Gives the file up; its thread ends with the write that it is in, or with the process.
    fn leave(&self, waiting: usize) -> Error {
        self.shared.is_left.store(true, Ordering::Relaxed);
        Error::TraceBehind { path: self.path.clone(), waiting: waiting as u64 }
    }
}

/// Writes what comes until it ends, is left, or fails.
fn write_all(
    mut writer: TraceWriter<BufWriter<File>>,
    inbox: &Receiver<Batch>,
    shared: &Shared,
) -> Result<(), aegis_trace::TraceError> {
    while let Ok(batch) = inbox.recv() {
        if shared.is_left.load(Ordering::Relaxed) {
            return Ok(());
        }
        match batch {
            Batch::Records(records) => {
                writer.write(&records)?;
                writer.flush()?;
                shared.waiting.fetch_sub(records.len(), Ordering::Relaxed);
            }
            Batch::End { dropped } => return writer.finish(dropped).map(drop),
        }
    }
    Ok(()) // Whoever handed over is gone without an end, and so the file has none.
}
