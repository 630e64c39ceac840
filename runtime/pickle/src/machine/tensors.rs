//! PyTorch's tensors: views into storages that lie beside the pickle.

use std::sync::Arc;

use super::node::{Node, NodeId};
use super::{Dialect, Machine};
use crate::tensor::element_count;
use crate::{FormatError, MAX_NAME_BYTES, TensorValue, Value};

impl Machine<'_> {
    /// `('storage', <type>, key, 'cpu', elements)` → a storage.
    pub(super) fn persistent_id(&mut self) -> Result<(), FormatError> {
        let id = self.pop()?;
        let parts = self.tuple(id, "persistent id")?;
        let &[kind, data_type, key, device, elements] = parts.as_slice() else {
            return Err(self.error(format!("persistent id of {} parts, not 5", parts.len())));
        };
        if &*self.str(kind, "kind of persistent id")? != "storage" {
            return Err(self.error("persistent id that is not a storage"));
        }
        let Node::StorageType(data_type) = self.nodes[data_type] else {
            return Err(self.error("storage without a storage class"));
        };
        // Where a tensor lay does not matter to its values; a TorchScript server would put it there again.
        if &*self.str(device, "device")? != "cpu" && self.dialect == Dialect::TorchScript {
            return Err(self.error("storage that is not on the cpu"));
        }
        let key = self.str(key, "storage key")?;
        if key.len() > MAX_NAME_BYTES || key.contains(char::is_control) {
            return Err(self.error("storage key that cannot be one"));
        }
        let elements = self.size(elements, "element count")?;
        self.push(Node::Storage { data_type, key, elements });
        Ok(())
    }

    /// `requires_grad` and `backward_hooks`, which say nothing about the values.
    pub(super) fn check_flag_and_hooks(&self, requires_grad: NodeId, hooks: NodeId) -> Result<(), FormatError> {
        let is_flag = matches!(self.nodes[requires_grad], Node::Leaf(Value::Bool(_)));
        let is_dict = matches!(self.nodes[hooks], Node::Dict { .. });
        if !is_flag || !is_dict {
            return Err(self.error("tensor whose last two arguments are no bool and dict"));
        }
        Ok(())
    }

    pub(super) fn tensor(
        &mut self,
        storage: NodeId,
        offset: NodeId,
        size: NodeId,
        stride: NodeId,
    ) -> Result<(), FormatError> {
        let Node::Storage { data_type, key, elements } = self.nodes[storage].clone() else {
            return Err(self.error("tensor without a storage"));
        };
        let offset = self.size(offset, "storage offset")?;
        let shape = self.sizes(size, "size")?;
        let strides = self.sizes(stride, "stride")?;

        let content = self.storages.storage(&key)?;
        let need_bytes = elements.saturating_mul(data_type.size());
        if content.len() < need_bytes {
            return Err(FormatError::ShortStorage {
                entry: format!("data/{key}"),
                have_bytes: content.len(),
                need_bytes,
            });
        }
        // Strides of 0 make a large tensor out of a small storage, so the result is bounded too.
        let bytes = element_count(&shape).map_or(usize::MAX, |count| count.saturating_mul(data_type.size()));
        self.spend(bytes)?;
        let tensor = TensorValue::from_view(content, data_type, elements, offset, shape, &strides)
            .ok_or_else(|| self.error(format!("tensor that leaves its storage data/{key}")))?;
        self.push_leaf(Value::Tensor(Arc::new(tensor)));
        Ok(())
    }
}
