//! What a job through AegisRT costs beyond a bare call of ONNX Runtime.
//!
//! Every round runs the same network twice, first by a bare call on the calling thread, then as a
//! job: submitted, decided, run on the device's worker, and waited for. Both are timed in every
//! round, and each function of the group reports its part, so all of them saw the same caches and
//! the same neighbours.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use aegis::{
    Bytes, ModelHandle, ModelSource, Nanos, Overheads, PolicyKind, Runtime, ServiceTerms, Tensor,
    Terms,
};
use aegis_backend_onnx::Library;
use aegis_benches::Sampling;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ort::session::{Session, SessionInputValue};

/// Where `cargo xtask models` puts the networks.
const MODELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.aegis/models/host24");
/// The wake-up latency is charged as `benches/workloads/edge24-host.toml` does.
const OVERHEADS: Overheads =
    Overheads { dispatch: Nanos::from_micros(20), wake: Nanos::from_millis(1), ..Overheads::NONE };
/// Long enough for the wake-up latency on top of a period.
const DEADLINE: Nanos = Nanos::from_millis(100);
const MEMORY: Bytes = Bytes::from_mib(512);
/// Events between two drains.
const TRACE_CAPACITY: usize = 1 << 14;
/// Jobs between two drains.
const JOBS_PER_DRAIN: u64 = 1 << 10;

/// One network.
struct Case {
    name: &'static str,
    /// What is declared for it.
    cost: Nanos,
    /// Less than a round, so that no job is held back.
    period: Nanos,
    /// Rounds of each function.
    samples: usize,
}

const CASES: [Case; 2] = [
    Case {
        name: "speed_controller",
        cost: Nanos::from_micros(30),
        period: Nanos::from_micros(60),
        samples: 1_000,
    },
    Case {
        name: "gaze_estimator",
        cost: Nanos::from_micros(800),
        period: Nanos::from_millis(1),
        samples: 500,
    },
];

/// How the rounds follow each other.
struct Cadence {
    group: &'static str,
    /// How long the threads poll before they sleep.
    spin: Nanos,
    /// Before each round.
    pause: Duration,
}

const CADENCES: [Cadence; 2] = [
    // Back to back: the threads of the runtime poll throughout, and the caches stay warm.
    Cadence { group: "job_overhead", spin: Nanos::from_millis(100), pause: Duration::ZERO },
    // Apart: the threads poll as long as `aegis run` has it, then sleep; nothing is warm.
    Cadence {
        group: "job_overhead_asleep",
        spin: Nanos::from_micros(50),
        pause: Duration::from_millis(2),
    },
];

/// The functions of a group: what each reports of a round.
const REPORTS: [(&str, Report); 4] = [
    ("baseline", |round| round.bare),
    ("job", |round| round.job),
    ("job_on_device", |round| round.execution),
    // A job that beat its bare call added nothing, but criterion refuses zero; medians do not mind.
    ("added", |round| round.job.saturating_sub(round.bare).max(Duration::from_nanos(1))),
];

type Report = fn(&Round) -> Duration;

fn job_overhead(criterion: &mut Criterion) {
    for cadence in CADENCES {
        for case in CASES {
            let sampling = Sampling { samples: case.samples, ..Sampling::SINGLE_CALLS };
            let mut group = aegis_benches::group(criterion, cadence.group, sampling);
            let mut pair = Pair::new(&case, &cadence);
            for (function, report) in REPORTS {
                group.bench_function(BenchmarkId::new(function, case.name), |bencher| {
                    bencher.iter_custom(|rounds| (0..rounds).map(|_| report(&pair.round())).sum());
                });
            }
            pair.runtime.stop().expect("the device is there");
            group.finish();
        }
    }
}

/// What the two calls of a round took.
struct Round {
    bare: Duration,
    job: Duration,
    /// The part of the job between the device's two events around its stage.
    execution: Duration,
}

/// The same network in a session of its own and admitted to a runtime.
struct Pair {
    session: Session,
    values: Vec<SessionInputValue<'static>>,
    runtime: Runtime,
    model: ModelHandle,
    inputs: Vec<Tensor>,
    pause: Duration,
    jobs: u64,
}

impl Pair {
    fn new(case: &Case, cadence: &Cadence) -> Self {
        let file: PathBuf = Path::new(MODELS).join(case.name).with_extension("onnx");
        let runtime = runtime(cadence.spin);
        let loaded = runtime.load(case.name, &ModelSource::onnx(&file));
        let loaded = loaded.expect("`cargo xtask bench` writes the models and fetches the runtime");
        let model = runtime.admit(loaded, &terms(case)).expect("it has the device to itself");
        runtime.start().expect("one more thread");
        let inputs: Vec<Tensor> =
            model.description().inputs.iter().map(aegis::drive::sample_input).collect();
        let specs = model.description().inputs.iter();
        let values = specs.zip(&inputs).map(|(spec, input)| {
            let elements = input.as_bytes().chunks_exact(4);
            let element = |four: &[u8]| f32::from_le_bytes(four.try_into().expect("four bytes"));
            let elements: Vec<f32> = elements.map(element).collect();
            let tensor = ort::value::Tensor::from_array((spec.shape.clone(), elements));
            tensor.expect("as many elements as the shape says").into()
        });
        let values = values.collect();
        let session = bare_session(&file).expect("the runtime loaded it a moment ago");
        Self { session, values, runtime, model, inputs, pause: cadence.pause, jobs: 0 }
    }

    /// A bare call and a job, each timed, after the pause.
    fn round(&mut self) -> Round {
        thread::sleep(self.pause);
        let bare = self.bare();
        let start = Instant::now();
        let outputs = self.model.submit(&self.inputs).and_then(aegis::Job::wait);
        let job = start.elapsed();
        let execution = Duration::from(outputs.expect("the model is sound").timing().execution);
        self.jobs += 1;
        if self.jobs.is_multiple_of(JOBS_PER_DRAIN) {
            drop(self.runtime.take_trace());
        }
        Round { bare, job, execution }
    }

    /// The call as somebody without AegisRT writes it: inputs at hand, outputs from the session.
    fn bare(&mut self) -> Duration {
        let start = Instant::now();
        let outputs = self.session.run(&self.values[..]).expect("the network is sound");
        drop(outputs);
        start.elapsed()
    }
}

/// No compute budget: a neighbour that takes the core away must not cost later jobs their turn.
fn terms(case: &Case) -> Terms {
    let mut terms = Terms::periodic(case.cost, case.period, MEMORY);
    let (period, jitter, priority) = (case.period, Nanos::ZERO, 0);
    terms.service = ServiceTerms::Guaranteed { period, deadline: DEADLINE, jitter, priority };
    terms.budget.compute = Nanos::MAX;
    terms
}

fn runtime(spin: Nanos) -> Runtime {
    let runtime = Runtime::builder()
        .host(MEMORY)
        .streams(1)
        .policy(PolicyKind::Edf)
        .queue_depth(64)
        .max_models(1)
        .overheads(OVERHEADS)
        .trace_capacity(TRACE_CAPACITY)
        .spin(spin);
    runtime.build().expect("every limit is stated and small")
}

/// A session with the options AegisRT uses, but its own allocator.
fn bare_session(file: &Path) -> ort::Result<Session> {
    let library = Library::get().expect("the library was loaded for the runtime");
    Session::builder(library.ort())?
        .with_intra_threads(1)?
        .with_inter_threads(1)?
        .with_intra_op_spinning(false)?
        .commit_from_file(file)
}

criterion_group!(benches, job_overhead);
criterion_main!(benches);
