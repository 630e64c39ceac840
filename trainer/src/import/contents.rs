//! What lies in a file of PyTorch or NumPy: tensors and numbers by their dotted path.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use tenon_pickle::{MAX_FILE_BYTES, TensorValue, Value, read_file};

use crate::error::TrainError;

/// Most values of one file. Checkpoints have some hundred; a damaged file can name one value very often.
const MAX_VALUES: usize = 100_000;
/// Longest dotted path, bytes.
const MAX_PATH_BYTES: usize = 1024;

/// A file, read whole.
#[derive(Debug, Clone)]
pub struct Contents {
    path: PathBuf,
    root: Value,
    bytes: usize,
}

/// A tensor of a file, described.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Dotted path, e.g. `ema.network.time_embedding.1.weight`.
    pub name: String,
    /// Element type by PyTorch's name, e.g. `float32`.
    #[serde(rename = "type")]
    pub element_type: &'static str,
    pub shape: Vec<usize>,
}

/// A single number of a file.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Number {
    Bool(bool),
    Int(i64),
    Float(f64),
}

/// Tensors with their paths, in the order of the file.
pub(super) type Tensors = Vec<(String, Arc<TensorValue>)>;

impl Contents {
    /// Reads a file of `torch.save` or a pickle with NumPy arrays. Nothing in it is executed.
    ///
    /// # Errors
    /// [`TrainError::File`] with the place in the file, for damaged files and for those that name what is not allowed.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let bytes = read_bounded(path)?;
        let root = read_file(&bytes).map_err(|e| TrainError::file(path, e))?;
        let contents = Self { path: path.to_owned(), root, bytes: bytes.len() };
        // Whoever asks later finds it within the bounds.
        contents.flatten(&contents.root)?;
        Ok(contents)
    }

    /// Where it was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the file.
    pub fn file_bytes(&self) -> usize {
        self.bytes
    }

    /// The outermost value.
    pub(super) fn root(&self) -> &Value {
        &self.root
    }

    /// Every tensor, described, in the order of the file.
    pub fn entries(&self) -> Result<Vec<Entry>, TrainError> {
        let (tensors, _) = self.flatten(&self.root)?;
        let entry = |(name, tensor): (String, Arc<TensorValue>)| Entry {
            name,
            element_type: tensor.data_type().name(),
            shape: tensor.shape().to_vec(),
        };
        Ok(tensors.into_iter().map(entry).collect())
    }

    /// Every number that is no tensor, with its path.
    pub fn numbers(&self) -> Result<Vec<(String, Number)>, TrainError> {
        Ok(self.flatten(&self.root)?.1)
    }

    /// Tensors and numbers below `value`, which is a part of this file.
    pub(super) fn flatten(&self, value: &Value) -> Result<(Tensors, Vec<(String, Number)>), TrainError> {
        let mut walk = Walk { tensors: Vec::new(), numbers: Vec::new(), seen: 0 };
        walk.visit(&mut String::new(), value).map_err(|detail| TrainError::file(&self.path, detail))?;
        Ok((walk.tensors, walk.numbers))
    }
}

/// The whole file, unless it is larger than any checkpoint: then nothing of it is kept.
fn read_bounded(path: &Path) -> Result<Vec<u8>, TrainError> {
    let fail = |e: &dyn std::fmt::Display| TrainError::file(path, e);
    let limit = MAX_FILE_BYTES as u64;
    let too_large = || fail(&format!("has more than {limit} bytes; checkpoints up to that size are read"));
    let file = File::open(path).map_err(|e| fail(&e))?;
    let length = file.metadata().map_err(|e| fail(&e))?.len();
    if length > limit {
        return Err(too_large());
    }
    let mut bytes = Vec::with_capacity(length as usize);
    // A device or a growing file has no length to go by.
    file.take(limit + 1).read_to_end(&mut bytes).map_err(|e| fail(&e))?;
    if bytes.len() > MAX_FILE_BYTES { Err(too_large()) } else { Ok(bytes) }
}

struct Walk {
    tensors: Tensors,
    numbers: Vec<(String, Number)>,
    seen: usize,
}

impl Walk {
    /// The recursion is as deep as the values nest, which the reader has bounded.
    fn visit(&mut self, path: &mut String, value: &Value) -> Result<(), String> {
        self.seen += 1;
        if self.seen > MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values; a checkpoint has some hundred"));
        }
        match value {
            Value::Tensor(tensor) => self.tensors.push((path.clone(), tensor.clone())),
            Value::Bool(v) => self.numbers.push((path.clone(), Number::Bool(*v))),
            Value::Int(v) => self.numbers.push((path.clone(), Number::Int(*v))),
            Value::Float(v) => self.numbers.push((path.clone(), Number::Float(*v))),
            Value::Dict(dict) => {
                for (key, value) in &dict.entries {
                    match key {
                        Value::Str(key) => self.below(path, key, value)?,
                        Value::Int(key) => self.below(path, &key.to_string(), value)?,
                        _ => {}
                    }
                }
            }
            Value::List(list) => self.items(path, &list.items)?,
            Value::Tuple(items) => self.items(path, items)?,
            Value::None | Value::Str(_) | Value::Bytes(_) | Value::Object(_) => {}
        }
        Ok(())
    }

    fn items(&mut self, path: &mut String, items: &[Value]) -> Result<(), String> {
        items.iter().enumerate().try_for_each(|(i, item)| self.below(path, &i.to_string(), item))
    }

    fn below(&mut self, path: &mut String, key: &str, value: &Value) -> Result<(), String> {
        let length = path.len();
        if length + 1 + key.len() > MAX_PATH_BYTES {
            return Err(format!("a name of more than {MAX_PATH_BYTES} bytes"));
        }
        if !path.is_empty() {
            path.push('.');
        }
        // Names end up on terminals.
        path.extend(key.chars().map(|c| if c.is_control() { '?' } else { c }));
        self.visit(path, value)?;
        path.truncate(length);
        Ok(())
    }
}
