//! What can go wrong with a device, and what the caller can do about it.

use std::ops::Range;

use aegis_trace::{Bytes, Category, StreamId, Timestamp};

use crate::capability::DriverKind;
use crate::fault::WorkFault;
use crate::memory::ClaimKind;
use crate::upload_order::UploadOrder;

/// A failed request to the device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// A field of the configuration is out of its range.
    #[error("`{field}` {problem}")]
    Config {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The operation exists on another driver only.
    #[error("this needs the {needed} driver, the device runs on {found}")]
    WrongDriver {
        /// The driver the operation belongs to.
        needed: DriverKind,
        /// The driver of the device.
        found: DriverKind,
    },
    /// Every stream the configuration allows exists already, or is still finishing its work.
    #[error("all {limit} streams of the device are in use")]
    StreamsExhausted {
        /// The configured `max_streams`.
        limit: u16,
    },
    /// The stream holds as many unfinished entries (work and recorded events) as it may.
    #[error("{stream} is full with {depth} unfinished entries")]
    StreamFull {
        /// The full stream.
        stream: StreamId,
        /// The configured `stream_depth`.
        depth: usize,
    },
    /// The device refused to take the work; nothing was enqueued.
    #[error("{stream} could not launch the work")]
    Launch {
        /// The stream it was meant for.
        stream: StreamId,
    },
    /// Work before the event, and after the event recorded before it, failed.
    #[error("work on {stream} failed{}", and_further(*further))]
    Work {
        /// Where the work ran.
        stream: StreamId,
        /// How many later pieces of work before the same event failed too.
        further: u32,
        /// The first fault.
        #[source]
        cause: WorkFault,
    },
    /// The device is gone; nothing on it will succeed again.
    #[error("device lost at {at}{}: {message}", by_work_on(*by))]
    DeviceLost {
        /// When it was lost, or when that was seen.
        at: Timestamp,
        /// The stream whose work took the device with it; on `cuda` the one whose work was asked about
        /// when the loss was seen, if it was seen so.
        by: Option<StreamId>,
        /// What that work said.
        message: Box<str>,
    },
    /// The event was never recorded, so it has nothing to report.
    #[error("the event was never recorded")]
    EventNotRecorded,
    /// The answer lies in the future, and waiting for it here is impossible.
    #[error("work is still pending")]
    StillPending,
    /// The event named as the start completed after the end.
    #[error("the start at {start} lies after the end at {end}")]
    EventsOutOfOrder {
        /// When the event named as the start completed.
        start: Timestamp,
        /// When the event named as the end completed.
        end: Timestamp,
    },
    /// The event belongs to another device.
    #[error("the event belongs to another device")]
    ForeignEvent,
    /// The graph was captured on another device, or in another partition than the one that it is to
    /// replace.
    #[error("the graph belongs to another device or partition")]
    ForeignGraph,
    /// The graph was not captured as a stage.
    #[error("the graph is not that of a stage: it was captured without the stage's two events")]
    Unframed,
    /// The graph has no copy with that host buffer.
    #[error("the graph has no copy that was captured with this host buffer")]
    NoSuchCopy,
    /// The reservation would break the device's memory limit.
    #[error("out of memory: {requested} requested with {reserved} of {limit} reserved")]
    OutOfMemory {
        /// What was asked for.
        requested: Bytes,
        /// The sum of the live charges.
        reserved: Bytes,
        /// The configured `memory_limit`.
        limit: Bytes,
    },
    /// The half-open range does not lie within its arena or buffer.
    #[error("bytes {} to {} lie outside the {size} available", range.start, range.end)]
    OutOfRange {
        /// The range asked for, in bytes.
        range: Range<u64>,
        /// The size of what it should lie in.
        size: Bytes,
    },
    /// The half-open range meets a claim that it may not share bytes with.
    #[error(
        "bytes {} to {} overlap the {held_as} at {} to {}",
        range.start, range.end, held.start, held.end
    )]
    Overlap {
        /// The range asked for, in bytes.
        range: Range<u64>,
        /// The range of the live claim.
        held: Range<u64>,
        /// What the live claim is.
        held_as: ClaimKind,
    },
    /// A call of the CUDA driver failed.
    #[error("`{call}` failed: {name} ({code}): {text}")]
    Cuda {
        /// The call.
        call: &'static str,
        /// The driver's code, as it came.
        code: u32,
        /// The driver's name for it, or ours for what a newer driver would know.
        name: Box<str>,
        /// The driver's description.
        text: Box<str>,
    },
    /// There is no CUDA driver to talk to: the library is missing, or lacks an entry point.
    #[error("the CUDA driver is not usable: {why}")]
    NoDriver {
        /// What is missing.
        why: Box<str>,
    },
    /// The driver is there but too old for what was asked.
    #[error("the CUDA driver has no `{call}`, which {purpose} needs")]
    DriverTooOld {
        /// The entry point.
        call: &'static str,
        /// What needs it.
        purpose: &'static str,
    },
    /// The device does not have as many multiprocessors left as a partition asks for.
    #[error("partition {index} asks for {asked} SMs and {left} are left")]
    PartitionTooLarge {
        /// Which of the shares, from zero.
        index: usize,
        /// What it asked for.
        asked: u32,
        /// What the shares before it left.
        left: u32,
    },
    /// Inputs cannot be copied ahead while outputs leave.
    #[error(
        "copying inputs ahead takes two copy engines, one for each direction, and the device {}",
        has_engines(*engines)
    )]
    TooFewCopyEngines {
        /// How many the device has; `None` where it does not tell.
        engines: Option<u32>,
    },
    /// The device does not order inputs that go ahead as the analysis of their stages has it, or could not
    /// be seen to.
    #[error(
        "copying inputs ahead takes a driver that has a stream wait for what a launched graph is still \
         to record, and this one {found}"
    )]
    UploadsUnordered {
        /// What was found.
        found: UploadOrder,
    },
    /// The stream is being captured into a graph, which takes no events and no other graphs.
    #[error("{stream} is being captured")]
    Capturing {
        /// Which stream.
        stream: StreamId,
    },
    /// The event was created without a time.
    #[error("the event keeps no time")]
    EventUntimed,
    /// The buffer on the host does not fit the one on the device.
    #[error("a host buffer of {host} does not fit a device buffer of {device}")]
    CopyTooLong {
        /// The size of the host buffer.
        host: Bytes,
        /// The size of the device buffer.
        device: Bytes,
    },
    /// The operating system refused a call.
    #[error("`{call}` failed")]
    Os {
        /// The call.
        call: &'static str,
        /// Its answer.
        #[source]
        cause: std::io::Error,
    },
}

