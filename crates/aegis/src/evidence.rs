//! The evidence file: what was measured, of which model, on which device.
//!
//! A profile run writes one JSON file beside the workload file; admission reads it and refuses
//! evidence whose fingerprint is not that of the model, device and environment at hand, but for
//! differences that the user accepts by name.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use aegis_cuda::{ClockRange, DeviceState, ThrottleReason};
use aegis_cuda::{ComputeUnits, DeviceCapabilities};
pub use aegis_sched::wcet::{
    ContentionFactor, CostRule, Samples, Scenario, StageProfile, WcetProfile,
};
use aegis_trace::{Bytes, Category, Nanos};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::environment::{Difference, Environment, Property};
use crate::source::{GpuOptions, MemoryNeed, ModelSource};

/// The version of the file format; any change of meaning raises it.
pub const VERSION: u32 = 2;

/// Everything one profile run measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The format's version.
    pub aegis_evidence: u32,
    /// The device all of it was measured on.
    pub device: DeviceFingerprint,
    /// When measuring ended, in UTC: `2026-11-26T22:05:00Z`.
    pub date: String,
    /// What else was known of the machine; the same before and after.
    pub environment: Environment,
    /// The device before and after measuring; `None` in files that were written without it. It is shown,
    /// not compared: it changes while the device works.
    #[serde(default)]
    pub states: Option<[DeviceState; 2]>,
    /// Rounds that were run and not kept.
    pub warm_up: usize,
    /// By the model's name.
    pub models: BTreeMap<String, ModelEvidence>,
}

/// What was measured of one model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelEvidence {
    /// SHA-256 of its files in order, or of its declaration; hexadecimal.
    pub model: String,
    /// The runtime with its version.
    pub runtime: String,
    /// Its stages in order: the names of their files, or numbers for declared costs.
    pub stages: Vec<String>,
    /// The models it took turns with.
    pub background: Vec<String>,
    /// Where it ran, and what ran beside it; `None` of a device that was not split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<PartitionFingerprint>,
    /// What is copied in, by it and beside it; `None` where it was not measured beside copies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploads: Option<UploadsMeasured>,
    /// What it needs.
    pub memory: MemoryNeed,
    /// How its runtime prepared it; nothing in evidence from before it was kept.
    #[serde(default, skip_serializing_if = "Preparation::is_nothing")]
    pub prepared: Preparation,
    /// Device times in turn with the other models, in the order they were taken, stage by stage,
    /// nanoseconds.
    pub samples: Samples,
    /// The same in the other scenarios that were measured.
    pub scenarios: BTreeMap<Scenario, Samples>,
    /// What launching and noticing took beside the device time, all stages of a job together.
    pub overheads: Vec<Nanos>,
    /// What it took to put the first stage of a job behind a running stage, its inputs ahead of it; empty
    /// of a model that is never put there. `None` where inputs were not to go ahead, and in evidence from
    /// before it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commits: Option<Vec<Nanos>>,
}

/// The uploads of a model, and those that ran beside it while it was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UploadsMeasured {
    /// The inputs of one of its jobs.
    pub own: Bytes,
    /// Each of the copies that followed each other beside its stages.
    pub beside: Bytes,
}

/// How a runtime prepared a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preparation {
    /// What its libraries took of a GPU beside the model's memory, by the driver's count; what all
    /// models share counts for the first that needed it.
    pub libraries: Bytes,
    /// What whoever reads about the model should know of it.
    pub remarks: Vec<String>,
}

impl Preparation {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Where evidence would be used.
#[derive(Clone, Copy, Debug)]
pub struct Here<'h> {
    /// The device.
    pub device: &'h DeviceFingerprint,
    /// The environment.
    pub environment: &'h Environment,
    /// Where the model is to run; `None` where the device is not split.
    pub partition: Option<&'h PartitionFingerprint>,
    /// Properties that may differ, because the user says so.
    pub accepted: &'h [Property],
}

/// What must not change between measuring and running.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceFingerprint {
    /// The driver.
    pub driver: String,
    /// The device's own name.
    pub name: String,
    /// Cores or SMs.
    pub units: u32,
}

impl DeviceFingerprint {
    /// The fingerprint of a device.
    #[must_use]
    pub fn of(device: &DeviceCapabilities) -> Self {
        let units = match device.compute_units() {
            Some(
                ComputeUnits::Cores { count, .. } | ComputeUnits::Multiprocessors { count, .. },
            ) => count,
            _ => 0,
        };
        Self { driver: device.driver().to_string(), name: device.name().to_owned(), units }
    }
}

