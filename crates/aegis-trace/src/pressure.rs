//! How short the memory of a device is.
//!
//! The word that memory, admission and trace share. What makes a level, and what each refuses, is in
//! the pressure policy of `aegis-memory`.
//!
//! # Invariants
//! 1. Levels are ordered: a later one refuses all that an earlier one does.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How short memory is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PressureLevel {
    /// Nothing is refused.
    Ample,
    /// New models are refused.
    Low,
    /// New models are refused, and the caller is told what to evict, if it said in which order.
    Critical,
}

impl fmt::Display for PressureLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ample => "ample",
            Self::Low => "low",
            Self::Critical => "critical",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_and_written_as_they_are_shown() {
        let levels = [PressureLevel::Ample, PressureLevel::Low, PressureLevel::Critical];
        assert!(levels.windows(2).all(|pair| pair[0] < pair[1]));
        for level in levels {
            let written = serde_json::to_string(&level).expect("plain data");
            assert_eq!(written, format!("\"{level}\""));
        }
    }
}
