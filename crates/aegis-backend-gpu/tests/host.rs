//! What needs no GPU: preparation and plain stages, with programs that do all of their work at once.
//!
//! On the host nothing can be captured, so every model here runs plainly; graphs are tried in the unit
//! tests of `trial`, and for real in `aegis-gpu-tests`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use aegis_backend_gpu::{Memory, Plain, Prepared, Programs, Setting, not_wanted};
use aegis_context::chain::{Chain, Room, StageFace};
use aegis_context::named::Declared;
use aegis_context::slot::JobSlot;
use aegis_context::{BackendError, DType, TensorSpec};
use aegis_cuda::{CudaStream, DeviceArena, DeviceContext, HostConfig};
use aegis_memory::{MemoryOrchestrator, ModelMemory};
use aegis_trace::{Bytes, ModelId, MonotonicClock, Nanos, PartitionId, StageIndex, TensorId};

const SCRATCH: TensorId = TensorId::first(1);

/// What the programs of a model heard, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Heard {
    Enqueued(usize),
    Ran(usize),
    Sealed,
    /// With so much of the arena free.
    Dropped(u64),
}

/// Stages that copy what they take to what they give; waiting for their end where `WAITS`.
struct Copies<const WAITS: bool> {
    chain: Chain,
    arena: DeviceArena,
    heard: Arc<Mutex<Vec<Heard>>>,
    /// Runs until one fails; it wraps then, so that one is all.
    good_runs: Arc<AtomicU64>,
}

impl<const WAITS: bool> Copies<WAITS> {
    fn copy(&mut self, stage: usize, memory: &mut Memory) -> Result<(), BackendError> {
        let left = self.good_runs.fetch_sub(1, Ordering::Relaxed);
        if left == 0 {
            return Err(BackendError::Runtime { reason: "it had enough".to_owned() });
        }
        let (from, to) = (self.chain.takes[stage][0], self.chain.gives[stage][0]);
        let mut bytes = vec![0; self.chain.tensors[from].spec.bytes()];
        memory.own(from).read(0, &mut bytes)?;
        Ok(memory.own(to).write(0, &bytes)?)
    }

    fn note(&self, heard: Heard) {
        self.heard.lock().expect("nobody panicked").push(heard);
    }
}

impl<const WAITS: bool> Programs for Copies<WAITS> {
    const PLAIN: Plain = if WAITS { Plain::Awaited } else { Plain::Launched };

    fn stages(&self) -> usize {
        self.chain.takes.len()
    }

    fn enqueue(
        &mut self,
        stage: usize,
        memory: &mut Memory,
        _stream: &CudaStream,
    ) -> Result<(), BackendError> {
        self.note(Heard::Enqueued(stage));
        self.copy(stage, memory)
    }

    fn run(
        &mut self,
        stage: usize,
        memory: &mut Memory,
        _stream: &CudaStream,
    ) -> Result<(), BackendError> {
        self.note(Heard::Ran(stage));
        self.copy(stage, memory)
    }

    fn seal(&mut self) {
        self.note(Heard::Sealed);
    }
}

impl<const WAITS: bool> Drop for Copies<WAITS> {
    fn drop(&mut self) {
        let gap = self.arena.largest_gap();
        self.note(Heard::Dropped(gap.end - gap.start));
    }
}

struct World {
    device: DeviceContext,
    arena: DeviceArena,
    preparation: Arc<CudaStream>,
    stream: CudaStream,
    chain: Chain,
    heard: Arc<Mutex<Vec<Heard>>>,
    good_runs: Arc<AtomicU64>,
}

impl World {
    /// A host device, and a model of two stages: `x`, `a`, `y`.
    fn new() -> Self {
        let memory_limit = Bytes::from_kib(64);
        let (spin, clock) = (Nanos::ZERO, MonotonicClock::start());
        let config = HostConfig { memory_limit, max_streams: 2, stream_depth: 16, spin, clock };
        let device = DeviceContext::host(config).expect("limits are stated");
        let arena = device.reserve_arena(memory_limit).expect("address space");
        let preparation = Arc::new(device.create_stream().expect("a thread"));
        let stream = device.create_stream().expect("a thread");
        let spec = |name: &str| TensorSpec { name: name.into(), dtype: DType::U8, shape: vec![9] };
        let all = [[spec("x")], [spec("a")], [spec("y")]];
        let face = |stage: usize| StageFace { inputs: &all[stage], outputs: &all[stage + 1] };
        let chain = Chain::link(&[face(0), face(1)]).expect("they fit together");
        let (heard, good_runs) = (Arc::default(), Arc::new(AtomicU64::new(u64::MAX)));
        Self { device, arena, preparation, stream, chain, heard, good_runs }
    }

    fn memory(&self) -> Memory {
        let tensors = self.chain.lifetimes(2, Room { alignment: 256, padding: Bytes::ZERO });
        let declared = Declared(&tensors);
        let mut memory = MemoryOrchestrator::new(self.arena.clone());
        let (model, partition) = (ModelId::first(0), PartitionId::WHOLE);
        let wanted = ModelMemory { model, partition, tensors: tensors.clone() };
        let planned = memory.plan(wanted).expect("it fits");
        let mut binding = memory.bind(planned).expect("nothing else is bound");
        let named = declared.named(&self.chain, 2, &mut binding).expect("all are there");
        Memory::bound(named, binding, SCRATCH, None)
    }