/// The partition of a model, and the models that were busy in the others while it was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionFingerprint {
    /// Its name.
    pub name: String,
    /// The streaming multiprocessors that it asks for.
    pub sms: Option<u32>,
    /// Those that the driver granted it, at least as many; `None` where it grants none, and in
    /// evidence from before they were kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub granted: Option<u32>,
    /// The models of all other partitions, by name.
    pub busy: Vec<String>,
}

impl PartitionFingerprint {
    /// A partition beside models of others, in any order.
    #[must_use]
    pub fn new(name: String, sms: Option<u32>, mut busy: Vec<String>) -> Self {
        busy.sort_unstable();
        Self { name, sms, granted: None, busy }
    }

    /// The same with the SMs that the driver granted.
    #[must_use]
    pub fn granted(self, granted: Option<u32>) -> Self {
        Self { granted, ..self }
    }

    /// Whether `here` is the same place; SMs that were granted count where both are known.
    #[must_use]
    pub fn is_same(&self, here: &Self) -> bool {
        let Self { name, sms, granted, busy } = self;
        let as_granted = granted.zip(here.granted).is_none_or(|(then, now)| then == now);
        as_granted && (name, sms, busy) == (&here.name, &here.sms, &here.busy)
    }
}

impl std::fmt::Display for PartitionFingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "in the partition {}", self.name)?;
        if let Some(sms) = self.sms {
            write!(f, " of {sms} SMs")?;
        }
        if let Some(granted) = self.granted {
            write!(f, " ({granted} granted)")?;
        }
        let busy = self.busy.join(", ");
        write!(f, " beside {}", if busy.is_empty() { "nothing" } else { &busy })
    }
}

/// Copies in words, also where there were none.
fn copies_of(size: Option<Bytes>) -> String {
    size.map_or_else(|| "no copies".into(), |size| format!("copies of {size}"))
}

/// A place in words, also where there is only one.
fn place(partition: Option<&PartitionFingerprint>) -> String {
    partition.map_or_else(|| "on the whole device".into(), ToString::to_string)
}

impl std::fmt::Display for DeviceFingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({}, {} units)", self.name, self.driver, self.units)
    }
}

/// Why evidence cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// There is no file.
    #[error("there is no evidence at {}; run `aegis profile` on the workload first", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// The file could not be read or written.
    #[error("{} could not be read or written", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// The file is not evidence.
    #[error("{} is not an evidence file; run `aegis profile` again", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: serde_json::Error,
    },
    /// Another version of the format.
    #[error("{} has format version {found}, this program reads {VERSION}; run `aegis profile` again", path.display())]
    Version {
        /// Which.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// No measurement of this model.
    #[error("there is no evidence for {model}; run `aegis profile` again")]
    NoModel {
        /// Which.
        model: String,
    },
    /// Measured on another device.
    #[error(
        "the evidence was measured on {measured}, and this is {here}; run `aegis profile` here"
    )]
    OtherDevice {
        /// Where it was measured.
        measured: DeviceFingerprint,
        /// Where it would be used.
        here: DeviceFingerprint,
    },
    /// Measured of another model.
    #[error(
        "the evidence for {model} was measured of other files or declarations; run `aegis profile` again"
    )]
    OtherModel {
        /// Which.
        model: String,
    },
    /// Measured in another partition, or beside others.
    #[error(
        "the evidence for {model} was measured {measured}, and it is to run {here}; run `aegis profile` \
         again, or accept the difference with `accept = [\"partition\"]` in [wcet]"
    )]
    OtherPartition {
        /// Which.
        model: String,
        /// Where it was measured.
        measured: String,
        /// Where it is to run.
        here: String,
    },
    /// Not measured beside copies as large as those that go ahead beside it.
    #[error(
        "the evidence for {model} was measured beside {}, and inputs of {needed} of another model are to \
         go ahead beside it; run `aegis profile` again, or accept the difference with \
         `accept = [\"copies\"]` in [wcet]",
        copies_of(*measured)
    )]
    NotBesideCopies {
        /// Which.
        model: String,
        /// The copies beside which it was measured, if there were any.
        measured: Option<Bytes>,
        /// The largest inputs of any other model.
        needed: Bytes,
    },
    /// The inputs of a model are not known, so neither is what goes ahead beside the others.
    #[error(
        "the evidence for {model} does not say how large its inputs are, which are to go ahead of it; run \
         `aegis profile` again, or accept that with `accept = [\"copies\"]` in [wcet]"
    )]
    UnknownInputs {
        /// Which.
        model: String,
    },
    /// Measured in another environment.
    #[error(
        "the evidence was measured with {} {}, and this is {}; run `aegis profile` here, or accept the \
         difference with `accept = [\"{}\"]` in [wcet]",
        difference.property.name(), difference.measured, difference.here, difference.property.name()
    )]
    OtherEnvironment {
        /// What differs.
        difference: Difference,
    },
    /// The environment changed while measuring.
    #[error(
        "{} changed from {} to {} while measuring, so the samples describe neither",
        difference.property.name(), difference.measured, difference.here
    )]
    Unsteady {
        /// What changed.
        difference: Difference,
    },
    /// The samples carry no claim, and the workload asks for one.
    #[error(
        "the samples of stage {stage} of {model} in scenario {scenario} carry no claim: {why}; profile \
         again with more samples or on a quieter machine, or say `unclaimed = \"accept\"` in [wcet]"
    )]
    Unclaimed {
        /// Which model.
        model: String,
        /// Which stage, counted from zero.
        stage: usize,
        /// In which scenario.
        scenario: Scenario,
        /// What the estimate says.
        why: String,
    },
    /// Measured with another runtime.
    #[error(
        "the evidence for {model} was measured with {measured}, and this is {here}; run `aegis profile` again"
    )]
    OtherRuntime {
        /// Which.
        model: String,
        /// What it was measured with.
        measured: String,
        /// What would run it.
        here: String,
    },
}

