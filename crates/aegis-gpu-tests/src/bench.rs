//! What every test starts from: a GPU that was found, and devices made on it.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;
use std::time::Instant;

use aegis_cuda::{CompletionWait, CudaConfig, CudaEvent, DeviceContext, EventStatus};
use aegis_trace::{Bytes, MonotonicClock, Nanos};

/// Why a test did not run on this GPU, which is no failure of it.
#[derive(Debug)]
pub(crate) struct NotRun(pub(crate) &'static str);

impl fmt::Display for NotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for NotRun {}

/// What a test measured, or why it failed or, as [`NotRun`], did not run.
pub(crate) type Outcome = Result<String, Box<dyn Error>>;

/// Says what came of a test that this process runs for another.
pub(crate) fn tell(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The first GPU of the machine.
pub(crate) struct Bench;

impl Bench {
    /// Opens the first GPU once; the reason where there is none.
    pub(crate) fn find() -> Result<Self, String> {
        match DeviceContext::cuda(config()) {
            Ok(_) => Ok(Self),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The device, waiting as most tests do.
    pub(crate) fn open(&self) -> Result<DeviceContext, Box<dyn Error>> {
        self.open_with(|_| ())
    }

    /// The device with a changed configuration.
    pub(crate) fn open_with(
        &self,
        change: impl FnOnce(&mut CudaConfig),
    ) -> Result<DeviceContext, Box<dyn Error>> {
        let mut config = config();
        change(&mut config);
        Ok(DeviceContext::cuda(config)?)
    }
}

fn config() -> CudaConfig {
    CudaConfig {
        ordinal: 0,
        memory_limit: Bytes::from_gib(4),
        max_streams: 8,
        stream_depth: 64,
        wait: CompletionWait::Spin,
        clock: MonotonicClock::start(),
    }
}

/// Fails with `why` unless `holds`.
pub(crate) fn require(holds: bool, why: impl FnOnce() -> String) -> Result<(), Box<dyn Error>> {
    if holds { Ok(()) } else { Err(why().into()) }
}

/// Waits for `event` as the orchestrator does: look, then wait for the device.
pub(crate) fn wait_for(device: &DeviceContext, event: &CudaEvent) -> Result<(), Box<dyn Error>> {
    while event.query()? == EventStatus::Pending {
        device.wait(None, Nanos::ZERO);
    }
    Ok(())
}

/// The length of `work`.
pub(crate) fn time(
    work: impl FnOnce() -> Result<(), Box<dyn Error>>,
) -> Result<Nanos, Box<dyn Error>> {
    let begun = Instant::now();
    work()?;
    Ok(Nanos::from(begun.elapsed()))
}

/// Median, 99th percentile and maximum of the samples, by nearest rank.
pub(crate) struct Spread {
    pub(crate) median: Nanos,
    pub(crate) p99: Nanos,
    pub(crate) max: Nanos,
}

impl Spread {
    pub(crate) fn of(mut samples: Vec<Nanos>) -> Self {
        samples.sort_unstable();
        let last = samples.len() - 1;
        let at = |percent: usize| samples[last * percent / 100];
        Self { median: at(50), p99: at(99), max: samples[last] }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "median {}, p99 {}, max {}", self.median, self.p99, self.max)
    }
}
