//! The workload through AegisRT, for a time and several times over, as the trace saw it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aegis::drive::Load;
use aegis::workload::Driver;
use aegis::{
    DropReason, JobId, ModelId, Nanos, Pipeline, Record, Report, Runtime, Timestamp, TraceEvent,
    Verdict,
};
use anyhow::bail;

use crate::figures::{DeviceFigures, FromDue, Memory, ModelFigures, Observed};
use crate::setting::Setting;
use crate::stats::Quantiles;
use crate::variant::{self, Change};

/// How often the trace is taken; its rings hold what happens in between.
const TAKE_EVERY: Duration = Duration::from_millis(20);
/// How long jobs may take to end once nothing is submitted any more.
const DRAIN: Duration = Duration::from_millis(500);

/// Runs the workload `runs` times for `length`.
///
/// # Errors
/// The workload cannot be opened, a model is refused, or the device fails.
pub(crate) fn run(
    workload: &Path,
    change: &Change,
    length: Nanos,
    runs: u64,
) -> anyhow::Result<Observed> {
    let pipeline = variant::open(workload, change)?;
    let driver = change.driver.clone().unwrap_or_else(|| driver_of(&pipeline));
    let mut setting = Setting::here(&workload.display().to_string(), &driver);
    let mut tally = Tally::default();
    let mut memory = Memory::default();
    for run in 1..=runs {
        let report = once(&pipeline, length, &mut tally, &mut memory, &mut setting)?;
        println!(
            "run {run} of {runs}: {} jobs so far, {} misses, {} losses",
            tally.models.values().map(|seen| seen.responses.len()).sum::<usize>(),
            tally.models.values().map(|seen| seen.missed).sum::<u64>(),
            tally.models.values().map(|seen| seen.lost).sum::<u64>(),
        );
        if run == runs {
            return Ok(tally.observed(setting, &report, runs, memory));
        }
    }
    bail!("there must be at least one run")
}

/// The driver that the workload file names.
pub(crate) fn driver_of(pipeline: &Pipeline) -> String {
    let name = match pipeline.workload().device.driver {
        Driver::Host => "host",
        Driver::Sim => "sim",
        Driver::Cuda { .. } => "cuda",
    };
    name.to_owned()
}

/// Admits all models, or says which are refused and why.
///
/// # Errors
/// As said, and what keeps the workload from being decided.
pub(crate) fn admit(pipeline: &Pipeline) -> anyhow::Result<(Runtime, Vec<Verdict>)> {
    let (runtime, verdicts) = pipeline.admit(|_| {})?;
    let refused = verdicts.iter().filter_map(|verdict| {
        let error = verdict.outcome.as_ref().err()?;
        Some(format!("{}: {error}", verdict.model))
    });
    let refused: Vec<String> = refused.collect();
    if !refused.is_empty() {
        bail!("not every model is admitted: {}", refused.join("; "));
    }
    Ok((runtime, verdicts))
}

fn once(
    pipeline: &Pipeline,
    length: Nanos,
    tally: &mut Tally,
    memory: &mut Memory,
    setting: &mut Setting,
) -> anyhow::Result<Report> {
    let (runtime, verdicts) = admit(pipeline)?;
    runtime.warm_up()?;
    runtime.start()?;
    drop(runtime.take_trace());
    let begun = Instant::now();
    let sources = pipeline.load(&verdicts);
    let periods: BTreeMap<ModelId, Nanos> =
        sources.models.iter().map(|driven| (driven.model.id(), driven.period)).collect();
    let load = Load::start_for(sources, Arc::clone(runtime.clock()), Some(length))?;
    // The last job was due before; a generator that is late then has this long for it.
    while begun.elapsed() < Duration::from(length) + TAKE_EVERY {
        std::thread::sleep(TAKE_EVERY);
        tally.take(runtime.take_trace());
    }
    let load = load.end();
    tally.wall += Duration::from(length);
    std::thread::sleep(DRAIN);
    setting.end(); // Not beside jobs: it asks the driver.
    let stopped = runtime.stop();
    *memory = seen_memory(&runtime);
    let summary = load.summary();
    tally.figures.omitted += summary.left_out + summary.cut_off;
    tally.take(runtime.take_trace());
    tally.end_run(summary.start, length, &periods);
    tally.figures.events_lost += runtime.report().events_dropped;
    stopped?;
    Ok(runtime.report())
}

