//! A gate in a stream: what is enqueued behind it begins once the processor opens it.
//!
//! With gates an experiment on the order of streams need not race the device: nothing happens before what
//! was to be asked was asked. A gate is a number for which the stream waits: on `cuda` in page-locked
//! memory, on `sim` in the simulator's.
//!
//! # Invariants
//! 1. Each closing waits for the next number, and opening writes the number that was waited for last: all
//!    that was closed before is open then. A gate is closed fewer than 2^31 times.
#![allow(unsafe_code)] // docs/soundness.md argues it.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::device::DeviceContext;
use crate::error::DeviceError;
use crate::host_buffer::HostBuffer;
use crate::sim::SimDevice;
use crate::stream::CudaStream;

/// A gate, open at first.
pub(crate) struct Gate {
    number: Number,
    closed: AtomicU32,
}

/// What streams read; written by [`Gate::open`] alone.
enum Number {
    Locked(HostBuffer),
    Virtual(SimDevice, Arc<AtomicU32>),
}

impl Gate {
    /// A gate for streams of `device`. On `cuda` it allocates a few bytes of page-locked memory, which
    /// outlive every wait: whoever closes a gate opens it, and waits for its stream before the drop.
    pub(crate) fn new(device: &DeviceContext) -> Result<Self, DeviceError> {
        let number = match device.simulator() {
            Some(sim) => Number::Virtual(sim.clone(), Arc::default()),
            None => Number::Locked(device.host_buffer(size_of::<u32>())?),
        };
        Ok(Self { number, closed: AtomicU32::new(0) })
    }

    /// Holds back what is enqueued on `stream` from now on.
    pub(crate) fn close(&self, stream: &CudaStream) -> Result<(), DeviceError> {
        let wanted = self.closed.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        match &self.number {
            // SAFETY: (1) The cell is aligned, since a page begins there, and outlives the wait: `new`.
            Number::Locked(cell) => unsafe {
                stream.on_gpu()?.hold_until(cell.first().cast(), wanted)
            },
            Number::Virtual(_, number) => stream.on_sim()?.hold_until(number, wanted),
        }
    }

    /// Lets all go on that was held back. Does not block.
    pub(crate) fn open(&self) {
        let reached = self.closed.load(Ordering::Relaxed);
        match &self.number {
            Number::Locked(cell) => {
                let address: NonNull<u32> = cell.first().cast();
                // SAFETY: (1) The cell is as large as the number, aligned, and lives. (2) The processor
                // reads and writes it nowhere else; the device reads it.
                let cell = unsafe { AtomicU32::from_ptr(address.as_ptr()) };
                cell.store(reached, Ordering::Release);
            }
            Number::Virtual(sim, number) => {
                number.store(reached, Ordering::Release);
                sim.look_at_gates();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use aegis_trace::Bytes;

    use super::*;
    use crate::event::EventStatus;
    use crate::sim::SimConfig;

    #[test]
    fn what_is_behind_a_gate_goes_on_when_it_is_opened_however_often_it_was_closed() {
        let limits = SimConfig { memory_limit: Bytes::ZERO, max_streams: 1, stream_depth: 8 };
        let device = DeviceContext::sim(limits).expect("a simulated device");
        let stream = device.create_stream().expect("its one stream");
        let gate = Gate::new(&device).expect("it is memory");
        for closings in 1..=2 {
            let event = device.create_event().expect("a live device");
            (0..closings).for_each(|_| gate.close(&stream).expect("room"));
            stream.record(&event).expect("room");
            assert_eq!(event.query().expect("no fault"), EventStatus::Pending);
            gate.open();
            assert_ne!(event.query().expect("no fault"), EventStatus::Pending);
        }
    }
}
