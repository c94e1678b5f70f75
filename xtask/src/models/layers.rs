//! The operators of the networks, as methods of [`Graph`].
//!
//! Images are NCHW. A layer's weights are named after the layer (`layer1.0.conv1.weight`). Batch
//! norms are written out and not folded, as in a checkpoint, so parameter counts can be compared
//! with the published ones; ONNX Runtime folds them when it loads the model.

use std::ops::Range;

use super::graph::{Graph, Tensor, dims, float, int, ints, signed, string};

/// A square convolution, padded so that stride 1 keeps the image's size.
#[derive(Clone, Copy)]
pub(crate) struct Conv {
    pub out: usize,
    pub kernel: usize,
    pub stride: usize,
    pub groups: usize,
    pub gain: f32,
}

impl Conv {
    /// A dense convolution of stride 1 before a rectifier.
    pub(crate) fn new(out: usize, kernel: usize) -> Self {
        Self { out, kernel, stride: 1, groups: 1, gain: Activation::Relu.gain() }
    }

    /// The same with another stride.
    pub(crate) fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    /// The same with one filter for each of `out` channels.
    pub(crate) fn depthwise(self) -> Self {
        Self { groups: self.out, ..self }
    }

    /// The same with weights of variance `gain / fan_in`.
    pub(crate) fn gain(self, gain: f32) -> Self {
        Self { gain, ..self }
    }
}

/// What follows a batch norm.
#[derive(Clone, Copy)]
pub(crate) enum Activation {
    Linear,
    Relu,
    /// A rectifier that lets a tenth of the negative part through.
    Leaky,
    Relu6,
    Silu,
    /// `x relu6(x + 3) / 6`, which is cheap where a logistic function is not.
    HardSwish,
}

impl Activation {
    /// The gain that makes up for what the activation takes from the second moment.
    pub(crate) fn gain(self) -> f32 {
        match self {
            Self::Linear => 1.0,
            Self::Relu | Self::Leaky | Self::Relu6 => 2.0,
            Self::Silu => 2.8, // 1 / E[silu(z)^2] for standard normal z is 2.81.
            Self::HardSwish => 3.0, // Likewise 3.02.
        }
    }
}

impl Graph {
    /// A convolution without bias.
    pub(crate) fn conv(&mut self, name: &str, x: &Tensor, conv: Conv) -> Tensor {
        let weight = self.conv_weight(name, x, conv);
        self.conv_node(name, &[x, &weight], conv)
    }

    /// A convolution with bias, as in heads that no batch norm follows.
    pub(crate) fn conv_bias(&mut self, name: &str, x: &Tensor, conv: Conv) -> Tensor {
        let weight = self.conv_weight(name, x, conv);
        let bias = self.uniform(&format!("{name}.bias"), &[conv.out], 0.0, 0.1);
        self.conv_node(name, &[x, &weight, &bias], conv)
    }

    fn conv_weight(&mut self, name: &str, x: &Tensor, conv: Conv) -> Tensor {
        let per_group = x.dim(1) / conv.groups;
        let shape = [conv.out, per_group, conv.kernel, conv.kernel];
        let fan_in = per_group * conv.kernel * conv.kernel;
        self.weight(&format!("{name}.weight"), &shape, fan_in, conv.gain)
    }

    fn conv_node(&mut self, name: &str, inputs: &[&Tensor], conv: Conv) -> Tensor {
        let pad = conv.kernel / 2;
        let size = |axis: usize| (inputs[0].dim(axis) + 2 * pad - conv.kernel) / conv.stride + 1;
        let shape = vec![1, conv.out, size(2), size(3)];
        let attributes = vec![
            ints("dilations", &[1, 1]),
            int("group", conv.groups),
            ints("kernel_shape", &[conv.kernel; 2]),
            ints("pads", &[pad; 4]),
            ints("strides", &[conv.stride; 2]),
        ];
        self.node("Conv", name, inputs, attributes, shape)
    }

    /// A transposed convolution with bias whose kernel equals its stride: it scales by `factor`.
    pub(crate) fn conv_transpose(
        &mut self,
        name: &str,
        x: &Tensor,
        out: usize,
        factor: usize,
    ) -> Tensor {
        let shape = [x.dim(1), out, factor, factor];
        let weight = self.weight(&format!("{name}.weight"), &shape, x.dim(1), 1.0);
        let bias = self.uniform(&format!("{name}.bias"), &[out], 0.0, 0.1);
        let attributes = vec![ints("kernel_shape", &[factor; 2]), ints("strides", &[factor; 2])];
        let shape = vec![1, out, x.dim(2) * factor, x.dim(3) * factor];
        self.node("ConvTranspose", name, &[x, &weight, &bias], attributes, shape)
    }

