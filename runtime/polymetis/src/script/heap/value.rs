//! What a script computes with: types of elements, views of tensors, values.

use super::Outcome;

/// Most dimensions of a tensor.
pub const RANK: usize = 4;

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Bool,
    I32,
    I64,
    F32,
    F64,
}

impl Kind {
    /// Rounds to what the type can hold.
    pub fn round(self, x: f64) -> f64 {
        match self {
            Self::Bool => f64::from(u8::from(x != 0.0)),
            Self::I32 | Self::I64 => x.trunc(),
            Self::F32 => f64::from(x as f32),
            Self::F64 => x,
        }
    }

    pub fn is_float(self) -> bool {
        self >= Self::F32
    }

    /// Bool, integer or float: what decides a promotion.
    pub(super) fn category(self) -> u8 {
        match self {
            Self::Bool => 0,
            Self::I32 | Self::I64 => 1,
            Self::F32 | Self::F64 => 2,
        }
    }

    /// The number that stands for the type in serialised text.
    pub fn of_number(number: i64) -> Outcome<Self> {
        Ok(match number {
            3 => Self::I32,
            4 => Self::I64,
            6 => Self::F32,
            7 => Self::F64,
            11 => Self::Bool,
            other => return Err(format!("dtype {other} is not known here")),
        })
    }

    pub fn number(self) -> i64 {
        match self {
            Self::I32 => 3,
            Self::I64 => 4,
            Self::F32 => 6,
            Self::F64 => 7,
            Self::Bool => 11,
        }
    }
}

/// A tensor: a view into a storage. Strides in elements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tensor {
    pub storage: u32,
    pub offset: u32,
    pub rank: u8,
    pub sizes: [u32; RANK],
    pub strides: [u32; RANK],
}

impl Tensor {
    pub fn sizes(&self) -> &[u32] {
        &self.sizes[..usize::from(self.rank)]
    }

    pub fn strides(&self) -> &[u32] {
        &self.strides[..usize::from(self.rank)]
    }

    pub fn rank(&self) -> usize {
        usize::from(self.rank)
    }

    pub fn len(&self) -> usize {
        self.sizes().iter().map(|&n| n as usize).product()
    }

    /// Whether its elements lie one after the other in C order.
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        for (&size, &stride) in self.sizes().iter().zip(self.strides()).rev() {
            if size != 1 && stride != expected {
                return false;
            }
            expected *= size.max(1);
        }
        true
    }

    /// A dimension of an operation, counted from the end where negative.
    pub fn dimension(&self, dim: i64) -> Outcome<usize> {
        let rank = self.rank() as i64;
        let at = if dim < 0 { dim + rank } else { dim };
        usize::try_from(at)
            .ok()
            .filter(|&at| at < self.rank())
            .ok_or_else(|| format!("Dimension out of range: {dim} of {rank}"))
    }

    /// Storage index of the element at this place in C order.
    pub fn place(&self, flat: usize) -> usize {
        let (mut rest, mut at) = (flat, self.offset as usize);
        for (&size, &stride) in self.sizes().iter().zip(self.strides()).rev() {
            let size = size as usize;
            at += rest % size * stride as usize;
            rest /= size;
        }
        at
    }
}

/// Shape of a tensor, for messages.
pub fn shape_text(sizes: &[u32]) -> String {
    format!("{sizes:?}")
}

/// Any value. Tensors, lists, dicts, tuples and modules are names of what the heap holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A local before its first assignment, an argument that was not given.
    Absent,
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(u32),
    Tensor(Tensor),
    List(u32),
    Tuple(u32),
    Dict(u32),
    Module(u32),
    /// An object of the server's custom class for robot models.
    RobotModel,
}

impl Value {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Absent => "nothing",
            Self::None => "None",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Text(_) => "str",
            Self::Tensor(_) => "Tensor",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::Module(_) => "module",
            Self::RobotModel => "RobotModelPinocchio",
        }
    }

    pub fn tensor(&self) -> Outcome<Tensor> {
        match self {
            Self::Tensor(tensor) => Ok(*tensor),
            other => Err(format!("a Tensor is wanted, found {}", other.kind())),
        }
    }

    pub fn int(&self) -> Outcome<i64> {
        match self {
            Self::Int(i) => Ok(*i),
            other => Err(format!("an int is wanted, found {}", other.kind())),
        }
    }

    pub fn text(&self) -> Outcome<u32> {
        match self {
            Self::Text(id) => Ok(*id),
            other => Err(format!("a str is wanted, found {}", other.kind())),
        }
    }

    /// A plain number with the type that it has among tensors.
    pub fn number(&self) -> Option<(f64, Kind)> {
        match self {
            Self::Bool(b) => Some((f64::from(u8::from(*b)), Kind::Bool)),
            Self::Int(i) => Some((*i as f64, Kind::I64)),
            Self::Float(x) => Some((*x, Kind::F64)),
            _ => None,
        }
    }
}
