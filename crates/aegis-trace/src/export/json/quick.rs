//! Records in the exact words of our own writer, read without a general parser.
//!
//! A trace of millions of events is nearly all of six kinds, which this reads about ten times faster
//! than derived code does. What is not written in exactly these words (other kinds, other spaces,
//! another order of keys) is `None` and goes the general way, so nothing is refused here.
//!
//! # Invariants
//! 1. What is read here is what the general parser reads: `tests/json_reader.rs` holds the two
//!    together, over records of every kind and over damaged lines.

use crate::collector::Record;
use crate::event::{Reason, TraceEvent};
use crate::id::{JobId, ModelId, StageIndex, StreamId};
use crate::unit::{Nanos, Timestamp};

/// The record of a line, if it is one of the frequent kinds in our own words.
pub(super) fn record(line: &[u8]) -> Option<Record> {
    let mut words = Words { rest: line };
    let at = Timestamp(words.number_after(b"{\"at\":")?);
    let by = words.number_after(b",\"by\":")?.try_into().ok()?;
    words.skip(b",\"event\":\"")?;
    let event = words.event()?;
    words.skip(b"}\n")?;
    words.rest.is_empty().then_some(Record { at, by, event })
}

/// What is left of a line.
struct Words<'l> {
    rest: &'l [u8],
}

impl Words<'_> {
    fn event(&mut self) -> Option<TraceEvent> {
        // The first letters tell the frequent kinds apart.
        match self.rest.get(..2)? {
            b"di" => self.dispatched(),
            b"st" => self.stage_completed(),
            b"co" => self.completed(),
            b"su" if self.rest.get(2) == Some(&b'b') => self.submitted(),
            b"su" => self.suspended(),
            b"id" => self.skip(b"idle\"").map(|()| TraceEvent::Idle),
            _ => None,
        }
    }

    fn submitted(&mut self) -> Option<TraceEvent> {
        let job = self.job_after(b"submitted\",\"job\":\"")?;
        let arrival = Timestamp(self.number_after(b",\"arrival\":")?);
        let release = Timestamp(self.number_after(b",\"release\":")?);
        self.skip(b",\"deadline\":")?;
        let deadline = match self.skip(b"null") {
            Some(()) => None,
            None => Some(Timestamp(self.number()?)),
        };
        Some(TraceEvent::Submitted { job, arrival, release, deadline })
    }

    fn dispatched(&mut self) -> Option<TraceEvent> {
        let job = self.job_after(b"dispatched\",\"job\":\"")?;
        let stage = self.stage_after(b",\"stage\":")?;
        self.skip(b",\"stream\":\"s")?;
        let (index, generation) = self.slot()?;
        let waiting = self.number_after(b"\",\"waiting\":")?.try_into().ok()?;
        self.skip(b",\"why\":{\"reason\":\"")?;
        let why = self.reason()?;
        self.skip(b"}")?;
        let stream = StreamId { index, generation };
        Some(TraceEvent::Dispatched { job, stage, stream, waiting, why })
    }

    fn reason(&mut self) -> Option<Reason> {
        let length = self.rest.iter().position(|byte| *byte == b'"')?;
        let (name, rest) = self.rest.split_at(length);
        self.rest = &rest[1..];
        match name {
            b"only_ready" => return Some(Reason::OnlyReady),
            b"continues" => return Some(Reason::Continues),
            b"background" => return Some(Reason::Background),
            _ => {}
        }
        let chosen = self.number_after(b",\"chosen\":")?;
        let next = self.number_after(b",\"next\":")?;
        let (points, lengths) =
            ((Timestamp(chosen), Timestamp(next)), (Nanos(chosen), Nanos(next)));
        Some(match name {
            b"earliest_release" => Reason::EarliestRelease { chosen: points.0, next: points.1 },
            b"earliest_deadline" => Reason::EarliestDeadline { chosen: points.0, next: points.1 },
            b"shortest_period" => Reason::ShortestPeriod { chosen: lengths.0, next: lengths.1 },
            b"shortest_deadline" => Reason::ShortestDeadline { chosen: lengths.0, next: lengths.1 },
            b"most_urgent" => {
                Reason::MostUrgent { chosen: chosen.try_into().ok()?, next: next.try_into().ok()? }
            }
            _ => return None,
        })
    }

    fn stage_completed(&mut self) -> Option<TraceEvent> {
        let job = self.job_after(b"stage_completed\",\"job\":\"")?;
        let stage = self.stage_after(b",\"stage\":")?;
        let started = Timestamp(self.number_after(b",\"started\":")?);
        let finished = Timestamp(self.number_after(b",\"finished\":")?);
        let upload = self.length_if(b",\"upload\":")?;
        let download = self.length_if(b",\"download\":")?;
        let ahead = self.length_if(b",\"ahead\":")?;
        Some(TraceEvent::StageCompleted { job, stage, started, finished, upload, download, ahead })
    }

    fn suspended(&mut self) -> Option<TraceEvent> {
        let job = self.job_after(b"suspended\",\"job\":\"")?;
        let next_stage = self.stage_after(b",\"next_stage\":")?;
        Some(TraceEvent::Suspended { job, next_stage })
    }

    fn completed(&mut self) -> Option<TraceEvent> {
        let job = self.job_after(b"completed\",\"job\":\"")?;
        let response = Nanos(self.number_after(b",\"response\":")?);
        let execution = Nanos(self.number_after(b",\"execution\":")?);
        Some(TraceEvent::Completed { job, response, execution })
    }

    fn skip(&mut self, text: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    fn number_after(&mut self, text: &[u8]) -> Option<u64> {
        self.skip(text)?;
        self.number()
    }

    /// A length that is only written where it is not zero.
    fn length_if(&mut self, text: &[u8]) -> Option<Nanos> {
        match self.skip(text) {
            Some(()) => Some(Nanos(self.number()?)),
            None => Some(Nanos::ZERO),
        }
    }

    /// A job up to and with its closing quotation mark.
    fn job_after(&mut self, text: &[u8]) -> Option<JobId> {
        self.skip(text)?;
        self.skip(b"m")?;
        let (index, generation) = self.slot()?;
        let sequence = self.number_after(b"#")?;
        self.skip(b"\"")?;
        Some(JobId { model: ModelId { index, generation }, sequence })
    }

    fn stage_after(&mut self, text: &[u8]) -> Option<StageIndex> {
        Some(StageIndex(self.number_after(text)?.try_into().ok()?))
    }

    /// `3`, or `3g1`.
    fn slot(&mut self) -> Option<(u16, u16)> {
        let index = self.number()?.try_into().ok()?;
        let generation = match self.skip(b"g") {
            Some(()) => self.number()?.try_into().ok()?,
            None => 0,
        };
        Some((index, generation))
    }

    /// A whole number as JSON writes it: without a sign and without zeros in front.
    fn number(&mut self) -> Option<u64> {
        let mut value: u64 = 0;
        let mut length = 0;
        while let Some(digit) = self.rest.get(length).map(|byte| byte.wrapping_sub(b'0'))
            && digit < 10
        {
            value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
            length += 1;
        }
        if length == 0 || (length > 1 && self.rest[0] == b'0') {
            return None;
        }
        self.rest = &self.rest[length..];
        Some(value)
    }
}
