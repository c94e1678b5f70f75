//! A one-stage detector of the YOLO family: cross-stage partial blocks and heads at three scales.
//!
//! # Sources
//! - Redmon, Divvala, Girshick, Farhadi, "You Only Look Once", CVPR 2016: the one-stage grid and
//!   the leaky rectifiers. (The smooth units of later versions make an untrained network of this
//!   depth saturate or die; leaky ones keep its scale.)
//! - Bochkovskiy, Wang, Liao, "YOLOv4", 2020: this backbone, neck and pooling pyramid.
//! - Wang, Liao, Yeh, Wu, Chen, Hsieh, "CSPNet", CVPR Workshops 2020: the partial blocks.
//! - Liu, Qi, Qin, Shi, Jia, "Path Aggregation Network", CVPR 2018: the neck.
//! - Zhang, Dauphin, Ma, "Fixup Initialization", ICLR 2019: what a residual block adds must shrink with
//!   their number, or features double in variance with each.

use super::graph::{Graph, Tensor};
use super::layers::{Activation, Conv, scaled};
use super::schema::DataType;

/// Boxes predicted in each cell of each scale.
const ANCHORS: usize = 3;

/// A detector of objects in RGB images.
#[derive(Clone, Copy)]
pub(crate) struct Yolo {
    /// Height and width of the image, multiples of 32.
    pub size: [usize; 2],
    /// Channels, in percent of the large variant's.
    pub width: usize,
    /// Blocks, in percent of the large variant's.
    pub depth: usize,
    pub classes: usize,
    pub heads: Heads,
    pub growth: Growth,
}

/// What the features do where residual blocks follow each other.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Growth {
    /// Their variance doubles with each block. Of a deep network every score is then 0 or 1, which says
    /// nothing of the numbers before it.
    Doubling,
    /// The blocks of a row add together what one would.
    Bounded,
}

/// How the boxes of the three scales leave the network.
#[derive(Clone, Copy)]
pub(crate) enum Heads {
    /// As one tensor, `detections`, the finest scale first.
    Joined,
    /// As one tensor for each scale, `detections0` being the finest. Joining parts of different
    /// lengths reads their lengths from host memory, which a captured graph cannot.
    Apart,
}

impl Yolo {
    /// Adds the network: `image` to `detections`, one row for each box of each cell: place,
    /// extent, objectness and classes, all through the logistic function.
    pub(crate) fn build(&self, g: &mut Graph) {
        let [height, width] = self.size;
        let image = g.input("image", DataType::Float, &[1, 3, height, width]);
        let features = self.backbone(g, &image);
        let scales = self.neck(g, features);
        let heads: Vec<Tensor> =
            scales.iter().enumerate().map(|(i, x)| self.head(g, &format!("head{i}"), x)).collect();
        match self.heads {
            Heads::Joined => {
                let joined = g.concat("heads", &heads.iter().collect::<Vec<_>>(), 1);
                let detections = g.sigmoid("detections", &joined);
                g.output(&detections);
            }
            Heads::Apart => {
                for (scale, head) in heads.iter().enumerate() {
                    let detections = g.sigmoid(&format!("detections{scale}"), head);
                    g.output(&detections);
                }
            }
        }
    }

    /// Feature maps at an eighth, a sixteenth and a thirty-second of the image.
    fn backbone(&self, g: &mut Graph, image: &Tensor) -> [Tensor; 3] {
        let x = self.unit(g, "stem", image, Conv::new(64, 3).stride(2));
        let x = self.unit(g, "down1", &x, Conv::new(128, 3).stride(2));
        let x = self.partial(g, "csp1", &x, Block { out: 128, repeats: 3, residual: true });
        let x = self.unit(g, "down2", &x, Conv::new(256, 3).stride(2));
        let p3 = self.partial(g, "csp2", &x, Block { out: 256, repeats: 6, residual: true });
        let x = self.unit(g, "down3", &p3, Conv::new(512, 3).stride(2));
        let p4 = self.partial(g, "csp3", &x, Block { out: 512, repeats: 9, residual: true });
        let x = self.unit(g, "down4", &p4, Conv::new(1024, 3).stride(2));
        let x = self.partial(g, "csp4", &x, Block { out: 1024, repeats: 3, residual: true });
        let p5 = self.pool_pyramid(g, "pyramid", &x);
        [p3, p4, p5]
    }

