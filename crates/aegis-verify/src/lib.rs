//! Certificates of admission, and a checker that believes nothing in them.
//!
//! `aegis check FILE --certificate OUT` writes down why its answer is *yes*, or *no*: what was asked
//! for, the numbers of the proof, and where every tensor lies. [`read`] takes such a file apart and
//! [`check`] recomputes every number and every inequality in it from what was asked for. This crate
//! shares no code with the scheduler or the planner of memory, and is meant to be read in an hour:
//!
//! | file | question |
//! |---|---|
//! | `certificate.rs` | what does a certificate say? |
//! | `text.rs` | is the file the one canonical text of what it says? |
//! | `check.rs` | do all parts of it hold, and together give the verdict? |
//! | `charge.rs`, `load.rs` | what does each model ask of the device? |
//! | `ahead.rs` | what may be on the device when a window begins? |
//! | `fixed.rs`, `edf.rs`, `fifo.rs` | does every job end in time, by the theorem of the policy? |
//! | `memory.rs` | does no tensor lie where another may be alive? |
//! | `chain.rs` | do the chains keep what they promise? |
//! | `refusal.rs` | did the inequality of a refusal really fail? |
//! | `evidence.rs` | do the costs follow from what was measured? |
//! | `account.rs`, `verify.rs` | what does that mean, in words? |
//!
//! # Invariants
//! 1. A certificate that passes proves its verdict, under the assumptions that
//!    `docs/certificates.md` lists; a checksum is never part of the argument.
//! 2. Every derived number must equal what is recomputed: one that is too large would prove as much,
//!    and is refused all the same.
//! 3. No input makes the checker panic, loop without end, or allocate beyond a small multiple of the
//!    file: sizes and work have named limits.
//! 4. Integers decide, in 128 bits, where 2^62 is the longest time that is read.
#![forbid(unsafe_code)]

mod account;
mod ahead;
mod certificate;
mod chain;
mod charge;
mod check;
mod edf;
mod evidence;
mod fault;
mod fifo;
mod fixed;
mod load;
mod memory;
mod refusal;
mod text;
mod verify;

pub use account::account;
pub use certificate::{
    Budget, Certificate, Chain, ChainKind, Charge, Charges, Class, Digest, EdfBound, FifoBound,
    Handover, Left, Level, Measured, Memory, Method, Model, Need, Outcome, Overheads, Partition,
    Placed, Point, Policy, Pressure, Proof, Raised, Refusal, Service, Suspended, Tensor, Totals,
    Verdict, Witness, WorstDue,
};
pub use check::check;
pub use evidence::{EvidenceAccount, check_evidence, check_workload};
pub use fault::{Fault, JOBS_MAX};
pub use text::{Compared, FILE_MAX, INPUT_MAX, ReadError, VERSION, bytes_of, read, write};
pub use verify::{Files, verify};
