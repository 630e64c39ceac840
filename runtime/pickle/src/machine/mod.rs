//! A restricted pickle machine: it builds values and executes nothing (spec `polymetis.md` §6.2).
//!
//! Only the opcodes that build plain values are known, and only the globals of the [`Dialect`]; anything else is an
//! error. Values live in an arena and refer to one another by index, so that the memo can name a container before it is
//! filled; at the end the arena becomes a tree of [`Value`]s, with shared parts shared and cycles refused.

mod globals;
mod node;
mod numpy;
mod stack;
mod tensors;

use std::sync::Arc;

pub use self::globals::Dialect;
use self::globals::Function;
use self::node::{Node, NodeId, Tree};
use crate::{FormatError, Limits, MAX_NAME_BYTES, Value};

/// Where tensor bytes come from: the content of `data/<key>`.
pub trait Storages {
    /// Bytes of a storage.
    ///
    /// # Errors
    /// [`FormatError::MissingEntry`]
    fn storage(&self, key: &str) -> Result<&[u8], FormatError>;
}

/// A pickle that stands alone has no storages beside it.
#[derive(Debug, Clone, Copy)]
pub struct NoStorages;

impl Storages for NoStorages {
    fn storage(&self, key: &str) -> Result<&[u8], FormatError> {
        Err(FormatError::MissingEntry { entry: format!("data/{key}, as a pickle by itself has none") })
    }
}

/// Reads a pickle into a tree. The second value lists the TorchScript classes it constructs.
///
/// # Errors
/// [`FormatError::Pickle`], [`FormatError::Global`], [`FormatError::ShortStorage`], [`FormatError::TooLarge`] and
/// whatever `storages` answers.
pub fn read(
    pickle: &[u8],
    storages: &dyn Storages,
    dialect: Dialect,
    limits: &Limits,
) -> Result<(Value, Vec<Arc<str>>), FormatError> {
    let mut machine = Machine {
        pickle,
        position: 0,
        opcode_at: 0,
        nodes: Vec::new(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: Vec::new(),
        classes: Vec::new(),
        made_bytes: 0,
        storages,
        dialect,
        limits,
    };
    let root = machine.run()?;
    let value = Tree::new(&machine.nodes, machine.opcode_at, limits.depth).value(root)?;
    Ok((value, machine.classes))
}

/// Most arguments that any of the known functions takes.
const MAX_ARGUMENTS: usize = 8;

struct Machine<'a> {
    pickle: &'a [u8],
    position: usize,
    /// Offset of the opcode being executed, for messages.
    opcode_at: usize,
    nodes: Vec<Node>,
    stack: Vec<NodeId>,
    /// Stack heights at each open MARK.
    marks: Vec<usize>,
    memo: Vec<NodeId>,
    classes: Vec<Arc<str>>,
    /// Bytes of all tensors, arrays and encoded texts made so far.
    made_bytes: usize,
    storages: &'a dyn Storages,
    dialect: Dialect,
    limits: &'a Limits,
}

