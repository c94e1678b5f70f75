//! What binds a certificate to files: the workload it is for, the evidence that its costs come from.
//!
//! A certificate proves something of the numbers in it. Of a workload file the hash is compared, and no
//! more: anybody may write that hash beside other numbers. That the costs follow from samples is
//! recomputed here, as far as the rule is the plain one, the longest sample plus a margin. Other rules
//! estimate, and are not part of this program: what they made is named.
//!
//! Evidence is parsed only once its hash was found to be the one that is stated. Files are hashed while
//! they are read, and of their samples the longest are kept: days of them take no more memory than an
//! hour. What is kept grows with models, stages and scenarios, so evidence that is made to be large, and
//! is the one that a certificate states, can take several times its length.

use std::collections::BTreeMap;
use std::io::{BufReader, Read, Seek};

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use sha2::Digest as _;

use crate::certificate::{Certificate, Class, Digest, Method, Model};
use crate::fault::{Fault, Time, same};
use crate::text::{INPUT_MAX, ReadError};

/// What was found out about costs with the evidence at hand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EvidenceAccount {
    /// Models whose costs were recomputed from the samples.
    pub recomputed: Vec<String>,
    /// Models whose costs another rule made of them.
    pub taken: Vec<String>,
    /// Models whose costs are declared.
    pub declared: Vec<String>,
}

/// Of an evidence file, what a certificate speaks of.
#[derive(Deserialize)]
struct Evidence {
    models: BTreeMap<String, Found>,
}

#[derive(Deserialize)]
struct Found {
    model: Digest,
    memory: FoundMemory,
    samples: Vec<Longest>,
    scenarios: BTreeMap<String, Vec<Longest>>,
}

/// The longest of a list of samples; zero of an empty one.
struct Longest(u64);

impl<'de> Deserialize<'de> for Longest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Samples;

        impl<'de> Visitor<'de> for Samples {
            type Value = Longest;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of samples")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Longest, A::Error> {
                let mut longest = 0;
                while let Some(sample) = list.next_element()? {
                    longest = longest.max(sample);
                }
                Ok(Longest(longest))
            }
        }

        deserializer.deserialize_seq(Samples)
    }
}

#[derive(Deserialize)]
struct FoundMemory {
    resident: u64,
    scratch: u64,
    #[serde(default)]
    carried: u64,
}

/// A file that is hashed while it is read; one byte more than [`INPUT_MAX`] ends it.
struct Hashed<R> {
    file: R,
    hash: sha2::Sha256,
    length: u64,
}

impl<R: Read> Hashed<R> {
    fn new(file: R) -> Self {
        Self { file, hash: sha2::Sha256::new(), length: 0 }
    }

    /// Reads the rest. The hash of all of it.
    fn end(mut self) -> Result<Digest, ReadError> {
        std::io::copy(&mut self, &mut std::io::sink())?;
        match self.length > INPUT_MAX {
            true => Err(ReadError::TooLong { length: self.length, limit: INPUT_MAX }),
            false => Ok(Digest(self.hash.finalize().into())),
        }
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = usize::try_from((INPUT_MAX + 1).saturating_sub(self.length));
        let most = most.unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read(&mut buffer[..most])?;
        self.hash.update(&buffer[..read]);
        self.length += read as u64;
        Ok(read)
    }
}

/// Whether the workload file has the hash in the certificate; its content is not looked at. Blocks
/// while it is read, up to [`INPUT_MAX`] bytes, which are not held.
///
/// # Errors
/// It cannot be read; the inner fault, Permanent: it is not the one.
pub fn check_workload(
    certificate: &Certificate,
    file: impl Read,
) -> Result<Result<(), Fault>, ReadError> {
    let found = Hashed::new(file).end()?;
    Ok(same("workload, the hash of the file", certificate.workload, found))
}

/// Whether the evidence file is the one that was used, and costs and sizes are what it says. Blocks while
/// it is read, twice and up to [`INPUT_MAX`] bytes, of which the longest sample of each list is kept. A
/// file of another hash is not parsed, and none is read where the certificate states no evidence.
///
/// # Errors
/// It cannot be read, or not from its beginning again; the inner fault, Permanent: the first number that
/// is not so.
pub fn check_evidence(
    certificate: &Certificate,
    mut file: impl Read + Seek,
) -> Result<Result<EvidenceAccount, Fault>, ReadError> {
    let Some(stated) = certificate.evidence else {
        let why = "the certificate names none: all of its costs are declared";
        return Ok(Err(Fault::Senseless { place: "evidence".into(), why }));
    };
    let is_stated = |found| same("evidence, the hash of the file", stated, found);
    if let Err(fault) = is_stated(Hashed::new(&mut file).end()?) {
        return Ok(Err(fault));
    }
    file.rewind()?;
    let mut file = Hashed::new(file);
    let read = serde_json::from_reader::<_, Evidence>(BufReader::new(&mut file));
    let found = file.end()?;
    Ok(match read {
        Err(cause) if cause.is_io() => return Err(ReadError::Io(cause.into())),
        read => is_stated(found).and_then(|()| held(certificate, read.ok())),
    })
}

fn held(certificate: &Certificate, evidence: Option<Evidence>) -> Result<EvidenceAccount, Fault> {
    let Evidence { models } = evidence.ok_or_else(|| Fault::Senseless {
        place: "evidence".into(),
        why: "the file must be evidence as `aegis profile` writes it",
    })?;
    let mut account = EvidenceAccount::default();
    for (place, model) in certificate.models.iter().enumerate() {
        let at = format!("models[{place}]");
        let Some(measured) = model.measured else {
            account.declared.push(model.name.clone());
            continue;
        };
        let found = models.get(&model.name).ok_or_else(|| Fault::Senseless {
            place: format!("{at}.name"),
            why: "the evidence must have a model of this name",
        })?;
        same(format_args!("{at}.measured.model"), measured.model, found.model)?;
        same(format_args!("{at}.stages, how many"), model.stages.len(), found.samples.len())?;
        check_memory(&at, model, &found.memory)?;
        if measured.method == Method::Margin {
            check_costs(&at, model, found, measured.margin_percent)?;
            account.recomputed.push(model.name.clone());
        } else {
            account.taken.push(model.name.clone());
        }
    }
    Ok(account)
}

/// Whether each cost is the longest sample of any scenario plus the margin, rounded up.
fn check_costs(at: &str, model: &Model, found: &Found, percent: u32) -> Result<(), Fault> {
    let scenarios = || found.scenarios.values().chain([&found.samples]);
    for (stage, cost) in model.stages.iter().enumerate() {
        let samples = scenarios().filter_map(|stages| stages.get(stage));
        let longest = Time::from(samples.map(|samples| samples.0).max().unwrap_or(0));
        let follows = (longest * (100 + Time::from(percent))).div_ceil(100);
        same(format_args!("{at}.stages[{stage}]"), Time::from(cost.0), follows)?;
    }
    Ok(())
}

fn check_memory(at: &str, model: &Model, found: &FoundMemory) -> Result<(), Fault> {
    let sum = |classes: &[Class]| {
        let of = model.tensors.iter().filter(|tensor| classes.contains(&tensor.class));
        of.map(|tensor| Time::from(tensor.size.0)).sum::<Time>()
    };
    let stays = found.resident.saturating_sub(found.carried);
    let at = format_args!("{at}.tensors, by class");
    same(at, sum(&[Class::Persistent, Class::Io]), stays.into())?;
    same(at, sum(&[Class::Scratch]), found.scratch.into())?;
    same(at, sum(&[Class::Carried]), found.carried.into())
}
