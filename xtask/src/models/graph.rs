//! A builder of ONNX graphs that knows every tensor's shape.
//!
//! A layer adds nodes and gets a [`Tensor`] back: a name with an element type and a static shape.
//! A node and its one output carry the same name, so a cut can be named by what is seen in a graph
//! viewer. `layers.rs` holds the operators; this file holds what they have in common.
//!
//! # Invariants
//! 1. No name is given twice (asserted): ONNX graphs are in single-assignment form.
//! 2. Nodes are in topological order, because a node needs the tensors of earlier calls.
//! 3. Every shape is static; there is no way to write another.

use std::collections::BTreeMap;

use super::schema::{
    AttributeProto, AttributeType, DataType, DimensionProto, GraphProto, ModelProto, NodeProto,
    OperatorSetIdProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
};
use super::weights::{Stream, spread};

/// The operator set of every model: the first with `LayerNormalization`.
pub(crate) const OPSET: i64 = 17;
/// The IR version that goes with [`OPSET`], so older runtimes accept the files too.
pub(crate) const IR_VERSION: i64 = 8;

/// The generator's own version, which is part of each file and not that of the workspace: a release
/// must not change the files. Raise it with any change of the bytes, and make the goldens anew.
const GENERATOR: &str = "1";

/// A tensor of the graph under construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tensor {
    pub name: String,
    pub element: DataType,
    pub shape: Vec<usize>,
}

impl Tensor {
    /// The mark of an optional input that is not given.
    pub(crate) fn absent() -> Self {
        Self { name: String::new(), element: DataType::Float, shape: Vec::new() }
    }

    /// The size of dimension `axis`.
    pub(crate) fn dim(&self, axis: usize) -> usize {
        self.shape[axis]
    }
}

/// A network in the making, and the form in which stages are cut from it.
pub(crate) struct Graph {
    pub name: String,
    seed: u64,
    pub nodes: Vec<NodeProto>,
    pub initialisers: Vec<TensorProto>,
    pub inputs: Vec<Tensor>,
    pub outputs: Vec<Tensor>,
    /// Every tensor a node or the caller produces, by name; initialisers excepted.
    pub tensors: BTreeMap<String, Tensor>,
}

impl Graph {
    /// An empty graph whose weights will come from `seed`.
    pub(crate) fn new(name: &str, seed: u64) -> Self {
        Self {
            name: name.to_owned(),
            seed,
            nodes: Vec::new(),
            initialisers: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            tensors: BTreeMap::new(),
        }
    }

    /// Declares an input.
    pub(crate) fn input(&mut self, name: &str, element: DataType, shape: &[usize]) -> Tensor {
        let tensor = Tensor { name: name.to_owned(), element, shape: shape.to_vec() };
        self.register(&tensor);
        self.inputs.push(tensor.clone());
        tensor
    }

    /// Declares `tensor` an output, under its own name.
    pub(crate) fn output(&mut self, tensor: &Tensor) {
        self.outputs.push(tensor.clone());
    }

    /// Adds a node with one output of `shape`, of the element type of the first input.
    pub(crate) fn node(
        &mut self,
        op_type: &str,
        name: &str,
        inputs: &[&Tensor],
        attribute: Vec<AttributeProto>,
        shape: Vec<usize>,
    ) -> Tensor {
        let tensor = Tensor { name: name.to_owned(), element: inputs[0].element, shape };
        self.push(op_type, tensor, inputs, attribute)
    }

    /// A tensor of zeros made at run time: as a constant it would swell the file.
    pub(crate) fn zeros(&mut self, name: &str, shape: &[usize]) -> Tensor {
        let size = self.integers(&format!("{name}.shape"), &dims(shape));
        let element = DataType::Float;
        let tensor = Tensor { name: name.to_owned(), element, shape: shape.to_vec() };
        self.push("ConstantOfShape", tensor, &[&size], Vec::new())
    }

