//! What every backend must do, as one suite.
//!
//! [`check`] takes a model as its backend loads it ([`Subject`]) and holds it against each [`Clause`]. It
//! knows no runtime: the same suite judges ONNX Runtime, TVM and whatever comes, on the processor in
//! CI and on a GPU in `aegis-gpu-tests`. A panic of a backend is not caught: it fails the whole run.
//!
//! # Invariants
//! 1. Every clause is tried for every subject; one that a subject gives no occasion for says so.
//! 2. Nothing here compares with what a backend says of itself alone: outputs are those of a second
//!    runtime, where the subject names one, and else those of its own first run.
#![forbid(unsafe_code)]

mod clause;
mod ground;
mod tensors;

use std::fmt;

use aegis_context::{BackendError, RuntimeBackend, TensorSpec};
use aegis_trace::Bytes;

pub use ground::{Ground, Model, fill, queued};
pub use tensors::{Tensors, distance, hostile, inputs};

/// A model as one backend loads it.
pub struct Subject<'a> {
    /// Backend and model, for people.
    pub name: String,
    /// Loads it; while it is measured it may take so much.
    pub load: &'a dyn Fn(Bytes) -> Result<Box<dyn RuntimeBackend>, BackendError>,
    /// What another runtime gives for these inputs, if there is one to compare with.
    pub reference: Option<&'a Reference<'a>>,
    /// How far outputs may be from the reference, as a share of the largest value.
    pub tolerance: f64,
    /// The inputs of whole numbers no two of which may be equal: where a network writes its rows, as a
    /// scatter does. What is written twice to one place is whichever write comes last; ONNX leaves it
    /// undefined, and a GPU makes use of that. Whoever prepares a network's inputs has to see to it, and
    /// so does the suite, or it would hold a backend to what no runtime promises.
    pub distinct: &'a [&'a str],
}

impl Subject<'_> {
    /// Inputs that a job of the model may get; others for another `seed`.
    fn inputs(&self, specs: &[TensorSpec], seed: u32) -> Tensors {
        inputs(specs, self.distinct, seed)
    }
}

/// What another runtime gives for the same inputs.
pub type Reference<'a> = dyn Fn(&Tensors) -> Result<Tensors, Fault> + 'a;

/// Why a clause does not hold, or could not be tried.
pub type Fault = Box<dyn std::error::Error>;

/// What a backend must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clause {
    /// It says what the model looks like, the same each time.
    Description,
    /// It declares memory that holds what it describes, the same each time.
    Memory,
    /// It takes a binding that fits, once, and refuses one that does not.
    Prepare,
    /// It enqueues stages that give what another runtime gives.
    Enqueue,
    /// It refuses what was never offered: stages that do not exist, jobs before it is bound.
    WrongUse,
    /// Inputs that make no sense leave no trace in later jobs.
    HostileInputs,
    /// A model over its limit is refused with numbers, and loads where there is room.
    BudgetOverrun,
    /// Jobs with the same inputs give the same outputs, whatever others left in the scratch.
    Repeats,
    /// Where its inputs go ahead of a stage, they are those of its job, and the next job that copies them
    /// itself gets its own.
    Ahead,
    /// A model that was fenced runs no more, and its neighbour notices nothing.
    Fencing,
    /// Models go in any order and give back all they had.
    DropOrder,
}

impl Clause {
    /// All, in the order in which they are tried.
    pub const ALL: [Self; 11] = [
        Self::Description,
        Self::Memory,
        Self::Prepare,
        Self::Enqueue,
        Self::WrongUse,
        Self::HostileInputs,
        Self::BudgetOverrun,
        Self::Repeats,
        Self::Ahead,
        Self::Fencing,
        Self::DropOrder,
    ];
}

/// How a subject did.
#[derive(Debug)]
pub struct Report {
    name: String,
    /// Each clause with what was seen, or what is wrong.
    pub clauses: Vec<(Clause, Result<String, String>)>,
}

impl Report {
    /// Whether every clause holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.clauses.iter().all(|(_, outcome)| outcome.is_ok())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (clause, outcome) in &self.clauses {
            let (verdict, text) = match outcome {
                Ok(seen) => ("ok", seen),
                Err(wrong) => ("FAILED", wrong),
            };
            writeln!(f, "{:<6} {} {clause:?}: {text}", verdict, self.name)?;
        }
        Ok(())
    }
}

/// Holds `subject` against every clause, each on a ground of its own from `ground`. Blocks for dozens
/// of jobs of the model.
pub fn check(subject: &Subject<'_>, ground: &dyn Fn() -> Result<Ground, Fault>) -> Report {
    let judge = |clause: Clause| {
        let outcome = ground().and_then(|ground| clause::judge(clause, subject, ground));
        (clause, outcome.map_err(|fault| with_causes(&*fault)))
    };
    Report { name: subject.name.clone(), clauses: Clause::ALL.map(judge).into() }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    let lines: Vec<String> = [error.to_string()]
        .into_iter()
        .chain(causes.map(|cause| format!("because {cause}")))
        .collect();
    lines.join("; ")
}
