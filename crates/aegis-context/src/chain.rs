//! Stages linked by the names of their tensors.
//!
//! For backends whose models are a chain of files, one for each stage: which tensor is the caller's,
//! which one passes from stage to stage, and how long each must be kept.
//!
//! # Invariants
//! 1. Every tensor of a chain has one name, one type and one shape.
//! 2. An input is taken by some stage and given by none; an output is given and taken by none; what is
//!    carried is given once and taken later.

use aegis_memory::{Lifespan, TensorClass, TensorLifetime};
use aegis_trace::{Bytes, StageIndex, TensorId};

use crate::description::{ModelDescription, TensorSpec};
use crate::error::BackendError;

/// What a named tensor is to the model as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The caller gives it; the index into the description's inputs.
    Input(usize),
    /// The caller gets it; the index into the description's outputs.
    Output(usize),
    /// One stage gives it and a later one takes it.
    Carried,
}

/// A named tensor of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainTensor {
    /// Its name, type and shape.
    pub spec: TensorSpec,
    /// What it is to the model.
    pub role: Role,
    /// The stage that writes it first; zero for inputs, which are written before the first stage.
    pub from: u16,
    /// The last stage that reads it; the last of all for outputs, which outlive the job.
    pub to: u16,
}

/// Which tensors each stage takes and gives, as indices into one list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Every tensor with a name, in the order in which the stages name them.
    pub tensors: Vec<ChainTensor>,
    /// What each stage takes, as indices into `tensors`.
    pub takes: Vec<Vec<usize>>,
    /// What each stage gives, likewise.
    pub gives: Vec<Vec<usize>>,
}

/// A copy between a buffer of a job's slot and a tensor of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotCopy {
    /// The index among the slot's inputs, or outputs.
    pub slot: usize,
    /// The index in [`Chain::tensors`].
    pub tensor: usize,
}

/// Which way copies between slot and model go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the slot's inputs to the model.
    In,
    /// From the model to the slot's outputs.
    Out,
}

/// The interface of one stage.
#[derive(Clone, Copy, Debug)]
pub struct StageFace<'a> {
    /// What it takes.
    pub inputs: &'a [TensorSpec],
    /// What it gives.
    pub outputs: &'a [TensorSpec],
}

/// How the memory of a named tensor is to be cut.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// In bytes; a power of two.
    pub alignment: u64,
    /// What a kernel may read beyond the end.
    pub padding: Bytes,
}