    fn push(
        &mut self,
        op_type: &str,
        tensor: Tensor,
        inputs: &[&Tensor],
        attribute: Vec<AttributeProto>,
    ) -> Tensor {
        self.register(&tensor);
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|input| input.name.clone()).collect(),
            output: vec![tensor.name.clone()],
            name: tensor.name.clone(),
            op_type: op_type.to_owned(),
            attribute,
            domain: String::new(),
        });
        tensor
    }

    /// A trained tensor of zero mean and variance `gain / fan_in`.
    pub(crate) fn weight(
        &mut self,
        name: &str,
        shape: &[usize],
        fan_in: usize,
        gain: f32,
    ) -> Tensor {
        self.uniform(name, shape, 0.0, spread(gain, fan_in))
    }

    /// A tensor of samples uniform in `centre - spread .. centre + spread`.
    pub(crate) fn uniform(
        &mut self,
        name: &str,
        shape: &[usize],
        centre: f32,
        spread: f32,
    ) -> Tensor {
        let count = shape.iter().product();
        let data = Stream::new(self.seed, name).uniform(count, centre, spread);
        self.initialiser(name, DataType::Float, shape, data)
    }

    /// A constant vector of integers, such as a shape.
    pub(crate) fn integers(&mut self, name: &str, values: &[i64]) -> Tensor {
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initialiser(name, DataType::Int64, &[values.len()], data)
    }

    /// A constant tensor of given floats.
    pub(crate) fn floats(&mut self, name: &str, shape: &[usize], values: &[f32]) -> Tensor {
        assert_eq!(shape.iter().product::<usize>(), values.len(), "elements of {name}");
        let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initialiser(name, DataType::Float, shape, data)
    }

    fn initialiser(
        &mut self,
        name: &str,
        element: DataType,
        shape: &[usize],
        raw_data: Vec<u8>,
    ) -> Tensor {
        self.initialisers.push(TensorProto {
            dims: dims(shape),
            data_type: element.into(),
            name: name.to_owned(),
            raw_data,
        });
        Tensor { name: name.to_owned(), element, shape: shape.to_vec() }
    }

    fn register(&mut self, tensor: &Tensor) {
        assert!(!tensor.name.is_empty(), "a produced tensor has a name");
        let before = self.tensors.insert(tensor.name.clone(), tensor.clone());
        assert!(before.is_none(), "{} is produced twice in {}", tensor.name, self.name);
    }

    /// The number of trained elements: all floats but the running statistics of batch norms.
    ///
    /// This is what papers and model zoos call "parameters".
    pub(crate) fn parameters(&self) -> usize {
        let trained = |tensor: &&TensorProto| {
            !tensor.name.contains(".running_") && !tensor.name.contains(".constant")
        };
        let elements = |tensor: &TensorProto| match DataType::try_from(tensor.data_type) {
            Ok(DataType::Float) => tensor.raw_data.len() / 4,
            Ok(DataType::Float16) => tensor.raw_data.len() / 2,
            _ => 0,
        };
        self.initialisers.iter().filter(trained).map(elements).sum()
    }

    /// The finished model.
    pub(crate) fn into_model(self) -> ModelProto {
        let graph = GraphProto {
            node: self.nodes,
            name: self.name,
            initializer: self.initialisers,
            input: self.inputs.iter().map(value_info).collect(),
            output: self.outputs.iter().map(value_info).collect(),
        };
        model_of(graph)
    }
}

/// Wraps `graph` as a model of [`OPSET`].
pub(crate) fn model_of(graph: GraphProto) -> ModelProto {
    ModelProto {
        ir_version: IR_VERSION,
        producer_name: "aegis-xtask".to_owned(),
        producer_version: GENERATOR.to_owned(),
        graph: Some(graph),
        opset_import: vec![OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(OPSET),
        }],
    }
}

/// Describes `tensor` as a graph's input or output.
pub(crate) fn value_info(tensor: &Tensor) -> ValueInfoProto {
    let fixed = |dim: i64| DimensionProto { dim_value: Some(dim), dim_param: None };
    let shape = TensorShapeProto { dim: dims(&tensor.shape).into_iter().map(fixed).collect() };
    let tensor_type = TensorTypeProto { elem_type: tensor.element.into(), shape: Some(shape) };
    ValueInfoProto {
        name: tensor.name.clone(),
        r#type: Some(TypeProto { tensor_type: Some(tensor_type) }),
    }
}

/// A shape as ONNX writes it.
pub(crate) fn dims(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|dim| i64::try_from(*dim).expect("a dimension fits in 63 bits")).collect()
}

/// An integer attribute.
pub(crate) fn int(name: &str, value: usize) -> AttributeProto {
    signed(name, dims(&[value])[0])
}

/// An integer attribute that may be negative, such as an axis counted from the end.
pub(crate) fn signed(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, AttributeType::Int) }
}

/// An attribute that is a list of integers.
pub(crate) fn ints(name: &str, values: &[usize]) -> AttributeProto {
    AttributeProto { ints: dims(values), ..attribute(name, AttributeType::Ints) }
}

/// A float attribute.
pub(crate) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..attribute(name, AttributeType::Float) }
}

/// A string attribute.
pub(crate) fn string(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: Some(value.into()), ..attribute(name, AttributeType::String) }
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: name.to_owned(), r#type: Some(kind.into()), ..Default::default() }
}