    /// A batch norm over axis 1, its scale around `scale`.
    ///
    /// Ioffe, Szegedy, "Batch Normalization", ICML 2015.
    pub(crate) fn batch_norm(&mut self, name: &str, x: &Tensor, scale: f32) -> Tensor {
        let channels = [x.dim(1)];
        let gamma = self.uniform(&format!("{name}.weight"), &channels, scale, 0.1 * scale);
        let beta = self.uniform(&format!("{name}.bias"), &channels, 0.0, 0.1);
        let mean = self.uniform(&format!("{name}.running_mean"), &channels, 0.0, 0.1);
        let variance = self.uniform(&format!("{name}.running_var"), &channels, 1.0, 0.1);
        let inputs = [x, &gamma, &beta, &mean, &variance];
        let attributes = vec![float("epsilon", 1e-5)];
        self.node("BatchNormalization", name, &inputs, attributes, x.shape.clone())
    }

    /// Convolution, batch norm, activation: `NAME.conv`, `NAME.bn`, `NAME`.
    pub(crate) fn conv_unit(
        &mut self,
        name: &str,
        x: &Tensor,
        conv: Conv,
        activation: Activation,
    ) -> Tensor {
        let x = self.conv(&format!("{name}.conv"), x, conv);
        let x = self.batch_norm(&format!("{name}.bn"), &x, 1.0);
        self.activation(name, &x, activation)
    }

    /// Applies `activation`; its last node is `name`.
    pub(crate) fn activation(&mut self, name: &str, x: &Tensor, activation: Activation) -> Tensor {
        match activation {
            Activation::Linear => x.clone(),
            Activation::Relu => self.relu(name, x),
            Activation::Leaky => {
                self.node("LeakyRelu", name, &[x], vec![float("alpha", 0.1)], x.shape.clone())
            }
            Activation::Relu6 => self.relu6(name, x),
            Activation::Silu => {
                let gate = self.sigmoid(&format!("{name}.sigmoid"), x);
                self.mul(name, x, &gate)
            }
            Activation::HardSwish => {
                let gate = self.hard_sigmoid(&format!("{name}.gate"), x);
                self.mul(name, x, &gate)
            }
        }
    }

    /// `relu6(x + 3) / 6`.
    pub(crate) fn hard_sigmoid(&mut self, name: &str, x: &Tensor) -> Tensor {
        let attributes = vec![float("alpha", 1.0 / 6.0), float("beta", 0.5)];
        self.node("HardSigmoid", name, &[x], attributes, x.shape.clone())
    }

    /// `max(x, 0)`.
    pub(crate) fn relu(&mut self, name: &str, x: &Tensor) -> Tensor {
        self.node("Relu", name, &[x], Vec::new(), x.shape.clone())
    }

    fn relu6(&mut self, name: &str, x: &Tensor) -> Tensor {
        let low = self.floats(&format!("{name}.constant_low"), &[], &[0.0]);
        let high = self.floats(&format!("{name}.constant_high"), &[], &[6.0]);
        self.node("Clip", name, &[x, &low, &high], Vec::new(), x.shape.clone())
    }

    /// The logistic function.
    pub(crate) fn sigmoid(&mut self, name: &str, x: &Tensor) -> Tensor {
        self.node("Sigmoid", name, &[x], Vec::new(), x.shape.clone())
    }

    /// The hyperbolic tangent.
    pub(crate) fn tanh(&mut self, name: &str, x: &Tensor) -> Tensor {
        self.node("Tanh", name, &[x], Vec::new(), x.shape.clone())
    }

    /// The Gaussian error unit `x (1 + erf(x / sqrt 2)) / 2`, in the five nodes that exporters
    /// write below operator set 20 and that runtimes fuse.
    ///
    /// Hendrycks, Gimpel, "Gaussian Error Linear Units", 2016.
    pub(crate) fn gelu(&mut self, name: &str, x: &Tensor) -> Tensor {
        let root = self.floats(&format!("{name}.constant_root"), &[], &[std::f32::consts::SQRT_2]);
        let one = self.floats(&format!("{name}.constant_one"), &[], &[1.0]);
        let half = self.floats(&format!("{name}.constant_half"), &[], &[0.5]);
        let shape = || x.shape.clone();
        let y = self.node("Div", &format!("{name}.div"), &[x, &root], Vec::new(), shape());
        let y = self.node("Erf", &format!("{name}.erf"), &[&y], Vec::new(), shape());
        let y = self.node("Add", &format!("{name}.add"), &[&y, &one], Vec::new(), shape());
        let y = self.mul(&format!("{name}.mul"), x, &y);
        self.node("Mul", name, &[&y, &half], Vec::new(), shape())
    }

