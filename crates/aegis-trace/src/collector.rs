//! The collector: one bounded ring per recording thread, drained off the hot path.
//!
//! ```text
//!   thread A --Recorder--> [ ring ] --\
//!   thread B --Recorder--> [ ring ] ----> TraceCollector::drain -> Vec<Record>, in time order
//! ```
//!
//! # Invariants
//! 1. [`Recorder::record`] moves one entry into a preallocated single-producer ring (`rtrb`): it
//!    never allocates, never blocks, never touches a lock.
//! 2. A full ring drops the *new* event and counts it; the count of every recorder is kept for
//!    ever, also after the recorder is gone. A trace with drops cannot be replayed and says so.
//! 3. Within one recorder, records come out in the order they went in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use crate::event::TraceEvent;
use crate::unit::Timestamp;

/// One event with its time and origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When it happened.
    pub at: Timestamp,
    /// Which recorder wrote it, in order of creation.
    pub by: u32,
    /// What happened.
    #[serde(flatten)]
    pub event: TraceEvent,
}

/// The single writer of one ring. Belongs to one thread at a time.
#[derive(Debug)]
pub struct Recorder {
    ring: rtrb::Producer<(Timestamp, TraceEvent)>,
    dropped: Arc<AtomicU64>,
}

impl Recorder {
    /// Records `event` at `at`. Costs tens of nanoseconds; a full ring counts the loss instead.
    pub fn record(&mut self, at: Timestamp, event: TraceEvent) {
        if self.ring.push((at, event)).is_err() {
            // One writer, so load and store need no read-modify-write cycle.
            let lost = self.dropped.load(Ordering::Relaxed);
            self.dropped.store(lost + 1, Ordering::Relaxed);
        }
    }
}

/// Owns the reading ends of all rings. Clones share them.
#[derive(Clone, Debug)]
pub struct TraceCollector {
    rings: Arc<Mutex<Rings>>,
    capacity: usize,
}

#[derive(Debug, Default)]
struct Rings {
    ends: Vec<RingEnd>,
    /// The number of the next recorder.
    next: u32,
    /// What recorders that are gone have lost.
    dropped_before: u64,
}

#[derive(Debug)]
struct RingEnd {
    by: u32,
    ring: rtrb::Consumer<(Timestamp, TraceEvent)>,
    dropped: Arc<AtomicU64>,
}

impl TraceCollector {
    /// A collector whose rings hold `capacity` events each (about 72 bytes an event).
    ///
    /// # Panics
    /// When `capacity` is zero.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "a ring without room drops every event");
        Self { rings: Arc::default(), capacity }
    }

    /// A new recorder with a ring of its own. Allocates the ring; call it at set-up.
    ///
    /// # Panics
    /// After 2^32 recorders.
    #[must_use]
    pub fn recorder(&self) -> Recorder {
        let (producer, consumer) = rtrb::RingBuffer::new(self.capacity);
        let dropped = Arc::new(AtomicU64::new(0));
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let by = rings.next;
        rings.next = by.checked_add(1).expect("fewer than 2^32 recorders");
        rings.ends.push(RingEnd { by, ring: consumer, dropped: Arc::clone(&dropped) });
        Recorder { ring: producer, dropped }
    }

    /// Takes everything recorded so far, in order of time; records of equal time come in the order
    /// of their recorders, and those of one recorder in the order they were recorded, as long as its
    /// times never went back. O(n log n) in the number of records; allocates. The rings of recorders
    /// that are gone are freed once they are empty.
    #[must_use]
    pub fn drain(&self) -> Vec<Record> {
        let mut rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let mut records = Vec::new();
        let mut dropped_by_gone = 0;
        rings.ends.retain_mut(|end| {
            let gone = end.ring.is_abandoned(); // Before reading: nothing can follow then.
            end.take(&mut records);
            if gone {
                dropped_by_gone += end.dropped.load(Ordering::Relaxed);
            }
            !gone
        });
        rings.dropped_before += dropped_by_gone;
        records.sort_by_key(|record| record.at); // Stable: see the order promised above.
        records
    }

    /// How many events were lost to full rings since the beginning.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        let rings = self.rings.lock().unwrap_or_else(PoisonError::into_inner);
        let by_live: u64 = rings.ends.iter().map(|end| end.dropped.load(Ordering::Relaxed)).sum();
        rings.dropped_before + by_live
    }
}

impl RingEnd {
    /// Moves what is there now; what arrives meanwhile waits, so this is bounded.
    fn take(&mut self, records: &mut Vec<Record>) {
        for _ in 0..self.ring.slots() {
            let Ok((at, event)) = self.ring.pop() else { return };
            records.push(Record { at, by: self.by, event });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_counts_what_it_drops_and_keeps_what_it_holds() {
        let collector = TraceCollector::new(2);
        let mut recorder = collector.recorder();
        for n in 0..5 {
            recorder.record(Timestamp(n), TraceEvent::Idle);
        }
        assert_eq!(collector.dropped(), 3);
        let kept: Vec<_> = collector.drain().iter().map(|record| record.at.0).collect();
        assert_eq!(kept, [0, 1]);
        recorder.record(Timestamp(9), TraceEvent::Idle);
        assert_eq!(collector.drain().len(), 1);
        assert_eq!(collector.dropped(), 3);
    }

    #[test]
    fn the_ring_of_a_recorder_that_is_gone_is_read_out_and_freed() {
        let collector = TraceCollector::new(1);
        for n in 0..100 {
            let mut recorder = collector.recorder();
            recorder.record(Timestamp(n), TraceEvent::Idle);
            recorder.record(Timestamp(n), TraceEvent::Idle);
            drop(recorder);
            let last = collector.drain();
            assert_eq!((last.len(), last[0].by), (1, u32::try_from(n).expect("small")));
        }
        assert_eq!(collector.dropped(), 100);
        assert!(collector.rings.lock().expect("not poisoned").ends.is_empty());
    }

    #[test]
    fn records_of_several_threads_come_out_in_time_order() {
        let collector = TraceCollector::new(16);
        let (mut a, mut b) = (collector.recorder(), collector.recorder());
        a.record(Timestamp(1), TraceEvent::Started);
        b.record(Timestamp(2), TraceEvent::Idle);
        a.record(Timestamp(3), TraceEvent::Stopped);
        b.record(Timestamp(3), TraceEvent::Idle);
        let order: Vec<_> = collector.drain().iter().map(|r| (r.at.0, r.by)).collect();
        assert_eq!(order, [(1, 0), (2, 1), (3, 0), (3, 1)]);
    }
}
