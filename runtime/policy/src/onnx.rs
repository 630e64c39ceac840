//! A small ONNX writer: the few protobuf messages that a graph needs, and [`GraphBuilder`]; and a reader of what a
//! model takes and gives ([`interface`]), so that a bundle can be checked before an engine loads it.
//!
//! Field numbers are those of the public `onnx.proto3` (IR version 8, operator set 17).

use std::collections::HashMap;

use prost::Message;

/// ONNX IR version written into every file.
const IR_VERSION: i64 = 8;
/// Operator set that every graph is written for.
const OPSET: i64 = 17;

const FLOAT: i32 = 1;
const INT64: i32 = 7;

const ATTRIBUTE_FLOAT: i32 = 1;
const ATTRIBUTE_INT: i32 = 2;
const ATTRIBUTE_INTS: i32 = 7;

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(string, tag = "2")]
    producer_name: String,
    #[prost(string, tag = "3")]
    producer_version: String,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetIdProto>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSetIdProto {
    #[prost(string, tag = "1")]
    domain: String,
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueInfoProto>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueInfoProto>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
    #[prost(message, repeated, tag = "5")]
    attribute: Vec<AttributeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(float, tag = "2")]
    f: f32,
    #[prost(int64, tag = "3")]
    i: i64,
    #[prost(int64, repeated, tag = "8")]
    ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    kind: i32,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueInfoProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeProto {
    #[prost(message, optional, tag = "1")]
    tensor_type: Option<TensorTypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorTypeProto {
    #[prost(int32, tag = "1")]
    elem_type: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<TensorShapeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorShapeProto {
    #[prost(message, repeated, tag = "1")]
    dim: Vec<DimensionProto>,
}

#[derive(Clone, PartialEq, Message)]
struct DimensionProto {
    // Members of a oneof: `dim_value` is written even where it is 0.
    #[prost(int64, optional, tag = "1")]
    dim_value: Option<i64>,
    #[prost(string, optional, tag = "2")]
    dim_param: Option<String>,
}

/// Element type of an input or output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementType {
    F32,
    I64,
    /// Anything else, by its ONNX number.
    Other(i32),
}

impl std::fmt::Display for ElementType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::F32 => f.write_str("f32"),
            Self::I64 => f.write_str("i64"),
            Self::Other(n) => write!(f, "ONNX type {n}"),
        }
    }
}

/// An input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    pub name: String,
    pub element_type: ElementType,
    /// Dimensions; `None` where the model leaves one open.
    pub shape: Vec<Option<usize>>,
}

impl TensorInfo {
    /// A tensor of fixed shape.
    pub fn fixed(name: &str, element_type: ElementType, shape: &[usize]) -> Self {
        Self { name: name.into(), element_type, shape: shape.iter().map(|&d| Some(d)).collect() }
    }
}

impl std::fmt::Display for TensorInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let dims: Vec<String> = self.shape.iter().map(|d| d.map_or_else(|| "?".into(), |d| d.to_string())).collect();
        write!(f, "{} [{}]", self.element_type, dims.join(", "))
    }
}

/// What a model takes and gives, in the model's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    pub inputs: Vec<TensorInfo>,
    pub outputs: Vec<TensorInfo>,
}

/// Reads the interface of an ONNX file; says what is wrong with bytes that are none.
pub fn interface(model: &[u8]) -> Result<Interface, String> {
    let model = ModelProto::decode(model).map_err(|e| format!("not an ONNX file: {e}"))?;
    let graph = model.graph.ok_or("the ONNX file holds no graph")?;
    let info = |value: &ValueInfoProto| {
        let tensor = value.kind.as_ref().and_then(|t| t.tensor_type.as_ref());
        let element_type = match tensor.map_or(0, |t| t.elem_type) {
            FLOAT => ElementType::F32,
            INT64 => ElementType::I64,
            other => ElementType::Other(other),
        };
        let dims = tensor.and_then(|t| t.shape.as_ref()).map_or(&[][..], |s| &s.dim);
        let shape = dims.iter().map(|d| d.dim_value.and_then(|d| usize::try_from(d).ok())).collect();
        TensorInfo { name: value.name.clone(), element_type, shape }
    };
    // Old exporters list the weights among the inputs.
    let is_weight = |value: &&ValueInfoProto| graph.initializer.iter().any(|t| t.name == value.name);
    Ok(Interface {
        inputs: graph.input.iter().filter(|v| !is_weight(v)).map(info).collect(),
        outputs: graph.output.iter().map(info).collect(),
    })
}

/// A tensor inside a graph under construction, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value(String);

