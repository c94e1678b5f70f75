//! What a thread asks of the operating system before it begins, and what it was granted.
//!
//! Each request is attempted by itself: one that is refused leaves the others as they are, and the
//! thread works all the same. The requests themselves are in [`realtime`](crate::realtime).

use serde::{Deserialize, Serialize};

use crate::realtime::{Realtime, RealtimePriority, Throttling, lock_memory, pin, request};

/// What is asked for a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadRequest {
    /// A priority of `SCHED_FIFO`.
    pub priority: Option<RealtimePriority>,
    /// Whether the memory of the process is to be locked.
    pub lock_memory: bool,
    /// The core to run on.
    pub core: Option<u16>,
}

/// What became of each request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadSetup {
    /// Of the priority.
    pub priority: Realtime,
    /// Of the locked memory.
    pub memory: Realtime,
    /// Of the core.
    pub core: Realtime,
    /// How long the priority keeps a core, if it was granted.
    pub throttling: Throttling,
}

impl ThreadSetup {
    /// Nothing was asked for.
    pub const NONE: Self = Self {
        priority: Realtime::NotRequested,
        memory: Realtime::NotRequested,
        core: Realtime::NotRequested,
        throttling: Throttling::NotApplicable,
    };
}

impl ThreadRequest {
    /// Asks for all of it, for the calling thread. A few system calls; the core first, so that the
    /// thread does not move once it is urgent.
    #[must_use]
    pub fn apply(self) -> ThreadSetup {
        let core = self.core.map_or(Realtime::NotRequested, |core| pin(usize::from(core)));
        let memory = if self.lock_memory { lock_memory() } else { Realtime::NotRequested };
        let priority = self.priority.map_or(Realtime::NotRequested, request);
        let throttling = match priority {
            Realtime::Granted => Throttling::read(),
            Realtime::NotRequested | Realtime::Refused { .. } => Throttling::NotApplicable,
        };
        ThreadSetup { priority, memory, core, throttling }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_asked_for_is_not_done() {
        let asked = std::thread::spawn(|| ThreadRequest::default().apply());
        assert_eq!(asked.join().expect("asking does not panic"), ThreadSetup::NONE);
    }

    #[test]
    fn a_refusal_leaves_the_other_requests_as_they_are() {
        let everything = ThreadRequest {
            priority: Some(RealtimePriority::WORKER),
            lock_memory: true,
            core: Some(u16::MAX),
        };
        let asked = std::thread::spawn(move || everything.apply());
        let asked = asked.join().expect("asking does not panic");
        let ThreadSetup { priority, memory, core, throttling } = asked;
        let is_urgent = priority == Realtime::Granted;
        assert_eq!(throttling != Throttling::NotApplicable, is_urgent, "it is said where it holds");
        assert!(matches!(core, Realtime::Refused { .. }), "no machine has that core");
        let was_tried = |answer| answer != Realtime::NotRequested;
        assert!(was_tried(priority) && was_tried(memory));
    }
}