    /// The sum of two tensors of one shape, or with `b` broadcast to the shape of `a`.
    pub(crate) fn add(&mut self, name: &str, a: &Tensor, b: &Tensor) -> Tensor {
        self.node("Add", name, &[a, b], Vec::new(), a.shape.clone())
    }

    /// The product of two tensors of one shape, or with `b` broadcast to the shape of `a`.
    pub(crate) fn mul(&mut self, name: &str, a: &Tensor, b: &Tensor) -> Tensor {
        self.node("Mul", name, &[a, b], Vec::new(), a.shape.clone())
    }

    /// Joins `parts` along `axis`.
    pub(crate) fn concat(&mut self, name: &str, parts: &[&Tensor], axis: usize) -> Tensor {
        let mut shape = parts[0].shape.clone();
        shape[axis] = parts.iter().map(|part| part.dim(axis)).sum();
        self.node("Concat", name, parts, vec![int("axis", axis)], shape)
    }

    /// The maximum over windows of `kernel`, padded so that stride 1 keeps the image's size.
    pub(crate) fn max_pool(
        &mut self,
        name: &str,
        x: &Tensor,
        kernel: usize,
        stride: usize,
    ) -> Tensor {
        // An even kernel is only used with its own stride, where nothing needs padding.
        let pad = if kernel == stride { 0 } else { kernel / 2 };
        let size = |axis: usize| (x.dim(axis) + 2 * pad - kernel) / stride + 1;
        let shape = vec![1, x.dim(1), size(2), size(3)];
        let attributes = vec![
            ints("kernel_shape", &[kernel; 2]),
            ints("pads", &[pad; 4]),
            ints("strides", &[stride; 2]),
        ];
        self.node("MaxPool", name, &[x], attributes, shape)
    }

    /// The mean of each channel, as a 1 x 1 image.
    pub(crate) fn global_average_pool(&mut self, name: &str, x: &Tensor) -> Tensor {
        self.node("GlobalAveragePool", name, &[x], Vec::new(), vec![1, x.dim(1), 1, 1])
    }

    /// An image scaled by two, each pixel repeated.
    pub(crate) fn upsample(&mut self, name: &str, x: &Tensor) -> Tensor {
        let scales = [1.0, 1.0, 2.0, 2.0];
        let scales = self.floats(&format!("{name}.constant_scales"), &[4], &scales);
        let attributes = vec![
            string("coordinate_transformation_mode", "asymmetric"),
            string("mode", "nearest"),
            string("nearest_mode", "floor"),
        ];
        let shape = vec![1, x.dim(1), 2 * x.dim(2), 2 * x.dim(3)];
        self.node("Resize", name, &[x, &Tensor::absent(), &scales], attributes, shape)
    }

    /// Everything after the first axis as one.
    pub(crate) fn flatten(&mut self, name: &str, x: &Tensor) -> Tensor {
        let shape = vec![x.dim(0), x.shape[1..].iter().product()];
        self.node("Flatten", name, &[x], vec![int("axis", 1)], shape)
    }

    /// The same elements in another shape.
    pub(crate) fn reshape(&mut self, name: &str, x: &Tensor, shape: &[usize]) -> Tensor {
        assert_eq!(
            x.shape.iter().product::<usize>(),
            shape.iter().product::<usize>(),
            "elements of {name}"
        );
        let target = self.integers(&format!("{name}.shape"), &dims(shape));
        self.node("Reshape", name, &[x, &target], Vec::new(), shape.to_vec())
    }

    /// `count` rows of zeros after the last of a matrix.
    pub(crate) fn pad_rows(&mut self, name: &str, x: &Tensor, count: usize) -> Tensor {
        let pads = self.integers(&format!("{name}.pads"), &dims(&[0, 0, count, 0]));
        self.node("Pad", name, &[x, &pads], Vec::new(), vec![x.dim(0) + count, x.dim(1)])
    }

    /// The axes in another order.
    pub(crate) fn transpose(&mut self, name: &str, x: &Tensor, order: &[usize]) -> Tensor {
        let shape = order.iter().map(|axis| x.dim(*axis)).collect();
        self.node("Transpose", name, &[x], vec![ints("perm", order)], shape)
    }

    /// The mean along `axis`, which the result no longer has.
    pub(crate) fn mean(&mut self, name: &str, x: &Tensor, axis: usize) -> Tensor {
        let mut shape = x.shape.clone();
        shape.remove(axis);
        let attributes = vec![ints("axes", &[axis]), int("keepdims", 0)];
        self.node("ReduceMean", name, &[x], attributes, shape)
    }