fn seen_memory(runtime: &Runtime) -> Memory {
    let models = runtime.report().memory;
    let device = runtime.driver_memory();
    Memory {
        limit: Some(device.map_or(models.limit, |device| device.limit).0),
        resident: Some(models.resident.0),
        scratch: Some(models.scratch.0),
        context: device.map(|device| device.context.0),
        arena: device.map(|device| device.arena.0),
        libraries: device.map(|device| device.libraries.0),
        driver: device.and_then(|device| device.counted).map(|counted| counted.0),
    }
}

/// What the trace said so far.
#[derive(Default)]
struct Tally {
    models: BTreeMap<ModelId, Seen>,
    /// The releases of jobs that are under way.
    releases: BTreeMap<JobId, u64>,
    /// The stages of this run: begin, end and the release of the job.
    stages: Vec<[u64; 3]>,
    gaps: Vec<u64>,
    busy: u64,
    /// Device time of all stages, those of several partitions added up, and of their copies.
    copied: Copied,
    wall: Duration,
    figures: DeviceFigures,
}

/// Lengths, summed over stages.
#[derive(Default)]
struct Copied {
    stages: Nanos,
    uploads: Nanos,
    downloads: Nanos,
    /// Copies of inputs beside the stages before, which are in none of them.
    ahead: Nanos,
}

impl Copied {
    fn add(&mut self, stage: Nanos, [upload, download, ahead]: [Nanos; 3]) {
        self.stages = self.stages.saturating_add(stage);
        self.uploads = self.uploads.saturating_add(upload);
        self.downloads = self.downloads.saturating_add(download);
        self.ahead = self.ahead.saturating_add(ahead);
    }

    /// The part of all stages that `copies` are.
    fn ppm(&self, copies: Nanos) -> u64 {
        let ppm = u128::from(copies.0) * 1_000_000 / u128::from(self.stages.0.max(1));
        u64::try_from(ppm).unwrap_or(u64::MAX)
    }
}

#[derive(Default)]
struct Seen {
    responses: Vec<u64>,
    /// The jobs of this run: release and response.
    jobs: Vec<[u64; 2]>,
    /// Responses from the points at which jobs were due.
    from_due: Vec<u64>,
    executions: Vec<u64>,
    missed: u64,
    lost: u64,
    over_bound: u64,
}

impl Tally {
    fn take(&mut self, records: Vec<Record>) {
        for record in records {
            self.note(record.event);
        }
    }

    fn note(&mut self, event: TraceEvent) {
        match event {
            TraceEvent::Submitted { job, release, .. } => {
                self.releases.insert(job, release.0);
            }
            TraceEvent::StageCompleted {
                job, started, finished, upload, download, ahead, ..
            } => {
                let copies = [upload, download, ahead];
                self.copied.add(finished.saturating_since(started), copies);
                let release = self.releases.get(&job).copied().unwrap_or(u64::MAX);
                self.stages.push([started.0, finished.0, release]);
            }
            TraceEvent::Completed { job, response, execution } => {
                let release = self.releases.remove(&job);
                let seen = self.models.entry(job.model).or_default();
                seen.jobs.extend(release.map(|release| [release, response.as_nanos()]));
                seen.responses.push(response.as_nanos());
                seen.executions.push(execution.as_nanos());
            }
            TraceEvent::MissedDeadline { job, .. } => self.seen(job.model).missed += 1,
            TraceEvent::BoundExceeded { job, .. } => self.seen(job.model).over_bound += 1,
            TraceEvent::Faulted { job, .. } => self.seen(job.model).lost += 1,
            // What the end of the run cuts off was not lost.
            TraceEvent::Dropped { job, why } if why != DropReason::Stopping => {
                self.seen(job.model).lost += 1;
            }
            TraceEvent::SubmissionRefused { model, .. } => self.seen(model).lost += 1,
            TraceEvent::AssumptionBroken { .. } => self.figures.broken += 1,
            _ => {}
        }
    }

    fn seen(&mut self, model: ModelId) -> &mut Seen {
        self.models.entry(model).or_default()
    }

    /// Ends a run in which the models with `periods` were due from `start` on, for `length`.
    fn end_run(&mut self, start: Timestamp, length: Nanos, periods: &BTreeMap<ModelId, Nanos>) {
        self.releases.clear();
        for (model, seen) in &mut self.models {
            let jobs = std::mem::take(&mut seen.jobs);
            let Some(period) = periods.get(model) else { continue };
            let late = |release: u64| release.saturating_sub(start.0) % period.0;
            seen.from_due.extend(jobs.iter().map(|[release, response]| late(*release) + response));
        }
        self.measure_stages(start.saturating_add(length).0);
    }

