//! MobileNetV2: inverted residuals with linear bottlenecks.
//!
//! # Sources
//! Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: Inverted Residuals and Linear
//! Bottlenecks", CVPR 2018, table 2.

use super::graph::{Graph, Tensor};
use super::layers::{Activation, Conv, scaled};
use super::schema::DataType;

/// The rows of table 2: expansion, channels, repeats, stride of the first.
const ROWS: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];

/// A MobileNetV2 classifier of RGB images.
#[derive(Clone, Copy)]
pub(crate) struct MobileNet {
    /// Height and width of the image.
    pub size: [usize; 2],
    /// The paper's width multiplier, in percent.
    pub width: usize,
    pub classes: usize,
}

impl MobileNet {
    /// Adds the network: `image` to `logits`.
    pub(crate) fn build(&self, g: &mut Graph) {
        let [height, width] = self.size;
        let image = g.input("image", DataType::Float, &[1, 3, height, width]);
        let stem = Conv::new(scaled(32, self.width), 3).stride(2);
        let mut x = g.conv_unit("stem", &image, stem, Activation::Relu6);
        for (row, (expansion, channels, repeats, stride)) in ROWS.into_iter().enumerate() {
            for repeat in 0..repeats {
                let out = scaled(channels, self.width);
                let stride = if repeat == 0 { stride } else { 1 };
                let name = format!("row{row}.{repeat}");
                x = inverted_residual(g, &name, &x, expansion, Conv::new(out, 1).stride(stride));
            }
        }
        // The paper widens the last layer with the network but never narrows it.
        let head = Conv::new(scaled(1280, self.width.max(100)), 1);
        let x = g.conv_unit("head", &x, head, Activation::Relu6);
        let x = g.global_average_pool("pool", &x);
        let x = g.flatten("features", &x);
        let logits = g.dense("logits", &x, self.classes, 1.0);
        g.output(&logits);
    }
}

/// Expand, filter each channel, project to `to.out`; `to.stride` is that of the filter.
fn inverted_residual(g: &mut Graph, name: &str, x: &Tensor, expansion: usize, to: Conv) -> Tensor {
    let hidden = x.dim(1) * expansion;
    let mut y = x.clone();
    if expansion > 1 {
        let expand = Conv::new(hidden, 1).gain(1.0); // No rectifier went before.
        y = g.conv_unit(&format!("{name}.expand"), &y, expand, Activation::Relu6);
    }
    let filter = Conv::new(hidden, 3).stride(to.stride).depthwise();
    y = g.conv_unit(&format!("{name}.filter"), &y, filter, Activation::Relu6);
    y = g.conv(&format!("{name}.project.conv"), &y, Conv::new(to.out, 1));
    let residual = y.shape == x.shape;
    let y = g.batch_norm(&format!("{name}.project"), &y, if residual { 0.5 } else { 1.0 });
    if residual { g.add(name, x, &y) } else { y }
}
