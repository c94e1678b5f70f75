//! One network as a chain of models, cut between named nodes.
//!
//! Every tensor that crosses a cut is an output of the stage before and, under the same name, an
//! input of the stage after. A tensor that a later stage wants (a U-Net's skip) is handed on by
//! every stage between, since a stage sees only its neighbour: it leaves through an `Identity` as
//! `NAME.carriedK`, because a graph cannot produce a name it was given.
//!
//! # Invariants
//! 1. Outputs of stage `k` and inputs of stage `k + 1` agree in name, type, shape and order.
//! 2. The outputs of the last stage are those of the whole.
//! 3. Every node of the whole is in exactly one stage, so the results are equal.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use anyhow::{Context as _, ensure};

use super::graph::{Graph, Tensor};
use super::schema::NodeProto;

/// Cuts `whole` after each of the nodes named in `cuts`; none gives the whole as one stage.
///
/// # Errors
/// A cut that names no node, cuts out of order, or a result that is ready before the last stage.
pub(crate) fn split(whole: Graph, cuts: &[&str]) -> anyhow::Result<Vec<Graph>> {
    let ranges = ranges(&whole, cuts)?;
    let last = ranges.last().expect("there is always one range").clone();
    for output in &whole.outputs {
        let made_last = whole.nodes[last.clone()].iter().any(|n| n.output.contains(&output.name));
        ensure!(made_last, "{} of {} is ready before its last stage", output.name, whole.name);
    }
    let mut entering = whole.inputs.clone();
    // What the tensors of the whole are called where the current stage begins.
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    let mut stages = Vec::new();
    for (index, range) in ranges.into_iter().enumerate() {
        let stage = stage(&whole, index, range, &entering, &mut names);
        entering.clone_from(&stage.outputs);
        stages.push(stage);
    }
    Ok(stages)
}

/// The nodes of each stage.
fn ranges(whole: &Graph, cuts: &[&str]) -> anyhow::Result<Vec<Range<usize>>> {
    let mut ranges = Vec::new();
    let mut start = 0;
    for cut in cuts {
        let node = whole.nodes.iter().position(|node| node.name == *cut);
        let end = node.with_context(|| format!("{} has no node {cut}", whole.name))? + 1;
        ensure!(start < end, "the cut {cut} of {} is out of order", whole.name);
        ranges.push(start..end);
        start = end;
    }
    ensure!(start < whole.nodes.len(), "nothing of {} follows its last cut", whole.name);
    ranges.push(start..whole.nodes.len());
    Ok(ranges)
}

/// Stage `index`, made of `range`; `names` is brought to the state at its end.
fn stage(
    whole: &Graph,
    index: usize,
    range: Range<usize>,
    entering: &[Tensor],
    names: &mut BTreeMap<String, String>,
) -> Graph {
    let mut stage = Graph::new(&format!("{}.stage{index}", whole.name), 0);
    stage.inputs = entering.to_vec();
    stage.nodes = whole.nodes[range.clone()].to_vec();
    for input in stage.nodes.iter_mut().flat_map(|node| node.input.iter_mut()) {
        if let Some(name) = names.get(input) {
            input.clone_from(name);
        }
    }
    let used: BTreeSet<&String> = stage.nodes.iter().flat_map(|node| &node.input).collect();
    let wanted = whole.initialisers.iter().filter(|tensor| used.contains(&tensor.name));
    stage.initialisers = wanted.cloned().collect();
    if range.end == whole.nodes.len() {
        stage.outputs.clone_from(&whole.outputs);
        return stage;
    }
    let made: BTreeSet<&String> =
        whole.nodes[range.clone()].iter().flat_map(|n| &n.output).collect();
    for tensor in crossing(whole, range.end) {
        let mut leaving = tensor.clone();
        if !made.contains(&tensor.name) {
            leaving.name = format!("{}.carried{index}", tensor.name);
            let from = names.get(&tensor.name).unwrap_or(&tensor.name);
            stage.nodes.push(identity(from, &leaving.name));
            names.insert(tensor.name.clone(), leaving.name.clone());
        }
        stage.outputs.push(leaving);
    }
    stage
}

/// The tensors made before node `end` (inputs of the whole included) and used from it on, in the
/// order in which they were made.
fn crossing(whole: &Graph, end: usize) -> Vec<&Tensor> {
    let later: BTreeSet<&String> = whole.nodes[end..].iter().flat_map(|node| &node.input).collect();
    let inputs = whole.inputs.iter().map(|tensor| &tensor.name);
    let made = whole.nodes[..end].iter().flat_map(|node| &node.output);
    inputs
        .chain(made)
        .filter(|name| later.contains(name))
        .filter_map(|name| whole.tensors.get(name))
        .collect()
}

fn identity(from: &str, to: &str) -> NodeProto {
    NodeProto {
        input: vec![from.to_owned()],
        output: vec![to.to_owned()],
        name: to.to_owned(),
        op_type: "Identity".to_owned(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::resnet::{Depth, ResNet};
    use crate::models::unet::UNet;

    fn unet() -> Graph {
        let mut graph = Graph::new("unet", 7);
        UNet { size: [32, 32], channels: 8, classes: 2 }.build(&mut graph);
        graph
    }

    #[test]
    fn outputs_of_a_stage_are_the_inputs_of_the_next() {
        let whole = unet();
        let (inputs, outputs) = (whole.inputs.clone(), whole.outputs.clone());
        let stages = split(whole, &["down2", "down4", "up1"]).expect("the cuts are nodes");
        assert_eq!(stages.len(), 4);
        assert_eq!(stages[0].inputs, inputs);
        assert_eq!(stages[3].outputs, outputs);
        for pair in stages.windows(2) {
            assert_eq!(pair[0].outputs, pair[1].inputs, "{} to {}", pair[0].name, pair[1].name);
        }
    }

    #[test]
    fn stages_share_out_the_nodes_and_the_weights() {
        let (nodes, parameters) = (unet().nodes.len(), unet().parameters());
        let stages = split(unet(), &["down2", "up1"]).expect("the cuts are nodes");
        let carried = |node: &&NodeProto| node.op_type == "Identity";
        let of = |stage: &Graph| stage.nodes.len() - stage.nodes.iter().filter(carried).count();
        assert_eq!(stages.iter().map(of).sum::<usize>(), nodes);
        assert_eq!(stages.iter().map(Graph::parameters).sum::<usize>(), parameters);
    }

    #[test]
    fn a_residual_network_hands_on_one_tensor_between_blocks() {
        let mut whole = Graph::new("resnet", 7);
        let net = ResNet { depth: Depth::D18, size: [32, 32], width: 25, classes: 4 };
        net.build(&mut whole);
        let stages = split(whole, &["layer2.1"]).expect("the cut is a node");
        assert_eq!(stages[0].outputs.len(), 1);
        assert_eq!(stages[0].outputs[0].name, "layer2.1");
    }

    #[test]
    fn wrong_cuts_are_refused_by_name() {
        let refusal = |cuts: &[&str]| split(unet(), cuts).err().map(|e| e.to_string());
        assert_eq!(refusal(&["nowhere"]).as_deref(), Some("unet has no node nowhere"));
        let order = "the cut down2 of unet is out of order";
        assert_eq!(refusal(&["up1", "down2"]).as_deref(), Some(order));
        assert_eq!(refusal(&["logits"]).as_deref(), Some("nothing of unet follows its last cut"));
    }
}
