//! MobileNetV3-Large: inverted residuals, some with squeeze-and-excitation, and cheap gates.
//!
//! # Sources
//! - Howard et al., "Searching for MobileNetV3", ICCV 2019, table 1.
//! - Hu, Shen, Sun, "Squeeze-and-Excitation Networks", CVPR 2018.

use super::graph::{Graph, Tensor};
use super::layers::{Activation, Conv, scaled};
use super::schema::DataType;

/// One row of table 1.
struct Row {
    kernel: usize,
    expanded: usize,
    out: usize,
    excited: Excited,
    activation: Activation,
    stride: usize,
}

/// Whether a block scales its channels.
#[derive(Clone, Copy)]
enum Excited {
    No,
    Yes,
}

const fn row(
    [kernel, expanded, out, stride]: [usize; 4],
    excited: Excited,
    activation: Activation,
) -> Row {
    Row { kernel, expanded, out, excited, activation, stride }
}

const ROWS: [Row; 15] = [
    row([3, 16, 16, 1], Excited::No, Activation::Relu),
    row([3, 64, 24, 2], Excited::No, Activation::Relu),
    row([3, 72, 24, 1], Excited::No, Activation::Relu),
    row([5, 72, 40, 2], Excited::Yes, Activation::Relu),
    row([5, 120, 40, 1], Excited::Yes, Activation::Relu),
    row([5, 120, 40, 1], Excited::Yes, Activation::Relu),
    row([3, 240, 80, 2], Excited::No, Activation::HardSwish),
    row([3, 200, 80, 1], Excited::No, Activation::HardSwish),
    row([3, 184, 80, 1], Excited::No, Activation::HardSwish),
    row([3, 184, 80, 1], Excited::No, Activation::HardSwish),
    row([3, 480, 112, 1], Excited::Yes, Activation::HardSwish),
    row([3, 672, 112, 1], Excited::Yes, Activation::HardSwish),
    row([5, 672, 160, 2], Excited::Yes, Activation::HardSwish),
    row([5, 960, 160, 1], Excited::Yes, Activation::HardSwish),
    row([5, 960, 160, 1], Excited::Yes, Activation::HardSwish),
];

/// A MobileNetV3-Large classifier of RGB images.
#[derive(Clone, Copy)]
pub(crate) struct MobileNet3 {
    /// Height and width of the image.
    pub size: [usize; 2],
    pub classes: usize,
}

impl MobileNet3 {
    /// Adds the network: `image` to `logits`.
    pub(crate) fn build(&self, g: &mut Graph) {
        let [height, width] = self.size;
        let image = g.input("image", DataType::Float, &[1, 3, height, width]);
        let stem = Conv::new(16, 3).stride(2);
        let mut x = g.conv_unit("stem", &image, stem, Activation::HardSwish);
        for (index, row) in ROWS.iter().enumerate() {
            x = row.build(g, &format!("row{index}"), &x);
        }
        let widen = Conv::new(960, 1).gain(1.0); // No activation went before.
        let x = g.conv_unit("widen", &x, widen, Activation::HardSwish);
        let x = g.global_average_pool("pool", &x);
        let x = g.flatten("features", &x);
        let x = g.dense("head.dense", &x, 1280, Activation::HardSwish.gain());
        let x = g.activation("head", &x, Activation::HardSwish);
        let logits = g.dense("logits", &x, self.classes, Activation::HardSwish.gain());
        g.output(&logits);
    }
}

impl Row {
    fn build(&self, g: &mut Graph, name: &str, x: &Tensor) -> Tensor {
        let mut y = x.clone();
        if self.expanded != x.dim(1) {
            let expand = Conv::new(self.expanded, 1).gain(1.0); // No activation went before.
            y = g.conv_unit(&format!("{name}.expand"), &y, expand, self.activation);
        }
        let gain = self.activation.gain();
        let filter = Conv::new(self.expanded, self.kernel).stride(self.stride).depthwise();
        y = g.conv_unit(&format!("{name}.filter"), &y, filter.gain(gain), self.activation);
        let gain = match self.excited {
            Excited::No => gain,
            Excited::Yes => {
                y = excite(g, &format!("{name}.excite"), &y);
                4.0 * gain // The gate halves its input.
            }
        };
        y = g.conv(&format!("{name}.project.conv"), &y, Conv::new(self.out, 1).gain(gain));
        let residual = y.shape == x.shape;
        let y = g.batch_norm(&format!("{name}.project"), &y, if residual { 0.5 } else { 1.0 });
        if residual { g.add(name, x, &y) } else { y }
    }
}

/// Scales each channel of `x` by a gate computed from the means of all.
fn excite(g: &mut Graph, name: &str, x: &Tensor) -> Tensor {
    let means = g.global_average_pool(&format!("{name}.pool"), x);
    let squeeze = Conv::new(scaled(x.dim(1), 25), 1);
    let y = g.conv_bias(&format!("{name}.squeeze"), &means, squeeze);
    let y = g.relu(&format!("{name}.relu"), &y);
    let y = g.conv_bias(&format!("{name}.expand"), &y, Conv::new(x.dim(1), 1));
    let gate = g.hard_sigmoid(&format!("{name}.gate"), &y);
    g.mul(name, x, &gate)
}
