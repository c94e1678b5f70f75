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

/// `TensorProto.DataType.FLOAT16` and `FLOAT`.
const FLOAT16: i32 = 10;
const FLOAT: i64 = 1;
/// `AttributeProto.AttributeType.INT`.
const INT: i32 = 2;

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
    /// The outputs that come out of a saturating function, with the tensor that goes into it.
    pub ends: BTreeMap<String, (End, String)>,
}

/// The last thing that is done to every element of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing that saturates.
    Plain,
    /// The logistic function.
    Logistic,
    /// The hyperbolic tangent.
    Tangent,
}

impl End {
    /// The function.
    pub(crate) fn of(self, x: f64) -> f64 {
        match self {
            Self::Plain => x,
            Self::Logistic => 1.0 / (1.0 + (-x).exp()),
            Self::Tangent => x.tanh(),
        }
    }
}

/// How the outputs end that show what went into a saturating function.
pub(crate) const BEFORE: &str = ".before_the_end";

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
            ends: ends(&graph),
        })
    }

    /// The model of `file` with what goes into each saturating function as one more output of 32 bits,
    /// called as the output it ends in and [`BEFORE`].
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn opened(&self, file: &Path) -> anyhow::Result<Vec<u8>> {
        let mut bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
        let name = |output: &String| format!("{output}{BEFORE}");
        let to_single = Attribute { name: "to".into(), value: FLOAT, kind: INT };
        let cast = |(output, (_, before)): (&String, &(End, String))| Node {
            inputs: vec![before.clone()],
            outputs: vec![name(output)],
            operator: "Cast".into(),
            attributes: vec![to_single.clone()],
        };
        let nodes = self.ends.iter().map(cast).collect();
        let outputs = self.ends.keys().map(|output| Value { name: name(output) }).collect();
        let more = Graph { nodes, weights: Vec::new(), outputs };
        // Messages of this kind that follow each other are one: its lists are joined.
        Model { graph: Some(more) }.encode(&mut bytes)?;
        Ok(bytes)
    }
}

/// Follows each output back through what only changes its type.
fn ends(graph: &Graph) -> BTreeMap<String, (End, String)> {
    let maker =
        |name: &str| graph.nodes.iter().find(|node| node.outputs.iter().any(|it| it == name));
    let end = |output: &Value| {
        let mut name = output.name.as_str();
        loop {
            let node = maker(name)?;
            let before = node.inputs.first()?;
            match node.operator.as_str() {
                "Cast" => name = before,
                "Sigmoid" => return Some((output.name.clone(), (End::Logistic, before.clone()))),
                "Tanh" => return Some((output.name.clone(), (End::Tangent, before.clone()))),
                _ => return None,
            }
        }
    };
    graph.outputs.iter().filter_map(end).collect()
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
    #[prost(message, repeated, tag = "5")]
    attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, tag = "3")]
    value: i64,
    #[prost(int32, tag = "20")]
    kind: i32,
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
            attributes: Vec::new(),
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
        assert_eq!(network.ends, BTreeMap::from([("y".into(), (End::Logistic, "c".into()))]));
    }

    #[test]
    fn what_goes_into_the_end_becomes_an_output() {
        let nodes = vec![node("Sigmoid", &["x"], "h"), node("Cast", &["h"], "y")];
        let outputs = vec![Value { name: "y".into() }];
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("m.onnx");
        let graph = Graph { nodes, weights: Vec::new(), outputs };
        std::fs::write(&file, Model { graph: Some(graph) }.encode_to_vec()).expect("written");
        let network = Network::read(&file).expect("a model");
        let opened = network.opened(&file).expect("it is there");
        let graph = Model::decode(&opened[..]).expect("a model").graph.expect("one graph");
        let names: Vec<_> = graph.outputs.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, ["y", "y.before_the_end"]);
        assert_eq!((graph.nodes.len(), &graph.nodes[2].inputs[..]), (3, &["x".to_owned()][..]));
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
