//! Perfetto protobuf: a trace that `ui.perfetto.dev` and `trace_processor` open.
//!
//! A file is a sequence of packets, each complete in itself, so one that was cut short shows what was
//! written until then. What is drawn is decided in `timeline`; here are the numbers of the fields
//! ([ADR 0066](../../../../docs/adr/0066-a-perfetto-writer-of-our-own.md)).
//!
//! # Invariants
//! 1. Packets are bounded: none has more than [`PACKET_MAX`] bytes.
//! 2. Fixed words and names of models are interned: each is written once and then a number.
//! 3. Nothing is kept of what was written, so memory does not grow with the trace.
//!
//! # Sources
//! Perfetto's `trace_packet.proto`, `track_event.proto`, `track_descriptor.proto`,
//! `counter_descriptor.proto`, `debug_annotation.proto` and `interned_data.proto`. The numbers of
//! fields never change there.

mod message;

use std::io::Write;

use self::message::{Inner, Message};
use super::timeline::{
    Arg, Canvas, End, Flow, Mark, Name, NameId, Step, Timeline, Track, TrackId, TrackKind, Value,
    Word,
};
use crate::collector::Record;
use crate::error::TraceError;
use crate::unit::Timestamp;

/// The longest packet, in bytes: what a length of two bytes can say, and its tag.
pub const PACKET_MAX: usize = (1 << 14) + 2;

/// How much is gathered before it goes to the output.
const BUFFER: usize = 64 << 10;

/// Stages whose names are interned; a workload has at most 64. Others are written out.
const STAGES: u64 = 64;

/// Writes a trace piece by piece: memory does not grow with its length.
#[derive(Debug)]
pub struct Writer<W: Write> {
    timeline: Timeline<Packets<W>>,
}

impl<W: Write> Writer<W> {
    /// Writes what every trace begins with.
    ///
    /// # Errors
    /// [`TraceError::Io`] when `out` fails.
    pub fn new(out: W) -> Result<Self, TraceError> {
        Ok(Self { timeline: Timeline::new(Packets::new(out)?)? })
    }

    /// Appends `records`, in the order in which they are read from the rings or from a file.
    ///
    /// # Errors
    /// [`TraceError::Io`] when the output fails, [`TraceError::TooMany`] for a trace that is none of
    /// AegisRT's.
    pub fn write(&mut self, records: &[Record]) -> Result<(), TraceError> {
        records.iter().try_for_each(|record| self.timeline.draw(record))
    }

    /// Hands everything written so far to the output's own keeping: from here on a reader finds it.
    ///
    /// # Errors
    /// [`TraceError::Io`] when the output fails.
    pub fn flush(&mut self) -> Result<(), TraceError> {
        self.timeline.canvas_mut().flush()
    }

    /// Ends what is open, notes the count of `dropped` events, flushes, and gives back the output.
    ///
    /// # Errors
    /// [`TraceError::Io`] when the output fails.
    pub fn finish(self, dropped: u64) -> Result<W, TraceError> {
        self.conclude(End::Whole { dropped })
    }

    /// The same for records that are not all there are; what is known of the rest is noted.
    ///
    /// # Errors
    /// [`TraceError::Io`] when the output fails.
    pub fn conclude(self, end: End) -> Result<W, TraceError> {
        let mut packets = self.timeline.finish(end)?;
        packets.flush()?;
        Ok(packets.out)
    }
}

/// The canvas: every stroke is one packet.
#[derive(Debug)]
struct Packets<W> {
    out: W,
    message: Message,
}

/// The only sequence of packets; names and words are known within it.
const SEQUENCE: u64 = 1;

// Fields of `Trace` and of `TracePacket`.
const PACKET: u64 = 1;
const TIMESTAMP: u64 = 8;
const SEQUENCE_ID: u64 = 10;
const TRACK_EVENT: u64 = 11;
const INTERNED_DATA: u64 = 12;
const SEQUENCE_FLAGS: u64 = 13;
const TRACK_DESCRIPTOR: u64 = 60;
/// Flags: nothing before this packet counts, and: this packet counts on those before it.
const STATE_CLEARED: u64 = 1;
const NEEDS_STATE: u64 = 2;

impl<W: Write> Packets<W> {
    fn new(out: W) -> Result<Self, TraceError> {
        let mut packets = Self { out, message: Message::default() };
        packets.words()?;
        Ok(packets)
    }

