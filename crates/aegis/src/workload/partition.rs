//! The `[[partition]]` tables: a device that is split into serial executors.
//!
//! # Invariants
//! 1. Names are unique among the partitions of a [`Workload`](super::Workload) that was read.
//! 2. Where there are partitions, every model runs in one of them, and each has at least one model.

use aegis_sched::policy::PolicyKind;

/// The most partitions of one device.
pub const PARTITIONS_MAX: usize = 16;
/// The most streaming multiprocessors a partition may ask for.
pub const SMS_MAX: u32 = 1024;

/// One `[[partition]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Unique among the partitions, made of the same characters as that of a model.
    pub name: String,
    /// Streaming multiprocessors, at least; from one to [`SMS_MAX`]. `None` where it is not stated,
    /// which only a device without any allows.
    pub sms: Option<u32>,
    /// The order of its ready queue, where it is not that of the file.
    pub policy: Option<PolicyKind>,
    /// The core that its orchestration thread is to run on, at most [`CORE_MAX`](super::CORE_MAX); no
    /// two have the same.
    pub core: Option<u16>,
}

/// A fault of a partition, or of a model that names one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PartitionFault {
    /// More partitions than are planned for.
    #[error("there are {found} partitions; at most {most} are taken")]
    TooMany {
        /// How many there are.
        found: usize,
        /// How many there may be.
        most: usize,
    },
    /// A partition of a GPU that does not say how much of it; the related place is the driver.
    #[error("[[partition]] lacks the key `sms`, which splits a GPU")]
    MissingSms,
    /// One core for the threads of all partitions; the related place is the first of them.
    #[error("`core` is for one thread, and each partition has its own")]
    CoreOfAll,
    /// A core that two partitions ask for, whose threads would wait for each other; the related place
    /// is the first.
    #[error("core {core} is taken")]
    SameCore {
        /// Its number.
        core: u32,
    },
    /// A partition in which nothing would run.
    #[error("no model runs in the partition `{name}`")]
    Empty {
        /// Its name.
        name: String,
    },
    /// A model in a partition that no `[[partition]]` has the name of.
    #[error("there is no partition `{name}`")]
    Unknown {
        /// What was written.
        name: String,
        /// All there are.
        known: Vec<String>,
    },
    /// A model without a partition where there are some; the related place is the first of them.
    #[error("[[model]] lacks the key `partition`, which a split device needs")]
    Missing {
        /// All there are.
        known: Vec<String>,
    },
}

impl PartitionFault {
    /// What would be right, in a few words.
    pub(super) fn hint(&self) -> String {
        match self {
            Self::TooMany { .. } => "the first one too many".into(),
            Self::CoreOfAll => "write it in each [[partition]]".into(),
            Self::SameCore { .. } => "choose another".into(),
            Self::MissingSms => "add sms = 72".into(),
            Self::Empty { name } => {
                format!("leave it out, or write partition = \"{name}\" in a model")
            }
            Self::Unknown { name, known } if known.is_empty() => {
                format!("leave it out, or add [[partition]] with name = \"{name}\"")
            }
            Self::Unknown { known, .. } => format!("one of {}", known.join(", ")),
            Self::Missing { known } => match &known[..] {
                [one] => format!("add partition = \"{one}\""),
                _ => format!("add partition = \"..\", one of {}", known.join(", ")),
            },
        }
    }
}
