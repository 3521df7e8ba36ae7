//! The part of ONNX that rankers use, after the field numbers of `onnx.proto`; other fields are skipped.

use prost::Message;

/// Element type of 32-bit floats.
pub const FLOAT: i32 = 1;
/// Element type of 64-bit integers.
const INT64: i32 = 7;

/// Model file.
#[derive(Clone, PartialEq, Message)]
pub struct ModelProto {
    /// The computation.
    #[prost(message, optional, tag = "7")]
    pub graph: Option<GraphProto>,
}

/// Nodes in topological order.
#[derive(Clone, PartialEq, Message)]
pub struct GraphProto {
    /// Operators.
    #[prost(message, repeated, tag = "1")]
    pub node: Vec<NodeProto>,
    /// Constants.
    #[prost(message, repeated, tag = "5")]
    pub initializer: Vec<TensorProto>,
    /// What the caller gives.
    #[prost(message, repeated, tag = "11")]
    pub input: Vec<ValueInfoProto>,
    /// What the caller gets.
    #[prost(message, repeated, tag = "12")]
    pub output: Vec<ValueInfoProto>,
}

/// One operator.
#[derive(Clone, PartialEq, Message)]
pub struct NodeProto {
    /// Names of its inputs.
    #[prost(string, repeated, tag = "1")]
    pub input: Vec<String>,
    /// Names of its outputs.
    #[prost(string, repeated, tag = "2")]
    pub output: Vec<String>,
    /// Name of the operator.
    #[prost(string, tag = "4")]
    pub op_type: String,
    /// Parameters.
    #[prost(message, repeated, tag = "5")]
    pub attribute: Vec<AttributeProto>,
}

/// One parameter of an operator.
#[derive(Clone, PartialEq, Message)]
pub struct AttributeProto {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Number.
    #[prost(float, tag = "2")]
    pub f: f32,
    /// Integer.
    #[prost(int64, tag = "3")]
    pub i: i64,
    /// Text.
    #[prost(bytes = "vec", tag = "4")]
    pub s: Vec<u8>,
    /// Numbers.
    #[prost(float, repeated, tag = "7")]
    pub floats: Vec<f32>,
    /// Integers.
    #[prost(int64, repeated, tag = "8")]
    pub ints: Vec<i64>,
    /// Texts.
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub strings: Vec<Vec<u8>>,
}

/// Constant.
#[derive(Clone, PartialEq, Message)]
pub struct TensorProto {
    /// Elements of each axis.
    #[prost(int64, repeated, tag = "1")]
    pub dims: Vec<i64>,
    /// Type of its elements.
    #[prost(int32, tag = "2")]
    pub data_type: i32,
    /// Elements of 32-bit floats.
    #[prost(float, repeated, tag = "4")]
    pub float_data: Vec<f32>,
    /// Elements of 64-bit integers.
    #[prost(int64, repeated, tag = "7")]
    pub int64_data: Vec<i64>,
    /// Name.
    #[prost(string, tag = "8")]
    pub name: String,
    /// Elements as little-endian bytes.
    #[prost(bytes = "vec", tag = "9")]
    pub raw_data: Vec<u8>,
}

/// Input or output.
#[derive(Clone, PartialEq, Message)]
pub struct ValueInfoProto {
    /// Name.
    #[prost(string, tag = "1")]
    pub name: String,
}

impl GraphProto {
    /// Name of the input, if it is the only one that is no constant.
    pub fn only_input(&self) -> Option<&str> {
        let mut inputs = self.input.iter().filter(|input| self.constant(&input.name).is_none());
        let (Some(input), None) = (inputs.next(), inputs.next()) else { return None };
        Some(&input.name)
    }

    /// Constant of a name.
    pub fn constant(&self, name: &str) -> Option<&TensorProto> {
        self.initializer.iter().find(|tensor| tensor.name == name)
    }
}

impl NodeProto {
    /// Attribute of a name.
    pub fn attribute(&self, name: &str) -> Option<&AttributeProto> {
        self.attribute.iter().find(|attribute| attribute.name == name)
    }

    /// Integers of an attribute; empty where it is missing.
    pub fn ints(&self, name: &str) -> &[i64] {
        self.attribute(name).map_or(&[], |attribute| &attribute.ints)
    }

    /// Numbers of an attribute; empty where it is missing.
    pub fn floats(&self, name: &str) -> &[f32] {
        self.attribute(name).map_or(&[], |attribute| &attribute.floats)
    }

    /// Text of an attribute; empty where it is missing.
    pub fn text(&self, name: &str) -> &[u8] {
        self.attribute(name).map_or(&[], |attribute| &attribute.s)
    }
}

impl TensorProto {
    /// Elements of a tensor of 32-bit floats.
    pub fn floats(&self) -> Option<Vec<f32>> {
        let raw = || self.raw_data.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let found = if self.raw_data.is_empty() { self.float_data.clone() } else { raw() };
        (self.data_type == FLOAT).then_some(found)
    }

    /// Elements of a tensor of 64-bit integers.
    pub fn integers(&self) -> Option<Vec<i64>> {
        let raw = || self.raw_data.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect();
        let found = if self.raw_data.is_empty() { self.int64_data.clone() } else { raw() };
        (self.data_type == INT64).then_some(found)
    }
}