    /// The part `from .. to` along `axis`.
    pub(crate) fn slice(
        &mut self,
        name: &str,
        x: &Tensor,
        axis: usize,
        part: Range<usize>,
    ) -> Tensor {
        let mut shape = x.shape.clone();
        shape[axis] = part.len();
        let mut number =
            |what: &str, value: usize| self.integers(&format!("{name}.{what}"), &dims(&[value]));
        let inputs = [number("from", part.start), number("to", part.end), number("axis", axis)];
        let [from, to, axis] = &inputs;
        self.node("Slice", name, &[x, from, to, axis], Vec::new(), shape)
    }

    /// Element `index` along `axis`, which the result no longer has.
    pub(crate) fn take(&mut self, name: &str, x: &Tensor, axis: usize, index: usize) -> Tensor {
        let mut shape = x.shape.clone();
        shape.remove(axis);
        // A vector of one index keeps the axis, so the result is reshaped: simpler to read than a
        // scalar initialiser, and the reshape costs nothing at run time.
        let index = self.integers(&format!("{name}.index"), &dims(&[index]));
        let mut kept = x.shape.clone();
        kept[axis] = 1;
        let attributes = vec![int("axis", axis)];
        let x = self.node("Gather", &format!("{name}.gather"), &[x, &index], attributes, kept);
        self.reshape(name, &x, &shape)
    }

    /// A dense layer on a batch of vectors.
    pub(crate) fn dense(&mut self, name: &str, x: &Tensor, out: usize, gain: f32) -> Tensor {
        let fan_in = x.dim(1);
        let weight = self.weight(&format!("{name}.weight"), &[out, fan_in], fan_in, gain);
        let bias = self.uniform(&format!("{name}.bias"), &[out], 0.0, 0.1);
        let attributes = vec![int("transB", 1)];
        self.node("Gemm", name, &[x, &weight, &bias], attributes, vec![x.dim(0), out])
    }

    /// A dense layer on the last axis of a sequence.
    pub(crate) fn project(&mut self, name: &str, x: &Tensor, out: usize, gain: f32) -> Tensor {
        let fan_in = x.shape.last().copied().unwrap_or(1);
        let weight = self.weight(&format!("{name}.weight"), &[fan_in, out], fan_in, gain);
        let bias = self.uniform(&format!("{name}.bias"), &[out], 0.0, 0.1);
        let y = self.matmul(&format!("{name}.matmul"), x, &weight);
        self.add(name, &y, &bias)
    }

    /// The matrix product over the last two axes; leading axes are those of `a`.
    pub(crate) fn matmul(&mut self, name: &str, a: &Tensor, b: &Tensor) -> Tensor {
        let mut shape = a.shape.clone();
        let last = shape.len() - 1;
        shape[last] = b.dim(b.shape.len() - 1);
        self.node("MatMul", name, &[a, b], Vec::new(), shape)
    }

    /// The softmax over the last axis.
    pub(crate) fn softmax(&mut self, name: &str, x: &Tensor) -> Tensor {
        self.node("Softmax", name, &[x], vec![signed("axis", -1)], x.shape.clone())
    }

    /// A layer norm over the last axis.
    ///
    /// Ba, Kiros, Hinton, "Layer Normalization", 2016.
    pub(crate) fn layer_norm(&mut self, name: &str, x: &Tensor, epsilon: f32) -> Tensor {
        let width = [x.dim(x.shape.len() - 1)];
        let scale = self.uniform(&format!("{name}.weight"), &width, 1.0, 0.1);
        let bias = self.uniform(&format!("{name}.bias"), &width, 0.0, 0.1);
        let attributes = vec![signed("axis", -1), float("epsilon", epsilon)];
        let inputs = [x, &scale, &bias];
        self.node("LayerNormalization", name, &inputs, attributes, x.shape.clone())
    }
}

/// `percent` of `base`, as a multiple of 8 and at least 8.
///
/// Rounds to the nearest multiple, but never loses more than a tenth: the rule of the MobileNet
/// papers, which keeps vector units full.
pub(crate) fn scaled(base: usize, percent: usize) -> usize {
    let exact = base * percent; // In hundredths of a channel.
    let rounded = ((exact + 400) / 800 * 8).max(8);
    if rounded * 1000 < exact * 9 { rounded + 8 } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::scaled;

    #[test]
    fn scaled_channels_are_multiples_of_eight_near_the_target() {
        for (base, percent, expected) in
            [(64, 100, 64), (32, 35, 16), (24, 50, 16), (16, 25, 8), (320, 100, 320), (96, 50, 48)]
        {
            assert_eq!(scaled(base, percent), expected, "{percent} % of {base}");
        }
    }
}