impl Chain {
    /// Links stages in order. A tensor that is both carried and wanted by the caller does not
    /// occur: what a later stage takes is not an output of the model. Cost O(n^2) in the number of
    /// names.
    ///
    /// # Errors
    /// [`BackendError::BrokenChain`], Permanent, when a stage takes a tensor of a name that an
    /// earlier stage gives, or another stage takes, with another type or shape; or when two stages
    /// give one name.
    ///
    /// # Panics
    /// With more than 65535 stages.
    pub fn link(stages: &[StageFace<'_>]) -> Result<Self, BackendError> {
        let mut chain = Self { tensors: Vec::new(), takes: Vec::new(), gives: Vec::new() };
        for (stage, face) in (0u16..).zip(stages) {
            let takes = face.inputs.iter().map(|spec| chain.take(stage, spec));
            let takes = takes.collect::<Result<_, _>>()?;
            chain.takes.push(takes);
            let gives = face.outputs.iter().map(|spec| chain.give(stage, spec));
            let gives = gives.collect::<Result<_, _>>()?;
            chain.gives.push(gives);
        }
        chain.number_io();
        Ok(chain)
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.tensors.iter().position(|tensor| tensor.spec.name == name)
    }

    fn take(&mut self, stage: u16, spec: &TensorSpec) -> Result<usize, BackendError> {
        let Some(index) = self.find(&spec.name) else {
            let role = Role::Input(0);
            self.tensors.push(ChainTensor { spec: spec.clone(), role, from: 0, to: stage });
            return Ok(self.tensors.len() - 1);
        };
        let known = &mut self.tensors[index];
        if known.spec != *spec {
            return Err(broken(stage, format!("{spec}, but an earlier stage has {}", known.spec)));
        }
        known.to = stage;
        if matches!(known.role, Role::Output(_)) {
            known.role = Role::Carried;
        }
        Ok(index)
    }

    fn give(&mut self, stage: u16, spec: &TensorSpec) -> Result<usize, BackendError> {
        if self.find(&spec.name).is_some() {
            return Err(broken(stage, format!("{spec}, given a second time")));
        }
        let role = Role::Output(0);
        self.tensors.push(ChainTensor { spec: spec.clone(), role, from: stage, to: stage });
        Ok(self.tensors.len() - 1)
    }

    /// Gives inputs and outputs their numbers, once it is known which tensors they are.
    fn number_io(&mut self) {
        let (mut inputs, mut outputs) = (0, 0);
        for tensor in &mut self.tensors {
            match &mut tensor.role {
                Role::Input(number) => {
                    *number = inputs;
                    inputs += 1;
                }
                Role::Output(number) => {
                    *number = outputs;
                    outputs += 1;
                }
                Role::Carried => {}
            }
        }
    }

    fn stages(&self) -> u16 {
        u16::try_from(self.takes.len()).expect("stages were counted in u16 while linking")
    }

    /// The model from outside.
    #[must_use]
    pub fn description(&self) -> ModelDescription {
        let specs = |wanted: fn(&Role) -> bool| {
            let tensors = self.tensors.iter().filter(|tensor| wanted(&tensor.role));
            tensors.map(|tensor| tensor.spec.clone()).collect()
        };
        ModelDescription {
            inputs: specs(|role| matches!(role, Role::Input(_))),
            outputs: specs(|role| matches!(role, Role::Output(_))),
            stages: self.stages(),
        }
    }

    /// The copies that a job of the model takes in one direction, in the order of the slot's buffers.
    #[must_use]
    pub fn copies(&self, direction: Direction) -> Vec<SlotCopy> {
        let copy = |(tensor, named): (usize, &ChainTensor)| match (named.role, direction) {
            (Role::Input(slot), Direction::In) | (Role::Output(slot), Direction::Out) => {
                Some(SlotCopy { slot, tensor })
            }
            (Role::Input(_) | Role::Output(_) | Role::Carried, _) => None,
        };
        self.tensors.iter().enumerate().filter_map(copy).collect()
    }

    /// The lifetimes of all named tensors, numbered from `first`, each of `room.padding` more bytes
    /// than the tensor has. Steps are stages.
    ///
    /// # Panics
    /// Of a chain that [`Chain::link`] did not make, which may be read before it is written.
    #[must_use]
    pub fn lifetimes(&self, first: u16, room: Room) -> Vec<TensorLifetime> {
        let Room { alignment, padding } = room;
        let last = self.stages();
        let lifetime = |(index, tensor): (u16, &ChainTensor)| {
            let (class, span) = match tensor.role {
                Role::Input(_) | Role::Output(_) => (TensorClass::Io, (0, last)),
                Role::Carried => (TensorClass::Carried, (tensor.from, tensor.to + 1)),
            };
            TensorLifetime {
                tensor: TensorId::first(index),
                class,
                span: Lifespan::new(u32::from(span.0), u32::from(span.1))
                    .expect("a tensor is read no earlier than it is written"),
                // A tensor of no elements still needs an address to bind.
                size: Bytes((tensor.spec.bytes() as u64).max(1).saturating_add(padding.0)),
                alignment,
            }
        };
        (first..).zip(&self.tensors).map(lifetime).collect()
    }
}

fn broken(stage: u16, tensor: String) -> BackendError {
    BackendError::BrokenChain { stage: StageIndex(stage), tensor }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::description::DType;

    fn spec(name: &str, size: usize) -> TensorSpec {
        TensorSpec { name: name.into(), dtype: DType::F32, shape: vec![size] }
    }

    #[test]
    fn what_a_later_stage_takes_is_carried() {
        let (x, a, skip, y) = (spec("x", 4), spec("a", 2), spec("skip", 8), spec("y", 1));
        let (first_out, second_in) = ([a.clone(), skip.clone()], [a, skip]);
        let stages = [
            StageFace { inputs: std::slice::from_ref(&x), outputs: &first_out },
            StageFace { inputs: &second_in, outputs: std::slice::from_ref(&y) },
        ];
        let chain = Chain::link(&stages).expect("fits");
        let description = chain.description();
        assert_eq!((description.inputs, description.outputs), (vec![x], vec![y]));
        assert_eq!(description.stages, 2);
        let carried = chain.tensors.iter().filter(|t| t.role == Role::Carried).count();
        assert_eq!(carried, 2);
        assert_eq!(chain.copies(Direction::In), [SlotCopy { slot: 0, tensor: 0 }]);
        assert_eq!(chain.copies(Direction::Out), [SlotCopy { slot: 0, tensor: 3 }]);
        let spans: Vec<_> = chain
            .lifetimes(2, Room { alignment: 256, padding: Bytes::ZERO })
            .iter()
            .map(|lifetime| (lifetime.tensor.index, lifetime.class))
            .collect();
        assert_eq!(
            spans,
            [
                (2, TensorClass::Io),
                (3, TensorClass::Carried),
                (4, TensorClass::Carried),
                (5, TensorClass::Io)
            ]
        );
    }

    #[test]
    fn a_chain_that_does_not_fit_names_the_tensor() {
        let (x, a, wide) = (spec("x", 4), spec("a", 2), spec("a", 3));
        let stages = [
            StageFace { inputs: std::slice::from_ref(&x), outputs: std::slice::from_ref(&a) },
            StageFace { inputs: std::slice::from_ref(&wide), outputs: &[] },
        ];
        let error = Chain::link(&stages).expect_err("another shape");
        assert_eq!(
            error.to_string(),
            "the stages do not fit together: stage 1 has a: f32[3], but an earlier stage has a: f32[2]"
        );
    }
}
