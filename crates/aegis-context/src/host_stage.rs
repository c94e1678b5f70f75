//! A stage on the processor: a program that a runtime made, with the copies of its job around it.
//!
//! # Invariants
//! 1. The stages of a model run one at a time, on whichever stream: each holds the lock of the model's
//!    memory from its first copy to its last.
//! 2. A program is dropped before the memory that it was made in.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aegis_cuda::{CudaStream, HostWork, RefusedAllocation, WorkFault};
use aegis_trace::StageIndex;

use crate::chain::{Chain, Direction, SlotCopy};
use crate::context::error_line;
use crate::error::BackendError;
use crate::named::Named;
use crate::slot::JobSlot;

/// What a runtime made of one stage.
pub trait Program: Send + 'static {
    /// What the stages of a model share.
    type Memory: Send + 'static;

    /// The tensors with a name, in the chain's order.
    fn named(memory: &mut Self::Memory) -> &mut [Named];

    /// Runs once on this thread, and blocks until that ends.
    ///
    /// # Errors
    /// What the runtime says; the outputs are not to be read then.
    fn run(&mut self, memory: &mut Self::Memory) -> Result<(), BackendError>;
}

/// One stage, ready to run any number of times.
#[derive(Debug)]
pub struct HostStage<P: Program> {
    program: Mutex<P>,
    /// The job that the next run belongs to.
    job: Mutex<Option<Arc<JobSlot>>>,
    read: Vec<SlotCopy>,
    write: Vec<SlotCopy>,
    // Dropped after the program, which points into it.
    memory: Arc<Mutex<P::Memory>>,
}

impl<P: Program> HostStage<P> {
    /// The stages of `chain`, of a program each, in `memory`. The first reads the inputs of a job, the
    /// last writes its outputs.
    pub fn all(chain: &Chain, programs: Vec<P>, memory: &Arc<Mutex<P::Memory>>) -> Vec<Arc<Self>> {
        let last = programs.len().saturating_sub(1);
        let stage = |(index, program)| {
            Arc::new(Self {
                program: Mutex::new(program),
                job: Mutex::new(None),
                read: if index == 0 { chain.copies(Direction::In) } else { Vec::new() },
                write: if index == last { chain.copies(Direction::Out) } else { Vec::new() },
                memory: Arc::clone(memory),
            })
        };
        programs.into_iter().enumerate().map(stage).collect()
    }

    /// What the stages of the model share. Blocks while one of them runs.
    pub fn memory(&self) -> MutexGuard<'_, P::Memory> {
        lock(&self.memory)
    }

    /// Enqueues stage `stage` of `stages` on `stream`, for the job of `slot`. Does not block.
    ///
    /// # Errors
    /// [`BackendError::Runtime`], Permanent: there is no such stage, or it is enqueued already and has
    /// not begun. [`BackendError::Device`]: the stream takes no more.
    pub fn enqueue(
        stages: &[Arc<Self>],
        stage: StageIndex,
        slot: &Arc<JobSlot>,
        stream: &CudaStream,
    ) -> Result<(), BackendError> {
        let none = || BackendError::runtime(format!("the model has no stage {stage}"));
        let work = stages.get(usize::from(stage.0)).ok_or_else(none)?;
        work.give(slot)?;
        let queued: Arc<dyn HostWork> = Arc::<Self>::clone(work);
        stream.enqueue_host(queued).inspect_err(|_| work.take_back())?;
        Ok(())
    }

    /// Says whose job the next run is.
    fn give(&self, slot: &Arc<JobSlot>) -> Result<(), BackendError> {
        let mut job = lock(&self.job);
        if job.is_some() {
            let reason = "the stage is enqueued already and has not begun";
            return Err(BackendError::runtime(reason.into()));
        }
        *job = Some(Arc::clone(slot));
        Ok(())
    }

    /// Forgets the job of a run that was not enqueued.
    fn take_back(&self) {
        lock(&self.job).take();
    }

    /// Runs once. Every lock here is this model's own or its job's, and free unless two of the model's
    /// stages were enqueued on different streams.
    fn execute(&self) -> Result<(), BackendError> {
        let job = lock(&self.job).take();
        let job = job.ok_or_else(|| BackendError::runtime("it has no job".into()))?;
        let memory = &mut *lock(&self.memory);
        {
            let (io, named) = (job.io(), P::named(memory));
            for copy in &self.read {
                named[copy.tensor].own().write(0, &io.inputs()[copy.slot])?;
            }
        }
        lock(&self.program).run(memory)?;
        let (mut io, named) = (job.io(), P::named(memory));
        for copy in &self.write {
            named[copy.tensor].own().read(0, io.output_mut(copy.slot))?;
        }
        Ok(())
    }
}

