//! Real-time priority for a thread: attempted, reported when refused, never fatal.
//!
//! On a general-purpose kernel any other program may take the processor from a thread in the
//! middle of a stage, and the stage then looks longer than it is. Under `SCHED_FIFO` only more
//! urgent real-time threads can. The right to ask for it is a privilege (`CAP_SYS_NICE`, or a
//! limit of `RLIMIT_RTPRIO`), so the answer is part of every report.
//!
//! Linux does not leave a core to them for good: of each `sched_rt_period_us` real-time threads get
//! `sched_rt_runtime_us`, 950 ms of each second unless somebody changed it, and then the core goes to
//! others (since Linux 6.12 only where others wait for it). A thread that sleeps now and then never
//! meets the limit; an orchestrator that spins for the end of a stage (`wait = "spin"`) does, and
//! stands still for the rest of the period. What the limit is is reported beside the priority
//! ([`Throttling`]); to lift it is the machine's configuration: `sysctl kernel.sched_rt_runtime_us=-1`
//! on a machine whose other work has cores of its own.

use std::fmt;
use std::fs;
use std::io;
use std::sync::{Arc, OnceLock};

use aegis_trace::Nanos;
use rustix::mm::MlockAllFlags;
use rustix::thread::CpuSet;
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
    /// What was asked for holds.
    Granted,
    /// The system refused, and all is as if nobody had asked.
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

/// How long the system leaves a core to real-time threads that never sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Throttling {
    /// It does not concern the thread, which is no real-time one.
    NotApplicable,
    /// The system does not tell.
    Unknown,
    /// For ever.
    Off,
    /// For `runtime` of each `period`.
    After {
        /// What they get.
        runtime: Nanos,
        /// How often.
        period: Nanos,
    },
}

impl Throttling {
    /// What the system is set to now. Reads two files.
    #[must_use]
    pub fn read() -> Self {
        let setting = |name| fs::read_to_string(format!("/proc/sys/kernel/{name}")).ok();
        let both = setting("sched_rt_runtime_us").zip(setting("sched_rt_period_us"));
        both.map_or(Self::Unknown, |(runtime, period)| Self::of(&runtime, &period))
    }

    /// What two settings in microseconds mean.
    fn of(runtime: &str, period: &str) -> Self {
        let micros = |text: &str| text.trim().parse::<i64>().ok();
        let (Some(runtime), Some(period)) = (micros(runtime), micros(period)) else {
            return Self::Unknown;
        };
        match (u64::try_from(runtime), u64::try_from(period)) {
            (Ok(runtime), Ok(period)) if runtime < period => {
                let nanos = |micros: u64| Nanos(micros.saturating_mul(1_000));
                Self::After { runtime: nanos(runtime), period: nanos(period) }
            }
            // Minus one, or all of the period.
            (_, Ok(_)) => Self::Off,
            (_, Err(_)) => Self::Unknown,
        }
    }
}

impl fmt::Display for Throttling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotApplicable => f.write_str("none"),
            Self::Unknown => f.write_str("unknown"),
            Self::Off => f.write_str("off"),
            Self::After { runtime, period } => {
                let lost = period.saturating_sub(*runtime);
                write!(f, "a thread that spins loses {lost} of each {period}")
            }
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
    let status = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    if status == 0 {
        Realtime::Granted
    } else {
        Realtime::Refused { reason: io::Error::last_os_error().to_string() }
    }
}

/// Asks that the calling thread run on the processor `core` alone, as the system numbers them. One
/// system call; does not block. What else runs there is not moved away: that is the machine's
/// configuration (`isolcpus`, a cpuset).
#[must_use]
pub fn pin(core: usize) -> Realtime {
    if core >= CpuSet::MAX_CPU {
        return Realtime::Refused { reason: format!("no system numbers a core {core}") };
    }
    let mut cores = CpuSet::new();
    cores.set(core);
    answer(rustix::thread::sched_setaffinity(None, &cores))
}

/// Asks that pages of this process, once touched, stay in memory: those that exist and, where the
/// process may lock without limit, those to come.
///
/// Pages are locked as they are touched, not filled in beforehand: an arena is address space first,
/// and filling all of it would take memory that nobody uses. Where the limit of `RLIMIT_MEMLOCK` is
/// finite, future pages are left out, since a process that reaches the limit could not allocate any
/// more. One or two system calls.
#[must_use]
pub fn lock_memory() -> Realtime {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock);
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::ONFAULT;
    let future = match limit.current {
        None => MlockAllFlags::FUTURE,
        Some(_) => MlockAllFlags::empty(),
    };
    answer(rustix::mm::mlockall(flags | future))
}

fn answer(outcome: rustix::io::Result<()>) -> Realtime {
    match outcome {
        Ok(()) => Realtime::Granted,
        Err(errno) => Realtime::Refused { reason: io::Error::from(errno).to_string() },
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
    fn the_throttle_is_read_as_the_system_means_it() {
        let (runtime, period) = (Nanos::from_millis(950), Nanos::from_secs(1));
        let usual = Throttling::After { runtime, period };
        assert_eq!(Throttling::of("950000\n", "1000000\n"), usual);
        assert_eq!(usual.to_string(), "a thread that spins loses 50 ms of each 1 s");
        assert_eq!(Throttling::of("-1\n", "1000000\n"), Throttling::Off);
        assert_eq!(Throttling::of("1000000", "1000000"), Throttling::Off);
        assert_eq!(Throttling::of("a few", "1000000"), Throttling::Unknown);
        assert_ne!(Throttling::read(), Throttling::NotApplicable);
    }

    #[test]
    fn pinning_is_granted_on_a_core_that_exists_and_refused_elsewhere() {
        let pinned = std::thread::spawn(|| {
            let allowed = rustix::thread::sched_getaffinity(None).expect("the system tells");
            let core = (0..CpuSet::MAX_CPU).find(|core| allowed.is_set(*core)).expect("one");
            (pin(core), rustix::thread::sched_getcpu() == core, pin(CpuSet::MAX_CPU))
        });
        let (first, is_there, beyond) = pinned.join().expect("asking does not panic");
        assert_eq!((first, is_there), (Realtime::Granted, true));
        assert!(matches!(beyond, Realtime::Refused { .. }));
    }

    #[test]
    fn locking_is_granted_or_says_why_not() {
        match lock_memory() {
            Realtime::Granted => {}
            Realtime::Refused { reason } => assert!(!reason.is_empty()),
            Realtime::NotRequested => panic!("it was requested"),
        }
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
