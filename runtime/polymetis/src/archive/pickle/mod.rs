//! A restricted pickle reader: it builds values and executes nothing (spec `polymetis.md` §6.2).
//!
//! Only the opcodes that TorchScript writers use are known, and only the globals of
//! §6; anything else is an error. Values live in an arena and refer to one another by
//! index, so that the memo can name a container before it is filled; at the end the arena becomes a
//! tree of [`Value`]s, with shared parts shared and cycles refused.

pub(super) mod build;
mod node;

use std::sync::Arc;

use self::node::{Callable, Node, NodeId, Tree};
use super::tensor::{DataType, element_count};
use super::{ArchiveError, MAX_CLASSES, MAX_PICKLE_OPS, MAX_TENSOR_RANK, MAX_UNPACKED_BYTES, TensorValue, Value};

/// Where tensor bytes come from: the content of `data/<key>`.
pub trait Storages {
    /// Bytes of a storage.
    ///
    /// # Errors
    /// [`ArchiveError::MissingEntry`]
    fn storage(&self, key: &str) -> Result<&[u8], ArchiveError>;
}

/// Reads a pickle into a tree. The second value lists the classes it constructs.
///
/// # Errors
/// [`ArchiveError::Pickle`], [`ArchiveError::Global`], [`ArchiveError::ShortStorage`],
/// [`ArchiveError::TooLarge`] and whatever `storages` answers.
pub fn read(pickle: &[u8], storages: &dyn Storages) -> Result<(Value, Vec<Arc<str>>), ArchiveError> {
    let mut machine = Machine {
        pickle,
        position: 0,
        opcode_at: 0,
        nodes: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
        classes: Vec::new(),
        tensor_bytes: 0,
        storages,
    };
    let root = machine.run()?;
    let value = Tree::new(&machine.nodes, machine.opcode_at).value(root)?;
    Ok((value, machine.classes))
}

/// Longest part of a global's name and longest storage key: both end up in messages.
const MAX_NAME_BYTES: usize = 512;

struct Machine<'a> {
    pickle: &'a [u8],
    position: usize,
    /// Offset of the opcode being executed, for messages.
    opcode_at: usize,
    nodes: Vec<Node>,
    stack: Vec<NodeId>,
    /// Stack heights at each open MARK.
    marks: Vec<usize>,
    memo: Vec<Option<NodeId>>,
    classes: Vec<Arc<str>>,
    /// Bytes of all tensors made so far.
    tensor_bytes: usize,
    storages: &'a dyn Storages,
}

