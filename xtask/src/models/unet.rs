//! U-Net: a contracting path, an expanding path, and skips between them.
//!
//! # Sources
//! Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation",
//! MICCAI 2015; with padded convolutions and batch norms, as is usual since.

use super::graph::{Graph, Tensor};
use super::layers::{Activation, Conv};
use super::schema::DataType;

/// Halvings of the image on the contracting path.
const LEVELS: usize = 4;

/// A U-Net that labels the pixels of RGB images.
#[derive(Clone, Copy)]
pub(crate) struct UNet {
    /// Height and width of the image, multiples of 16.
    pub size: [usize; 2],
    /// Channels of the first level; the paper has 64.
    pub channels: usize,
    pub classes: usize,
}

impl UNet {
    /// Adds the network: `image` to `logits`, one score for each class and pixel.
    pub(crate) fn build(&self, g: &mut Graph) {
        let [height, width] = self.size;
        let image = g.input("image", DataType::Float, &[1, 3, height, width]);
        let mut x = double_conv(g, "down0", &image, self.channels);
        let mut skips = Vec::new();
        for level in 1..=LEVELS {
            let pooled = g.max_pool(&format!("down{level}.pool"), &x, 2, 2);
            skips.push(x);
            x = double_conv(g, &format!("down{level}"), &pooled, self.channels << level);
        }
        for (level, skip) in skips.into_iter().enumerate().rev() {
            let channels = self.channels << level;
            let up = g.conv_transpose(&format!("up{level}.scale"), &x, channels, 2);
            let joined = g.concat(&format!("up{level}.join"), &[&skip, &up], 1);
            x = double_conv(g, &format!("up{level}"), &joined, channels);
        }
        let logits = g.conv_bias("logits", &x, Conv::new(self.classes, 1).gain(1.0));
        g.output(&logits);
    }
}

fn double_conv(g: &mut Graph, name: &str, x: &Tensor, channels: usize) -> Tensor {
    let conv = Conv::new(channels, 3);
    let x = g.conv_unit(&format!("{name}.first"), x, conv, Activation::Relu);
    g.conv_unit(name, &x, conv, Activation::Relu)
}
