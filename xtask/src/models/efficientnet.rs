//! EfficientNet: mobile inverted bottlenecks with squeeze-and-excitation, scaled as one family.
//!
//! # Sources
//! - Tan, Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
//!   ICML 2019, table 1.
//! - Hu, Shen, Sun, "Squeeze-and-Excitation Networks", CVPR 2018.

use super::graph::{Graph, Tensor};
use super::layers::{Activation, Conv, scaled};
use super::schema::DataType;

/// One row of table 1.
struct Row {
    expansion: usize,
    channels: usize,
    repeats: usize,
    kernel: usize,
    stride: usize,
}

const ROWS: [Row; 7] = [
    Row { expansion: 1, channels: 16, repeats: 1, kernel: 3, stride: 1 },
    Row { expansion: 6, channels: 24, repeats: 2, kernel: 3, stride: 2 },
    Row { expansion: 6, channels: 40, repeats: 2, kernel: 5, stride: 2 },
    Row { expansion: 6, channels: 80, repeats: 3, kernel: 3, stride: 2 },
    Row { expansion: 6, channels: 112, repeats: 3, kernel: 5, stride: 1 },
    Row { expansion: 6, channels: 192, repeats: 4, kernel: 5, stride: 2 },
    Row { expansion: 6, channels: 320, repeats: 1, kernel: 3, stride: 1 },
];

/// An EfficientNet classifier of RGB images.
#[derive(Clone, Copy)]
pub(crate) struct EfficientNet {
    /// Height and width of the image.
    pub size: [usize; 2],
    /// Channels, in percent of B0's.
    pub width: usize,
    /// Blocks in each row, in percent of B0's and rounded up.
    pub depth: usize,
    pub classes: usize,
}

impl EfficientNet {
    /// Adds the network: `image` to `logits`.
    pub(crate) fn build(&self, g: &mut Graph) {
        let [height, width] = self.size;
        let image = g.input("image", DataType::Float, &[1, 3, height, width]);
        let stem = Conv::new(scaled(32, self.width), 3).stride(2);
        let mut x = g.conv_unit("stem", &image, stem, Activation::Silu);
        for (index, row) in ROWS.iter().enumerate() {
            for repeat in 0..(row.repeats * self.depth).div_ceil(100) {
                let stride = if repeat == 0 { row.stride } else { 1 };
                let block = Block { row, out: scaled(row.channels, self.width), stride };
                x = block.build(g, &format!("row{index}.{repeat}"), &x);
            }
        }
        let head = Conv::new(4 * x.dim(1), 1);
        let x = g.conv_unit("head", &x, head, Activation::Silu);
        let x = g.global_average_pool("pool", &x);
        let x = g.flatten("features", &x);
        let logits = g.dense("logits", &x, self.classes, 1.0);
        g.output(&logits);
    }
}

/// One mobile inverted bottleneck.
struct Block<'a> {
    row: &'a Row,
    out: usize,
    stride: usize,
}

impl Block<'_> {
    fn build(&self, g: &mut Graph, name: &str, x: &Tensor) -> Tensor {
        let hidden = x.dim(1) * self.row.expansion;
        let mut y = x.clone();
        if self.row.expansion > 1 {
            let expand = Conv::new(hidden, 1).gain(1.0); // No activation went before.
            y = g.conv_unit(&format!("{name}.expand"), &y, expand, Activation::Silu);
        }
        let filter = Conv::new(hidden, self.row.kernel).stride(self.stride).depthwise();
        let filter = filter.gain(Activation::Silu.gain());
        y = g.conv_unit(&format!("{name}.filter"), &y, filter, Activation::Silu);
        y = excite(g, &format!("{name}.excite"), &y, (x.dim(1) / 4).max(1));
        // The gate halves its input, hence four times the gain.
        let project = Conv::new(self.out, 1).gain(4.0 * Activation::Silu.gain());
        y = g.conv(&format!("{name}.project.conv"), &y, project);
        let residual = y.shape == x.shape;
        let y = g.batch_norm(&format!("{name}.project"), &y, if residual { 0.5 } else { 1.0 });
        if residual { g.add(name, x, &y) } else { y }
    }
}

/// Scales each channel of `x` by a gate computed from the means of all.
fn excite(g: &mut Graph, name: &str, x: &Tensor, squeezed: usize) -> Tensor {
    let means = g.global_average_pool(&format!("{name}.pool"), x);
    let squeeze = Conv::new(squeezed, 1);
    let y = g.conv_bias(&format!("{name}.squeeze"), &means, squeeze);
    let y = g.activation(&format!("{name}.silu"), &y, Activation::Silu);
    let y = g.conv_bias(&format!("{name}.expand"), &y, Conv::new(x.dim(1), 1));
    let gate = g.sigmoid(&format!("{name}.gate"), &y);
    g.mul(name, x, &gate)
}
