//! A doorbell: many threads ring, one waits.
//!
//! Rings do not count: any number of them before a wait make that one wait return. The waiter
//! therefore looks at the queues and events themselves after every return, and a wait may return
//! although there is nothing to see.
//!
//! ```text
//!              wait, nothing rang                 at `until`
//!   AWAKE ------------------------> PARKED ----------------------> AWAKE
//!     | notify                        | notify: unpark the waiter
//!     v                               v
//!   NOTIFIED <------------------------+        NOTIFIED -- wait --> AWAKE
//! ```
//!
//! # Invariants
//! 1. A ring is never lost: all changes of the state are read-modify-write operations on one word,
//!    so they have one total order. Either the waiter's change to `PARKED` finds the ring, or the
//!    ring finds `PARKED` and unparks.
//! 2. What a thread wrote before [`Signal::notify`] is visible to the waiter after the
//!    [`Signal::wait`] that took the ring: `notify` releases, the waiter's take acquires, and rings
//!    in between are read-modify-writes, which continue the release sequence.
//! 3. [`Signal::notify`] makes a system call only when it finds `PARKED`.

use std::fmt;
use std::time::{Duration, Instant};

use aegis_trace::Nanos;

use crate::sync::{AtomicU32, Mutex, Ordering, Thread, current, lock, park_until};

/// The waiter runs, and nothing rang since its last wait.
const AWAKE: u32 = 0;
/// Something rang since the last wait.
const NOTIFIED: u32 = 1;
/// The waiter sleeps, or is about to.
const PARKED: u32 = 2;

/// How many looks a polling waiter takes between two readings of the clock: enough that the clock
/// (about 30 ns) does not delay the look that matters, few enough to overshoot by about 1 us only.
const LOOKS_PER_CLOCK_READ: u32 = 64;

/// A wake-up with one waiter and any number of notifiers.
pub struct Signal {
    state: AtomicU32,
    /// The waiter, written by itself before it enters `PARKED`.
    waiter: Mutex<Option<Thread>>,
}

impl Signal {
    /// A signal nobody has rung.
    #[must_use]
    pub fn new() -> Self {
        Self { state: AtomicU32::new(AWAKE), waiter: Mutex::new(None) }
    }

    /// Rings: the present or next [`Signal::wait`] returns.
    ///
    /// Any thread may call it. It never allocates; it makes a system call only when the waiter
    /// sleeps.
    pub fn notify(&self) {
        // Always a swap, also when the state reads NOTIFIED already: skipping the write would skip
        // the release, and the waiter could take the older ring without seeing our writes.
        if self.state.swap(NOTIFIED, Ordering::AcqRel) == PARKED {
            // The waiter stored its handle before it wrote PARKED, which the swap acquired.
            if let Some(waiter) = &*lock(&self.waiter) {
                waiter.unpark();
            }
        }
    }

    /// Returns once the signal rang since the last wait, or at `until`, whichever is earlier.
    ///
    /// Polls for `spin` first, at the price of a busy core, then sleeps; [`Nanos::MAX`] polls for
    /// ever. Without `until` it may wait for ever. One thread at a time may wait; which one may
    /// change between waits. Allocates nothing.
    ///
    /// # Panics
    /// When it finds another thread asleep in the same signal.
    pub fn wait(&self, until: Option<Instant>, spin: Nanos) {
        if self.take_ring() || self.poll(until, spin) {
            return;
        }
        self.sleep(until);
    }

    /// Takes a ring, if there is one. Only the waiter calls it.
    pub(crate) fn take_ring(&self) -> bool {
        // The plain load keeps the cache line shared while the waiter polls.
        self.state.load(Ordering::Relaxed) == NOTIFIED
            && self
                .state
                .compare_exchange(NOTIFIED, AWAKE, Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
    }

    /// Polls for `spin`; tells whether the wait is over.
    fn poll(&self, until: Option<Instant>, spin: Nanos) -> bool {
        if spin == Nanos::ZERO {
            return false;
        }
        // No sum means a point past the clock's range: poll for ever.
        let spin_end = Instant::now().checked_add(Duration::from_nanos(spin.as_nanos()));
        loop {
            // Whom this thread woke a moment ago may have been put on this very core, where it
            // is not let on before our slice ends: without this it waits for our polling to end.
            std::thread::yield_now();
            for _ in 0..LOOKS_PER_CLOCK_READ {
                if self.take_ring() {
                    return true;
                }
                std::hint::spin_loop();
            }
            let now = Instant::now();
            if until.is_some_and(|until| now >= until) {
                return true;
            }
            if spin_end.is_some_and(|end| now >= end) {
                return false;
            }
        }
    }

    /// Sleeps until a ring or `until`.
    fn sleep(&self, until: Option<Instant>) {
        *lock(&self.waiter) = Some(current());
        let parked =
            self.state.compare_exchange(AWAKE, PARKED, Ordering::AcqRel, Ordering::Acquire);
        match parked {
            Ok(_) => {}
            Err(NOTIFIED) => {
                self.state.swap(AWAKE, Ordering::Acquire);
                return;
            }
            Err(_) => panic!("two threads wait on one signal"),
        }
        // Unparking leaves a token behind when it comes late, so a return proves nothing: look.
        loop {
            park_until(until);
            let rang = self.state.load(Ordering::Relaxed) == NOTIFIED;
            if rang || until.is_some_and(|until| Instant::now() >= until) {
                // A ring that arrives between the look and this swap is taken with it: the caller
                // looks at the queues afterwards, so it counts as answered.
                self.state.swap(AWAKE, Ordering::Acquire);
                return;
            }
        }
    }
}

impl Default for Signal {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signal").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const FOR_EVER: Nanos = Nanos::MAX;

