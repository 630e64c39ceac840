//! The arena in which the reader builds values, and its conversion into a tree.

use std::collections::HashSet;
use std::sync::Arc;

use super::MAX_NAME_BYTES;
use crate::archive::tensor::DataType;
use crate::archive::{ArchiveError, Dict, List, MAX_DEPTH, Object, Value};

/// What a pickle may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callable {
    /// `torch._utils._rebuild_tensor_v2`
    RebuildTensor,
    /// `collections.OrderedDict`, without arguments
    OrderedDict,
    /// `torch.jit._pickle.restore_type_tag`
    RestoreTypeTag,
}

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
    },
    Object {
        class: Arc<str>,
        state: Option<NodeId>,
    },
    Callable(Callable),
    Class(Arc<str>),
    StorageType(DataType),
    Storage {
        data_type: DataType,
        key: Arc<str>,
        elements: usize,
    },
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
            Self::Callable(_) => "a function",
            Self::Class(_) => "a class",
            Self::StorageType(_) => "a storage class",
            Self::Storage { .. } => "a storage",
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
}

impl<'a> Tree<'a> {
    pub fn new(nodes: &'a [Node], offset: usize) -> Self {
        Self { nodes, finished: vec![None; nodes.len()], offset }
    }

    /// The value of a node.
    pub fn value(mut self, root: NodeId) -> Result<Value, ArchiveError> {
        self.convert(root, 0).map(|(value, _)| value)
    }

    /// The value of a node and its height. `depth` bounds the recursion, which refuses cycles; the
    /// height bounds the finished tree, whose parts may have been finished at a smaller depth.
    fn convert(&mut self, id: NodeId, depth: usize) -> Result<(Value, usize), ArchiveError> {
        if let Some(done) = &self.finished[id] {
            return Ok(done.clone());
        }
        if depth > MAX_DEPTH {
            return Err(too_deep());
        }
        // The nodes outlive this call, so they can be looked at while `part` borrows `self`.
        let nodes: &'a [Node] = self.nodes;
        let mut height = 0;
        let mut part = |id: NodeId| {
            let (value, part_height) = self.convert(id, depth + 1)?;
            height = height.max(part_height + 1);
            Ok::<Value, ArchiveError>(value)
        };
        let value = match &nodes[id] {
            Node::Leaf(value) => value.clone(),
            Node::Tuple(items) => Value::Tuple(items.iter().map(|&item| part(item)).collect::<Result<Arc<[_]>, _>>()?),
            Node::List { items, type_tag } => Value::List(Arc::new(List {
                items: items.iter().map(|&item| part(item)).collect::<Result<_, _>>()?,
                type_tag: type_tag.clone(),
            })),
            Node::Dict { entries, type_tag } => {
                let entries = entries
                    .iter()
                    .map(|&(key, value)| Ok((part(key)?, part(value)?)))
                    .collect::<Result<Vec<_>, ArchiveError>>()?;
                self.require_different_names(&entries)?;
                Value::Dict(Arc::new(Dict { entries, type_tag: type_tag.clone() }))
            }
            Node::Object { class, state } => {
                let state = state.map_or(Ok(Value::None), part)?;
                Value::Object(Arc::new(Object { class: class.clone(), state }))
            }
            node @ (Node::Callable(_) | Node::Class(_) | Node::StorageType(_) | Node::Storage { .. }) => {
                return Err(self.error(format!("{} where a value is wanted", node.kind())));
            }
        };
        if height > MAX_DEPTH {
            return Err(too_deep());
        }
        self.finished[id] = Some((value.clone(), height));
        Ok((value, height))
    }

    fn require_different_names(&self, entries: &[(Value, Value)]) -> Result<(), ArchiveError> {
        let mut names = HashSet::new();
        for name in entries.iter().filter_map(|(key, _)| key.as_str()) {
            if !names.insert(name) {
                let name: String = name.chars().take(MAX_NAME_BYTES).collect();
                return Err(self.error(format!("dict with a second key {name:?}")));
            }
        }
        Ok(())
    }

    fn error(&self, reason: String) -> ArchiveError {
        ArchiveError::Pickle { offset: self.offset, reason }
    }
}

fn too_deep() -> ArchiveError {
    ArchiveError::TooLarge { what: "depth of the pickle", size: MAX_DEPTH + 1, limit: MAX_DEPTH }
}
