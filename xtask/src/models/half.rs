//! A network in half precision: 16-bit weights and activations, 32-bit inputs and outputs.
//!
//! The usual form for deployment: callers keep their `f32` buffers, and the first and last node of
//! each path convert. What an operator wants as `f32` by its definition stays so.
//!
//! # Invariants
//! 1. Names of inputs and outputs, their types and shapes are those of the network that was given.
//! 2. Weights are rounded to nearest, ties to even, the same on every machine.

use half::f16;

use super::graph::{Graph, Tensor, int};
use super::schema::{DataType, NodeProto, TensorProto};

/// Ends the names of the initialisers that the definition of `Resize` wants as `f32`.
const SCALES: &str = ".constant_scales";

/// `graph` with everything inside in half precision.
pub(crate) fn halved(mut graph: Graph) -> Graph {
    graph.initialisers.iter_mut().for_each(halve);
    for tensor in graph.tensors.values_mut() {
        tensor.element = inside(tensor.element);
    }
    let floats = |tensors: &[Tensor]| -> Vec<String> {
        let floats = tensors.iter().filter(|tensor| tensor.element == DataType::Float);
        floats.map(|tensor| tensor.name.clone()).collect()
    };
    let (inputs, outputs) = (floats(&graph.inputs), floats(&graph.outputs));
    for node in &mut graph.nodes {
        let outside = |name: &&mut String| inputs.contains(name) || outputs.contains(name);
        for name in node.input.iter_mut().chain(&mut node.output).filter(outside) {
            name.push_str(".half");
        }
    }
    let enter = inputs.iter().map(|name| cast(name, &format!("{name}.half"), DataType::Float16));
    let leave = outputs.iter().map(|name| cast(&format!("{name}.half"), name, DataType::Float));
    let inner = std::mem::take(&mut graph.nodes);
    graph.nodes = enter.chain(inner).chain(leave).collect();
    graph
}

fn inside(element: DataType) -> DataType {
    match element {
        DataType::Float => DataType::Float16,
        other => other,
    }
}

/// Rounds a tensor of floats.
fn halve(tensor: &mut TensorProto) {
    if tensor.data_type != i32::from(DataType::Float) || tensor.name.ends_with(SCALES) {
        return;
    }
    let float = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let round = |bytes: &[u8]| f16::from_f32(float(bytes)).to_le_bytes();
    tensor.raw_data = tensor.raw_data.chunks_exact(4).flat_map(round).collect();
    tensor.data_type = DataType::Float16.into();
}

pub(super) fn cast(from: &str, to: &str, element: DataType) -> NodeProto {
    let number = usize::try_from(i32::from(element)).expect("types have small numbers");
    NodeProto {
        input: vec![from.to_owned()],
        output: vec![to.to_owned()],
        name: format!("{to}.cast"),
        op_type: "Cast".to_owned(),
        attribute: vec![int("to", number)],
        domain: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::resnet::{Depth, ResNet};

    #[test]
    fn inputs_and_outputs_keep_their_names_and_types() {
        let build = || {
            let mut graph = Graph::new("net", 7);
            ResNet { depth: Depth::D18, size: [32, 32], width: 25, classes: 4 }.build(&mut graph);
            graph
        };
        let (whole, half) = (build(), halved(build()));
        assert_eq!((&half.inputs, &half.outputs), (&whole.inputs, &whole.outputs));
        let ends = [half.nodes.first(), half.nodes.last()].map(|node| node.expect("it has nodes"));
        assert_eq!(ends.map(|node| node.op_type.as_str()), ["Cast", "Cast"]);
        assert_eq!((&ends[0].input[0], &ends[1].output[0]), (&"image".into(), &"logits".into()));
        let bytes = |graph: &Graph| -> usize {
            graph.initialisers.iter().map(|tensor| tensor.raw_data.len()).sum()
        };
        assert_eq!(2 * bytes(&half), bytes(&whole));
    }

    #[test]
    fn weights_are_rounded_to_the_nearest_even() {
        // 1 + 2^-11 lies between 1 and 1 + 2^-10, and 1 + 3 * 2^-11 between that and the next.
        let cases = [(1.0 + 2f32.powi(-11), 0x3c00_u16), (1.0 + 3.0 * 2f32.powi(-11), 0x3c02)];
        for (value, expected) in cases {
            let mut tensor = TensorProto {
                dims: vec![1],
                data_type: DataType::Float.into(),
                name: "weight".to_owned(),
                raw_data: value.to_le_bytes().to_vec(),
            };
            halve(&mut tensor);
            assert_eq!(tensor.raw_data, expected.to_le_bytes());
        }
    }
}
