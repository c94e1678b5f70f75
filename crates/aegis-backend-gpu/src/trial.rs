//! Which graphs of a model are to be trusted, if any.
//!
//! A graph is another program than the plain run that it was captured from: a library may choose other
//! kernels while it is captured, and what was allocated then is used again and again. And scratch is
//! shared: a stage that reads what it did not write, which is right by luck in a plain run, reads what
//! another model left there. So graphs are held against the plain run, in scratch that is full of what
//! is not a number:
//!
//! ```text
//!   capture -> as the plain run? -> in poisoned scratch too? -> trusted
//!                   | no                     | no
//!                   v                        v
//!                refused          each stage alone clears its scratch first, then all do:
//!                                 the first way that holds is trusted, else refused
//! ```
//!
//! # Invariants
//! 1. What is trusted was seen to give the outputs of the plain run in poisoned scratch, as captured
//!    last.

use aegis_context::agreement::{Agreement, Outputs};
use aegis_context::context::error_line;
use aegis_context::{BackendError, TensorSpec};

/// The graphs of a model's stages, to be tried.
pub(crate) trait Graphs {
    /// How many stages there are.
    fn stages(&self) -> usize;

    /// Captures every stage anew; those of `clearing` clear their scratch first.
    fn capture(&mut self, clearing: &[bool]) -> Result<(), BackendError>;

    /// Waits until nothing of an attempt to capture is left. A lost device is an error.
    fn settle(&mut self) -> Result<(), BackendError>;

    /// Launches all graphs, each in poisoned scratch if that is asked for; gives the outputs.
    fn replay(&mut self, poisoned: bool) -> Result<Outputs, BackendError>;
}

/// What the plain run gave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    pub(crate) specs: &'a [TensorSpec],
    pub(crate) outputs: &'a Outputs,
    /// How closely one plain run repeats another.
    pub(crate) agreement: Agreement,
}

/// What became of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The graphs captured last do what the plain run does.
    Trusted {
        /// How closely; not stricter than one plain run repeats another.
        agreement: Agreement,
        /// The stages that clear their scratch first.
        clearing: Vec<usize>,
    },
    /// No graph is launched, for this reason.
    Refused(String),
}

/// Captures `graphs` and sees that they give what is `expected`.
///
/// Captures at most once for each stage and twice more, and replays as often and once more.
///
/// # Errors
/// [`BackendError`]: what fails but a first capture, which is a verdict.
pub(crate) fn run(
    graphs: &mut impl Graphs,
    expected: Expected<'_>,
) -> Result<Verdict, BackendError> {
    let Expected { specs, outputs, agreement } = expected;
    let none = vec![false; graphs.stages()];
    if let Err(error) = graphs.capture(&none) {
        graphs.settle()?;
        return Ok(Verdict::Refused(error_line(&error).to_string()));
    }
    let Some(agreement) = agreement.at_most(specs, outputs, &graphs.replay(false)?) else {
        return Ok(refused("the captured graph gives other outputs than the plain run"));
    };
    if agreement.holds(specs, outputs, &graphs.replay(true)?) {
        return Ok(Verdict::Trusted { agreement, clearing: Vec::new() });
    }
    for clearing in ways_to_clear(graphs.stages()) {
        graphs.capture(&clearing)?;
        if agreement.holds(specs, outputs, &graphs.replay(true)?) {
            let clearing = (0..clearing.len()).filter(|stage| clearing[*stage]).collect();
            return Ok(Verdict::Trusted { agreement, clearing });
        }
    }
    Ok(refused("its outputs depend on what was in its scratch, even when cleared"))
}

/// Each stage alone, and then all of them.
fn ways_to_clear(stages: usize) -> impl Iterator<Item = Vec<bool>> {
    let alone = move |only: usize| (0..stages).map(|stage| stage == only).collect();
    (0..stages).map(alone).chain([vec![true; stages]])
}

