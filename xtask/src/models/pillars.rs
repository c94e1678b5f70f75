//! PointPillars: a point cloud as columns, and a convolutional detector over them.
//!
//! # Sources
//! Lang, Vora, Caesar, Zhou, Yang, Beijbom, "PointPillars: Fast Encoders for Object Detection from
//! Point Clouds", CVPR 2019, section 2 and figure 2.

use super::graph::{Graph, Tensor, int, ints};
use super::layers::{Activation, Conv, scaled};
use super::schema::DataType;

/// Features of a point: place, reflectance, offsets from the pillar's mean and centre.
const FEATURES: usize = 9;
/// Box parameters of an anchor: place, extent, heading.
const BOX: usize = 7;
/// Anchors in each cell: two headings.
const ANCHORS: usize = 2;

/// A detector of objects in point clouds.
#[derive(Clone, Copy)]
pub(crate) struct Pillars {
    /// Rows and columns of the ground grid, multiples of 8.
    pub grid: [usize; 2],
    /// Pillars that are given, occupied or padded with zeros.
    pub pillars: usize,
    /// Points kept of each pillar.
    pub points: usize,
    /// Channels, in percent of the paper's.
    pub width: usize,
    pub classes: usize,
    pub placement: Placement,
}

/// How the pillars' vectors get into the image. Both give the same image.
#[derive(Clone, Copy)]
pub(crate) enum Placement {
    /// Each pillar says its cell, and is written there.
    Scatter,
    /// Each cell says its pillar, and reads it; the number after the last stands for none.
    /// Scattering reads the image's strides from host memory, which a captured graph cannot.
    Gather,
}

impl Pillars {
    /// Adds the network to `scores`, `boxes` and `headings`: from `points` (`[pillars, points, 9]`)
    /// and `cells` (`[pillars, 1]`, the index of each pillar's cell in the row-major grid), or
    /// `occupants` (`[rows * columns]`, the index of each cell's pillar).
    pub(crate) fn build(&self, g: &mut Graph) {
        let points = g.input("points", DataType::Float, &[self.pillars, self.points, FEATURES]);
        let image = match self.placement {
            Placement::Scatter => {
                let cells = g.input("cells", DataType::Int64, &[self.pillars, 1]);
                let features = self.encode(g, &points);
                self.scatter(g, &features, &cells)
            }
            Placement::Gather => {
                let cells = self.grid[0] * self.grid[1];
                let occupants = g.input("occupants", DataType::Int64, &[cells]);
                let features = self.encode(g, &points);
                self.gather(g, &features, &occupants)
            }
        };
        let map = self.backbone(g, &image);
        for (name, channels) in [
            ("scores", ANCHORS * self.classes),
            ("boxes", ANCHORS * BOX),
            ("headings", ANCHORS * 2),
        ] {
            let head = g.conv_bias(name, &map, Conv::new(channels, 1).gain(1.0));
            g.output(&head);
        }
    }

    /// One vector for each pillar: the maximum over its points of a dense layer.
    fn encode(&self, g: &mut Graph, points: &Tensor) -> Tensor {
        let channels = scaled(64, self.width);
        // Batch norms want channels on axis 1, as in the exported form of the original.
        let weight = g.weight("encode.weight", &[FEATURES, channels], FEATURES, 10.0);
        let x = g.matmul("encode.matmul", points, &weight);
        let x = g.transpose("encode.order", &x, &[0, 2, 1]);
        let x = g.batch_norm("encode.bn", &x, 1.0);
        let x = g.relu("encode.relu", &x);
        let attributes = vec![ints("axes", &[2]), int("keepdims", 0)];
        g.node("ReduceMax", "encode", &[&x], attributes, vec![self.pillars, channels])
    }

    /// The vectors at their cells of an image that is zero elsewhere.
    fn scatter(&self, g: &mut Graph, features: &Tensor, cells: &Tensor) -> Tensor {
        let [rows, columns] = self.grid;
        let channels = features.dim(1);
        let flat = [rows * columns, channels];
        let canvas = g.zeros("canvas", &flat);
        let inputs = [&canvas, cells, features];
        let x = g.node("ScatterND", "scatter", &inputs, Vec::new(), flat.to_vec());
        let x = g.transpose("scatter.order", &x, &[1, 0]);
        g.reshape("image", &x, &[1, channels, rows, columns])
    }

    /// The vector of each cell's occupant, with zeros for none.
    fn gather(&self, g: &mut Graph, features: &Tensor, occupants: &Tensor) -> Tensor {
        let [rows, columns] = self.grid;
        let channels = features.dim(1);
        let padded = g.pad_rows("padded", features, 1);
        let flat = vec![rows * columns, channels];
        let x = g.node("Gather", "gather", &[&padded, occupants], Vec::new(), flat);
        let x = g.transpose("gather.order", &x, &[1, 0]);
        g.reshape("image", &x, &[1, channels, rows, columns])
    }

    /// Three blocks, each at half the size of the one before, brought to one size and joined.
    fn backbone(&self, g: &mut Graph, image: &Tensor) -> Tensor {
        let mut x = image.clone();
        let mut scales = Vec::new();
        for (block, repeats) in [3, 5, 5].into_iter().enumerate() {
            let conv = Conv::new(scaled(64 << block, self.width), 3);
            x = g.conv_unit(&format!("block{block}.down"), &x, conv.stride(2), Activation::Relu);
            for repeat in 0..repeats {
                x = g.conv_unit(&format!("block{block}.{repeat}"), &x, conv, Activation::Relu);
            }
            scales.push(self.rescale(g, &format!("scale{block}"), &x, 1 << block));
        }
        g.concat("map", &scales.iter().collect::<Vec<_>>(), 1)
    }

    fn rescale(&self, g: &mut Graph, name: &str, x: &Tensor, factor: usize) -> Tensor {
        let out = scaled(128, self.width);
        let x = g.conv_transpose(&format!("{name}.up"), x, out, factor);
        let x = g.batch_norm(&format!("{name}.bn"), &x, 1.0);
        g.relu(name, &x)
    }
}
