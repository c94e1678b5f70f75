//! The golden answers and what they are compared with.
#![allow(dead_code)] // Each test binary uses its own part.

use std::fs;
use std::path::{Path, PathBuf};

use aegis_context::{DType, RuntimeBackend};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::world::{self, Tensors, World};

/// `golden.json`; its fields are described in `make_golden.py`.
#[derive(Deserialize)]
pub(crate) struct Golden {
    pub(crate) tolerance: f32,
    pub(crate) models: Vec<GoldenModel>,
}

#[derive(Deserialize)]
pub(crate) struct GoldenModel {
    pub(crate) name: String,
    file: String,
    sha256: String,
    stages: Vec<GoldenFile>,
    inputs: Vec<GoldenInput>,
    pub(crate) outputs: Vec<GoldenOutput>,
}

#[derive(Deserialize)]
struct GoldenFile {
    file: String,
    sha256: String,
}

#[derive(Deserialize)]
struct GoldenInput {
    name: String,
    shape: Vec<usize>,
    r#type: DType,
    modulus: Option<i64>,
    values: Option<Vec<f32>>,
}

#[derive(Deserialize)]
pub(crate) struct GoldenOutput {
    name: String,
    shape: Vec<usize>,
    mean: f64,
    max_abs: f32,
    samples: Vec<(usize, f32)>,
}

impl Golden {
    pub(crate) fn read() -> Self {
        let golden = include_str!("golden.json");
        serde_json::from_str(golden).expect("golden.json is as make_golden.py writes it")
    }

    pub(crate) fn model(&self, name: &str) -> &GoldenModel {
        self.models.iter().find(|model| model.name == name).expect("a golden model")
    }
}

impl GoldenModel {
    /// The file of the whole network, seen to be the one the answers belong to.
    pub(crate) fn whole(&self) -> Vec<PathBuf> {
        vec![verified(&self.file, &self.sha256)]
    }

    /// The files of its stages; empty when it was not cut.
    pub(crate) fn stages(&self) -> Vec<PathBuf> {
        self.stages.iter().map(|stage| verified(&stage.file, &stage.sha256)).collect()
    }

    pub(crate) fn inputs(&self) -> Tensors {
        self.inputs.iter().map(GoldenInput::tensor).collect()
    }

    /// Inputs of another answer.
    pub(crate) fn zeros(&self) -> Tensors {
        self.inputs().iter().map(|input| vec![0; input.len()]).collect()
    }

    /// Sees that the model in `world` has the inputs and outputs of the answers, in their order.
    pub(crate) fn check_description(&self, model: &world::Model) {
        let description = model.backend.description();
        let given: Vec<_> =
            description.inputs.iter().map(|s| (s.name.as_str(), &s.shape, s.dtype)).collect();
        let wanted: Vec<_> =
            self.inputs.iter().map(|i| (i.name.as_str(), &i.shape, i.r#type)).collect();
        assert_eq!(given, wanted, "inputs of {}", self.name);
        let given: Vec<_> =
            description.outputs.iter().map(|s| (s.name.as_str(), &s.shape)).collect();
        let wanted: Vec<_> = self.outputs.iter().map(|o| (o.name.as_str(), &o.shape)).collect();
        assert_eq!(given, wanted, "outputs of {}", self.name);
    }

    /// Compares the outputs of a run with the answers.
    pub(crate) fn check_outputs(&self, tolerance: f32, outputs: &Tensors) {
        assert_eq!(outputs.len(), self.outputs.len(), "outputs of {}", self.name);
        for (answer, output) in self.outputs.iter().zip(outputs) {
            answer.check(&self.name, tolerance, &world::floats(output));
        }
    }

    /// Admits the network in the given files and runs it once, to see that its answers are right.
    pub(crate) fn admitted(
        &self,
        world: &mut World,
        files: Vec<PathBuf>,
    ) -> (world::Model, Tensors) {
        let mut model = world.admit(world::load(files));
        self.check_description(&model);
        let outputs = world.run(&mut model, &self.inputs()).expect("a good input");
        self.check_outputs(Golden::read().tolerance, &outputs);
        (model, outputs)
    }
}

impl GoldenInput {
    fn tensor(&self) -> Vec<u8> {
        let elements = self.shape.iter().product();
        match (&self.values, self.modulus) {
            (Some(values), _) => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
            (None, Some(modulus)) => world::integer_input(elements, modulus),
            (None, None) => world::float_input(elements),
        }
    }
}

impl GoldenOutput {
    /// Sees that two implementations agree in every element, as closely as with the answers.
    pub(crate) fn check_equal(&self, tolerance: f32, one: &[f32], other: &[f32]) {
        assert_eq!(one.len(), other.len(), "elements of {}", self.name);
        let allowed = tolerance * self.max_abs;
        let agree = |(one, other): (&f32, &f32)| (one - other).abs() <= allowed;
        assert!(one.iter().zip(other).all(agree), "{} differs", self.name);
    }

    fn check(&self, model: &str, tolerance: f32, actual: &[f32]) {
        let what = format!("{model}.{}", self.name);
        assert_eq!(actual.len(), self.shape.iter().product::<usize>(), "elements of {what}");
        let allowed = tolerance * self.max_abs;
        for (index, expected) in &self.samples {
            let actual = actual[*index];
            let difference = (actual - expected).abs();
            assert!(difference <= allowed, "{what}[{index}] is {actual}, not {expected}");
        }
        let largest = actual.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        assert!((largest - self.max_abs).abs() <= allowed, "{what} reaches {largest}");
        let mean = actual.iter().map(|value| f64::from(*value)).sum::<f64>() / actual.len() as f64;
        assert!((mean - self.mean).abs() <= f64::from(allowed), "the mean of {what} is {mean}");
    }
}

fn verified(name: &str, expected: &str) -> PathBuf {
    let file = world::file("golden", name);
    assert_eq!(
        sha256(&file),
        expected,
        "{name} is not the model of golden.json: run `cargo xtask models --set golden`; if the \
         models have changed on purpose, run make_golden.py as well"
    );
    file
}

fn sha256(file: &Path) -> String {
    let bytes = fs::read(file).expect("a readable file");
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