    /// Interns what is known beforehand, as names of events, of annotations, and of their values.
    fn words(&mut self) -> Result<(), TraceError> {
        let message = &mut self.message;
        let packet = begin_packet(message, STATE_CLEARED);
        let interned = message.begin::<2>(INTERNED_DATA);
        for table in [EVENT_NAMES, ANNOTATION_NAMES] {
            for word in Word::ALL {
                intern(message, table, word_id(*word), word.text());
            }
        }
        // Texts as values are bytes to the format, with the same numbers of fields.
        for word in Word::ALL {
            intern(message, ANNOTATION_TEXTS, word_id(*word), word.text());
        }
        for stage in 0..STAGES {
            intern(message, EVENT_NAMES, stage_id(stage), &format!("stage {stage}"));
        }
        message.end(interned);
        message.end(packet);
        self.emit()
    }

    /// Lets the packet go that was written last.
    fn emit(&mut self) -> Result<(), TraceError> {
        if self.message.as_bytes().len() >= BUFFER { self.drain() } else { Ok(()) }
    }

    fn drain(&mut self) -> Result<(), TraceError> {
        self.out.write_all(self.message.as_bytes())?;
        self.message.clear();
        Ok(())
    }

    fn flush(&mut self) -> Result<(), TraceError> {
        self.drain()?;
        Ok(self.out.flush()?)
    }

    /// One event of the type `kind`.
    fn event(&mut self, kind: u64, mark: Mark<'_>) -> Result<(), TraceError> {
        let message = &mut self.message;
        let packet = begin_packet(message, NEEDS_STATE);
        message.number(TIMESTAMP, mark.at.0);
        let event = message.begin::<2>(TRACK_EVENT);
        message.number(event::TYPE, kind);
        message.number(event::TRACK, mark.on.0);
        match mark.name {
            Name::Word(word) => message.number(event::NAME_ID, word_id(word)),
            Name::Model { id, .. } => message.number(event::NAME_ID, model_id(id)),
            Name::Stage(stage) if u64::from(stage) < STAGES => {
                message.number(event::NAME_ID, stage_id(stage.into()));
            }
            Name::Stage(stage) => message.text(event::NAME, &format!("stage {stage}")),
        }
        annotate(message, mark.args);
        if let Some(Flow { id, step }) = mark.flow {
            let field = match step {
                Step::Starts | Step::Passes => event::FLOW,
                Step::Ends => event::LAST_FLOW,
            };
            message.fixed64(field, id);
        }
        message.end(event);
        message.end(packet);
        self.emit()
    }
}

/// Fields of `TrackEvent`, and its types.
mod event {
    pub(super) const ANNOTATION: u64 = 4;
    pub(super) const TYPE: u64 = 9;
    pub(super) const NAME_ID: u64 = 10;
    pub(super) const TRACK: u64 = 11;
    pub(super) const NAME: u64 = 23;
    pub(super) const COUNTER: u64 = 30;
    pub(super) const FLOW: u64 = 47;
    pub(super) const LAST_FLOW: u64 = 48;

    pub(super) const SLICE_BEGIN: u64 = 1;
    pub(super) const SLICE_END: u64 = 2;
    pub(super) const INSTANT: u64 = 3;
    pub(super) const COUNT: u64 = 4;
}

impl<W: Write> Canvas for Packets<W> {
    fn track(&mut self, id: TrackId, track: Track<'_>) -> Result<(), TraceError> {
        // Fields of `TrackDescriptor`, `ProcessDescriptor` and `CounterDescriptor`.
        const UUID: u64 = 1;
        const NAME: u64 = 2;
        const PROCESS: u64 = 3;
        const PARENT: u64 = 5;
        const COUNTER: u64 = 8;
        const CHILD_ORDERING: u64 = 11;
        const RANK: u64 = 12;
        const EXPLICIT: u64 = 3;
        const PROCESS_ID: u64 = 1;
        const PROCESS_NAME: u64 = 6;
        const UNIT: u64 = 3;
        const UNIT_NAME: u64 = 6;
        let message = &mut self.message;
        let packet = begin_packet(message, NEEDS_STATE);
        let descriptor = message.begin::<2>(TRACK_DESCRIPTOR);
        message.number(UUID, id.0);
        message.number(CHILD_ORDERING, EXPLICIT);
        if id == TrackId::RUN {
            let process = message.begin::<2>(PROCESS);
            message.number(PROCESS_ID, 1);
            message.text(PROCESS_NAME, track.name);
            message.end(process);
        } else {
            message.text(NAME, track.name);
            message.number(PARENT, track.parent.0);
            message.number(RANK, id.0); // In the order of their making.
        }
        let unit = match track.kind {
            TrackKind::Slices => None,
            TrackKind::Count => Some((2, None)),
            TrackKind::Bytes => Some((3, None)),
            TrackKind::Percent => Some((0, Some("%"))),
        };
        if let Some((unit, name)) = unit {
            let counter = message.begin::<2>(COUNTER);
            message.number(UNIT, unit);
            name.iter().for_each(|name| message.text(UNIT_NAME, name));
            message.end(counter);
        }
        message.end(descriptor);
        message.end(packet);
        self.emit()
    }

