//! What a caller can do about an error.

use serde::{Deserialize, Serialize};

/// The recovery class of an error; every error type of AegisRT maps each of its variants to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Category {
    /// A limit was reached that time will free: retry later.
    Transient,
    /// The request can never succeed as it stands: give it up or change it.
    Permanent,
    /// The device, or the process's hold on it, is lost: end the process (or the fault domain).
    Fatal,
}

impl std::fmt::Display for Category {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Transient => "transient",
            Self::Permanent => "permanent",
            Self::Fatal => "fatal",
        })
    }
}