/// An attribute of a node.
#[derive(Debug, Clone)]
pub enum Attribute<'a> {
    Float(f32),
    Int(i64),
    Ints(&'a [i64]),
}

/// Builds one ONNX graph with fixed shapes, node by node in execution order. A node that is there already is not
/// written again.
#[derive(Debug)]
pub struct GraphBuilder {
    graph: GraphProto,
    /// Shape of every constant.
    constants: HashMap<String, Vec<usize>>,
    /// Output of every node by what it computes.
    known: HashMap<String, Value>,
    /// Widths of the parts that [`GraphBuilder::part`] promised.
    parts: Vec<i64>,
}

impl GraphBuilder {
    /// An empty graph.
    pub fn new(name: &str) -> Self {
        Self {
            graph: GraphProto { name: name.into(), ..Default::default() },
            constants: HashMap::new(),
            known: HashMap::new(),
            parts: Vec::new(),
        }
    }

    /// Declares an f32 input.
    pub fn input(&mut self, name: &str, shape: &[usize]) -> Value {
        self.graph.input.push(value_info(name, FLOAT, shape));
        Value(name.into())
    }

    /// Declares an int64 input.
    pub fn index_input(&mut self, name: &str, shape: &[usize]) -> Value {
        self.graph.input.push(value_info(name, INT64, shape));
        Value(name.into())
    }

    /// The next part `[1, width]` of an input that [`GraphBuilder::input_of_parts`] declares when all are known.
    pub fn part(&mut self, width: usize) -> Value {
        self.parts.push(width as i64);
        Value(format!("part_{}", self.parts.len() - 1))
    }

    /// Declares the f32 input `[1, n]` that holds all parts side by side; gives n.
    pub fn input_of_parts(&mut self, name: &str) -> usize {
        let width = self.parts.iter().sum::<i64>() as usize;
        let mut node = NodeProto {
            input: vec![self.input(name, &[1, width]).0],
            output: (0..self.parts.len()).map(|i| format!("part_{i}")).collect(),
            name: format!("parts/{name}"),
            op_type: "Identity".into(),
            attribute: Vec::new(),
        };
        if self.parts.len() > 1 {
            node.op_type = "Split".into();
            node.input.push(self.indices(&self.parts.clone()).0);
            node.attribute.push(attribute("axis", &Attribute::Int(1)));
        }
        // Nodes stand in execution order, and those that take a part have been written.
        self.graph.node.insert(0, node);
        width
    }

    /// Makes `value` the f32 output `name`.
    pub fn output(&mut self, name: &str, value: &Value, shape: &[usize]) {
        self.graph.node.push(NodeProto {
            input: vec![value.0.clone()],
            output: vec![name.into()],
            name: format!("output/{name}"),
            op_type: "Identity".into(),
            attribute: Vec::new(),
        });
        self.graph.output.push(value_info(name, FLOAT, shape));
    }

    /// An f32 constant. A second constant of the same name is the first one: unrolled graphs share their weights.
    ///
    /// Panics if the shape does not hold `data` or is another one than before: shapes are checked where parameters enter
    /// ([`crate::graph`]).
    pub fn constant(&mut self, name: &str, shape: &[usize], data: &[f32]) -> Value {
        assert_eq!(shape.iter().product::<usize>(), data.len(), "constant `{name}` of shape {shape:?}");
        self.push_constant(name, FLOAT, shape, data.iter().flat_map(|x| x.to_le_bytes()))
    }

    /// A vector of int64 (shapes, axes, indices), named after its content.
    pub fn indices(&mut self, data: &[i64]) -> Value {
        let text: Vec<String> = data.iter().map(i64::to_string).collect();
        let name = format!("indices/{}", text.join(","));
        self.push_constant(&name, INT64, &[data.len()], data.iter().flat_map(|x| x.to_le_bytes()))
    }

    fn push_constant(&mut self, name: &str, data_type: i32, shape: &[usize], raw: impl Iterator<Item = u8>) -> Value {
        match self.constants.get(name) {
            Some(known) => assert_eq!(known, shape, "two shapes of constant `{name}`"),
            None => {
                self.constants.insert(name.into(), shape.to_vec());
                let dims = shape.iter().map(|&d| d as i64).collect();
                let tensor = TensorProto { dims, data_type, name: name.into(), raw_data: raw.collect() };
                self.graph.initializer.push(tensor);
            }
        }
        Value(name.into())
    }

    /// A scalar f32 constant, named after its value.
    pub fn scalar(&mut self, value: f32) -> Value {
        self.constant(&format!("scalar/{value:?}"), &[], &[value])
    }