    fn introduce(&mut self, id: NameId, text: &str) -> Result<(), TraceError> {
        let message = &mut self.message;
        let packet = begin_packet(message, NEEDS_STATE);
        let interned = message.begin::<2>(INTERNED_DATA);
        intern(message, EVENT_NAMES, model_id(id), text);
        message.end(interned);
        message.end(packet);
        self.emit()
    }

    fn begin(&mut self, mark: Mark<'_>) -> Result<(), TraceError> {
        self.event(event::SLICE_BEGIN, mark)
    }

    fn end(&mut self, on: TrackId, at: Timestamp, args: &[Arg<'_>]) -> Result<(), TraceError> {
        let message = &mut self.message;
        let packet = begin_packet(message, NEEDS_STATE);
        message.number(TIMESTAMP, at.0);
        let event = message.begin::<2>(TRACK_EVENT);
        message.number(event::TYPE, event::SLICE_END);
        message.number(event::TRACK, on.0);
        annotate(message, args);
        message.end(event);
        message.end(packet);
        self.emit()
    }

    fn instant(&mut self, mark: Mark<'_>) -> Result<(), TraceError> {
        self.event(event::INSTANT, mark)
    }

    fn count(&mut self, on: TrackId, at: Timestamp, value: u64) -> Result<(), TraceError> {
        let message = &mut self.message;
        let packet = begin_packet(message, NEEDS_STATE);
        message.number(TIMESTAMP, at.0);
        let event = message.begin::<2>(TRACK_EVENT);
        message.number(event::TYPE, event::COUNT);
        message.number(event::TRACK, on.0);
        message.signed(event::COUNTER, value.try_into().unwrap_or(i64::MAX));
        message.end(event);
        message.end(packet);
        self.emit()
    }
}

fn begin_packet(message: &mut Message, flags: u64) -> Inner<2> {
    let packet = message.begin::<2>(PACKET);
    message.number(SEQUENCE_ID, SEQUENCE);
    message.number(SEQUENCE_FLAGS, flags);
    packet
}

/// Writes annotations: their names are words, and so may their values be.
fn annotate(message: &mut Message, args: &[Arg<'_>]) {
    // Fields of `DebugAnnotation`.
    const NAME_ID: u64 = 1;
    const UNSIGNED: u64 = 3;
    const SIGNED: u64 = 4;
    const TEXT: u64 = 6;
    const TEXT_ID: u64 = 17;
    for Arg(name, value) in args {
        let annotation = match value {
            Value::Absent => continue,
            _ => message.begin::<2>(event::ANNOTATION),
        };
        message.number(NAME_ID, word_id(*name));
        match value {
            Value::Unsigned(number) => message.number(UNSIGNED, *number),
            Value::Signed(number) => message.signed(SIGNED, *number),
            Value::Word(word) => message.number(TEXT_ID, word_id(*word)),
            Value::Text(text) => message.text(TEXT, text),
            Value::Absent => {}
        }
        message.end(annotation);
    }
}

// Tables of `InternedData`.
const EVENT_NAMES: u64 = 2;
const ANNOTATION_NAMES: u64 = 3;
const ANNOTATION_TEXTS: u64 = 29;

fn intern(message: &mut Message, table: u64, id: u64, text: &str) {
    const ID: u64 = 1;
    const NAME: u64 = 2;
    let entry = message.begin::<2>(table);
    message.number(ID, id);
    message.text(NAME, text);
    message.end(entry);
}

/// Numbers of interned names begin with one: zero stands for none.
fn word_id(word: Word) -> u64 {
    word.number() + 1
}

fn stage_id(stage: u64) -> u64 {
    Word::ALL.len() as u64 + 1 + stage
}

fn model_id(name: NameId) -> u64 {
    stage_id(STAGES) + name.0
}
