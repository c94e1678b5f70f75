//! Device memory by the driver's count, beside our own ledger.
//!
//! The ledger knows what was charged to it. The driver knows what the process really takes: its
//! context, loaded modules, handles and workspaces of libraries, and the rounding of each to its own
//! pages. Both are reported, because only their agreement says that nothing was forgotten.

use std::fmt;

use aegis_trace::Bytes;
use serde::{Deserialize, Serialize};

use crate::device_core::Charge;

/// How the driver's figure for this process came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemoryCount {
    /// The management library counts this process.
    PerProcess,
    /// Free memory fell by this much since just before the context was made. Other processes on the
    /// same GPU count too, so the figure is right only where there are none.
    FallOfFree,
}

/// Device memory as the driver counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverMemory {
    /// What this process takes, everything included; `None` where nobody can tell.
    pub process: Option<Bytes>,
    /// How `process` was counted.
    pub counted: MemoryCount,
    /// What the driver keeps for captured graphs that allocate, a part of `process`; `None` where it
    /// does not tell.
    pub graphs: Option<Bytes>,
    /// What is free on the device now.
    pub free: Bytes,
    /// What the device has.
    pub total: Bytes,
}

/// Memory that a library took outside the arenas, charged to the device until the drop.
#[must_use = "dropping the charge refunds it"]
pub struct ForeignCharge {
    charge: Charge,
}

impl ForeignCharge {
    pub(crate) fn new(charge: Charge) -> Self {
        Self { charge }
    }

    /// How much.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        self.charge.bytes()
    }

    /// Charges it for as long as the device is open, for what the library never gives back; how much.
    pub fn keep(self) -> Bytes {
        self.charge.keep()
    }
}

impl fmt::Debug for ForeignCharge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ForeignCharge").field(&self.bytes()).finish()
    }
}
