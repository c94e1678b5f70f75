//! A stack of long short-term memories, written out step by step.
//!
//! The runtime's one-node form hands a library the lengths of its sequences from host memory on each
//! run, which a captured graph cannot; written out, each step is plain operators. That is also how
//! tracing exporters write a cell in a loop.
//!
//! # Sources
//! Hochreiter, Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997; with the forget
//! gate of Gers, Schmidhuber, Cummins, "Learning to Forget", Neural Computation 12(10), 2000.

use super::graph::{Graph, Tensor};
use super::schema::DataType;

/// A recurrent network that sees a window of samples and answers once.
#[derive(Clone, Copy)]
pub(crate) struct Lstm {
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

/// What goes from step to step.
struct State {
    hidden: Tensor,
    cell: Tensor,
}

impl Lstm {
    /// Adds the network: `sequence` (`[steps, features]`) to `prediction` (`[1, outputs]`).
    pub(crate) fn build(&self, g: &mut Graph) {
        let sequence = g.input("sequence", DataType::Float, &[self.steps, self.features]);
        let mut x: Vec<Tensor> = (0..self.steps)
            .map(|step| g.slice(&format!("sample{step}"), &sequence, 0, step..step + 1))
            .collect();
        for layer in 0..self.layers {
            x = self.layer(g, &format!("lstm{layer}"), &x);
        }
        let last = x.last().expect("a window has a sample").clone();
        let prediction = g.dense("prediction", &last, self.outputs, 1.0);
        g.output(&prediction);
    }

    /// The states after each step.
    fn layer(&self, g: &mut Graph, name: &str, x: &[Tensor]) -> Vec<Tensor> {
        let (inputs, hidden) = (x[0].dim(1), self.hidden);
        let of = |part: &str| format!("{name}.{part}");
        let input = g.weight(&of("input_weight"), &[inputs, 4 * hidden], inputs, 1.0);
        let recurrent = g.weight(&of("state_weight"), &[hidden, 4 * hidden], hidden, 1.0);
        let bias = g.uniform(&of("bias"), &[4 * hidden], 0.0, 0.1);
        let mut state: Option<State> = None;
        let mut states = Vec::with_capacity(x.len());
        for (step, sample) in x.iter().enumerate() {
            let of = |part: &str| format!("{name}.{step}.{part}");
            let y = g.matmul(&of("input"), sample, &input);
            let mut y = g.add(&of("biased"), &y, &bias);
            if let Some(State { hidden, .. }) = &state {
                let from = g.matmul(&of("state"), hidden, &recurrent);
                y = g.add(&of("sum"), &y, &from);
            }
            let next = self.cell(g, &format!("{name}.{step}"), &y, state.as_ref());
            states.push(next.hidden.clone());
            state = Some(next);
        }
        states
    }

    /// One step, from what enters the four gates. The first has no state before it, that is zeros.
    fn cell(&self, g: &mut Graph, name: &str, x: &Tensor, before: Option<&State>) -> State {
        let of = |part: &str| format!("{name}.{part}");
        let part = |gate: usize| gate * self.hidden..(gate + 1) * self.hidden;
        let gate = |g: &mut Graph, what: &str, index: usize| {
            let y = g.slice(&of(&format!("{what}.part")), x, 1, part(index));
            g.sigmoid(&of(what), &y)
        };
        let (enter, leave) = (gate(g, "enter", 0), gate(g, "leave", 1));
        let kept = before.map(|State { cell, .. }| {
            let keep = gate(g, "keep", 2);
            g.mul(&of("kept"), &keep, cell)
        });
        let new = g.slice(&of("new.part"), x, 1, part(3));
        let new = g.tanh(&of("new"), &new);
        let new = g.mul(&of("entered"), &enter, &new);
        let cell = kept.map_or_else(|| new.clone(), |kept| g.add(&of("cell"), &kept, &new));
        let shown = g.tanh(&of("shown"), &cell);
        let hidden = g.mul(&of("hidden"), &leave, &shown);
        State { hidden, cell }
    }
}
