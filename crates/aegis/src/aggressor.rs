//! Synthetic load: threads that keep the processor or the memory busy beside a measurement.
//!
//! On the host device, one thread for each core but one, at the ordinary priority: what other programs
//! of the machine do to a model, at its worst. They hold no lock and touch nothing of ours.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

/// What a thread does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aggressor {
    /// Multiplies and adds in registers.
    Compute,
    /// Copies between two areas larger than a last-level cache.
    Bandwidth,
    /// Both by turns.
    Mixed,
}

/// The words of one area: 32 MiB, beyond the share of a last-level cache that a core has.
const AREA_WORDS: usize = 4 << 20;
/// Words that are copied before a thread looks whether to stop.
const STRIDE_WORDS: usize = 64 << 10;
/// Multiplications before a thread looks whether to stop.
const ROUNDS: u32 = 100_000;

/// Threads that run until this is dropped, which waits for them.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts as many threads as there are cores but one, and one at least.
    ///
    /// # Errors
    /// The operating system gave no thread.
    pub(crate) fn start(kind: Aggressor) -> std::io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let mut load = Self { stop: Arc::default(), threads: Vec::new() };
        for _ in 0..(cores - 1).max(1) {
            let stop = Arc::clone(&load.stop);
            let name = thread::Builder::new().name("aegis-aggressor".to_owned());
            load.threads.push(name.spawn(move || run(kind, &stop))?);
        }
        Ok(load)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // An aggressor cannot panic, and if it did the measurement would show it.
            drop(thread.join());
        }
    }
}

fn run(kind: Aggressor, stop: &AtomicBool) {
    let words = if kind == Aggressor::Compute { 0 } else { AREA_WORDS };
    let (from, mut to) = (vec![1_u64; words], vec![0_u64; words]);
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        if kind != Aggressor::Bandwidth {
            compute();
        }
        if kind != Aggressor::Compute {
            let part = at..at + STRIDE_WORDS;
            to[part.clone()].copy_from_slice(&from[part]);
            black_box(&to);
            at = (at + STRIDE_WORDS) % AREA_WORDS;
        }
    }
}

fn compute() {
    let mut values = [1.0_f64, 1.1, 1.2, 1.3];
    for _ in 0..ROUNDS {
        for value in &mut values {
            *value = *value * 0.999_999 + 1e-6;
        }
    }
    black_box(values);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_load_starts_and_ends() {
        for kind in [Aggressor::Compute, Aggressor::Bandwidth, Aggressor::Mixed] {
            let load = Load::start(kind).expect("threads");
            assert!(!load.threads.is_empty());
            drop(load);
        }
    }
}
