//! Multilayer perceptrons, as in learned controllers; and one small enough to work out by hand.
//!
//! # Sources
//! Rumelhart, Hinton, Williams, "Learning representations by back-propagating errors", Nature 323,
//! 1986; as a controller's policy: Schulman et al., "Proximal Policy Optimization", 2017, 6.1.

use super::graph::{Graph, int};
use super::schema::DataType;

/// A controller: a state in, a command within -1 and 1 out.
#[derive(Clone, Copy)]
pub(crate) struct Mlp {
    pub inputs: usize,
    pub hidden: usize,
    /// Hidden layers.
    pub layers: usize,
    pub outputs: usize,
}

impl Mlp {
    /// Adds the network: `state` to `command`.
    pub(crate) fn build(&self, g: &mut Graph) {
        let mut x = g.input("state", DataType::Float, &[1, self.inputs]);
        for layer in 0..self.layers {
            let y = g.dense(&format!("layer{layer}.dense"), &x, self.hidden, 2.0);
            x = g.relu(&format!("layer{layer}"), &y);
        }
        let y = g.dense("command.dense", &x, self.outputs, 1.0);
        let command = g.tanh("command", &y);
        g.output(&command);
    }
}

/// Adds the network of the worked example, `y = relu(x W + b)`.
///
/// With `x = [1 2]`, `W = [3 -1; -2 4]`, `b = [5 -10]`:
/// `x W = [1*3 + 2*-2, 1*-1 + 2*4] = [-1 7]`, plus `b` is `[4 -3]`, so `y = [4 0]`.
pub(crate) fn by_hand(g: &mut Graph) {
    let x = g.input("x", DataType::Float, &[1, 2]);
    let weight = g.floats("weight", &[2, 2], &[3.0, -1.0, -2.0, 4.0]);
    let bias = g.floats("bias", &[2], &[5.0, -10.0]);
    let sum = g.node("Gemm", "sum", &[&x, &weight, &bias], vec![int("transB", 0)], vec![1, 2]);
    let y = g.relu("y", &sum);
    g.output(&y);
}