impl EvidenceError {
    /// What the caller can do.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Io { .. } => Category::Transient,
            Self::Missing { .. }
            | Self::Malformed { .. }
            | Self::Version { .. }
            | Self::NoModel { .. }
            | Self::OtherDevice { .. }
            | Self::OtherModel { .. }
            | Self::OtherPartition { .. }
            | Self::NotBesideCopies { .. }
            | Self::UnknownInputs { .. }
            | Self::OtherEnvironment { .. }
            | Self::Unsteady { .. }
            | Self::Unclaimed { .. }
            | Self::OtherRuntime { .. } => Category::Permanent,
        }
    }
}

impl Evidence {
    /// Reads a file.
    ///
    /// # Errors
    /// [`EvidenceError`]: `Missing`, `Io`, `Malformed` or `Version`.
    pub fn read(path: &Path) -> Result<Self, EvidenceError> {
        #[derive(Deserialize)]
        struct Versioned {
            aegis_evidence: u32,
        }
        let at = || path.to_owned();
        let text = fs::read_to_string(path).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound => EvidenceError::Missing { path: at() },
            _ => EvidenceError::Io { path: at(), cause },
        })?;
        let malformed = |cause| EvidenceError::Malformed { path: at(), cause };
        let Versioned { aegis_evidence: found } = serde_json::from_str(&text).map_err(malformed)?;
        if found != VERSION {
            return Err(EvidenceError::Version { path: at(), found });
        }
        serde_json::from_str(&text).map_err(malformed)
    }

    /// Finds out whether a file can be written at `path`, leaving nothing behind.
    ///
    /// # Errors
    /// [`EvidenceError::Io`].
    pub fn probe(path: &Path) -> Result<(), EvidenceError> {
        let failed = |cause| EvidenceError::Io { path: path.to_owned(), cause };
        let neighbour = path.with_extension("json.new");
        fs::write(&neighbour, []).map_err(failed)?;
        fs::remove_file(&neighbour).map_err(failed)
    }

    /// Writes the file, whole or not at all: to a neighbour first, which is then renamed.
    ///
    /// # Errors
    /// [`EvidenceError::Io`].
    pub fn write(&self, path: &Path) -> Result<(), EvidenceError> {
        let failed = |cause| EvidenceError::Io { path: path.to_owned(), cause };
        let mut text = serde_json::to_string(self).expect("evidence is plain data");
        text.push('\n');
        let neighbour = path.with_extension("json.new");
        fs::write(&neighbour, text).map_err(failed)?;
        fs::rename(&neighbour, path).map_err(failed)
    }

    /// The evidence for `name`, which must be of `source` and measured `here`, as far as differences
    /// are not accepted.
    ///
    /// # Errors
    /// [`EvidenceError`]: `NoModel`, `OtherDevice`, `OtherEnvironment`, `OtherModel`,
    /// `OtherPartition`, or `Io` when a model file cannot be read.
    pub fn of(
        &self,
        name: &str,
        source: &ModelSource,
        here: Here<'_>,
    ) -> Result<&ModelEvidence, EvidenceError> {
        let accepted = |property| here.accepted.contains(&property);
        if self.device != *here.device && !accepted(Property::Device) {
            let (measured, here) = (self.device.clone(), here.device.clone());
            return Err(EvidenceError::OtherDevice { measured, here });
        }
        let mut differences = self.environment.differences(here.environment).into_iter();
        if let Some(difference) = differences.find(|it| !accepted(it.property)) {
            return Err(EvidenceError::OtherEnvironment { difference });
        }
        let model = || name.to_owned();
        let evidence =
            self.models.get(name).ok_or_else(|| EvidenceError::NoModel { model: model() })?;
        if !accepted(Property::Model) && evidence.model != fingerprint(source)? {
            return Err(EvidenceError::OtherModel { model: model() });
        }
        let same_place = match (&evidence.partition, here.partition) {
            (Some(measured), Some(here)) => measured.is_same(here),
            (measured, here) => measured.is_none() && here.is_none(),
        };
        if !accepted(Property::Partition) && !same_place {
            let (measured, here) = (place(evidence.partition.as_ref()), place(here.partition));
            return Err(EvidenceError::OtherPartition { model: model(), measured, here });
        }
        Ok(evidence)
    }
}