    fn prepare<const WAITS: bool>(
        &self,
        plain: Option<String>,
    ) -> Result<Prepared<Copies<WAITS>>, BackendError> {
        let (device, stream, chain) = (&self.device, &self.preparation, &self.chain);
        Prepared::new(Setting { device, stream, chain, plain }, || {
            let memory = self.memory();
            let (chain, arena) = (self.chain.clone(), self.arena.clone());
            let (heard, good_runs) = (Arc::clone(&self.heard), Arc::clone(&self.good_runs));
            Ok((Copies { chain, arena, heard, good_runs }, memory))
        })
    }

    fn slot(&self) -> Arc<JobSlot> {
        let slot = JobSlot::on(&self.arena, &self.chain.description()).expect("there is room");
        assert!(slot.claim(), "a new slot is free");
        Arc::new(slot)
    }

    fn heard(&self) -> Vec<Heard> {
        std::mem::take(&mut *self.heard.lock().expect("nobody panicked"))
    }
}

/// Runs a job of `byte`s through both stages; gives its output.
fn run<P: Programs>(world: &World, prepared: &mut Prepared<P>, byte: u8) -> Vec<u8> {
    let slot = world.slot();
    slot.write_input(0, &[byte; 9]);
    slot.queue();
    for stage in [0, 1] {
        prepared.enqueue(StageIndex(stage), &slot, &world.stream).expect("it runs");
    }
    slot.io().outputs()[0].to_vec()
}

#[test]
fn a_model_is_warmed_up_sealed_and_then_runs_job_after_job() {
    let world = World::new();
    let mut prepared = world.prepare::<false>(Some(not_wanted())).expect("it is prepared");
    let both = [Heard::Ran(0), Heard::Ran(1)];
    let expected: Vec<Heard> = both.into_iter().cycle().take(8).chain([Heard::Sealed]).collect();
    assert_eq!(world.heard(), expected, "three runs to warm up, and one to compare");
    for byte in [3, 4, 5] {
        assert_eq!(run(&world, &mut prepared, byte), [byte; 9]);
        assert_eq!(world.heard(), [Heard::Enqueued(0), Heard::Enqueued(1)]);
    }
    assert_eq!((prepared.is_captured(), prepared.nodes()), (false, vec![None, None]));
    let [remark] = prepared.remarks() else { panic!("{:?}", prepared.remarks()) };
    assert!(remark.contains("launched kernel by kernel") && remark.contains("graph = false"));
}

#[test]
fn a_runtime_with_a_stream_of_its_own_is_waited_for() {
    let world = World::new();
    let mut prepared = world.prepare::<true>(Some(not_wanted())).expect("it is prepared");
    world.heard();
    assert_eq!(run(&world, &mut prepared, 7), [7; 9]);
    assert_eq!(world.heard(), [Heard::Ran(0), Heard::Ran(1)]);
    assert!(prepared.remarks()[0].contains("waits for its end"), "{:?}", prepared.remarks());
}

#[test]
fn what_cannot_be_captured_runs_plainly_and_says_why() {
    let world = World::new();
    let mut prepared = world.prepare::<false>(None).expect("it is prepared");
    assert_eq!(prepared.nodes(), [None, None]);
    let [remark] = prepared.remarks() else { panic!("{:?}", prepared.remarks()) };
    assert!(remark.starts_with("it runs without a graph, launched kernel by kernel"), "{remark}");
    assert!(!remark.contains("graph = false"), "the device's reason, not the workload's: {remark}");
    assert_eq!(run(&world, &mut prepared, 1), [1; 9]);
}

#[test]
fn a_stage_that_fails_is_an_error_and_the_next_job_runs() {
    let world = World::new();
    let mut prepared = world.prepare::<false>(Some(not_wanted())).expect("it is prepared");
    let slot = world.slot();
    slot.queue();
    world.good_runs.store(0, Ordering::Relaxed);
    let error = prepared.enqueue(StageIndex(0), &slot, &world.stream).expect_err("it had enough");
    assert!(error.to_string().contains("it had enough"), "{error}");
    let error = prepared.enqueue(StageIndex(2), &slot, &world.stream).expect_err("there are two");
    assert!(error.to_string().contains("no stage 2"), "{error}");
    assert_eq!(run(&world, &mut prepared, 2), [2; 9]);
}

#[test]
fn programs_go_before_the_memory_they_were_made_in() {
    let world = World::new();
    let whole = world.arena.largest_gap();
    let whole = whole.end - whole.start;
    drop(world.prepare::<false>(Some(not_wanted())).expect("it is prepared"));
    // Its first warm-up fails: what is there by then goes in the same order.
    world.good_runs.store(0, Ordering::Relaxed);
    assert!(world.prepare::<false>(None).is_err());
    let drops: Vec<u64> = world.heard().iter().filter_map(free_at_drop).collect();
    assert_eq!(drops.len(), 2);
    assert!(drops.iter().all(|free| *free < whole), "{drops:?} of {whole} were free");
    let after = world.arena.largest_gap();
    assert_eq!(after.end - after.start, whole, "then their memory goes too");
}

fn free_at_drop(heard: &Heard) -> Option<u64> {
    match heard {
        Heard::Dropped(free) => Some(*free),
        Heard::Enqueued(_) | Heard::Ran(_) | Heard::Sealed => None,
    }
}

#[test]
fn what_its_maker_says_is_the_error() {
    let world = World::new();
    let (device, stream, chain) = (&world.device, &world.preparation, &world.chain);
    let setting = Setting { device, stream, chain, plain: None };
    let made = Prepared::<Copies<false>>::new(setting, || {
        Err(BackendError::Runtime { reason: "the file is gone".to_owned() })
    });
    let error = made.map(|_| ()).expect_err("it was not made");
    assert!(error.to_string().contains("the file is gone"), "{error}");
}