impl<P: Program> HostWork for HostStage<P> {
    fn run(&self) -> Result<(), WorkFault> {
        self.execute().map_err(|error| {
            let line = error_line(&error);
            match error {
                BackendError::OutOfScratch { requested, available } => {
                    WorkFault::out_of_memory(RefusedAllocation { requested, available }, &*line)
                }
                other => WorkFault::new(other.category(), &*line),
            }
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::sync::{TryLockError, Weak};

    use aegis_cuda::{DeviceContext, SimConfig};
    use aegis_trace::{Bytes, Category};

    use super::*;
    use crate::chain::StageFace;
    use crate::description::{DType, TensorSpec};

    /// Gives twice the byte that it takes, from tensor to tensor; runs out of scratch at 200 and more.
    struct Doubling {
        from: usize,
        to: usize,
    }

    impl Program for Doubling {
        type Memory = Vec<Named>;

        fn named(memory: &mut Self::Memory) -> &mut [Named] {
            memory
        }

        fn run(&mut self, memory: &mut Self::Memory) -> Result<(), BackendError> {
            let mut byte = [0];
            memory[self.from].own().read(0, &mut byte)?;
            if byte[0] >= 200 {
                let (requested, available) = (Bytes(100), Bytes(24));
                return Err(BackendError::OutOfScratch { requested, available });
            }
            memory[self.to].own().write(0, &[byte[0].wrapping_mul(2)])?;
            Ok(())
        }
    }

    /// Two stages, `in` to `between` to `out`, and a device that enqueues nothing.
    fn two_stages() -> (Vec<Arc<HostStage<Doubling>>>, Arc<JobSlot>, DeviceContext) {
        let spec = |name: &str| TensorSpec { name: name.into(), dtype: DType::U8, shape: vec![1] };
        let [input, between, output] = ["in", "between", "out"].map(|name| [spec(name)]);
        let faces = [
            StageFace { inputs: &input, outputs: &between },
            StageFace { inputs: &between, outputs: &output },
        ];
        let chain = Chain::link(&faces).expect("they fit");
        let limits = SimConfig { memory_limit: Bytes(3), max_streams: 1, stream_depth: 1 };
        let device = DeviceContext::sim(limits).expect("a simulated device");
        let arena = device.reserve_arena(Bytes(3)).expect("three bytes");
        let own = |at: u64| Named::Own(arena.buffer(at..at + 1).expect("it is free"));
        let memory = Arc::new(Mutex::new((0..3).map(own).collect()));
        let program =
            |stage: usize| Doubling { from: chain.takes[stage][0], to: chain.gives[stage][0] };
        let stages = HostStage::all(&chain, vec![program(0), program(1)], &memory);
        (stages, Arc::new(JobSlot::new(&chain.description())), device)
    }

    /// The one stage of a model, `in` to `out`, in a memory that is made of both.
    fn one_stage<P: Program>(
        program: impl FnOnce(&Arc<Mutex<P::Memory>>) -> P,
        memory: impl FnOnce(Vec<Named>) -> P::Memory,
    ) -> (Arc<HostStage<P>>, Arc<JobSlot>) {
        let spec = |name: &str| TensorSpec { name: name.into(), dtype: DType::U8, shape: vec![1] };
        let [input, output] = ["in", "out"].map(|name| [spec(name)]);
        let chain =
            Chain::link(&[StageFace { inputs: &input, outputs: &output }]).expect("it fits");
        let limits = SimConfig { memory_limit: Bytes(2), max_streams: 1, stream_depth: 1 };
        let device = DeviceContext::sim(limits).expect("a simulated device");
        let arena = device.reserve_arena(Bytes(2)).expect("two bytes");
        let own = |at: u64| Named::Own(arena.buffer(at..at + 1).expect("it is free"));
        let memory = Arc::new(Mutex::new(memory((0..2).map(own).collect())));
        let stages = HostStage::all(&chain, vec![program(&memory)], &memory);
        let stage = stages.into_iter().next().expect("it has one");
        (stage, Arc::new(JobSlot::new(&chain.description())))
    }

    /// Says when it goes, and whether its memory was there then.
    struct Leaving {
        memory: Weak<Mutex<Vec<Named>>>,
        told: Sender<bool>,
    }

    impl Program for Leaving {
        type Memory = Vec<Named>;

        fn named(memory: &mut Self::Memory) -> &mut [Named] {
            memory
        }

        fn run(&mut self, _memory: &mut Self::Memory) -> Result<(), BackendError> {
            Ok(())
        }
    }

    impl Drop for Leaving {
        fn drop(&mut self) {
            self.told.send(self.memory.upgrade().is_some()).expect("somebody listens");
        }
    }

    /// Says when its tensors are copied, and when it has run.
    struct Announcing;

    struct Announced {
        named: Vec<Named>,
        told: Sender<()>,
    }

    impl Program for Announcing {
        type Memory = Announced;

        fn named(memory: &mut Self::Memory) -> &mut [Named] {
            memory.told.send(()).expect("somebody listens");
            &mut memory.named
        }

        fn run(&mut self, memory: &mut Self::Memory) -> Result<(), BackendError> {
            memory.told.send(()).expect("somebody listens");
            Ok(())
        }
    }

    fn submit(slot: &Arc<JobSlot>, byte: u8) {
        assert!(slot.claim(), "a new slot is free");
        slot.write_input(0, &[byte]);
        slot.queue();
    }

    #[test]
    fn the_first_stage_reads_the_job_and_the_last_writes_it() {
        let (stages, slot, _device) = two_stages();
        submit(&slot, 7);
        for stage in &stages {
            stage.give(&slot).expect("it is idle");
            stage.run().expect("nothing fails");
        }
        assert_eq!(slot.io().outputs()[0][..], [28]);
        let fault = stages[0].run().expect_err("it was given no job again");
        assert_eq!(fault.category, Category::Permanent);
    }

    #[test]
    fn a_stage_that_waits_takes_no_second_job() {
        let (stages, slot, _device) = two_stages();
        stages[0].give(&slot).expect("it is idle");
        let said = stages[0].give(&slot).expect_err("it waits").to_string();
        assert_eq!(said, "the runtime failed: the stage is enqueued already and has not begun");
        stages[0].take_back();
        stages[0].give(&slot).expect("it is idle again");
    }

    #[test]
    fn what_was_not_enqueued_leaves_the_stage_idle() {
        let (stages, slot, device) = two_stages();
        let stream = device.create_stream().expect("its one stream");
        let refused = |stage| HostStage::enqueue(&stages, StageIndex(stage), &slot, &stream);
        let said = refused(2).expect_err("there are two").to_string();
        assert_eq!(said, "the runtime failed: the model has no stage 2");
        assert!(refused(0).is_err(), "a simulated stream runs nothing of a host");
        stages[0].give(&slot).expect("it is idle");
    }

    #[test]
    fn scratch_that_was_too_small_is_a_fault_with_its_numbers() {
        let (stages, slot, _device) = two_stages();
        submit(&slot, 200);
        stages[0].give(&slot).expect("it is idle");
        let fault = stages[0].run().expect_err("the program refuses");
        let refused = RefusedAllocation { requested: Bytes(100), available: Bytes(24) };
        assert_eq!(fault.refused, Some(refused));
    }

    #[test]
    fn a_program_goes_before_the_memory_that_it_was_made_in() {
        let (told, tells) = channel();
        let program = |memory: &Arc<_>| Leaving { memory: Arc::downgrade(memory), told };
        let (stage, _slot) = one_stage(program, |named| named); // It alone has the memory.
        drop(stage);
        assert_eq!(tells.recv(), Ok(true));
    }

    #[test]
    fn the_memory_is_the_stages_from_its_first_copy_to_its_last() {
        let (told, tells) = channel();
        let (stage, slot) = one_stage(|_| Announcing, |named| Announced { named, told });
        submit(&slot, 7);
        stage.give(&slot).expect("it is idle");
        // Whoever let go of it would stand before the next lock, and it could be had.
        let is_taken = || {
            (0..10_000).all(|_| {
                std::thread::yield_now();
                matches!(stage.memory.try_lock(), Err(TryLockError::WouldBlock))
            })
        };
        std::thread::scope(|scope| {
            let program = lock(&stage.program);
            let runs = scope.spawn(|| stage.run());
            tells.recv().expect("it copies");
            let io = slot.io(); // It has copied.
            assert!(is_taken(), "before the program");
            drop(program);
            tells.recv().expect("it has run");
            assert!(is_taken(), "behind the program");
            drop(io);
            runs.join().expect("no panic").expect("nothing fails");
        });
        assert!(stage.memory.try_lock().is_ok());
    }
}
