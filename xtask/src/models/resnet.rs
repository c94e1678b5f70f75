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
    /// 3, 4, 6 and 3 basic blocks.
    D34,
    /// 3, 4, 6 and 3 bottleneck blocks.
    D50,
    /// 3, 4, 23 and 3 bottleneck blocks.
    D101,
}

/// What a layer is made of.
#[derive(Clone, Copy)]
enum BlockKind {
    /// Two 3 x 3 convolutions.
    Basic,
    /// A 3 x 3 convolution between two of 1 x 1, the last four times as wide.
    Bottleneck,
}

impl Depth {
    /// The number in the network's name.
    pub(crate) fn layers(self) -> usize {
        match self {
            Self::D18 => 18,
            Self::D34 => 34,
            Self::D50 => 50,
            Self::D101 => 101,
        }
    }

    fn blocks(self) -> [usize; 4] {
        match self {
            Self::D18 => [2, 2, 2, 2],
            Self::D34 | Self::D50 => [3, 4, 6, 3],
            Self::D101 => [3, 4, 23, 3],
        }
    }

    fn kind(self) -> BlockKind {
        match self {
            Self::D18 | Self::D34 => BlockKind::Basic,
            Self::D50 | Self::D101 => BlockKind::Bottleneck,
        }
    }
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
        let [.., x] = self.features(g);
        let x = g.global_average_pool("pool", &x);
        let x = g.flatten("features", &x);
        let logits = g.dense("logits", &x, self.classes, 1.0);
        g.output(&logits);
    }

    /// Adds all but the classifier: `image` to what comes out of the stem, at half the size, and
    /// of each layer, at a quarter to a thirty-second.
    pub(crate) fn features(&self, g: &mut Graph) -> [Tensor; 5] {
        let [height, width] = self.size;
        let image = g.input("image", DataType::Float, &[1, 3, height, width]);
        let stem = Conv::new(scaled(64, self.width), 7).stride(2);
        let stem = g.conv_unit("stem", &image, stem, Activation::Relu);
        let mut x = g.max_pool("stem.pool", &stem, 3, 2);
        let layers = [0, 1, 2, 3].map(|layer| {
            let channels = scaled(64 << layer, self.width);
            for block in 0..self.depth.blocks()[layer] {
                let stride = if layer > 0 && block == 0 { 2 } else { 1 };
                let name = format!("layer{}.{block}", layer + 1);
                x = self.block(g, &name, &x, channels, stride);
            }
            x.clone()
        });
        let [first, second, third, fourth] = layers;
        [stem, first, second, third, fourth]
    }

    fn block(&self, g: &mut Graph, name: &str, x: &Tensor, c: usize, stride: usize) -> Tensor {
        let at = |part: &str| format!("{name}.{part}");
        let first = match self.depth.kind() {
            BlockKind::Basic => Conv::new(c, 3).stride(stride),
            BlockKind::Bottleneck => Conv::new(c, 1),
        };
        let mut y = g.conv_unit(&at("unit1"), x, first, Activation::Relu);
        let last = match self.depth.kind() {
            BlockKind::Basic => Conv::new(c, 3),
            BlockKind::Bottleneck => {
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