    /// A node with one output.
    pub fn node(&mut self, op: &str, inputs: &[&Value], attributes: &[(&str, Attribute)]) -> Value {
        let content = format!("{op} {inputs:?} {attributes:?}");
        if let Some(known) = self.known.get(&content) {
            return known.clone();
        }
        let name = format!("{op}_{}", self.graph.node.len());
        self.graph.node.push(NodeProto {
            input: inputs.iter().map(|v| v.0.clone()).collect(),
            output: vec![name.clone()],
            name: name.clone(),
            op_type: op.into(),
            attribute: attributes.iter().map(|(name, a)| attribute(name, a)).collect(),
        });
        let value = Value(name);
        self.known.insert(content, value.clone());
        value
    }

    pub fn add(&mut self, a: &Value, b: &Value) -> Value {
        self.node("Add", &[a, b], &[])
    }

    pub fn mul(&mut self, a: &Value, b: &Value) -> Value {
        self.node("Mul", &[a, b], &[])
    }

    /// `value` in another shape.
    pub fn reshape(&mut self, value: &Value, shape: &[usize]) -> Value {
        let shape: Vec<i64> = shape.iter().map(|&d| d as i64).collect();
        let shape = self.indices(&shape);
        self.node("Reshape", &[value, &shape], &[])
    }

    pub fn transpose(&mut self, value: &Value, permutation: &[i64]) -> Value {
        self.node("Transpose", &[value], &[("perm", Attribute::Ints(permutation))])
    }

    pub fn concat(&mut self, values: &[&Value], axis: i64) -> Value {
        self.node("Concat", values, &[("axis", Attribute::Int(axis))])
    }

    /// `value[start..end]` along `axis`.
    pub fn slice(&mut self, value: &Value, axis: i64, start: usize, end: usize) -> Value {
        let (start, end, axis) = (self.indices(&[start as i64]), self.indices(&[end as i64]), self.indices(&[axis]));
        self.node("Slice", &[value, &start, &end, &axis], &[])
    }

    /// The finished model file.
    pub fn finish(self) -> Vec<u8> {
        let model = ModelProto {
            ir_version: IR_VERSION,
            producer_name: "tenon".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            graph: Some(self.graph),
            opset_import: vec![OperatorSetIdProto { domain: String::new(), version: OPSET }],
        };
        model.encode_to_vec()
    }
}

fn attribute(name: &str, value: &Attribute) -> AttributeProto {
    let mut attribute = AttributeProto { name: name.into(), ..Default::default() };
    match value {
        Attribute::Float(f) => {
            attribute.f = *f;
            attribute.kind = ATTRIBUTE_FLOAT;
        }
        Attribute::Int(i) => {
            attribute.i = *i;
            attribute.kind = ATTRIBUTE_INT;
        }
        Attribute::Ints(ints) => {
            attribute.ints = ints.to_vec();
            attribute.kind = ATTRIBUTE_INTS;
        }
    }
    attribute
}

fn value_info(name: &str, elem_type: i32, shape: &[usize]) -> ValueInfoProto {
    let dim = shape.iter().map(|&d| DimensionProto { dim_value: Some(d as i64), dim_param: None }).collect();
    let shape = Some(TensorShapeProto { dim });
    let tensor_type = Some(TensorTypeProto { elem_type, shape });
    ValueInfoProto { name: name.into(), kind: Some(TypeProto { tensor_type }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncated_and_empty_files_are_refused() {
        let mut g = GraphBuilder::new("g");
        let x = g.input("x", &[1]);
        g.output("y", &x, &[1]);
        let file = g.finish();
        assert!(interface(&file[..file.len() - 3]).is_err());
        assert!(interface(&[]).is_err());
        assert!(interface(b"<html>").is_err());
    }

    #[test]
    fn constants_of_one_name_are_written_once() {
        let mut g = GraphBuilder::new("g");
        let x = g.input("x", &[1, 2]);
        let a = g.constant("w", &[2], &[1.0, 2.0]);
        let b = g.constant("w", &[2], &[1.0, 2.0]);
        let y = g.add(&x, &a);
        let y = g.add(&y, &b);
        g.output("y", &y, &[1, 2]);
        let file = g.finish();
        let found = interface(&file).unwrap();
        assert_eq!(found.inputs, [TensorInfo::fixed("x", ElementType::F32, &[1, 2])]);
        assert_eq!(found.outputs, [TensorInfo::fixed("y", ElementType::F32, &[1, 2])]);
        let model = ModelProto::decode(file.as_slice()).unwrap();
        let graph = model.graph.unwrap();
        assert_eq!((graph.initializer.len(), graph.node.len()), (1, 3));
        assert_eq!(graph.initializer[0].raw_data.len(), 8);
        assert_eq!(model.opset_import[0].version, OPSET);
    }
}
