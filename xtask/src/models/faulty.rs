//! Broken files, each in one way, for the tests of whatever loads models.

use super::graph::{Graph, int, model_of, value_info};
use super::mlp::Mlp;
use super::schema::{DataType, GraphProto, NodeProto};

use prost::Message as _;

/// A broken file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Text, not a protocol buffer.
    NotOnnx,
    /// A good model of which the last third is missing.
    Truncated,
    /// No bytes at all.
    Empty,
    /// A node of a domain that no runtime knows.
    UnknownOperator,
    /// An input whose first dimension is a name.
    DynamicBatch,
    /// A good model that fails at run time for an `index` outside 0 to 7.
    FailsOnDemand,
}

impl Fault {
    /// Every fault, in the order of the files' listing.
    pub(crate) const ALL: [Self; 6] = [
        Self::NotOnnx,
        Self::Truncated,
        Self::Empty,
        Self::UnknownOperator,
        Self::DynamicBatch,
        Self::FailsOnDemand,
    ];

    /// The file's name without `.onnx`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NotOnnx => "not_onnx",
            Self::Truncated => "truncated",
            Self::Empty => "empty",
            Self::UnknownOperator => "unknown_operator",
            Self::DynamicBatch => "dynamic_batch",
            Self::FailsOnDemand => "fails_on_demand",
        }
    }

    /// What is wrong, for people.
    pub(crate) fn summary(self) -> &'static str {
        match self {
            Self::NotOnnx => "text instead of a protocol buffer",
            Self::Truncated => "a good model without its last third",
            Self::Empty => "no bytes at all",
            Self::UnknownOperator => "a node of the domain made.up",
            Self::DynamicBatch => "an input and output whose first dimension is `batch`",
            Self::FailsOnDemand => "runs for index 0 to 7, fails at run time for any above",
        }
    }

    /// The file's contents.
    pub(crate) fn bytes(self) -> Vec<u8> {
        match self {
            Self::NotOnnx => b"This is a text file, whatever its name says.\n".to_vec(),
            Self::Truncated => truncated(),
            Self::Empty => Vec::new(),
            Self::UnknownOperator => unknown_operator(),
            Self::DynamicBatch => dynamic_batch(),
            Self::FailsOnDemand => fails_on_demand(),
        }
    }
}

fn truncated() -> Vec<u8> {
    let mut g = Graph::new("truncated", 1);
    Mlp { inputs: 8, hidden: 16, layers: 2, outputs: 2 }.build(&mut g);
    let mut bytes = g.into_model().encode_to_vec();
    bytes.truncate(bytes.len() * 2 / 3);
    bytes
}

fn unknown_operator() -> Vec<u8> {
    let mut g = Graph::new("unknown_operator", 1);
    let x = g.input("x", DataType::Float, &[1, 4]);
    let y = g.node("Frobnicate", "y", &[&x], Vec::new(), vec![1, 4]);
    g.output(&y);
    g.nodes[0].domain = "made.up".to_owned();
    let mut model = g.into_model();
    let mut opset = model.opset_import[0].clone();
    opset.domain = Some("made.up".to_owned());
    opset.version = Some(1);
    model.opset_import.push(opset);
    model.encode_to_vec()
}

fn dynamic_batch() -> Vec<u8> {
    let x = Graph::new("", 0).input("x", DataType::Float, &[1, 4]);
    let y = Graph::new("", 0).input("y", DataType::Float, &[1, 4]);
    let mut values = [value_info(&x), value_info(&y)];
    for value in &mut values {
        let tensor = value.r#type.as_mut().and_then(|of| of.tensor_type.as_mut());
        let shape = tensor.and_then(|of| of.shape.as_mut()).expect("value_info writes a shape");
        shape.dim[0].dim_value = None;
        shape.dim[0].dim_param = Some("batch".to_owned());
    }
    let node = NodeProto {
        input: vec![x.name],
        output: vec![y.name],
        name: "relu".to_owned(),
        op_type: "Relu".to_owned(),
        ..Default::default()
    };
    let [input, output] = values;
    let graph = GraphProto {
        node: vec![node],
        name: "dynamic_batch".to_owned(),
        input: vec![input],
        output: vec![output],
        ..Default::default()
    };
    model_of(graph).encode_to_vec()
}

/// A table of eight rows from which the input picks one: a CPU runtime checks the index when it
/// runs. (CUDA kernels do not check and give zeros: on a device this model does not fail.)
fn fails_on_demand() -> Vec<u8> {
    let mut g = Graph::new("fails_on_demand", 1);
    let index = g.input("index", DataType::Int64, &[1]);
    let table = g.uniform("table", &[8, 4], 0.0, 1.0);
    let row = g.node("Gather", "row", &[&table, &index], vec![int("axis", 0)], vec![1, 4]);
    g.output(&row);
    g.into_model().encode_to_vec()
}
