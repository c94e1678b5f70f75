//! A depth estimator: a residual encoder, and a decoder with skips that answers at four scales.
//!
//! # Sources
//! Godard, Mac Aodha, Firman, Brostow, "Digging Into Self-Supervised Monocular Depth Estimation",
//! ICCV 2019, appendix, table of the depth decoder; with rectifiers for its exponential units, which
//! no runtime runs any faster.

use super::graph::{Graph, Tensor};
use super::layers::{Activation, Conv};
use super::resnet::{Depth, ResNet};

/// Channels of the decoder's levels, the finest first.
const CHANNELS: [usize; 5] = [16, 32, 64, 128, 256];

/// An estimator of the depth of each pixel of RGB images.
#[derive(Clone, Copy)]
pub(crate) struct DepthNet {
    /// Height and width of the image, multiples of 32.
    pub size: [usize; 2],
}

impl DepthNet {
    /// Adds the network: `image` to `disparity0` of its size and `disparity1` to `disparity3`, each at
    /// half the size of the one before.
    pub(crate) fn build(&self, g: &mut Graph) {
        let net = ResNet { depth: Depth::D18, size: self.size, width: 100, classes: 0 };
        let [stem, first, second, third, mut x] = net.features(g);
        // The finest level has none.
        let mut skips = [third, second, first, stem].into_iter();
        for level in (0..CHANNELS.len()).rev() {
            x = unit(g, &format!("up{level}.narrow"), &x, CHANNELS[level]);
            x = g.upsample(&format!("up{level}.scale"), &x);
            if let Some(skip) = skips.next() {
                x = join(g, &format!("up{level}.join"), &x, &skip, CHANNELS[level]);
            }
            x = unit(g, &format!("up{level}"), &x, CHANNELS[level]);
            if level < 4 {
                let map = Conv::new(1, 3).gain(1.0);
                let map = g.conv_bias(&format!("disparity{level}.conv"), &x, map);
                let map = g.sigmoid(&format!("disparity{level}"), &map);
                g.output(&map);
            }
        }
    }
}

/// The sum of `x` and a projection of `skip`: joining channels of different numbers would read
/// their numbers from host memory, which a captured graph cannot. Before the 3 x 3 convolution that
/// follows, joining and adding projections are of one form.
fn join(g: &mut Graph, name: &str, x: &Tensor, skip: &Tensor, channels: usize) -> Tensor {
    let skip = g.conv_bias(&format!("{name}.skip"), skip, Conv::new(channels, 1).gain(1.0));
    g.add(name, x, &skip)
}

fn unit(g: &mut Graph, name: &str, x: &Tensor, channels: usize) -> Tensor {
    let x = g.conv_bias(&format!("{name}.conv"), x, Conv::new(channels, 3));
    g.activation(name, &x, Activation::Relu)
}
