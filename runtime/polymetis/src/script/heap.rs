//! Values and tensors of a running script.
//!
//! Everything lives in slabs and is named by an index, so a value is a few plain words, two names of one tensor share
//! their elements as in PyTorch, and copying the slabs copies a whole module with its sharing. After each call
//! [`Heap::sweep`] takes back what no module reaches; buffers keep their memory, so a control step allocates nothing
//! once it has run.
//!
//! Elements are `f64`, rounded to the tensor's type after every operation. For + − × ÷ √ in single precision that is
//! the single-precision result, exactly; integers are exact up to 2⁵³.

mod tensors;
mod value;

use std::collections::HashMap;
use std::sync::Arc;

use super::MAX_CONTAINERS;

pub use value::{Kind, RANK, Tensor, Value, shape_text};

/// A buffer no larger than this is kept for the next call.
const KEPT_ELEMENTS: usize = 4096;

/// Why an operation failed.
pub type Fault = String;
pub type Outcome<T> = Result<T, Fault>;
#[derive(Debug, Clone)]
struct Storage {
    kind: Kind,
    data: Vec<f64>,
    live: bool,
    marked: bool,
}

#[derive(Debug, Clone)]
struct Container {
    /// Values; keys and values in turn for a dict.
    items: Vec<Value>,
    /// A dict that TorchScript takes for `Dict[str, Tensor]`.
    of_tensors: bool,
    live: bool,
    marked: bool,
}

/// A module object.
#[derive(Debug, Clone)]
pub struct Module {
    /// Index of its class in the code.
    pub class: usize,
    pub attributes: Vec<Value>,
}

/// All values of a loaded script.
#[derive(Debug, Clone, Default)]
pub struct Heap {
    storages: Vec<Storage>,
    free_storages: Vec<u32>,
    containers: Vec<Container>,
    free_containers: Vec<u32>,
    pub modules: Vec<Module>,
    texts: Vec<Arc<str>>,
    text_ids: HashMap<Arc<str>, u32>,
    elements: usize,
    /// Locals of the calls in progress.
    pub stack: Vec<Value>,
    marking: Vec<Value>,
    left: Vec<f64>,
    right: Vec<f64>,
    third: Vec<f64>,
}

impl Heap {
    // Texts

    pub fn intern(&mut self, text: &str) -> u32 {
        if let Some(&id) = self.text_ids.get(text) {
            return id;
        }
        let id = self.texts.len() as u32;
        let text: Arc<str> = text.into();
        self.texts.push(text.clone());
        self.text_ids.insert(text, id);
        id
    }

    /// How many texts there are; they are never forgotten.
    pub fn texts(&self) -> usize {
        self.texts.len()
    }

    pub fn text(&self, id: u32) -> &Arc<str> {
        &self.texts[id as usize]
    }

    // Containers

    fn container(&mut self) -> Outcome<u32> {
        if let Some(id) = self.free_containers.pop() {
            self.containers[id as usize].live = true;
            return Ok(id);
        }
        if self.containers.len() >= MAX_CONTAINERS {
            return Err(format!("more than {MAX_CONTAINERS} lists and dicts"));
        }
        self.containers.push(Container { items: Vec::new(), of_tensors: false, live: true, marked: false });
        Ok((self.containers.len() - 1) as u32)
    }

    pub fn list(&mut self, items: &[Value]) -> Outcome<Value> {
        let id = self.container()?;
        self.items_mut(id).extend_from_slice(items);
        Ok(Value::List(id))
    }

    pub fn tuple(&mut self, items: &[Value]) -> Outcome<Value> {
        let id = self.container()?;
        self.items_mut(id).extend_from_slice(items);
        Ok(Value::Tuple(id))
    }

    /// An empty dict; `of_tensors` as in [`Heap::is_of_tensors`].
    pub fn dict(&mut self, of_tensors: bool) -> Outcome<u32> {
        let id = self.container()?;
        self.containers[id as usize].of_tensors = of_tensors;
        Ok(id)
    }

    /// Whether a dict is `Dict[str, Tensor]` for the type checks of the real thing.
    pub fn is_of_tensors(&self, dict: u32) -> bool {
        self.containers[dict as usize].of_tensors
    }

    pub fn items(&self, id: u32) -> &[Value] {
        &self.containers[id as usize].items
    }

    pub fn items_mut(&mut self, id: u32) -> &mut Vec<Value> {
        &mut self.containers[id as usize].items
    }

    fn dict_place(&self, dict: u32, key: Value) -> Option<usize> {
        self.items(dict).iter().step_by(2).position(|k| *k == key).map(|entry| 2 * entry + 1)
    }

    pub fn dict_get(&self, dict: u32, key: Value) -> Option<Value> {
        self.dict_place(dict, key).map(|at| self.items(dict)[at])
    }

    pub fn dict_set(&mut self, dict: u32, key: Value, value: Value) -> Outcome<()> {
        match self.dict_place(dict, key) {
            Some(at) => self.items_mut(dict)[at] = value,
            None => self.append(dict, &[key, value])?,
        }
        Ok(())
    }

    /// Puts values at the end of a container.
    pub fn append(&mut self, container: u32, values: &[Value]) -> Outcome<()> {
        if self.items(container).len() + values.len() > MAX_CONTAINERS {
            return Err(format!("a list or dict of more than {MAX_CONTAINERS} items"));
        }
        self.items_mut(container).extend_from_slice(values);
        Ok(())
    }

    // Taking back

    /// Frees what no module reaches.
    pub fn sweep(&mut self) {
        self.stack.clear();
        self.marking.clear();
        for module in &self.modules {
            self.marking.extend_from_slice(&module.attributes);
        }
        while let Some(value) = self.marking.pop() {
            match value {
                Value::Tensor(tensor) => self.storages[tensor.storage as usize].marked = true,
                Value::List(id) | Value::Tuple(id) | Value::Dict(id) => {
                    let container = &mut self.containers[id as usize];
                    if !container.marked {
                        container.marked = true;
                        self.marking.extend_from_slice(&container.items);
                    }
                }
                _ => {}
            }
        }
        self.elements = 0;
        for storage in &mut self.storages {
            storage.live = storage.marked;
            storage.marked = false;
            if storage.live {
                self.elements += storage.data.len();
            } else if storage.data.capacity() > KEPT_ELEMENTS {
                storage.data = Vec::new();
            }
        }
        // Backwards, so that the lowest is taken first again: the same call finds the same buffers.
        self.free_storages.clear();
        self.free_storages.extend((0..self.storages.len() as u32).rev().filter(|&id| !self.storages[id as usize].live));
        for container in &mut self.containers {
            container.live = container.marked;
            container.marked = false;
            if !container.live {
                container.items.clear();
            }
        }
        self.free_containers.clear();
        self.free_containers
            .extend((0..self.containers.len() as u32).rev().filter(|&id| !self.containers[id as usize].live));
    }
}
