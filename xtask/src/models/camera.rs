//! A network that takes images as a camera gives them: bytes, which it scales itself.
//!
//! A quarter of the bytes to copy to the device for each job, and no work for the caller.
//!
//! # Invariants
//! 1. Only inputs of floats change, to as many bytes; outputs are those of the network that was
//!    given, for an input of its bytes divided by 255.

use super::graph::{Graph, Tensor};
use super::half::cast;
use super::schema::{DataType, NodeProto};

/// What a byte is multiplied with.
const SCALE: f32 = 1.0 / 255.0;

/// `graph` with bytes in the place of its inputs of floats.
pub(crate) fn from_bytes(mut graph: Graph) -> Graph {
    let floats = graph.inputs.iter_mut().filter(|input| input.element == DataType::Float);
    let changed: Vec<Tensor> = floats
        .map(|input| {
            input.element = DataType::Uint8;
            input.clone()
        })
        .collect();
    for node in &mut graph.nodes {
        let taken = |name: &&mut String| changed.iter().any(|input| input.name == **name);
        for name in node.input.iter_mut().filter(taken) {
            name.push_str(".scaled");
        }
    }
    let mut nodes = Vec::new();
    for input in &changed {
        graph.tensors.insert(input.name.clone(), input.clone());
        let scale = graph.floats(&format!("{}.scale", input.name), &[], &[SCALE]);
        let float = format!("{}.float", input.name);
        nodes.push(cast(&input.name, &float, DataType::Float));
        let scaled = format!("{}.scaled", input.name);
        nodes.push(NodeProto {
            input: vec![float, scale.name],
            output: vec![scaled.clone()],
            name: scaled,
            op_type: "Mul".to_owned(),
            attribute: Vec::new(),
            domain: String::new(),
        });
    }
    nodes.append(&mut graph.nodes);
    graph.nodes = nodes;
    graph
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::half::halved;
    use crate::models::resnet::{Depth, ResNet};

    #[test]
    fn bytes_are_scaled_before_all_else_in_either_precision() {
        for half in [false, true] {
            let mut graph = Graph::new("net", 7);
            ResNet { depth: Depth::D18, size: [32, 32], width: 25, classes: 4 }.build(&mut graph);
            let (outputs, graph) =
                (graph.outputs.clone(), if half { halved(graph) } else { graph });
            let graph = from_bytes(graph);
            assert_eq!(graph.outputs, outputs);
            assert_eq!(graph.inputs[0].element, DataType::Uint8);
            let ops: Vec<&str> = graph.nodes.iter().map(|node| node.op_type.as_str()).collect();
            assert_eq!(ops[..2], ["Cast", "Mul"]);
            let takers = graph.nodes.iter().filter(|node| node.input.contains(&"image".to_owned()));
            assert_eq!(takers.count(), 1, "nobody else takes the bytes");
        }
    }
}
