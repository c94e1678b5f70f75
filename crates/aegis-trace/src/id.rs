//! Opaque ids: an index plus a generation, so that a stale id is caught.
//!
//! Ids print and serialise as short text (`m3`, `m3g1#17`, `s0`), which keeps traces readable and
//! lossless. The generation is left out while it is zero.
//!
//! # Invariants
//! 1. An id is never reused silently: a slot that is given out again carries the next generation.
//! 2. The order of ids is the order of (index, generation); it breaks ties, and means nothing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::IdError;

/// Defines an id made of an index and a generation, written `<letter><index>[g<generation>]`.
macro_rules! slot_id {
    ($(#[$doc:meta])* $name:ident, $letter:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name {
            /// Which slot.
            pub index: u16,
            /// How often the slot was given out before.
            pub generation: u16,
        }

        impl $name {
            /// The first tenant of slot `index`.
            #[must_use]
            pub const fn first(index: u16) -> Self {
                Self { index, generation: 0 }
            }

            /// The next tenant of the same slot; `None` when the generations are used up, and the
            /// slot must then stay empty.
            #[must_use]
            pub const fn next_generation(self) -> Option<Self> {
                match self.generation.checked_add(1) {
                    Some(generation) => Some(Self { index: self.index, generation }),
                    None => None,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($letter, "{}"), self.index)?;
                if self.generation > 0 {
                    write!(f, "g{}", self.generation)?;
                }
                Ok(())
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let malformed = || IdError { text: text.into(), expected: stringify!($name) };
                let digits = text.strip_prefix($letter).ok_or_else(malformed)?;
                let (index, generation) = digits.split_once('g').unwrap_or((digits, "0"));
                Ok(Self {
                    index: index.parse().map_err(|_| malformed())?,
                    generation: generation.parse().map_err(|_| malformed())?,
                })
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    };
}

slot_id! {
    /// A model known to the runtime, from its admission to its eviction.
    ModelId, "m"
}
slot_id! {
    /// A stream of the device.
    StreamId, "s"
}
slot_id! {
    /// A serial executor with its own ready queue: the whole device, or some of its SMs.
    PartitionId, "p"
}
slot_id! {
    /// A buffer with a lifetime: a weight block, an activation, an input or an output.
    TensorId, "t"
}

impl PartitionId {
    /// The whole device, where it is not split: then it is the only partition.
    pub const WHOLE: Self = Self::first(0);
}

/// One release of a model: the model and a sequence number that is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId {
    /// Whose job it is.
    pub model: ModelId,
    /// Which one, counted from zero for each model.
    pub sequence: u64,
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.model, self.sequence)
    }
}

impl FromStr for JobId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let malformed = || IdError { text: text.into(), expected: "JobId" };
        let (model, sequence) = text.split_once('#').ok_or_else(malformed)?;
        Ok(Self { model: model.parse()?, sequence: sequence.parse().map_err(|_| malformed())? })
    }
}

impl TryFrom<String> for JobId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.to_string()
    }
}

/// Which stage of a model, counted from zero.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct StageIndex(pub u16);

impl fmt::Display for StageIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_back_what_they_print() {
        let model = ModelId::first(3).next_generation().expect("a second tenant");
        let job = JobId { model, sequence: 17 };
        assert_eq!(job.to_string(), "m3g1#17");
        assert_eq!("m3g1#17".parse::<JobId>().expect("job id"), job);
        assert_eq!("s4".parse::<StreamId>().expect("stream id"), StreamId::first(4));
    }

    #[test]
    fn malformed_ids_are_named() {
        let error = "x3".parse::<ModelId>().expect_err("wrong letter");
        assert_eq!(error.to_string(), "`x3` is not a ModelId");
        assert!("m3".parse::<JobId>().is_err());
        assert!("m70000".parse::<ModelId>().is_err());
    }

    #[test]
    fn a_slot_whose_generations_are_used_up_stays_empty() {
        assert_eq!(ModelId { index: 0, generation: u16::MAX }.next_generation(), None);
    }
}
