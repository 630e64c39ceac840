//! The lists of what a pickle may name.

use super::node::Node;
use crate::DataType;

/// Which globals and opcodes a pickle may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// TorchScript archives: modules of `__torch__`, tensors on the CPU, type tags; protocol 2 (spec `polymetis.md` §6.2).
    TorchScript,
    /// Checkpoints and statistics: tensors from any device, ordered dicts, NumPy arrays; protocols 2 to 5.
    Data,
}

/// What a pickle may call. Each is carried out here, never in Python.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// `torch._utils._rebuild_tensor_v2`
    RebuildTensor,
    /// `torch._utils._rebuild_parameter`
    RebuildParameter,
    /// `torch.Size`
    Size,
    /// `collections.OrderedDict`, without arguments
    OrderedDict,
    /// `torch.jit._pickle.restore_type_tag`
    RestoreTypeTag,
    /// `numpy.core.multiarray._reconstruct`: an array without content
    Reconstruct,
    /// `numpy.ndarray`, only named, as the first argument of the above
    NdArray,
    /// `numpy.core.numeric._frombuffer`
    FromBuffer,
    /// `numpy.core.multiarray.scalar`
    Scalar,
    /// `numpy.dtype`
    ElementType,
    /// `_codecs.encode`: bytes in protocol 2
    Encode,
    /// `bytes`, without arguments: empty ones in protocol 2
    Bytes,
}

impl Dialect {
    /// Newest protocol of the dialect.
    pub(super) fn protocol(self) -> u8 {
        match self {
            Self::TorchScript => 2,
            Self::Data => 5,
        }
    }

    /// The node of a global; `None` for what is not on the list.
    pub(super) fn global(self, module: &str, name: &str) -> Option<Node> {
        if module == "torch"
            && let Some(data_type) = DataType::from_storage_name(name)
        {
            return Some(Node::StorageType(data_type)).filter(|_| self.stores(data_type));
        }
        match self {
            Self::TorchScript => torch_script(module, name),
            Self::Data => data(module, name).map(Node::Function),
        }
    }

    fn stores(self, data_type: DataType) -> bool {
        use DataType::{Bool, F32, F64, I32, I64};
        self == Self::Data || matches!(data_type, F32 | F64 | I32 | I64 | Bool)
    }
}

fn torch_script(module: &str, name: &str) -> Option<Node> {
    match (module, name) {
        ("torch._utils", "_rebuild_tensor_v2") => Some(Node::Function(Function::RebuildTensor)),
        ("collections", "OrderedDict") => Some(Node::Function(Function::OrderedDict)),
        ("torch.jit._pickle", "restore_type_tag") => Some(Node::Function(Function::RestoreTypeTag)),
        (m, _) if m == "__torch__" || m.starts_with("__torch__.") => {
            Some(Node::Class(format!("{module}.{name}").into()))
        }
        _ => None,
    }
}

fn data(module: &str, name: &str) -> Option<Function> {
    Some(match (module, name) {
        ("torch._utils", "_rebuild_tensor_v2") => Function::RebuildTensor,
        ("torch._utils", "_rebuild_parameter") => Function::RebuildParameter,
        ("torch", "Size") => Function::Size,
        ("collections", "OrderedDict") => Function::OrderedDict,
        // NumPy 2 renamed `numpy.core`; its files name the new place.
        ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => Function::Reconstruct,
        ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar") => Function::Scalar,
        ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer") => Function::FromBuffer,
        ("numpy", "ndarray") => Function::NdArray,
        ("numpy", "dtype") => Function::ElementType,
        ("_codecs", "encode") => Function::Encode,
        // Protocol 2 calls the module by its name in Python 2.
        ("__builtin__" | "builtins", "bytes") => Function::Bytes,
        _ => return None,
    })
}