    #[test]
    fn a_ring_before_the_wait_ends_it_at_once_and_only_once() {
        let signal = Signal::new();
        signal.notify();
        signal.notify();
        signal.wait(None, Nanos::ZERO);
        let soon = Instant::now() + Duration::from_millis(1);
        signal.wait(Some(soon), Nanos::ZERO);
        assert!(Instant::now() >= soon, "the second wait has nothing but its end to return for");
    }

    #[test]
    fn polling_ends_at_the_given_instant_too() {
        let signal = Signal::new();
        let soon = Instant::now() + Duration::from_micros(50);
        signal.wait(Some(soon), FOR_EVER);
        assert!(Instant::now() >= soon);
    }

    /// Passes a counter to and fro; a lost ring would leave both threads asleep.
    fn ping_pong(spin: Nanos, rounds: u32) {
        let shared = Arc::new((Signal::new(), Signal::new(), AtomicU32::new(0)));
        let other = Arc::clone(&shared);
        let pong = std::thread::spawn(move || {
            let (ping, pong, turn) = &*other;
            for round in 0..rounds {
                while turn.load(Ordering::Relaxed) != 2 * round + 1 {
                    ping.wait(None, spin);
                }
                turn.store(2 * round + 2, Ordering::Relaxed);
                pong.notify();
            }
        });
        let (ping, pong_back, turn) = &*shared;
        for round in 0..rounds {
            turn.store(2 * round + 1, Ordering::Relaxed);
            ping.notify();
            while turn.load(Ordering::Relaxed) != 2 * round + 2 {
                pong_back.wait(None, spin);
            }
        }
        pong.join().expect("the other thread only waits and rings");
    }

    #[test]
    fn no_ring_is_lost_between_sleeping_threads() {
        ping_pong(Nanos::ZERO, 2_000);
    }

    #[test]
    fn no_ring_is_lost_where_polling_turns_to_sleep() {
        ping_pong(Nanos(1), 2_000);
    }
}

/// Every interleaving of small cases; see `crate::sync` for how to run it.
#[cfg(all(test, loom))]
mod model {
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// The waiter of `rings` threads, each of which publishes once and rings once. Relaxed accesses
    /// on purpose: the signal alone must order them.
    fn every_ring_is_seen(rings: u32) {
        loom::model(move || {
            let shared = Arc::new((Signal::new(), AtomicU32::new(0)));
            let ringers: Vec<_> = (0..rings)
                .map(|_| {
                    let shared = Arc::clone(&shared);
                    loom::thread::spawn(move || {
                        shared.1.fetch_add(1, Ordering::Relaxed);
                        shared.0.notify();
                    })
                })
                .collect();
            // Each return without news costs a ring, so this loop is finite, or a deadlock that
            // loom reports.
            while shared.1.load(Ordering::Relaxed) < rings {
                shared.0.wait(None, Nanos::ZERO);
            }
            for ringer in ringers {
                ringer.join().expect("ringing does not panic");
            }
        });
    }

    #[test]
    fn model_one_ring_is_seen() {
        every_ring_is_seen(1);
    }

    #[test]
    fn model_two_rings_are_seen() {
        every_ring_is_seen(2);
    }

    #[test]
    fn model_what_was_written_before_the_ring_is_visible_after_the_wait() {
        loom::model(|| {
            let shared = Arc::new((Signal::new(), AtomicU32::new(0)));
            let other = Arc::clone(&shared);
            let ringer = loom::thread::spawn(move || {
                other.1.store(7, Ordering::Relaxed);
                other.0.notify();
            });
            shared.0.wait(None, Nanos::ZERO); // One ring, so one return.
            assert_eq!(shared.1.load(Ordering::Relaxed), 7);
            ringer.join().expect("ringing does not panic");
        });
    }
}
