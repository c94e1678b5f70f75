//! A pose estimator: a residual network and three transposed convolutions to heat maps.
//!
//! # Sources
//! Xiao, Wu, Wei, "Simple Baselines for Human Pose Estimation and Tracking", ECCV 2018, figure 1;
//! the transposed convolutions have kernel 2 and not 4, so that none of their windows overlap.

use super::graph::{Graph, Tensor};
use super::layers::Conv;
use super::resnet::{Depth, ResNet};

/// Channels of the transposed convolutions.
const CHANNELS: usize = 256;

/// An estimator of the joints of one person in an RGB image.
#[derive(Clone, Copy)]
pub(crate) struct PoseNet {
    /// Height and width of the image, multiples of 32.
    pub size: [usize; 2],
    pub joints: usize,
}

impl PoseNet {
    /// Adds the network: `image` to `heat_maps`, one for each joint at a quarter of the size.
    pub(crate) fn build(&self, g: &mut Graph) {
        let net = ResNet { depth: Depth::D50, size: self.size, width: 100, classes: 0 };
        let [.., mut x] = net.features(g);
        for step in 0..3 {
            x = widen(g, &format!("up{step}"), &x);
        }
        let maps = g.conv_bias("heat_maps", &x, Conv::new(self.joints, 1).gain(1.0));
        g.output(&maps);
    }
}

fn widen(g: &mut Graph, name: &str, x: &Tensor) -> Tensor {
    let y = g.conv_transpose(&format!("{name}.scale"), x, CHANNELS, 2);
    let y = g.batch_norm(&format!("{name}.bn"), &y, 1.0);
    g.relu(name, &y)
}