/// Says on which stream the loss was seen, where it was on one.
fn by_work_on(stream: Option<StreamId>) -> String {
    stream.map_or_else(String::new, |stream| format!(" by work on {stream}"))
}

/// Says how many engines there are, where that is known.
fn has_engines(engines: Option<u32>) -> String {
    engines.map_or_else(|| "does not tell of any".into(), |engines| format!("has {engines}"))
}

/// Says how many faults followed the first, where any did.
fn and_further(further: u32) -> String {
    match further {
        0 => String::new(),
        1 => ", and so did one piece after it".to_owned(),
        n => format!(", and so did {n} pieces after it"),
    }
}

impl DeviceError {
    /// What the caller can do: retry, give up on the request, or end the process.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::StreamsExhausted { .. } | Self::StreamFull { .. } | Self::StillPending => {
                Category::Transient
            }
            Self::Config { .. }
            | Self::WrongDriver { .. }
            | Self::Launch { .. }
            | Self::EventNotRecorded
            | Self::EventsOutOfOrder { .. }
            | Self::ForeignEvent
            | Self::ForeignGraph
            | Self::Unframed
            | Self::NoSuchCopy
            | Self::OutOfMemory { .. }
            | Self::OutOfRange { .. }
            | Self::Overlap { .. }
            | Self::NoDriver { .. }
            | Self::DriverTooOld { .. }
            | Self::PartitionTooLarge { .. }
            | Self::TooFewCopyEngines { .. }
            | Self::Capturing { .. }
            | Self::EventUntimed
            | Self::CopyTooLong { .. } => Category::Permanent,
            Self::Cuda { code, .. } => crate::cuda::error::category(*code),
            Self::UploadsUnordered { found } => found.category(),
            Self::Work { cause, .. } => cause.category,
            Self::DeviceLost { .. } => Category::Fatal,
            // "Try again" is what the system says when a limit of its own was reached.
            Self::Os { cause, .. } => match cause.kind() {
                std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted => {
                    Category::Transient
                }
                _ => Category::Permanent,
            },
        }
    }
}
