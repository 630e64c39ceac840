//! The arena in which the reader builds values, and its conversion into a tree.

use std::collections::HashSet;
use std::sync::Arc;

use super::globals::Function;
use crate::{DataType, Dict, FormatError, List, MAX_NAME_BYTES, Object, Value};

/// Index into the arena.
pub type NodeId = usize;

/// One value under construction.
#[derive(Debug, Clone)]
pub enum Node {
    /// A value without parts.
    Leaf(Value),
    Tuple(Vec<NodeId>),
    List {
        items: Vec<NodeId>,
        type_tag: Option<Arc<str>>,
    },
    Dict {
        entries: Vec<(NodeId, NodeId)>,
        type_tag: Option<Arc<str>>,
        /// An `OrderedDict`: it may be given attributes (PyTorch's state dicts have `_metadata`), which are dropped.
        ordered: bool,
    },
    Object {
        class: Arc<str>,
        state: Option<NodeId>,
    },
    Function(Function),
    Class(Arc<str>),
    StorageType(DataType),
    Storage {
        data_type: DataType,
        key: Arc<str>,
        elements: usize,
    },
    /// `numpy.dtype`; `checked` once its state has told the byte order.
    ElementType {
        data_type: DataType,
        checked: bool,
    },
    /// A NumPy array that waits for its state.
    EmptyArray,
}

impl Node {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Leaf(value) => value.kind(),
            Self::Tuple(_) => "a tuple",
            Self::List { .. } => "a list",
            Self::Dict { .. } => "a dict",
            Self::Object { .. } => "an object",
            Self::Function(_) => "a function",
            Self::Class(_) => "a class",
            Self::StorageType(_) => "a storage class",
            Self::Storage { .. } => "a storage",
            Self::ElementType { .. } => "an element type",
            Self::EmptyArray => "an array without content",
        }
    }
}

/// Turns nodes into a tree. What was turned once is kept, so shared parts stay shared and the work is
/// linear in the size of the pickle.
pub struct Tree<'a> {
    nodes: &'a [Node],
    /// Finished values with their heights.
    finished: Vec<Option<(Value, usize)>>,
    /// Offset of STOP, for messages.
    offset: usize,
    max_depth: usize,
}

impl<'a> Tree<'a> {
    pub fn new(nodes: &'a [Node], offset: usize, max_depth: usize) -> Self {
        Self { nodes, finished: vec![None; nodes.len()], offset, max_depth }
    }

    /// The value of a node.
    pub fn value(mut self, root: NodeId) -> Result<Value, FormatError> {
        self.convert(root, 0).map(|(value, _)| value)
    }

    /// The value of a node and its height. `depth` bounds the recursion, which refuses cycles; the
    /// height bounds the finished tree, whose parts may have been finished at a smaller depth.
    fn convert(&mut self, id: NodeId, depth: usize) -> Result<(Value, usize), FormatError> {
        if let Some(done) = &self.finished[id] {
            return Ok(done.clone());
        }
        if depth > self.max_depth {
            return Err(self.too_deep());
        }
        // The nodes outlive this call, so they can be looked at while `part` borrows `self`.
        let nodes: &'a [Node] = self.nodes;
        let mut height = 0;
        let mut part = |id: NodeId| {
            let (value, part_height) = self.convert(id, depth + 1)?;
            height = height.max(part_height + 1);
            Ok::<Value, FormatError>(value)
        };
        let value = match &nodes[id] {
            Node::Leaf(value) => value.clone(),
            Node::Tuple(items) => Value::Tuple(items.iter().map(|&item| part(item)).collect::<Result<Arc<[_]>, _>>()?),
            Node::List { items, type_tag } => Value::List(Arc::new(List {
                items: items.iter().map(|&item| part(item)).collect::<Result<_, _>>()?,
                type_tag: type_tag.clone(),
            })),
            Node::Dict { entries, type_tag, .. } => {
                let entries = entries
                    .iter()
                    .map(|&(key, value)| Ok((part(key)?, part(value)?)))
                    .collect::<Result<Vec<_>, FormatError>>()?;
                self.require_different_names(&entries)?;
                Value::Dict(Arc::new(Dict { entries, type_tag: type_tag.clone() }))
            }
            Node::Object { class, state } => {
                let state = state.map_or(Ok(Value::None), part)?;
                Value::Object(Arc::new(Object { class: class.clone(), state }))
            }
            node @ (Node::Function(_)
            | Node::Class(_)
            | Node::StorageType(_)
            | Node::Storage { .. }
            | Node::ElementType { .. }
            | Node::EmptyArray) => {
                return Err(self.error(format!("{} where a value is wanted", node.kind())));
            }
        };
        if height > self.max_depth {
            return Err(self.too_deep());
        }
        self.finished[id] = Some((value.clone(), height));
        Ok((value, height))
    }

    fn require_different_names(&self, entries: &[(Value, Value)]) -> Result<(), FormatError> {
        let mut names = HashSet::new();
        for name in entries.iter().filter_map(|(key, _)| key.as_str()) {
            if !names.insert(name) {
                let name: String = name.chars().take(MAX_NAME_BYTES).collect();
                return Err(self.error(format!("dict with a second key {name:?}")));
            }
        }
        Ok(())
    }

    fn error(&self, reason: String) -> FormatError {
        FormatError::Pickle { offset: self.offset, reason }
    }

    fn too_deep(&self) -> FormatError {
        FormatError::TooLarge { what: "depth of the pickle", size: self.max_depth + 1, limit: self.max_depth }
    }
}
