//! Transformer encoders: of image patches (ViT) and of tokens (BERT).
//!
//! # Sources
//! - Vaswani et al., "Attention Is All You Need", NeurIPS 2017: multi-head attention.
//! - Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021: norms before each branch.
//! - Beyer, Zhai, Kolesnikov, "Better plain ViT baselines for ImageNet-1k", 2022: the mean of all
//!   patches in the place of the class token.
//! - Devlin, Chang, Lee, Toutanova, "BERT", NAACL 2019: norms after each sum.

use super::graph::{Graph, Tensor, dims, ints};
use super::schema::DataType;

/// The size of an encoder; the feed-forward part is four times as wide.
#[derive(Clone, Copy)]
pub(crate) struct Encoder {
    pub layers: usize,
    /// Width of each token, a multiple of `heads`.
    pub width: usize,
    pub heads: usize,
}

/// Where the layer norms sit.
#[derive(Clone, Copy)]
enum Norms {
    /// At the start of each branch (ViT).
    Before,
    /// After each sum (BERT).
    After,
}

/// A classifier of RGB images cut into square patches.
#[derive(Clone, Copy)]
pub(crate) struct Vit {
    /// Height and width of the image, multiples of `patch`.
    pub size: [usize; 2],
    pub patch: usize,
    pub encoder: Encoder,
    pub classes: usize,
    pub pooling: Pooling,
}

/// What of the encoder's answer is classified.
#[derive(Clone, Copy)]
pub(crate) enum Pooling {
    /// A token of its own, put before the patches.
    ClassToken,
    /// The mean of all patches. Nothing is joined, so nothing is read from host memory.
    Mean,
}

/// An encoder of token sequences with BERT's pooled output.
#[derive(Clone, Copy)]
pub(crate) struct Bert {
    /// Tokens in the sequence.
    pub tokens: usize,
    pub vocabulary: usize,
    /// Length of the table of positions, at least `tokens`.
    pub positions: usize,
    pub encoder: Encoder,
}

impl Vit {
    /// Adds the network: `image` to `logits`.
    pub(crate) fn build(&self, g: &mut Graph) {
        let width = self.encoder.width;
        let [rows, columns] = self.size.map(|side| side / self.patch);
        let image = g.input("image", DataType::Float, &[1, 3, self.size[0], self.size[1]]);
        let x = self.embed_patches(g, &image);
        let x = g.reshape("patches.flat", &x, &[1, width, rows * columns]);
        let x = g.transpose("patches.tokens", &x, &[0, 2, 1]);
        let x = match self.pooling {
            Pooling::ClassToken => {
                let class = g.uniform("class_token", &[1, 1, width], 0.0, 1.0);
                g.concat("tokens", &[&class, &x], 1)
            }
            Pooling::Mean => x,
        };
        let places = g.uniform("positions", &x.shape.clone(), 0.0, 0.2);
        let x = g.add("embedded", &x, &places);
        let x = self.encoder.build(g, x, Norms::Before, 1e-6);
        let x = g.layer_norm("norm", &x, 1e-6);
        let x = match self.pooling {
            Pooling::ClassToken => g.take("class", &x, 1, 0),
            Pooling::Mean => g.mean("mean", &x, 1),
        };
        let logits = g.dense("logits", &x, self.classes, 1.0);
        g.output(&logits);
    }

    /// One vector for each patch, by a convolution whose kernel is the patch.
    fn embed_patches(&self, g: &mut Graph, image: &Tensor) -> Tensor {
        let (patch, width) = (self.patch, self.encoder.width);
        // Images are within half of zero, so the gain is that of a tenth of unit variance.
        let fan_in = 3 * patch * patch;
        let weight = g.weight("patches.weight", &[width, 3, patch, patch], fan_in, 10.0);
        let bias = g.uniform("patches.bias", &[width], 0.0, 0.1);
        g.patch_conv("patches", image, &weight, &bias)
    }
}

impl Bert {
    /// Adds the network: `input_ids` (64-bit integers below `vocabulary`) to `hidden`, a vector
    /// for each token, and `pooled`, one for the sequence.
    pub(crate) fn build(&self, g: &mut Graph) {
        let ids = g.input("input_ids", DataType::Int64, &[1, self.tokens]);
        let x = self.embed(g, &ids);
        let x = self.encoder.build(g, x, Norms::After, 1e-12);
        let first = g.take("first", &x, 1, 0);
        let y = g.dense("pooler", &first, self.encoder.width, 1.0);
        let pooled = g.tanh("pooled", &y);
        g.output(&x);
        g.output(&pooled);
    }

