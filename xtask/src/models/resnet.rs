//! Residual networks.
//!
//! # Sources
//! He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, table 1; the
//! stride sits in the 3 x 3 convolution of a bottleneck, as all common implementations have it.

use super::graph::{Graph, Tensor};
use super::layers::{Activation, Conv, scaled};
use super::schema::DataType;

/// Which of the paper's networks.
#[derive(Clone, Copy)]
pub(crate) enum Depth {
    /// Two basic blocks in each of four layers.
    D18,
    /// 3, 4, 6 and 3 bottleneck blocks.
    D50,
}

/// A residual classifier of RGB images.
#[derive(Clone, Copy)]
pub(crate) struct ResNet {
    pub depth: Depth,
    /// Height and width of the image.
    pub size: [usize; 2],
    /// Channels, in percent of the paper's.
    pub width: usize,
    pub classes: usize,
}

impl ResNet {
    /// Adds the network: `image` to `logits`.
    pub(crate) fn build(&self, g: &mut Graph) {
        let [height, width] = self.size;
        let image = g.input("image", DataType::Float, &[1, 3, height, width]);
        let stem = Conv::new(scaled(64, self.width), 7).stride(2);
        let x = g.conv_unit("stem", &image, stem, Activation::Relu);
        let mut x = g.max_pool("stem.pool", &x, 3, 2);
        for (layer, blocks) in self.blocks().into_iter().enumerate() {
            let channels = scaled(64 << layer, self.width);
            for block in 0..blocks {
                let stride = if layer > 0 && block == 0 { 2 } else { 1 };
                let name = format!("layer{}.{block}", layer + 1);
                x = self.block(g, &name, &x, channels, stride);
            }
        }
        let x = g.global_average_pool("pool", &x);
        let x = g.flatten("features", &x);
        let logits = g.dense("logits", &x, self.classes, 1.0);
        g.output(&logits);
    }

    fn blocks(&self) -> [usize; 4] {
        match self.depth {
            Depth::D18 => [2, 2, 2, 2],
            Depth::D50 => [3, 4, 6, 3],
        }
    }

    fn block(&self, g: &mut Graph, name: &str, x: &Tensor, c: usize, stride: usize) -> Tensor {
        let at = |part: &str| format!("{name}.{part}");
        let first = match self.depth {
            Depth::D18 => Conv::new(c, 3).stride(stride),
            Depth::D50 => Conv::new(c, 1),
        };
        let mut y = g.conv_unit(&at("unit1"), x, first, Activation::Relu);
        let last = match self.depth {
            Depth::D18 => Conv::new(c, 3),
            Depth::D50 => {
                let middle = Conv::new(c, 3).stride(stride);
                y = g.conv_unit(&at("unit2"), &y, middle, Activation::Relu);
                Conv::new(4 * c, 1)
            }
        };
        let y = g.conv(&at("last.conv"), &y, last);
        // Half the scale on the branch: the sum grows by a quarter a block instead of doubling.
        let y = g.batch_norm(&at("last.bn"), &y, 0.5);
        let shortcut = self.shortcut(g, &at("shortcut"), x, &y, stride);
        let y = g.add(&at("add"), &y, &shortcut);
        g.relu(name, &y)
    }

    /// `x` itself, or its projection where the block changes the shape.
    fn shortcut(&self, g: &mut Graph, name: &str, x: &Tensor, y: &Tensor, stride: usize) -> Tensor {
        if x.shape == y.shape {
            return x.clone();
        }
        let conv = Conv::new(y.dim(1), 1).stride(stride).gain(1.0);
        g.conv_unit(name, x, conv, Activation::Linear)
    }
}
