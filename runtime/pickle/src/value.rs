//! The typed tree that a pickle is read into.

use std::sync::Arc;

use crate::TensorValue;

/// One value of a pickle.
///
/// Compound values are shared: what the pickle stores once and names twice is one `Arc` here, so
/// `Arc::ptr_eq` on two tensors tells whether an in-place change of one changes the other.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `None`
    None,
    /// `bool`
    Bool(bool),
    /// `int`
    Int(i64),
    /// `float`
    Float(f64),
    /// `str`
    Str(Arc<str>),
    /// `bytes` or `bytearray`
    Bytes(Arc<[u8]>),
    /// A PyTorch tensor or a NumPy array
    Tensor(Arc<TensorValue>),
    /// A tuple
    Tuple(Arc<[Value]>),
    /// A list
    List(Arc<List>),
    /// A dict
    Dict(Arc<Dict>),
    /// A TorchScript module or an object of a custom class
    Object(Arc<Object>),
}

impl Value {
    /// The tensor, where it is one.
    pub fn as_tensor(&self) -> Option<&Arc<TensorValue>> {
        match self {
            Self::Tensor(t) => Some(t),
            _ => None,
        }
    }

    /// The text, where it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(s) => Some(s),
            _ => None,
        }
    }

    /// The integer, where it is one.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(i) => Some(*i),
            _ => None,
        }
    }

    /// The object, where it is one.
    pub fn as_object(&self) -> Option<&Arc<Object>> {
        match self {
            Self::Object(o) => Some(o),
            _ => None,
        }
    }

    /// The dict, where it is one.
    pub fn as_dict(&self) -> Option<&Arc<Dict>> {
        match self {
            Self::Dict(d) => Some(d),
            _ => None,
        }
    }

    /// What kind of value it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Bool(_) => "a bool",
            Self::Int(_) => "an int",
            Self::Float(_) => "a float",
            Self::Str(_) => "a string",
            Self::Bytes(_) => "bytes",
            Self::Tensor(_) => "a tensor",
            Self::Tuple(_) => "a tuple",
            Self::List(_) => "a list",
            Self::Dict(_) => "a dict",
            Self::Object(_) => "an object",
        }
    }
}

/// A list with the type tag that `restore_type_tag` gave it.
#[derive(Debug, Clone, PartialEq)]
pub struct List {
    /// The items in order.
    pub items: Vec<Value>,
    /// For example `List[Tensor]`.
    pub type_tag: Option<Arc<str>>,
}

/// A dict in written order, with the type tag that `restore_type_tag` gave it. String keys differ.
#[derive(Debug, Clone, PartialEq)]
pub struct Dict {
    /// Keys and values in written order.
    pub entries: Vec<(Value, Value)>,
    /// For example `Dict[str, Tensor]`.
    pub type_tag: Option<Arc<str>>,
}

impl Dict {
    /// The value of a string key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.entries.iter().find(|(k, _)| k.as_str() == Some(key)).map(|(_, v)| v)
    }
}

/// An object: its dotted class name and its state.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// For example `__torch__.C`.
    pub class: Arc<str>,
    /// A [`Value::Dict`] of attributes for modules; anything else for custom classes (the robot
    /// model's state is its URDF text).
    pub state: Value,
}

impl Object {
    /// An attribute of a module.
    pub fn attribute(&self, name: &str) -> Option<&Value> {
        self.state.as_dict()?.get(name)
    }
}
