//! The canonical text of a certificate.
//!
//! A certificate is one line of JSON: an object of `aegis_certificate`, the version, `certificate`,
//! and `seal`, the SHA-256 of the certificate's own text. Keys stand in the order of the types, without
//! spaces. A file must be its own canonical text byte by byte, so no two files say the same, nothing in
//! a file goes unread, and a key that stands twice or that nobody knows is found.
//!
//! # Invariants
//! 1. `write(&read(bytes)?) == bytes`, for every file that [`read`] accepts with its seal intact.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use aegis_trace::Category;
use serde::Deserialize;

use crate::certificate::{Certificate, Digest};
use crate::fault::Fault;

/// The version of the format; any change of meaning raises it.
pub const VERSION: u32 = 3;
/// The longest file that is read: 64 MiB, a hundred thousand times what is common.
pub const FILE_MAX: u64 = 64 << 20;

/// The longest workload and the longest evidence that a certificate is held against, in bytes: samples
/// of days are some hundred megabytes. They are read once and not held.
pub const INPUT_MAX: u64 = 1 << 30;

/// Why a file is no certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Longer than anything that is read.
    #[error("the file has {length} bytes or more, and at most {limit} are read")]
    TooLong {
        /// Its length, as far as it was read.
        length: u64,
        /// The most that is read of a file of its kind.
        limit: u64,
    },
    /// It cannot be read.
    #[error("the file cannot be read")]
    Io(#[from] std::io::Error),
    /// Not what a certificate looks like; the cause says where.
    #[error("this is no certificate")]
    Malformed(#[from] serde_json::Error),
    /// Another version of the format.
    #[error("the certificate has format version {found}, and this program reads {VERSION}")]
    Version {
        /// Its version.
        found: u32,
    },
    /// It can be read, and is not written as certificates are.
    #[error(
        "byte {byte}: this is not the text that a certificate of this content has; it was edited, or \
         written by another program"
    )]
    NotCanonical {
        /// The first byte that differs, counted from zero.
        byte: usize,
    },
    /// A file that it was to be held against cannot be read.
    #[error("the {what} cannot be compared")]
    Compared {
        /// The workload, or the evidence.
        what: Compared,
        /// Why.
        #[source]
        cause: Box<ReadError>,
    },
}

/// A file that a certificate is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// The workload.
    Workload,
    /// The evidence.
    Evidence,
}

impl std::fmt::Display for Compared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Workload => "workload",
            Self::Evidence => "evidence",
        })
    }
}

impl ReadError {
    /// The file that could not be compared; `None` where the certificate itself cannot be read.
    #[must_use]
    pub fn compared(&self) -> Option<Compared> {
        match self {
            Self::Compared { what, .. } => Some(*what),
            Self::Io(_)
            | Self::TooLong { .. }
            | Self::Malformed(_)
            | Self::Version { .. }
            | Self::NotCanonical { .. } => None,
        }
    }

    /// What the caller can do: another file is needed, unless reading it failed.
    #[must_use]
    pub fn category(&self) -> Category {
        match self {
            Self::Io(_) => Category::Transient,
            Self::Compared { cause, .. } => cause.category(),
            Self::TooLong { .. }
            | Self::Malformed(_)
            | Self::Version { .. }
            | Self::NotCanonical { .. } => Category::Permanent,
        }
    }
}

/// What a file holds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed {
    #[serde(rename = "aegis_certificate")]
    _version: u32,
    certificate: Certificate,
    seal: Digest,
}

/// The bytes of the file at `path`, which has at most `limit`. A longer one is not read to its end. Blocks.
///
/// # Errors
/// [`ReadError::TooLong`], [`ReadError::Io`].
pub fn bytes_of(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let file = File::open(path)?;
    // Of a pipe this is zero, and what comes out of it decides.
    let mut length = file.metadata()?.len();
    let mut bytes = Vec::new();
    if length <= limit {
        file.take(limit + 1).read_to_end(&mut bytes)?;
        length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    }
    if length > limit { Err(ReadError::TooLong { length, limit }) } else { Ok(bytes) }
}

/// The text of a certificate, ended by a line feed.
///
/// # Panics
/// Never: a certificate is plain data, which has a text.
#[must_use]
pub fn write(certificate: &Certificate) -> String {
    let content = serde_json::to_string(certificate).expect("plain data has a text");
    let seal = Digest::of(content.as_bytes());
    sealed(&content, seal)
}

fn sealed(content: &str, seal: Digest) -> String {
    format!(r#"{{"aegis_certificate":{VERSION},"certificate":{content},"seal":"{seal}"}}"#) + "\n"
}

/// Reads a certificate. Whether anything in it holds is not looked at, but whether it is the content
/// that was sealed is: the second value is `Err` if not, to be told only if nothing else is wrong.
///
/// Allocates in proportion to the file, which is at most [`FILE_MAX`] long.
///
/// # Errors
/// Permanent: [`ReadError`], with the place.
pub fn read(bytes: &[u8]) -> Result<(Certificate, Result<(), Fault>), ReadError> {
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if length > FILE_MAX {
        return Err(ReadError::TooLong { length, limit: FILE_MAX });
    }
    let found = version(bytes)?;
    if found != VERSION {
        return Err(ReadError::Version { found });
    }
    let Sealed { certificate, seal, .. } = serde_json::from_slice(bytes)?;
    let content = serde_json::to_string(&certificate).expect("plain data has a text");
    let canonical = sealed(&content, seal);
    let differs = |at: &usize| bytes.get(*at) != canonical.as_bytes().get(*at);
    match (0..bytes.len().max(canonical.len())).find(differs) {
        Some(byte) => Err(ReadError::NotCanonical { byte }),
        None if seal == Digest::of(content.as_bytes()) => Ok((certificate, Ok(()))),
        None => Ok((certificate, Err(Fault::Seal))),
    }
}

/// The version alone, so that a file of another one is told as that.
fn version(bytes: &[u8]) -> Result<u32, serde_json::Error> {
    #[derive(Deserialize)]
    struct Versioned {
        aegis_certificate: u32,
    }
    serde_json::from_slice::<Versioned>(bytes).map(|versioned| versioned.aegis_certificate)
}
