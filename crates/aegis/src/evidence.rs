//! The evidence file: what was measured, of which model, on which device.
//!
//! A profile run writes one JSON file beside the workload file; admission reads it and refuses
//! evidence whose fingerprint is not that of the model and device at hand.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aegis_cuda::{ComputeUnits, DeviceCapabilities};
pub use aegis_sched::wcet::{Samples, StageProfile, WcetProfile};
use aegis_trace::{Category, Nanos};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::source::{MemoryNeed, ModelSource};

/// The version of the file format; any change of meaning raises it.
pub const VERSION: u32 = 1;

/// Everything one profile run measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The format's version.
    pub aegis_evidence: u32,
    /// The device all of it was measured on.
    pub device: DeviceFingerprint,
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
    /// What it needs.
    pub memory: MemoryNeed,
    /// Device times in the order they were taken, stage by stage, nanoseconds.
    pub samples: Samples,
    /// What launching and noticing took beside the device time, all stages of a job together.
    pub overheads: Vec<Nanos>,
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
            Some(ComputeUnits::Cores { count, .. }) => count,
            _ => 0,
        };
        Self { driver: device.driver().to_string(), name: device.name().to_owned(), units }
    }
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

    /// The evidence for `name`, which must be of `source` and this `device`.
    ///
    /// # Errors
    /// [`EvidenceError`]: `NoModel`, `OtherDevice`, `OtherModel`, or `Io` when a model file cannot
    /// be read.
    pub fn of(
        &self,
        name: &str,
        source: &ModelSource,
        device: &DeviceFingerprint,
    ) -> Result<&ModelEvidence, EvidenceError> {
        if self.device != *device {
            let (measured, here) = (self.device.clone(), device.clone());
            return Err(EvidenceError::OtherDevice { measured, here });
        }
        let model = || name.to_owned();
        let evidence =
            self.models.get(name).ok_or_else(|| EvidenceError::NoModel { model: model() })?;
        if evidence.model != fingerprint(source)? {
            return Err(EvidenceError::OtherModel { model: model() });
        }
        Ok(evidence)
    }
}

impl ModelEvidence {
    /// The costs this evidence supports under the margin rule.
    #[must_use]
    pub fn profile(&self, margin_percent: u32) -> WcetProfile {
        WcetProfile::with_margin(&self.samples, margin_percent)
    }
}

/// SHA-256 of a model's files in order, or of its declaration.
///
/// # Errors
/// [`EvidenceError::Io`] when a file cannot be read.
pub fn fingerprint(source: &ModelSource) -> Result<String, EvidenceError> {
    let mut hash = Sha256::new();
    match source {
        ModelSource::Onnx { files, threads } => {
            hash.update(threads.to_le_bytes());
            for path in files {
                let failed = |cause| EvidenceError::Io { path: path.clone(), cause };
                let mut file = fs::File::open(path).map_err(failed)?;
                let mut of_file = Sha256::new();
                io::copy(&mut file, &mut HashWriter(&mut of_file)).map_err(failed)?;
                hash.update(of_file.finalize());
            }
        }
        ModelSource::Sim { model, costs } => hash.update(format!("{model:?} {costs:?}")),
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
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