fn refused(reason: &str) -> Verdict {
    Verdict::Refused(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use aegis_context::DType;

    use super::*;

    /// Stages that read foreign scratch or not, and how their graphs compute.
    struct Model {
        /// Stages that give garbage in poisoned scratch unless they clear it.
        dirty: Vec<bool>,
        /// What every graph is off the plain run by.
        off: f32,
        /// What capturing fails with.
        fault: Option<&'static str>,
        /// Whether clearing helps.
        heals: bool,
        clearing: Vec<bool>,
        captures: usize,
        settled: bool,
    }

    impl Model {
        fn of(dirty: &[bool]) -> Self {
            let (dirty, clearing) = (dirty.to_vec(), Vec::new());
            let (off, fault, heals) = (0.0, None, true);
            Self { dirty, off, fault, heals, clearing, captures: 0, settled: false }
        }
    }

    impl Graphs for Model {
        fn stages(&self) -> usize {
            self.dirty.len()
        }

        fn capture(&mut self, clearing: &[bool]) -> Result<(), BackendError> {
            self.captures += 1;
            self.clearing = clearing.to_vec();
            let fault = self.fault.map(|reason| BackendError::Runtime { reason: reason.into() });
            fault.map_or(Ok(()), Err)
        }

        fn settle(&mut self) -> Result<(), BackendError> {
            self.settled = true;
            Ok(())
        }

        fn replay(&mut self, poisoned: bool) -> Result<Outputs, BackendError> {
            let mut stages = self.dirty.iter().zip(&self.clearing);
            let reads_poison = stages.any(|(dirty, clears)| *dirty && !(*clears && self.heals));
            let value = if poisoned && reads_poison { f32::NAN } else { 1.0 + self.off };
            Ok(vec![value.to_le_bytes().to_vec()])
        }
    }

    fn try_out(model: &mut Model) -> Verdict {
        let specs = [TensorSpec { name: "y".into(), dtype: DType::F32, shape: vec![1] }];
        let outputs = vec![1.0_f32.to_le_bytes().to_vec()];
        let agreement = Agreement::Bits;
        let expected = Expected { specs: &specs, outputs: &outputs, agreement };
        run(model, expected).expect("nothing but a capture fails")
    }

    fn trusted(agreement: Agreement, clearing: &[usize]) -> Verdict {
        Verdict::Trusted { agreement, clearing: clearing.to_vec() }
    }

    #[test]
    fn graphs_that_do_what_the_plain_run_does_are_captured_once() {
        let mut model = Model::of(&[false, false]);
        assert_eq!(try_out(&mut model), trusted(Agreement::Bits, &[]));
        assert_eq!((model.captures, model.settled), (1, false));
    }

    #[test]
    fn the_stage_that_reads_foreign_scratch_is_found_and_alone_clears_it() {
        for guilty in 0..3 {
            let mut dirty = [false; 3];
            dirty[guilty] = true;
            let mut model = Model::of(&dirty);
            assert_eq!(try_out(&mut model), trusted(Agreement::Bits, &[guilty]));
            assert_eq!(model.clearing, dirty, "what was captured last is what is trusted");
            assert_eq!(model.captures, 2 + guilty);
        }
    }

    #[test]
    fn where_several_stages_do_all_clear_it() {
        let mut model = Model::of(&[true, false, true]);
        assert_eq!(try_out(&mut model), trusted(Agreement::Bits, &[0, 1, 2]));
        assert_eq!(model.captures, 5, "once, each stage alone, and all");
    }

    #[test]
    fn a_model_that_clearing_does_not_heal_is_refused() {
        let mut model = Model { heals: false, ..Model::of(&[true]) };
        let Verdict::Refused(reason) = try_out(&mut model) else { panic!("it was trusted") };
        assert!(reason.contains("even when cleared"), "{reason}");
    }

    #[test]
    fn another_order_of_summing_is_held_to_a_tolerance_from_then_on() {
        let mut close = Model { off: 0.001, ..Model::of(&[true, false]) };
        assert_eq!(try_out(&mut close), trusted(Agreement::Close, &[0]));
        let mut far = Model { off: 0.1, ..Model::of(&[false]) };
        let Verdict::Refused(reason) = try_out(&mut far) else { panic!("it was trusted") };
        assert!(reason.contains("other outputs than the plain run"), "{reason}");
    }

    #[test]
    fn a_failed_capture_is_a_reason_and_waited_for() {
        let mut model = Model { fault: Some("it allocates"), ..Model::of(&[false]) };
        let Verdict::Refused(reason) = try_out(&mut model) else { panic!("it was trusted") };
        assert!(reason.contains("it allocates") && model.settled, "{reason}");
    }
}
