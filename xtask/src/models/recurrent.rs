//! A stack of gated recurrent units over a fixed window of samples.
//!
//! # Sources
//! Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", EMNLP 2014; with the
//! reset gate after the recurrent product, the form that GPU libraries run in one kernel.

use super::graph::{Graph, Tensor, dims, int};
use super::schema::DataType;

/// A recurrent network that sees a window of samples and answers once.
#[derive(Clone, Copy)]
pub(crate) struct Gru {
    /// Samples in the window.
    pub steps: usize,
    /// Features of a sample.
    pub features: usize,
    /// Width of the state.
    pub hidden: usize,
    pub layers: usize,
    /// Numbers in the answer.
    pub outputs: usize,
}

impl Gru {
    /// Adds the network: `sequence` (`[steps, 1, features]`) to `prediction` (`[1, outputs]`).
    pub(crate) fn build(&self, g: &mut Graph) {
        let shape = [self.steps, 1, self.features];
        let mut x = g.input("sequence", DataType::Float, &shape);
        for layer in 0..self.layers {
            x = self.layer(g, &format!("gru{layer}"), &x);
        }
        let last = g.take("last", &x, 0, self.steps - 1);
        let prediction = g.dense("prediction", &last, self.outputs, 1.0);
        g.output(&prediction);
    }

    /// One layer: the states after each step, as a sequence of the same form as `x`.
    fn layer(&self, g: &mut Graph, name: &str, x: &Tensor) -> Tensor {
        let (inputs, hidden) = (x.dim(2), self.hidden);
        let of = |part: &str| format!("{name}.{part}");
        let input = g.weight(&of("input_weight"), &[1, 3 * hidden, inputs], inputs, 1.0);
        let state = g.weight(&of("state_weight"), &[1, 3 * hidden, hidden], hidden, 1.0);
        let bias = g.uniform(&of("bias"), &[1, 6 * hidden], 0.0, 0.1);
        let attributes = vec![int("hidden_size", hidden), int("linear_before_reset", 1)];
        let states = vec![self.steps, 1, 1, hidden];
        let y = g.node("GRU", &of("states"), &[x, &input, &state, &bias], attributes, states);
        // The axis of directions goes; there is only one.
        let axes = g.integers(&of("axes"), &dims(&[1]));
        g.node("Squeeze", name, &[&y, &axes], Vec::new(), vec![self.steps, 1, hidden])
    }
}