    /// Takes the stages of a run as intervals: those of several partitions overlap and count once. What
    /// lies behind `end`, when nothing is due any more, is not of the time that the busy part is of.
    fn measure_stages(&mut self, end: u64) {
        let mut stages = std::mem::take(&mut self.stages);
        stages.sort_unstable();
        let mut until: Option<u64> = None;
        for [started, finished, release] in stages {
            let from = until.map_or(started, |until| until.max(started));
            self.busy += finished.min(end).saturating_sub(from);
            // A gap counts where the next job was there when the one before ended.
            if let Some(until) = until.filter(|until| release <= *until && *until <= started) {
                self.gaps.push(started - until);
            }
            until = Some(until.map_or(finished, |until| until.max(finished)));
        }
    }

    fn observed(
        mut self,
        setting: Setting,
        report: &Report,
        runs: u64,
        memory: Memory,
    ) -> Observed {
        let wall = u64::try_from(self.wall.as_nanos()).unwrap_or(u64::MAX);
        let busy = u128::from(self.busy) * 1_000_000 / u128::from(wall.max(1));
        let device = DeviceFigures {
            busy_ppm: u64::try_from(busy).unwrap_or(u64::MAX),
            upload_ppm: self.copied.ppm(self.copied.uploads),
            download_ppm: self.copied.ppm(self.copied.downloads),
            ahead_ppm: self.copied.ppm(self.copied.ahead),
            gap: Quantiles::of(&mut self.gaps),
            ..self.figures
        };
        let models = report.models.iter().map(|model| {
            let mut seen = self.models.remove(&model.model).unwrap_or_default();
            let nanos = |time: Option<Nanos>| time.map_or(0, Nanos::as_nanos);
            let deadline = nanos(model.deadline());
            ModelFigures {
                name: model.name.clone(),
                period: nanos(model.period()),
                deadline,
                bound: model.bound.map(Nanos::as_nanos),
                completed: seen.responses.len() as u64,
                missed: seen.missed,
                lost: seen.lost,
                over_bound: seen.over_bound,
                response: Quantiles::of(&mut seen.responses),
                from_due: FromDue::of(&mut seen.from_due, deadline),
                execution: Quantiles::of(&mut seen.executions),
            }
        });
        let models = models.collect();
        Observed { how: "aegis".into(), setting, runs, wall, models, memory, device: Some(device) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_a_part_of_all_stages() {
        let mut copied = Copied::default();
        assert_eq!(copied.ppm(copied.uploads), 0, "no stage ran");
        copied.add(Nanos(300), [30, 5, 0].map(Nanos));
        copied.add(Nanos(100), [0, 5, 20].map(Nanos));
        assert_eq!((copied.ppm(copied.uploads), copied.ppm(copied.downloads)), (75_000, 25_000));
        assert_eq!(copied.ppm(copied.ahead), 50_000, "beside them");
    }

    #[test]
    fn a_job_that_was_submitted_late_counts_from_where_it_was_due() {
        let [periodic, triggered] = [0, 1].map(ModelId::first);
        let seen = || Seen { jobs: vec![[1000, 5], [1103, 7]], ..Seen::default() };
        let models = BTreeMap::from([(periodic, seen()), (triggered, seen())]);
        let mut tally = Tally { models, ..Tally::default() };
        tally.end_run(Timestamp(1000), Nanos(200), &BTreeMap::from([(periodic, Nanos(100))]));
        assert_eq!(tally.models[&periodic].from_due, [5, 3 + 7]);
        assert!(tally.models[&triggered].from_due.is_empty(), "nobody knows when it was due");
        let from_due =
            FromDue::of(&mut tally.models.get_mut(&periodic).expect("it ran").from_due, 9);
        assert_eq!(from_due.expect("two jobs").missed, 1);
    }

    #[test]
    fn gaps_count_only_where_a_job_waited_and_overlaps_count_once() {
        let mut tally = Tally {
            // Back to back after 5; idle until 100; two partitions at once from 200 on.
            stages: vec![
                [0, 10, 0],
                [15, 20, 8],
                [100, 110, 100],
                [200, 230, 200],
                [210, 220, 210],
            ],
            ..Tally::default()
        };
        tally.measure_stages(1000);
        assert_eq!((tally.busy, tally.gaps), (10 + 5 + 10 + 30, vec![5]));
    }

    #[test]
    fn a_run_is_busy_up_to_its_end_only() {
        let stages = vec![[0, 10, 0], [15, 40, 8], [50, 60, 9]];
        let mut tally = Tally { stages, ..Tally::default() };
        tally.measure_stages(30);
        assert_eq!(tally.busy, 10 + 15, "the second stage to the end, of the third nothing");
    }
}