    /// Carries coarse features down to the fine maps and fine ones back up.
    fn neck(&self, g: &mut Graph, [p3, p4, p5]: [Tensor; 3]) -> [Tensor; 3] {
        let block = |out| Block { out, repeats: 3, residual: false };
        let lateral5 = self.unit(g, "lateral5", &p5, Conv::new(512, 1));
        let x = g.upsample("lateral5.up", &lateral5);
        let x = g.concat("join4", &[&x, &p4], 1);
        let x = self.partial(g, "top4", &x, block(512));
        let lateral4 = self.unit(g, "lateral4", &x, Conv::new(256, 1));
        let x = g.upsample("lateral4.up", &lateral4);
        let x = g.concat("join3", &[&x, &p3], 1);
        let fine = self.partial(g, "top3", &x, block(256));
        let x = self.unit(g, "down5", &fine, Conv::new(256, 3).stride(2));
        let x = g.concat("rejoin4", &[&x, &lateral4], 1);
        let middle = self.partial(g, "bottom4", &x, block(512));
        let x = self.unit(g, "down6", &middle, Conv::new(512, 3).stride(2));
        let x = g.concat("rejoin5", &[&x, &lateral5], 1);
        let coarse = self.partial(g, "bottom5", &x, block(1024));
        [fine, middle, coarse]
    }

    /// One scale's boxes as rows of `classes + 5`.
    fn head(&self, g: &mut Graph, name: &str, x: &Tensor) -> Tensor {
        let row = self.classes + 5;
        let cells = x.dim(2) * x.dim(3);
        // A tenth of the usual gain keeps scores where the logistic function tells them apart.
        let conv = Conv::new(ANCHORS * row, 1).gain(0.2);
        let x = g.conv_bias(&format!("{name}.conv"), x, conv);
        let x = g.reshape(&format!("{name}.split"), &x, &[1, ANCHORS, row, cells]);
        let x = g.transpose(&format!("{name}.order"), &x, &[0, 1, 3, 2]);
        g.reshape(name, &x, &[1, ANCHORS * cells, row])
    }

    /// A convolution of the large variant's `conv.out`, at this variant's width.
    fn unit(&self, g: &mut Graph, name: &str, x: &Tensor, conv: Conv) -> Tensor {
        let conv = Conv { out: scaled(conv.out, self.width), ..conv };
        g.conv_unit(name, x, conv, Activation::Leaky)
    }

    /// A cross-stage partial block: half the channels pass through the bottlenecks, half by them.
    fn partial(&self, g: &mut Graph, name: &str, x: &Tensor, block: Block) -> Tensor {
        let half = Conv::new(block.out / 2, 1);
        let mut deep = self.unit(g, &format!("{name}.deep"), x, half);
        let by = self.unit(g, &format!("{name}.by"), x, half);
        let repeats = ((block.repeats * self.depth + 50) / 100).max(1);
        let filter = Conv { kernel: 3, ..half };
        let filter = match self.growth {
            Growth::Bounded if block.residual => filter.gain(half.gain / repeats as f32),
            Growth::Bounded | Growth::Doubling => filter,
        };
        for repeat in 0..repeats {
            let at = format!("{name}.{repeat}");
            let y = self.unit(g, &format!("{at}.narrow"), &deep, half);
            let y = self.unit(g, &format!("{at}.filter"), &y, filter);
            deep = if block.residual { g.add(&at, &deep, &y) } else { y };
        }
        let joined = g.concat(&format!("{name}.join"), &[&deep, &by], 1);
        self.unit(g, name, &joined, Conv::new(block.out, 1))
    }

    /// Maxima over three nested windows beside the features themselves.
    fn pool_pyramid(&self, g: &mut Graph, name: &str, x: &Tensor) -> Tensor {
        let x = self.unit(g, &format!("{name}.narrow"), x, Conv::new(512, 1));
        let a = g.max_pool(&format!("{name}.pool5"), &x, 5, 1);
        let b = g.max_pool(&format!("{name}.pool9"), &a, 5, 1);
        let c = g.max_pool(&format!("{name}.pool13"), &b, 5, 1);
        let joined = g.concat(&format!("{name}.join"), &[&x, &a, &b, &c], 1);
        self.unit(g, name, &joined, Conv::new(1024, 1))
    }
}

/// Size of a cross-stage partial block, in channels and repeats of the large variant.
#[derive(Clone, Copy)]
struct Block {
    out: usize,
    repeats: usize,
    /// Whether bottlenecks add to their input; in the neck they do not.
    residual: bool,
}
