//! A lane detector that chooses a column in each row, instead of labelling pixels.
//!
//! # Sources
//! Qin, Wang, Li, "Ultra Fast Structure-aware Deep Lane Detection", ECCV 2020, section 3: a residual
//! network, eight channels of its map, and two dense layers.

use super::graph::Graph;
use super::layers::Conv;
use super::resnet::{Depth, ResNet};

/// Channels that the dense layers see.
const CHANNELS: usize = 8;
/// Width of the first dense layer.
const HIDDEN: usize = 2048;

/// A detector of lanes in RGB images.
#[derive(Clone, Copy)]
pub(crate) struct LaneNet {
    /// Height and width of the image, multiples of 32.
    pub size: [usize; 2],
    /// Columns of which one is chosen; one more stands for none.
    pub columns: usize,
    /// Rows in which one is chosen.
    pub rows: usize,
    pub lanes: usize,
}

impl LaneNet {
    /// Adds the network: `image` to `scores` (`[1, columns + 1, rows, lanes]`).
    pub(crate) fn build(&self, g: &mut Graph) {
        let net = ResNet { depth: Depth::D18, size: self.size, width: 100, classes: 0 };
        let [.., x] = net.features(g);
        let x = g.conv_bias("narrow", &x, Conv::new(CHANNELS, 1).gain(1.0));
        let x = g.flatten("flat", &x);
        let x = g.dense("hidden.dense", &x, HIDDEN, 1.0);
        let x = g.relu("hidden", &x);
        let shape = [1, self.columns + 1, self.rows, self.lanes];
        let x = g.dense("scores.dense", &x, shape.iter().product(), 2.0);
        let scores = g.reshape("scores", &x, &shape);
        g.output(&scores);
    }
}