impl Evidence {
    /// Whether `model` was measured beside copies as large as the inputs of each of `others`, which may go
    /// ahead beside it. O(others).
    ///
    /// # Errors
    /// [`EvidenceError`]: `UnknownInputs`, `NotBesideCopies` or `NoModel`.
    pub fn holds_beside_uploads<'o>(
        &self,
        model: &str,
        others: impl Iterator<Item = &'o str>,
    ) -> Result<(), EvidenceError> {
        let of = |name: &str| {
            let found = self.models.get(name);
            found.ok_or_else(|| EvidenceError::NoModel { model: name.to_owned() })
        };
        let mut needed = Bytes::ZERO;
        for other in others {
            let unknown = || EvidenceError::UnknownInputs { model: other.to_owned() };
            needed = needed.max(of(other)?.uploads.ok_or_else(unknown)?.own);
        }
        let measured = of(model)?.uploads.map(|uploads| uploads.beside);
        if measured.unwrap_or(Bytes::ZERO) < needed {
            let model = model.to_owned();
            return Err(EvidenceError::NotBesideCopies { model, measured, needed });
        }
        Ok(())
    }

    /// Whether the device held itself back while measuring; `None` when it could not tell.
    #[must_use]
    pub fn was_throttled(&self) -> Option<bool> {
        self.states.as_ref().and_then(|[before, after]| after.throttled_since(before))
    }
}

impl ModelEvidence {
    /// The samples of every scenario that was measured.
    #[must_use]
    pub fn scenarios(&self) -> BTreeMap<Scenario, &Samples> {
        let others = self.scenarios.iter().map(|(scenario, samples)| (*scenario, samples));
        others.chain([(Scenario::Turns, &self.samples)]).collect()
    }

    /// What this evidence says under `rule`. An estimate for each stage of each scenario.
    #[must_use]
    pub fn profile(&self, rule: CostRule) -> WcetProfile {
        WcetProfile::of(&self.scenarios(), rule)
    }
}

/// SHA-256 of a model's files in order, or of its declaration.
///
/// # Errors
/// [`EvidenceError::Io`] when a file cannot be read.
pub fn fingerprint(source: &ModelSource) -> Result<String, EvidenceError> {
    let mut hash = Sha256::new();
    match source {
        ModelSource::Onnx { files, threads, gpu } => {
            hash.update(threads.to_le_bytes());
            if *gpu != GpuOptions::default() {
                hash.update([u8::from(gpu.tf32), u8::from(gpu.graph)]);
            }
            add_files(&mut hash, files)?;
        }
        ModelSource::Tvm { modules, graph } => {
            hash.update(b"tvm");
            hash.update([u8::from(*graph)]);
            add_files(&mut hash, modules)?;
            // A manifest says the hash of the weights, so that it stands for them.
            let manifest = |module: &PathBuf| module.with_extension("json");
            let manifests: Vec<PathBuf> = modules.iter().map(manifest).collect();
            add_files(&mut hash, &manifests)?;
        }
        ModelSource::Trt { engines, graph } => {
            hash.update(b"trt");
            hash.update([u8::from(*graph)]);
            add_files(&mut hash, engines)?;
        }
        ModelSource::Sim { model, costs } => hash.update(format!("{model:?} {costs:?}")),
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn add_files(hash: &mut Sha256, files: &[PathBuf]) -> Result<(), EvidenceError> {
    for path in files {
        let failed = |cause| EvidenceError::Io { path: path.clone(), cause };
        let mut file = fs::File::open(path).map_err(failed)?;
        let mut of_file = Sha256::new();
        io::copy(&mut file, &mut HashWriter(&mut of_file)).map_err(failed)?;
        hash.update(of_file.finalize());
    }
    Ok(())
}

/// Feeds what is written to it into a hash.
struct HashWriter<'h>(&'h mut Sha256);

impl io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
