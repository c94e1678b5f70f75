//! The library's log: handed to `tracing`, and listened to while a call is under way.
//!
//! The library's functions answer with null or `false` and say the reason in the log, so an error is
//! made of what was said during the call. It may be said by threads of the library's own, so the log
//! is listened to as a whole, by one caller at a time.
//!
//! # Invariants
//! 1. One call is listened to at a time; others wait. Nothing on the launch path listens.
//! 2. What is kept of a call has a bound.

use std::sync::{Mutex, MutexGuard, PoisonError};

use trtx::{LogHandler, Severity};

/// The target of the library's events.
const TARGET: &str = "tensorrt";
/// How many lines of a call are kept; a reason is said in its last ones, and they are few.
const LINES_MAX: usize = 512;

/// Who listens now, if anybody does.
static HEARD: Mutex<Option<Heard>> = Mutex::new(None);
/// Held by the one call that is listened to.
static TURN: Mutex<()> = Mutex::new(());

/// What was said during one call.
#[derive(Debug, Default)]
pub(crate) struct Heard {
    lines: Vec<(Severity, String)>,
}

/// Makes `call`, and gives what was said meanwhile. Does not nest.
pub(crate) fn listen<T>(call: impl FnOnce() -> T) -> (T, Heard) {
    /// Ends the listening, also when the call unwinds.
    struct Listening(#[expect(dead_code, reason = "held, not read")] MutexGuard<'static, ()>);
    impl Drop for Listening {
        fn drop(&mut self) {
            *lock(&HEARD) = None;
        }
    }
    let listening = Listening(lock(&TURN));
    *lock(&HEARD) = Some(Heard::default());
    let result = call();
    let heard = lock(&HEARD).take().unwrap_or_default();
    drop(listening);
    (result, heard)
}

impl Heard {
    /// What was complained about, on one line; empty if nothing was.
    pub(crate) fn complaints(&self) -> String {
        self.joined(|severity| severity <= Severity::Error)
    }

    /// What was complained about; if nothing was, all that was said.
    pub(crate) fn reason(&self) -> String {
        let complaints = self.complaints();
        if complaints.is_empty() { self.joined(|_| true) } else { complaints }
    }

    /// All that was said above chatter, on one line.
    pub(crate) fn all(&self) -> String {
        self.joined(|severity| severity < Severity::Verbose)
    }

    /// The lines of information that begin with one of `words`.
    pub(crate) fn lines_with(&self, words: &[&str]) -> Vec<String> {
        let begins = |line: &&str| words.iter().any(|word| line.starts_with(word));
        self.lines.iter().map(|(_, line)| line.as_str()).filter(begins).map(str::to_owned).collect()
    }

    fn joined(&self, wanted: impl Fn(Severity) -> bool) -> String {
        let mut said: Vec<String> = Vec::new();
        for (_, line) in self.lines.iter().filter(|(severity, _)| wanted(*severity)) {
            let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
            if !line.is_empty() && said.last() != Some(&line) {
                said.push(line);
            }
        }
        said.join("; ")
    }

    /// As if `lines` had been said.
    #[cfg(any(test, feature = "mock"))]
    pub(crate) fn of(lines: &[(Severity, &str)]) -> Self {
        Self { lines: lines.iter().map(|(of, line)| (*of, (*line).to_owned())).collect() }
    }
}

/// The handler that the library is given.
#[derive(Debug)]
pub(crate) struct Log;

impl LogHandler for Log {
    fn log(&self, severity: Severity, message: &str) {
        match severity {
            Severity::InternalError | Severity::Error => {
                tracing::error!(target: TARGET, "{message}");
            }
            Severity::Warning => tracing::warn!(target: TARGET, "{message}"),
            Severity::Info => tracing::info!(target: TARGET, "{message}"),
            Severity::Verbose => tracing::debug!(target: TARGET, "{message}"),
        }
        if let Some(heard) = &mut *lock(&HEARD)
            && severity < Severity::Verbose
            && heard.lines.len() < LINES_MAX
        {
            heard.lines.push((severity, message.to_owned()));
        }
    }
}

fn lock<T>(mutex: &'static Mutex<T>) -> MutexGuard<'static, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_hears_what_was_said_during_it_and_no_more() {
        Log.log(Severity::Error, "before");
        let (answer, heard) = listen(|| {
            Log.log(Severity::Info, "loading\n  a plan");
            let said = std::thread::spawn(|| Log.log(Severity::Error, "it is damaged")).join();
            said.expect("no panic");
            7
        });
        Log.log(Severity::Error, "after");
        assert_eq!(answer, 7);
        assert_eq!(heard.reason(), "it is damaged");
        assert_eq!(heard.all(), "loading a plan; it is damaged");
    }

    #[test]
    fn where_nothing_was_complained_about_the_reason_is_all_that_was_said() {
        let heard =
            Heard::of(&[(Severity::Info, "Total Weights Memory: 3"), (Severity::Info, "x")]);
        assert_eq!(heard.reason(), "Total Weights Memory: 3; x");
        assert_eq!(heard.lines_with(&["Total "]), ["Total Weights Memory: 3"]);
    }
}
