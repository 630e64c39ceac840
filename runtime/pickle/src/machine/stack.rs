//! Memo, stack and input of the machine.

use std::sync::Arc;

use super::node::{Node, NodeId};
use super::{MAX_ARGUMENTS, Machine};
use crate::{FormatError, MAX_NAME_BYTES, MAX_RANK, Value};

impl Machine<'_> {
    /// Writers number from 0 upwards, so an index that leaves some out means damage, not a large memo.
    pub(super) fn memo_put(&mut self, index: usize) -> Result<(), FormatError> {
        let value = self.top()?;
        let entries = self.memo.len();
        match self.memo.get_mut(index) {
            Some(entry) => *entry = value,
            None if index == entries => self.memo.push(value),
            None => return Err(self.error(format!("memo index {index} after {entries} entries"))),
        }
        Ok(())
    }

    pub(super) fn memo_get(&mut self, index: usize) -> Result<(), FormatError> {
        let Some(&value) = self.memo.get(index) else {
            return Err(self.error(format!("memo has no entry {index}")));
        };
        self.stack.push(value);
        Ok(())
    }

    pub(super) fn push(&mut self, node: Node) {
        self.nodes.push(node);
        self.stack.push(self.nodes.len() - 1);
    }

    pub(super) fn push_leaf(&mut self, value: Value) {
        self.push(Node::Leaf(value));
    }

    /// Height below which the innermost open MARK forbids to pop.
    pub(super) fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    pub(super) fn top(&self) -> Result<NodeId, FormatError> {
        match self.stack.last() {
            Some(&id) if self.stack.len() > self.floor() => Ok(id),
            _ => Err(self.error("the stack is empty")),
        }
    }

    pub(super) fn pop(&mut self) -> Result<NodeId, FormatError> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    pub(super) fn pop_to_mark(&mut self) -> Result<Vec<NodeId>, FormatError> {
        let Some(mark) = self.marks.pop() else {
            return Err(self.error("there is no MARK"));
        };
        // No opcode pops below an open mark, so the stack is at least this high.
        Ok(self.stack.split_off(mark))
    }

    pub(super) fn tuple(&self, id: NodeId, what: &str) -> Result<Vec<NodeId>, FormatError> {
        match &self.nodes[id] {
            // Bounded, as a tuple that is named often would be copied often.
            Node::Tuple(items) if items.len() <= MAX_ARGUMENTS => Ok(items.clone()),
            Node::Tuple(items) => Err(self.error(format!("{what}: a tuple of {} parts", items.len()))),
            other => Err(self.error(format!("{what}: {} where a tuple is wanted", other.kind()))),
        }
    }

    pub(super) fn str(&self, id: NodeId, what: &str) -> Result<Arc<str>, FormatError> {
        match &self.nodes[id] {
            Node::Leaf(Value::Str(text)) => Ok(text.clone()),
            other => Err(self.error(format!("{what}: {} where a string is wanted", other.kind()))),
        }
    }

    pub(super) fn size(&self, id: NodeId, what: &str) -> Result<usize, FormatError> {
        match self.nodes[id] {
            Node::Leaf(Value::Int(value)) => {
                usize::try_from(value).map_err(|_| self.error(format!("{what} {value} must not be negative")))
            }
            ref other => Err(self.error(format!("{what}: {} where an int is wanted", other.kind()))),
        }
    }

    pub(super) fn sizes(&self, id: NodeId, what: &str) -> Result<Vec<usize>, FormatError> {
        let items = self.tuple(id, what)?;
        if items.len() > MAX_RANK {
            return Err(FormatError::TooLarge { what: "rank of a tensor", size: items.len(), limit: MAX_RANK });
        }
        items.into_iter().map(|item| self.size(item, what)).collect()
    }

    /// A bytes-like value.
    pub(super) fn buffer(&self, id: NodeId, what: &str) -> Result<Arc<[u8]>, FormatError> {
        match &self.nodes[id] {
            Node::Leaf(Value::Bytes(bytes)) => Ok(bytes.clone()),
            other => Err(self.error(format!("{what}: {} where bytes are wanted", other.kind()))),
        }
    }

    /// Counts bytes that are made and not read: they must stay in proportion to the file.
    pub(super) fn spend(&mut self, bytes: usize) -> Result<(), FormatError> {
        self.made_bytes = self.made_bytes.saturating_add(bytes);
        if self.made_bytes > self.limits.unpacked_bytes {
            return Err(FormatError::TooLarge {
                what: "values of the pickle together",
                size: self.made_bytes,
                limit: self.limits.unpacked_bytes,
            });
        }
        Ok(())
    }

    pub(super) fn push_bytes(&mut self, length: usize) -> Result<(), FormatError> {
        let bytes = Value::Bytes(self.bytes(length)?.into());
        self.push_leaf(bytes);
        Ok(())
    }

    /// An 8-byte length.
    pub(super) fn long_length(&mut self) -> Result<usize, FormatError> {
        let length = u64::from_le_bytes(self.take()?);
        // What does not fit is longer than any pickle.
        Ok(usize::try_from(length).unwrap_or(usize::MAX))
    }

    pub(super) fn bytes(&mut self, length: usize) -> Result<&[u8], FormatError> {
        let rest = &self.pickle[self.position..];
        let Some(bytes) = rest.get(..length) else {
            return Err(self.error("the pickle ends inside an opcode"));
        };
        self.position += length;
        Ok(bytes)
    }

    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    pub(super) fn text(&mut self, length: usize) -> Result<Arc<str>, FormatError> {
        let opcode_at = self.opcode_at;
        std::str::from_utf8(self.bytes(length)?)
            .map(Arc::from)
            .map_err(|_| FormatError::Pickle { offset: opcode_at, reason: "a string is not UTF-8".into() })
    }

    /// Text up to a newline, without it.
    pub(super) fn line(&mut self) -> Result<String, FormatError> {
        let rest = &self.pickle[self.position..];
        let Some(length) = rest.iter().take(MAX_NAME_BYTES + 1).position(|&b| b == b'\n') else {
            return Err(self.error(format!("a global's name does not end within {MAX_NAME_BYTES} bytes")));
        };
        let line = self.text(length)?.to_string();
        self.position += 1;
        Ok(line)
    }

    pub(super) fn error(&self, reason: impl Into<String>) -> FormatError {
        FormatError::Pickle { offset: self.opcode_at, reason: reason.into() }
    }
}
