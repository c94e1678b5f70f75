//! Real-time set-up of a thread: attempted, reported when refused, never fatal.
//!
//! On a general-purpose kernel any other program may take the processor from a thread in the
//! middle of a stage, and the stage then looks longer than it is. Under `SCHED_FIFO` only more
//! urgent real-time threads can. The right to ask for it is a privilege (`CAP_SYS_NICE`, or a
//! limit of `RLIMIT_RTPRIO`), so the answer is part of every report.
//!
//! Two more things can be asked for. Locked memory: a page that the system took away costs a disk
//! access to touch again, in the middle of a decision (`CAP_IPC_LOCK`, or `RLIMIT_MEMLOCK`). And a core:
//! a thread that stays where it is keeps its caches, and can be given a core that nobody else uses.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::fault::WorkFault;
use crate::host::HostWork;

/// A priority of `SCHED_FIFO`, from 1 to 99; larger is more urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RealtimePriority(u8);

impl RealtimePriority {
    /// The orchestrator's: above the workers, so that a decision never waits for one.
    pub const ORCHESTRATOR: Self = Self(70);
    /// The stream workers'.
    pub const WORKER: Self = Self(60);
}

/// How a thread is scheduled by the operating system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Realtime {
    /// Nobody asked.
    NotRequested,
    /// `SCHED_FIFO` holds.
    Granted,
    /// The system refused, and the thread is scheduled like any other program's.
    Refused {
        /// What the system said.
        reason: String,
    },
}

impl fmt::Display for Realtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRequested => f.write_str("not requested"),
            Self::Granted => f.write_str("granted"),
            Self::Refused { reason } => write!(f, "refused ({reason})"),
        }
    }
}

/// Asks for `SCHED_FIFO` at `priority` for the calling thread. Threads it starts later are
/// scheduled as usual. One system call; does not block.
#[must_use]
pub fn request(priority: RealtimePriority) -> Realtime {
    let parameters = libc::sched_param { sched_priority: i32::from(priority.0) };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: (1) Thread 0 is the calling thread. (2) The parameters live through the call, which
    // only reads them.
    outcome(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) })
}

/// Asks that the pages of this process stay in memory: those that are mapped now, each from the
/// moment it is first touched. One system call; it touches no page, so what was only reserved stays
/// so. What is mapped later is not locked, so that an allocation never fails for want of the right to.
#[must_use]
pub fn lock_memory() -> Realtime {
    // SAFETY: The call takes two flags and no address; locking changes no content.
    outcome(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_ONFAULT) })
}

/// Asks that the calling thread run on `core` alone, as the system numbers them. One system call.
#[must_use]
pub fn pin(core: u16) -> Realtime {
    let core = usize::from(core);
    if core >= usize::try_from(libc::CPU_SETSIZE).unwrap_or(0) {
        let reason = format!("core {core} is beyond the {} that can be named", libc::CPU_SETSIZE);
        return Realtime::Refused { reason };
    }
    // SAFETY: A set of cores is a plain bit set, for which all zeros is the empty set.
    let mut cores: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: The number was checked against the size of the set, and the set is ours alone.
    unsafe { libc::CPU_SET(core, &mut cores) };
    // SAFETY: (1) Thread 0 is the calling thread. (2) The set lives through the call, which reads as
    // many bytes as it has.
    outcome(unsafe { libc::sched_setaffinity(0, size_of_val(&cores), &raw const cores) })
}

/// What a system call that answers zero for yes said.
fn outcome(status: libc::c_int) -> Realtime {
    if status == 0 {
        Realtime::Granted
    } else {
        Realtime::Refused { reason: io::Error::last_os_error().to_string() }
    }
}

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
}

impl ThreadSetup {
    /// Nothing was asked for.
    pub const NONE: Self = Self {
        priority: Realtime::NotRequested,
        memory: Realtime::NotRequested,
        core: Realtime::NotRequested,
    };
}

impl ThreadRequest {
    /// Asks for all of it, for the calling thread. Up to three system calls; the core first, so that
    /// the thread does not move once it is urgent.
    #[must_use]
    pub fn apply(self) -> ThreadSetup {
        let core = self.core.map_or(Realtime::NotRequested, pin);
        let memory = if self.lock_memory { lock_memory() } else { Realtime::NotRequested };
        let priority = self.priority.map_or(Realtime::NotRequested, request);
        ThreadSetup { priority, memory, core }
    }
}

/// Work that asks for the priority of the worker it runs on.
#[derive(Debug)]
pub struct RealtimeWork {
    priority: RealtimePriority,
    outcome: OnceLock<Realtime>,
}

impl RealtimeWork {
    /// Work that will ask for `priority`.
    #[must_use]
    pub fn new(priority: RealtimePriority) -> Arc<Self> {
        Arc::new(Self { priority, outcome: OnceLock::new() })
    }

    /// The answer, once the work has run.
    #[must_use]
    pub fn outcome(&self) -> Realtime {
        self.outcome.get().cloned().unwrap_or(Realtime::NotRequested)
    }
}

impl HostWork for RealtimeWork {
    fn run(&self) -> Result<(), WorkFault> {
        // A second run would only repeat the first's answer.
        let _ = self.outcome.set(request(self.priority));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_granted_or_says_why_not() {
        // On a thread of its own: the test runner's threads keep their scheduling.
        let asked = std::thread::spawn(|| request(RealtimePriority::WORKER));
        match asked.join().expect("asking does not panic") {
            Realtime::Granted => {}
            Realtime::Refused { reason } => assert!(reason.contains("permitted"), "{reason}"),
            Realtime::NotRequested => panic!("it was requested"),
        }
    }

    #[test]
    fn a_thread_stays_on_the_core_it_is_given() {
        let here = || {
            // SAFETY: The call has no arguments and touches no memory of ours.
            unsafe { libc::sched_getcpu() }
        };
        let core = u16::try_from(here()).expect("a core of this machine");
        let on = std::thread::spawn(move || (pin(core), here()));
        let (answer, on) = on.join().expect("asking does not panic");
        assert_eq!((answer, on), (Realtime::Granted, i32::from(core)));
        let beyond = std::thread::spawn(|| (pin(1023), pin(u16::MAX)));
        let (absent, unnamed) = beyond.join().expect("asking does not panic");
        assert!(matches!(absent, Realtime::Refused { .. }), "nobody tests on 1024 cores");
        let Realtime::Refused { reason } = unnamed else { panic!("it cannot be named") };
        assert!(reason.contains("beyond"), "{reason}");
    }

    #[test]
    fn what_is_not_asked_for_is_not_done() {
        let asked = std::thread::spawn(|| ThreadRequest::default().apply());
        assert_eq!(asked.join().expect("asking does not panic"), ThreadSetup::NONE);
    }

    #[test]
    fn work_that_has_not_run_has_no_answer() {
        let work = RealtimeWork::new(RealtimePriority::WORKER);
        assert_eq!(work.outcome(), Realtime::NotRequested);
        std::thread::scope(|scope| {
            scope.spawn(|| work.run().expect("asking cannot fail"));
        });
        assert_ne!(work.outcome(), Realtime::NotRequested);
    }
}