impl Machine<'_> {
    /// Executes opcodes until STOP; the one value left is the root.
    fn run(&mut self) -> Result<NodeId, FormatError> {
        for _ in 0..self.limits.opcodes {
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
        Err(FormatError::TooLarge {
            what: "number of pickle opcodes",
            size: self.limits.opcodes + 1,
            limit: self.limits.opcodes,
        })
    }

    fn step(&mut self, opcode: u8) -> Result<(), FormatError> {
        match opcode {
            0x80 => {
                let [version] = self.take::<1>()?;
                let known = self.dialect.protocol();
                if version > known {
                    return Err(self.error(format!("protocol {version}, known is up to {known}")));
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
            b'}' => self.push(Node::Dict { entries: Vec::new(), type_tag: None, ordered: false }),
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
            _ if self.dialect.protocol() > 2 => self.newer_step(opcode)?,
            _ => return Err(self.unknown_opcode(opcode)),
        }
        Ok(())
    }

    /// Opcodes of protocols 3 to 5. Buffers that lie outside the pickle, sets and objects are not among them.
    fn newer_step(&mut self, opcode: u8) -> Result<(), FormatError> {
        match opcode {
            0x8c => {
                let [length] = self.take::<1>()?;
                let text = self.text(length.into())?;
                self.push_leaf(Value::Str(text));
            }
            0x8d => {
                let length = self.long_length()?;
                let text = self.text(length)?;
                self.push_leaf(Value::Str(text));
            }
            b'C' => {
                let [length] = self.take::<1>()?;
                self.push_bytes(length.into())?;
            }
            b'B' => {
                let length = u32::from_le_bytes(self.take()?);
                self.push_bytes(length as usize)?;
            }
            // BINBYTES8, BYTEARRAY8
            0x8e | 0x96 => {
                let length = self.long_length()?;
                self.push_bytes(length)?;
            }
            // FRAME: how much to read ahead, which matters to streams only.
            0x95 => {
                self.take::<8>()?;
            }
            // MEMOIZE
            0x94 => self.memo_put(self.memo.len())?,
            // STACK_GLOBAL
            0x93 => {
                let name = self.pop()?;
                let module = self.pop()?;
                let (module, name) = (self.str(module, "module")?, self.str(name, "name")?);
                if module.len().max(name.len()) > MAX_NAME_BYTES {
                    return Err(self.error(format!("a global's name of more than {MAX_NAME_BYTES} bytes")));
                }
                self.push_global(&module, &name)?;
            }
            _ => return Err(self.unknown_opcode(opcode)),
        }
        Ok(())
    }

    fn unknown_opcode(&self, opcode: u8) -> FormatError {
        let known = self.dialect.protocol();
        self.error(format!("opcode {opcode:#04x} is not one that plain values of protocol 2 to {known} need"))
    }

    fn long(&mut self) -> Result<(), FormatError> {
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

    fn global(&mut self) -> Result<(), FormatError> {
        let module = self.line()?;
        let name = self.line()?;
        self.push_global(&module, &name)
    }

    fn push_global(&mut self, module: &str, name: &str) -> Result<(), FormatError> {
        let Some(node) = self.dialect.global(module, name) else {
            let name = format!("{module}.{name}").escape_debug().to_string();
            return Err(FormatError::Global { offset: self.opcode_at, name });
        };
        self.push(node);
        Ok(())
    }

    fn reduce(&mut self) -> Result<(), FormatError> {
        let arguments = self.pop()?;
        let arguments = self.tuple(arguments, "arguments")?;
        let function = self.pop()?;
        let Node::Function(function) = self.nodes[function] else {
            let kind = self.nodes[function].kind();
            return Err(self.error(format!("REDUCE of {kind}, which cannot be called")));
        };
        match (function, arguments.as_slice()) {
            (Function::OrderedDict, []) => {
                self.push(Node::Dict { entries: Vec::new(), type_tag: None, ordered: true });
                Ok(())
            }
            (Function::RestoreTypeTag, &[container, tag]) => self.restore_type_tag(container, tag),
            (Function::RebuildTensor, &[storage, offset, size, stride, requires_grad, hooks]) => {
                self.check_flag_and_hooks(requires_grad, hooks)?;
                self.tensor(storage, offset, size, stride)
            }
            (Function::RebuildParameter, &[tensor, requires_grad, hooks]) => {
                self.check_flag_and_hooks(requires_grad, hooks)?;
                if !matches!(self.nodes[tensor], Node::Leaf(Value::Tensor(_))) {
                    return Err(self.error(format!("parameter made of {}", self.nodes[tensor].kind())));
                }
                self.stack.push(tensor);
                Ok(())
            }
            (Function::Size, &[sizes]) => {
                self.sizes(sizes, "torch.Size")?;
                self.stack.push(sizes);
                Ok(())
            }
            (Function::Encode, &[text, encoding]) => self.encode(text, encoding),
            (Function::Bytes, []) => self.push_bytes(0),
            (Function::ElementType, &[name, _align, _copy]) => self.element_type(name),
            (Function::Reconstruct, &[class, _shape, _type]) => self.empty_array(class),
            (Function::FromBuffer, &[bytes, element, shape, order]) => {
                self.array_of_buffer(bytes, element, shape, order)
            }
            (Function::Scalar, &[element, bytes]) => self.scalar(element, bytes),
            _ => Err(self.error(format!("{function:?} with {} arguments", arguments.len()))),
        }
    }

    fn restore_type_tag(&mut self, container: NodeId, tag: NodeId) -> Result<(), FormatError> {
        let tag = self.str(tag, "type tag")?;
        match &mut self.nodes[container] {
            Node::Dict { type_tag, .. } | Node::List { type_tag, .. } => *type_tag = Some(tag),
            other => {
                let kind = other.kind();
                return Err(self.error(format!("type tag on {kind}")));
            }
        }
        self.stack.push(container);
        Ok(())
    }

    fn new_object(&mut self) -> Result<(), FormatError> {
        let arguments = self.pop()?;
        let class = self.pop()?;
        if !self.tuple(arguments, "arguments")?.is_empty() {
            return Err(self.error("NEWOBJ with arguments"));
        }
        let Node::Class(class) = self.nodes[class].clone() else {
            return Err(self.error(format!("NEWOBJ of {}", self.nodes[class].kind())));
        };
        if !self.classes.contains(&class) {
            let limit = self.limits.classes;
            if self.classes.len() == limit {
                return Err(FormatError::TooLarge { what: "number of classes in the pickle", size: limit + 1, limit });
            }
            self.classes.push(class.clone());
        }
        self.push(Node::Object { class, state: None });
        Ok(())
    }

    fn build(&mut self) -> Result<(), FormatError> {
        let new_state = self.pop()?;
        let target = self.top()?;
        match &mut self.nodes[target] {
            Node::Object { state: state @ None, .. } => {
                *state = Some(new_state);
                Ok(())
            }
            Node::Object { .. } => Err(self.error("BUILD of an object that has its state")),
            Node::Dict { ordered: true, .. } if self.dialect == Dialect::Data => match self.nodes[new_state] {
                Node::Dict { .. } => Ok(()),
                _ => Err(self.error("attributes of an OrderedDict that are no dict")),
            },
            Node::ElementType { checked: false, .. } => self.check_element_type(target, new_state),
            Node::EmptyArray => self.fill_array(target, new_state),
            other => {
                let kind = other.kind();
                Err(self.error(format!("BUILD of {kind}")))
            }
        }
    }

    fn extend_list(&mut self, new: &[NodeId]) -> Result<(), FormatError> {
        let target = self.top()?;
        let Node::List { items, .. } = &mut self.nodes[target] else {
            return Err(self.error("APPENDS on something that is not a list"));
        };
        items.extend_from_slice(new);
        Ok(())
    }

    fn extend_dict(&mut self, new: &[NodeId]) -> Result<(), FormatError> {
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
}

#[cfg(test)]
mod data_tests;
#[cfg(test)]
mod tests;
