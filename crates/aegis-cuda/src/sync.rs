//! The primitives that [`crate::signal`] and [`crate::event`] are built on.
//!
//! The standard library's, or loom's when the unit tests are built with `--cfg loom` to explore the
//! interleavings of those two modules:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release --package aegis-cuda --lib model
//! ```
//!
//! The other modules use the standard library directly: their only atomics are a count and a flag.

#[cfg(not(all(test, loom)))]
pub(crate) use std::{
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread::{Thread, current},
};

#[cfg(all(test, loom))]
pub(crate) use loom::{
    sync::{
        Condvar, Mutex, MutexGuard,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    thread::{Thread, current},
};

/// Locks `mutex`; poison is ignored, because no lock of this crate is held while foreign code runs
/// and every critical section leaves its data whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Parks the calling thread until it is unparked or `until` has come; may return early.
#[cfg(not(all(test, loom)))]
pub(crate) fn park_until(until: Option<std::time::Instant>) {
    match until {
        None => std::thread::park(),
        Some(until) => {
            std::thread::park_timeout(until.saturating_duration_since(std::time::Instant::now()))
        }
    }
}

/// Parks the calling thread; models have no time, so they wait for ever.
#[cfg(all(test, loom))]
pub(crate) fn park_until(until: Option<std::time::Instant>) {
    assert!(until.is_none(), "a model has no time");
    loom::thread::park();
}
