//! What of a network says how much rounding to expect: its precision, its depth, its longest sums.
//!
//! Read from the ONNX file itself, of which only the fields below are decoded.
//!
//! # Sources
//! The field numbers are those of `onnx.proto3` of ONNX, which never change.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use prost::Message as _;

/// `TensorProto.DataType.FLOAT16`.
const FLOAT16: i32 = 10;

/// Operators that move, select or describe numbers and round none. Everything else rounds once.
const EXACT: &[&str] = &[
    "Cast",
    "Clip",
    "Concat",
    "Constant",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "LeakyRelu",
    "MaxPool",
    "Pad",
    "ReduceMax",
    "Relu",
    "Reshape",
    "Resize",
    "ScatterND",
    "Shape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];

/// What a file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Network {
    /// Whether its weights are in half precision.
    pub is_half: bool,
    /// The roundings on the longest path from an input to each output, by name; a recurrent operator
    /// counts as one.
    pub roundings: BTreeMap<String, u64>,
    /// The most products that one number of a convolution or matrix product sums; at least one.
    pub longest_sum: u64,
}

impl Network {
    /// Reads `file`.
    ///
    /// # Errors
    /// It cannot be read, or is no ONNX model.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
        Self::of(&bytes).with_context(|| file.display().to_string())
    }

    fn of(bytes: &[u8]) -> anyhow::Result<Self> {
        let graph = Model::decode(bytes)?.graph.context("the model has no graph")?;
        Ok(Self {
            is_half: graph.weights.iter().any(|weight| weight.data_type == FLOAT16),
            roundings: roundings(&graph),
            longest_sum: longest_sum(&graph),
        })
    }
}

/// The standard orders nodes such that each comes after what it takes.
fn roundings(graph: &Graph) -> BTreeMap<String, u64> {
    let mut depth: BTreeMap<&str, u64> = BTreeMap::new();
    for node in &graph.nodes {
        let before = node.inputs.iter().filter_map(|input| depth.get(input.as_str())).max();
        let own = u64::from(!EXACT.contains(&node.operator.as_str()));
        let through = before.copied().unwrap_or(0) + own;
        depth.extend(node.outputs.iter().map(|output| (output.as_str(), through)));
    }
    let of = |output: &Value| (output.name.clone(), depth.get(output.name.as_str()).copied());
    graph.outputs.iter().map(of).map(|(name, depth)| (name, depth.unwrap_or(0))).collect()
}

fn longest_sum(graph: &Graph) -> u64 {
    let weights: BTreeMap<&str, &Weight> =
        graph.weights.iter().map(|weight| (weight.name.as_str(), weight)).collect();
    let sum = |node: &Node| -> Option<i64> {
        let dims = &weights.get(node.inputs.get(1)?.as_str())?.dims;
        match node.operator.as_str() {
            // Each of the output channels sums over input channels and the kernel.
            "Conv" => Some(dims.iter().skip(1).product()),
            "ConvTranspose" => Some(dims.first()? * dims.iter().skip(2).product::<i64>()),
            // The one or the other side, as the weights lie; the larger serves a bound.
            "Gemm" | "MatMul" => dims.iter().copied().max(),
            _ => None,
        }
    };
    let longest = graph.nodes.iter().filter_map(sum).max().unwrap_or(1);
    u64::try_from(longest).unwrap_or(1).max(1)
}

#[derive(Clone, PartialEq, prost::Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    weights: Vec<Weight>,
    #[prost(message, repeated, tag = "12")]
    outputs: Vec<Value>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    outputs: Vec<String>,
    #[prost(string, tag = "4")]
    operator: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Weight {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Value {
    #[prost(string, tag = "1")]
    name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(operator: &str, inputs: &[&str], output: &str) -> Node {
        Node {
            inputs: inputs.iter().map(ToString::to_string).collect(),
            outputs: vec![output.to_owned()],
            operator: operator.to_owned(),
        }
    }

    fn weight(name: &str, dims: &[i64], data_type: i32) -> Weight {
        Weight { name: name.to_owned(), dims: dims.to_vec(), data_type }
    }

    #[test]
    fn the_longest_path_counts_what_rounds() {
        let graph = Graph {
            nodes: vec![
                node("Cast", &["x"], "half"),
                node("Conv", &["half", "w"], "a"),
                node("Relu", &["a"], "b"),
                node("Add", &["b", "half"], "c"),
                node("MatMul", &["half", "v"], "short"),
                node("Sigmoid", &["c"], "y"),
            ],
            weights: vec![weight("w", &[64, 32, 3, 3], FLOAT16), weight("v", &[100, 7], FLOAT16)],
            outputs: vec![Value { name: "y".into() }, Value { name: "short".into() }],
        };
        let bytes = Model { graph: Some(graph) }.encode_to_vec();
        let network = Network::of(&bytes).expect("a model");
        assert!(network.is_half);
        assert_eq!(network.longest_sum, 288);
        assert_eq!(network.roundings, BTreeMap::from([("y".into(), 3), ("short".into(), 1)]));
    }

    #[test]
    fn what_is_no_model_is_an_error() {
        assert!(Network::of(&[]).is_err());
        assert!(Network::of(b"this is no network").is_err());
    }

    #[test]
    fn a_generated_network_is_read() {
        let file = Path::new(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../.aegis/models/golden/resnet18.onnx"
        ));
        if !file.is_file() {
            eprintln!("SKIPPED: no golden set; run `cargo xtask models --set golden`");
            return;
        }
        let network = Network::read(file).expect("a model");
        assert!(!network.is_half && network.longest_sum > 1);
        // Eighteen layers with weights, and additions and normalisations between them.
        assert!(network.roundings.values().all(|depth| (18..80).contains(depth)), "{network:?}");
    }
}