    /// The sum of word, position and segment vectors, normed; all tokens are of segment 0.
    fn embed(&self, g: &mut Graph, ids: &Tensor) -> Tensor {
        let width = self.encoder.width;
        let shape = vec![1, self.tokens, width];
        let words = g.uniform("words.weight", &[self.vocabulary, width], 0.0, 1.0);
        let x = g.node("Gather", "words", &[&words, ids], Vec::new(), shape.clone());
        let positions = g.uniform("positions.weight", &[self.positions, width], 0.0, 0.2);
        let range = dims(&(0..self.tokens).collect::<Vec<_>>());
        let range = g.integers("positions.range", &range);
        let at = vec![self.tokens, width];
        let positions = g.node("Gather", "positions", &[&positions, &range], Vec::new(), at);
        let x = g.add("words.placed", &x, &positions);
        let segments = g.uniform("segments.weight", &[2, width], 0.0, 0.2);
        let zeros = g.integers("segments.zeros", &vec![0; self.tokens]);
        let at = vec![self.tokens, width];
        let segments = g.node("Gather", "segments", &[&segments, &zeros], Vec::new(), at);
        let x = g.add("words.segmented", &x, &segments);
        g.layer_norm("embedded", &x, 1e-12)
    }
}

impl Encoder {
    fn build(&self, g: &mut Graph, mut x: Tensor, norms: Norms, epsilon: f32) -> Tensor {
        for layer in 0..self.layers {
            let at = |part: &str| format!("layer{layer}.{part}");
            x = match norms {
                Norms::Before => {
                    let y = g.layer_norm(&at("norm1"), &x, epsilon);
                    let y = self.attention(g, &at("attention"), &y);
                    x = g.add(&at("sum1"), &x, &y);
                    let y = g.layer_norm(&at("norm2"), &x, epsilon);
                    let y = self.feed_forward(g, &at("feed"), &y);
                    g.add(&at("sum2"), &x, &y)
                }
                Norms::After => {
                    let y = self.attention(g, &at("attention"), &x);
                    let y = g.add(&at("sum1"), &x, &y);
                    x = g.layer_norm(&at("norm1"), &y, epsilon);
                    let y = self.feed_forward(g, &at("feed"), &x);
                    let y = g.add(&at("sum2"), &x, &y);
                    let last = layer + 1 == self.layers;
                    let name = if last { "hidden".to_owned() } else { at("norm2") };
                    g.layer_norm(&name, &y, epsilon)
                }
            };
        }
        x
    }

    /// Multi-head self-attention: `softmax(Q K^T / sqrt d) V` in each head, then a projection.
    fn attention(&self, g: &mut Graph, name: &str, x: &Tensor) -> Tensor {
        let per_head = self.width / self.heads;
        let at = |part: &str| format!("{name}.{part}");
        let query = self.split_heads(g, &at("query"), x, [0, 2, 1, 3]);
        let key = self.split_heads(g, &at("key"), x, [0, 2, 3, 1]);
        let value = self.split_heads(g, &at("value"), x, [0, 2, 1, 3]);
        let scores = g.matmul(&at("scores"), &query, &key);
        let root = (per_head as f32).sqrt();
        let root = g.floats(&at("constant_root"), &[], &[root]);
        let shape = scores.shape.clone();
        let scores = g.node("Div", &at("scaled"), &[&scores, &root], Vec::new(), shape);
        let weights = g.softmax(&at("softmax"), &scores);
        let y = g.matmul(&at("mixed"), &weights, &value);
        let y = g.transpose(&at("order"), &y, &[0, 2, 1, 3]);
        let y = g.reshape(&at("joined"), &y, &x.shape);
        g.project(name, &y, self.width, 1.0)
    }

    /// A projection of `x` as `[1, tokens, heads, width / heads]`, its axes then put in `order`.
    fn split_heads(&self, g: &mut Graph, name: &str, x: &Tensor, order: [usize; 4]) -> Tensor {
        let y = g.project(&format!("{name}.project"), x, self.width, 1.0);
        let heads = [1, x.dim(1), self.heads, self.width / self.heads];
        let y = g.reshape(&format!("{name}.split"), &y, &heads);
        g.transpose(name, &y, &order)
    }

    fn feed_forward(&self, g: &mut Graph, name: &str, x: &Tensor) -> Tensor {
        let y = g.project(&format!("{name}.wide"), x, 4 * self.width, 1.0);
        let y = g.gelu(&format!("{name}.gelu"), &y);
        g.project(name, &y, self.width, 2.0)
    }
}

impl Graph {
    /// A convolution of stride equal to its kernel, without padding.
    fn patch_conv(&mut self, name: &str, x: &Tensor, weight: &Tensor, bias: &Tensor) -> Tensor {
        let patch = weight.dim(2);
        let shape = vec![1, weight.dim(0), x.dim(2) / patch, x.dim(3) / patch];
        let attributes = vec![ints("kernel_shape", &[patch; 2]), ints("strides", &[patch; 2])];
        self.node("Conv", name, &[x, weight, bias], attributes, shape)
    }
}