impl Machine<'_> {
    /// Executes opcodes until STOP; the one value left is the root.
    fn run(&mut self) -> Result<NodeId, ArchiveError> {
        for _ in 0..MAX_PICKLE_OPS {
            self.opcode_at = self.position;
            let [opcode] = self.take::<1>()?;
            if opcode == b'.' {
                let root = self.pop()?;
                if !self.stack.is_empty() || !self.marks.is_empty() {
                    return Err(self.error("STOP with values left on the stack"));
                }
                return Ok(root);
            }
            self.step(opcode)?;
        }
        Err(ArchiveError::TooLarge {
            what: "number of pickle opcodes",
            size: MAX_PICKLE_OPS + 1,
            limit: MAX_PICKLE_OPS,
        })
    }

    fn step(&mut self, opcode: u8) -> Result<(), ArchiveError> {
        match opcode {
            0x80 => {
                let [version] = self.take::<1>()?;
                if version > 2 {
                    return Err(self.error(format!("protocol {version}, known is up to 2")));
                }
            }
            b'N' => self.push_leaf(Value::None),
            0x88 => self.push_leaf(Value::Bool(true)),
            0x89 => self.push_leaf(Value::Bool(false)),
            b'K' => {
                let [value] = self.take::<1>()?;
                self.push_leaf(Value::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(self.take()?);
                self.push_leaf(Value::Int(value.into()));
            }
            b'J' => {
                let value = i32::from_le_bytes(self.take()?);
                self.push_leaf(Value::Int(value.into()));
            }
            0x8a => self.long()?,
            b'G' => {
                let value = f64::from_be_bytes(self.take()?);
                self.push_leaf(Value::Float(value));
            }
            b'X' => {
                let length = u32::from_le_bytes(self.take()?) as usize;
                let text = self.text(length)?;
                self.push_leaf(Value::Str(text));
            }
            b'c' => self.global()?,
            b')' => self.push(Node::Tuple(Vec::new())),
            b'}' => self.push(Node::Dict { entries: Vec::new(), type_tag: None }),
            b']' => self.push(Node::List { items: Vec::new(), type_tag: None }),
            b'(' => self.marks.push(self.stack.len()),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Node::Tuple(items));
            }
            0x85..=0x87 => {
                let mut items = Vec::new();
                for _ in 0..opcode - 0x84 {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push(Node::Tuple(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.extend_list(&[item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.extend_list(&items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.extend_dict(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.extend_dict(&items)?;
            }
            b'q' => {
                let [index] = self.take::<1>()?;
                self.memo_put(index.into())?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.take()?);
                self.memo_put(index as usize)?;
            }
            b'h' => {
                let [index] = self.take::<1>()?;
                self.memo_get(index.into())?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.take()?);
                self.memo_get(index as usize)?;
            }
            b'Q' => self.persistent_id()?,
            b'R' => self.reduce()?,
            0x81 => self.new_object()?,
            b'b' => self.build()?,
            _ => return Err(self.error(format!("opcode {opcode:#04x} is not a known one"))),
        }
        Ok(())
    }

    fn long(&mut self) -> Result<(), ArchiveError> {
        let [length] = self.take::<1>()?;
        let length = usize::from(length);
        if length > 8 {
            return Err(self.error("an integer of more than 64 bits"));
        }
        let bytes = self.bytes(length)?;
        let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
        let mut full = [if negative { 0xff } else { 0 }; 8];
        full[..length].copy_from_slice(bytes);
        self.push_leaf(Value::Int(i64::from_le_bytes(full)));
        Ok(())
    }

    fn global(&mut self) -> Result<(), ArchiveError> {
        let module = self.line()?;
        let name = self.line()?;
        let storage = match module.as_str() {
            "torch" => DataType::from_storage_name(&name),
            _ => None,
        };
        let node = match (module.as_str(), name.as_str()) {
            ("torch._utils", "_rebuild_tensor_v2") => Node::Callable(Callable::RebuildTensor),
            ("collections", "OrderedDict") => Node::Callable(Callable::OrderedDict),
            ("torch.jit._pickle", "restore_type_tag") => Node::Callable(Callable::RestoreTypeTag),
            (m, _) if m == "__torch__" || m.starts_with("__torch__.") => Node::Class(format!("{module}.{name}").into()),
            _ => match storage {
                Some(data_type) => Node::StorageType(data_type),
                None => {
                    return Err(ArchiveError::Global { offset: self.opcode_at, name: format!("{module}.{name}") });
                }
            },
        };
        self.push(node);
        Ok(())
    }

    /// `('storage', <type>, key, 'cpu', elements)` → a storage.
    fn persistent_id(&mut self) -> Result<(), ArchiveError> {
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
        if &*self.str(device, "device")? != "cpu" {
            return Err(self.error("storage that is not on the cpu"));
        }
        let key = self.str(key, "storage key")?;
        if key.len() > MAX_NAME_BYTES {
            return Err(self.error("storage key that is too long to be one"));
        }
        let elements = self.size(elements, "element count")?;
        self.push(Node::Storage { data_type, key, elements });
        Ok(())
    }

    fn reduce(&mut self) -> Result<(), ArchiveError> {
        let arguments = self.pop()?;
        let arguments = self.tuple(arguments, "arguments")?;
        let callable = self.pop()?;
        let Node::Callable(callable) = self.nodes[callable] else {
            let kind = self.nodes[callable].kind();
            return Err(self.error(format!("REDUCE of {kind}, which cannot be called")));
        };
        match (callable, arguments.as_slice()) {
            (Callable::OrderedDict, []) => {
                self.push(Node::Dict { entries: Vec::new(), type_tag: None });
                Ok(())
            }
            (Callable::RestoreTypeTag, &[container, tag]) => {
                let tag = self.str(tag, "type tag")?;
                match &mut self.nodes[container] {
                    Node::Dict { type_tag, .. } | Node::List { type_tag, .. } => {
                        *type_tag = Some(tag);
                    }
                    other => {
                        let kind = other.kind();
                        return Err(self.error(format!("type tag on {kind}")));
                    }
                }
                self.stack.push(container);
                Ok(())
            }
            (Callable::RebuildTensor, &[storage, offset, size, stride, requires_grad, hooks]) => {
                let is_flag = matches!(self.nodes[requires_grad], Node::Leaf(Value::Bool(_)));
                let is_dict = matches!(self.nodes[hooks], Node::Dict { .. });
                if !is_flag || !is_dict {
                    return Err(self.error("tensor whose last two arguments are no bool and dict"));
                }
                self.tensor(storage, offset, size, stride)
            }
            _ => Err(self.error(format!("{callable:?} with {} arguments", arguments.len()))),
        }
    }

    fn tensor(&mut self, storage: NodeId, offset: NodeId, size: NodeId, stride: NodeId) -> Result<(), ArchiveError> {
        let Node::Storage { data_type, key, elements } = self.nodes[storage].clone() else {
            return Err(self.error("tensor without a storage"));
        };
        let offset = self.size(offset, "storage offset")?;
        let shape = self.sizes(size, "size")?;
        let strides = self.sizes(stride, "stride")?;

        let content = self.storages.storage(&key)?;
        let need_bytes = elements.saturating_mul(data_type.size());
        if content.len() < need_bytes {
            return Err(ArchiveError::ShortStorage {
                entry: format!("data/{key}"),
                have_bytes: content.len(),
                need_bytes,
            });
        }
        // Strides of 0 make a large tensor out of a small storage, so the result is bounded too.
        let bytes = element_count(&shape).map_or(usize::MAX, |count| count.saturating_mul(data_type.size()));
        self.tensor_bytes = self.tensor_bytes.saturating_add(bytes);
        if self.tensor_bytes > MAX_UNPACKED_BYTES {
            return Err(ArchiveError::TooLarge {
                what: "tensors of the archive",
                size: self.tensor_bytes,
                limit: MAX_UNPACKED_BYTES,
            });
        }
        let tensor = TensorValue::from_view(content, data_type, elements, offset, shape, &strides)
            .ok_or_else(|| self.error(format!("tensor that leaves its storage data/{key}")))?;
        self.push_leaf(Value::Tensor(Arc::new(tensor)));
        Ok(())
    }

    fn new_object(&mut self) -> Result<(), ArchiveError> {
        let arguments = self.pop()?;
        let class = self.pop()?;
        if !self.tuple(arguments, "arguments")?.is_empty() {
            return Err(self.error("NEWOBJ with arguments"));
        }
        let Node::Class(class) = self.nodes[class].clone() else {
            return Err(self.error(format!("NEWOBJ of {}", self.nodes[class].kind())));
        };
        if !self.classes.contains(&class) {
            if self.classes.len() == MAX_CLASSES {
                return Err(ArchiveError::TooLarge {
                    what: "number of classes in the pickle",
                    size: MAX_CLASSES + 1,
                    limit: MAX_CLASSES,
                });
            }
            self.classes.push(class.clone());
        }
        self.push(Node::Object { class, state: None });
        Ok(())
    }

    fn build(&mut self) -> Result<(), ArchiveError> {
        let new_state = self.pop()?;
        let target = self.top()?;
        match &mut self.nodes[target] {
            Node::Object { state: state @ None, .. } => {
                *state = Some(new_state);
                Ok(())
            }
            Node::Object { .. } => Err(self.error("BUILD of an object that has its state")),
            other => {
                let kind = other.kind();
                Err(self.error(format!("BUILD of {kind}")))
            }
        }
    }

    fn extend_list(&mut self, new: &[NodeId]) -> Result<(), ArchiveError> {
        let target = self.top()?;
        let Node::List { items, .. } = &mut self.nodes[target] else {
            return Err(self.error("APPENDS on something that is not a list"));
        };
        items.extend_from_slice(new);
        Ok(())
    }

    fn extend_dict(&mut self, new: &[NodeId]) -> Result<(), ArchiveError> {
        let target = self.top()?;
        let (pairs, rest) = new.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(self.error("SETITEMS with a key that has no value"));
        }
        let Node::Dict { entries, .. } = &mut self.nodes[target] else {
            return Err(self.error("SETITEMS on something that is not a dict"));
        };
        entries.extend(pairs.iter().map(|&[key, value]| (key, value)));
        Ok(())
    }

    fn memo_put(&mut self, index: usize) -> Result<(), ArchiveError> {
        // Writers number from 0 upwards, so a large index means damage, not a large memo.
        if index > MAX_PICKLE_OPS {
            return Err(self.error(format!("memo index {index}")));
        }
        let value = self.top()?;
        if self.memo.len() <= index {
            self.memo.resize(index + 1, None);
        }
        self.memo[index] = Some(value);
        Ok(())
    }

    fn memo_get(&mut self, index: usize) -> Result<(), ArchiveError> {
        let Some(&Some(value)) = self.memo.get(index) else {
            return Err(self.error(format!("memo has no entry {index}")));
        };
        self.stack.push(value);
        Ok(())
    }

    fn push(&mut self, node: Node) {
        self.nodes.push(node);
        self.stack.push(self.nodes.len() - 1);
    }

    fn push_leaf(&mut self, value: Value) {
        self.push(Node::Leaf(value));
    }

    /// Height below which the innermost open MARK forbids to pop.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn top(&self) -> Result<NodeId, ArchiveError> {
        match self.stack.last() {
            Some(&id) if self.stack.len() > self.floor() => Ok(id),
            _ => Err(self.error("the stack is empty")),
        }
    }

    fn pop(&mut self) -> Result<NodeId, ArchiveError> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<NodeId>, ArchiveError> {
        let Some(mark) = self.marks.pop() else {
            return Err(self.error("there is no MARK"));
        };
        // No opcode pops below an open mark, so the stack is at least this high.
        Ok(self.stack.split_off(mark))
    }

    fn tuple(&self, id: NodeId, what: &str) -> Result<Vec<NodeId>, ArchiveError> {
        match &self.nodes[id] {
            Node::Tuple(items) => Ok(items.clone()),
            other => Err(self.error(format!("{what}: {} where a tuple is wanted", other.kind()))),
        }
    }

    fn str(&self, id: NodeId, what: &str) -> Result<Arc<str>, ArchiveError> {
        match &self.nodes[id] {
            Node::Leaf(Value::Str(text)) => Ok(text.clone()),
            other => Err(self.error(format!("{what}: {} where a string is wanted", other.kind()))),
        }
    }

    fn size(&self, id: NodeId, what: &str) -> Result<usize, ArchiveError> {
        match self.nodes[id] {
            Node::Leaf(Value::Int(value)) => {
                usize::try_from(value).map_err(|_| self.error(format!("{what} {value} must not be negative")))
            }
            ref other => Err(self.error(format!("{what}: {} where an int is wanted", other.kind()))),
        }
    }

    fn sizes(&self, id: NodeId, what: &str) -> Result<Vec<usize>, ArchiveError> {
        let items = self.tuple(id, what)?;
        if items.len() > MAX_TENSOR_RANK {
            return Err(ArchiveError::TooLarge { what: "rank of a tensor", size: items.len(), limit: MAX_TENSOR_RANK });
        }
        items.into_iter().map(|item| self.size(item, what)).collect()
    }

    fn bytes(&mut self, length: usize) -> Result<&[u8], ArchiveError> {
        let rest = &self.pickle[self.position..];
        let Some(bytes) = rest.get(..length) else {
            return Err(self.error("the pickle ends inside an opcode"));
        };
        self.position += length;
        Ok(bytes)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], ArchiveError> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    fn text(&mut self, length: usize) -> Result<Arc<str>, ArchiveError> {
        let opcode_at = self.opcode_at;
        std::str::from_utf8(self.bytes(length)?)
            .map(Arc::from)
            .map_err(|_| ArchiveError::Pickle { offset: opcode_at, reason: "a string is not UTF-8".into() })
    }

    /// Text up to a newline, without it.
    fn line(&mut self) -> Result<String, ArchiveError> {
        let rest = &self.pickle[self.position..];
        let Some(length) = rest.iter().take(MAX_NAME_BYTES + 1).position(|&b| b == b'\n') else {
            return Err(self.error(format!("a global's name does not end within {MAX_NAME_BYTES} bytes")));
        };
        let line = self.text(length)?.to_string();
        self.position += 1;
        Ok(line)
    }

    fn error(&self, reason: impl Into<String>) -> ArchiveError {
        ArchiveError::Pickle { offset: self.opcode_at, reason: reason.into() }
    }
}

#[cfg(test)]
mod tests;
