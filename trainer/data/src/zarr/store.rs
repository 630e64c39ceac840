//! The store: where metadata and chunks are, and arrays made of them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::codec::Codec;
use crate::archive::Archive;
use crate::array::Array;
use crate::error::DataError;
use crate::npy::{NumpyType, c_order};

/// Deepest folder that is looked into.
const MAX_DEPTH: usize = 6;
/// Most dimensions of an array, and most bytes of one.
const MAX_RANK: usize = 16;
const MAX_BYTES: usize = 1 << 36;

/// Metadata of an array (`.zarray`).
#[derive(Debug, Clone)]
pub struct ArrayMeta {
    pub shape: Vec<usize>,
    chunks: Vec<usize>,
    kind: Result<NumpyType, String>,
    codec: Result<Codec, String>,
    fortran: bool,
    separator: char,
    fill: f64,
}

impl ArrayMeta {
    fn parse(text: &[u8]) -> Result<Self, String> {
        let json: Value = serde_json::from_slice(text).map_err(|e| format!("its .zarray is no JSON: {e}"))?;
        let format = json.get("zarr_format").and_then(Value::as_u64);
        if format != Some(2) {
            return Err(format!("format {format:?} of Zarr, 2 is read"));
        }
        let sizes = |key: &str| -> Result<Vec<usize>, String> {
            let list = json.get(key).and_then(Value::as_array).ok_or_else(|| format!("its .zarray has no {key}"))?;
            let size = |v: &Value| v.as_u64().and_then(|v| usize::try_from(v).ok());
            list.iter().map(size).collect::<Option<_>>().ok_or_else(|| format!("its .zarray has no whole {key}"))
        };
        let (shape, chunks) = (sizes("shape")?, sizes("chunks")?);
        if shape.len() != chunks.len() || shape.len() > MAX_RANK || chunks.contains(&0) {
            return Err(format!("shape {shape:?} and chunks {chunks:?} do not fit"));
        }
        let kind = match json.get("dtype") {
            Some(Value::String(text)) => NumpyType::parse(text),
            _ => Err("its elements are records, which are not read".into()),
        };
        let codec = match json.get("filters") {
            None | Some(Value::Null) => Codec::of(json.get("compressor").unwrap_or(&Value::Null)),
            Some(Value::Array(filters)) if filters.is_empty() => {
                Codec::of(json.get("compressor").unwrap_or(&Value::Null))
            }
            Some(filters) => Err(format!("its chunks went through filters {filters}, which are not read")),
        };
        let separator = json.get("dimension_separator").and_then(Value::as_str).unwrap_or(".");
        let fill = match json.get("fill_value") {
            Some(Value::Number(n)) => n.as_f64().unwrap_or(0.0),
            Some(Value::String(text)) if text == "NaN" => f64::NAN,
            _ => 0.0,
        };
        Ok(Self {
            shape,
            chunks,
            kind,
            codec,
            fortran: json.get("order").and_then(Value::as_str) == Some("F"),
            separator: if separator == "/" { '/' } else { '.' },
            fill,
        })
    }

    /// Whether its elements and its codec are known; if not, which are not.
    pub fn readable(&self) -> Result<(), String> {
        self.kind.clone()?;
        self.codec.clone().map(drop)
    }
}

enum Place {
    Folder(PathBuf),
    /// The archive, and the folder in it that is the root.
    Zip(Archive, String),
}

/// An open store.
pub struct Store {
    place: Place,
    path: PathBuf,
}

impl Store {
    pub fn open(path: &Path) -> Result<Self, DataError> {
        if !path.is_dir() {
            let archive = Archive::open(path)?;
            let names = archive.names();
            // The root may be a folder of the archive.
            let root = names.iter().filter(|n| n.ends_with(".zgroup")).min_by_key(|n| n.len());
            let root = root.map_or("", |n| n.trim_end_matches(".zgroup")).to_owned();
            return Ok(Self { place: Place::Zip(archive, root), path: path.to_owned() });
        }
        if !path.join(".zgroup").is_file() {
            let detail = "Zarr of format 3, which is not read; write it in format 2 (zarr_format=2)";
            return Err(DataError::file(path, detail));
        }
        Ok(Self { place: Place::Folder(path.to_owned()), path: path.to_owned() })
    }

    /// A file of the store; `None` where there is none.
    fn get(&mut self, key: &str) -> Result<Option<Vec<u8>>, String> {
        match &mut self.place {
            Place::Zip(archive, root) => archive.entry(&format!("{root}{key}")),
            Place::Folder(folder) => match std::fs::read(folder.join(key)) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(format!("{key}: {e}")),
            },
        }
    }

    /// Names and metadata of all arrays.
    pub fn arrays(&mut self) -> Result<BTreeMap<String, ArrayMeta>, DataError> {
        let mut names = Vec::new();
        match &self.place {
            Place::Zip(archive, root) => {
                let entries = archive.names();
                let inside = entries
                    .iter()
                    .filter_map(|n| n.strip_prefix(root.as_str())?.strip_suffix("/.zarray").map(String::from));
                names.extend(inside);
            }
            Place::Folder(folder) => {
                let mut open = vec![(folder.clone(), String::new(), 0)];
                while let Some((folder, prefix, depth)) = open.pop() {
                    for entry in std::fs::read_dir(&folder).map_err(|e| DataError::file(&folder, e))? {
                        let entry = entry.map_err(|e| DataError::file(&folder, e))?;
                        let name = entry.file_name().to_string_lossy().into_owned();
                        if entry.path().join(".zarray").is_file() {
                            names.push(format!("{prefix}{name}"));
                        } else if entry.path().is_dir() && depth < MAX_DEPTH {
                            open.push((entry.path(), format!("{prefix}{name}/"), depth + 1));
                        }
                    }
                }
            }
        }
        let mut arrays = BTreeMap::new();
        for name in names {
            let text = self.get(&format!("{name}/.zarray"));
            let meta = text.and_then(|text| ArrayMeta::parse(&text.unwrap_or_default()));
            let meta = meta.map_err(|e| DataError::file(&self.path, format!("array `{name}`: {e}")))?;
            arrays.insert(name, meta);
        }
        Ok(arrays)
    }

    /// Attributes of the root.
    pub fn attributes(&mut self) -> serde_json::Map<String, Value> {
        let text = self.get(".zattrs").ok().flatten().unwrap_or_default();
        match serde_json::from_slice(&text) {
            Ok(Value::Object(attributes)) => attributes,
            _ => serde_json::Map::new(),
        }
    }

    /// The values of an array, and the first chunk that is not there: such chunks are zeros, which writers may leave out.
    pub fn read(&mut self, name: &str, meta: &ArrayMeta) -> Result<(Array, Option<String>), String> {
        let (kind, codec) = (meta.kind.clone()?, meta.codec.clone()?);
        let element = kind.size();
        let bytes_of =
            |shape: &[usize]| shape.iter().try_fold(element, |n, &d| n.checked_mul(d)).filter(|&n| n <= MAX_BYTES);
        let total = bytes_of(&meta.shape).ok_or("an extent that no memory holds: the store is damaged")?;
        let size = bytes_of(&meta.chunks).ok_or("chunks that no memory holds: the store is damaged")?;
        let mut out: Vec<u8> = Vec::new();
        out.try_reserve_exact(total).map_err(|_| format!("no memory for {total} bytes"))?;
        out.resize(total, 0);
        let counts: Vec<usize> = meta.shape.iter().zip(&meta.chunks).map(|(s, c)| s.div_ceil(*c)).collect();
        let mut index = vec![0; counts.len()];
        let mut absent = None;
        if !counts.contains(&0) {
            loop {
                let numbers: Vec<String> = index.iter().map(usize::to_string).collect();
                let key = if numbers.is_empty() { "0".into() } else { numbers.join(&meta.separator.to_string()) };
                let key = format!("{name}/{key}");
                match self.get(&key)? {
                    Some(packed) => {
                        let chunk = codec.unpack(&packed, size).map_err(|e| format!("chunk {key}: {e}"))?;
                        let chunk = if meta.fortran { c_order(&chunk, &meta.chunks, element) } else { chunk };
                        place(&chunk, &index, meta, element, &mut out);
                    }
                    None => absent = absent.or(Some(key)),
                }
                if !advance(&mut index, &counts) {
                    break;
                }
            }
        }
        if let Some(key) = &absent
            && meta.fill != 0.0
        {
            return Err(format!("chunk {key} is not there, and the fill value {} is not read", meta.fill));
        }
        let shape = if meta.shape.is_empty() { vec![1] } else { meta.shape.clone() };
        Ok((Array::new(shape, kind.values(&out)?)?, absent))
    }
}

/// The next place; `false` behind the last one.
fn advance(index: &mut [usize], counts: &[usize]) -> bool {
    for d in (0..index.len()).rev() {
        index[d] += 1;
        if index[d] < counts[d] {
            return true;
        }
        index[d] = 0;
    }
    false
}

/// Copies a chunk to its place; what hangs over the edge is left out.
fn place(chunk: &[u8], at: &[usize], meta: &ArrayMeta, element: usize, out: &mut [u8]) {
    let rank = meta.shape.len();
    let Some(last) = rank.checked_sub(1) else {
        out.copy_from_slice(&chunk[..out.len()]);
        return;
    };
    let wide = (meta.shape[last] - at[last] * meta.chunks[last]).min(meta.chunks[last]);
    let mut index = vec![0; last];
    let mut row = 0;
    loop {
        let mut to = Some(0usize);
        for d in 0..last {
            let i = at[d] * meta.chunks[d] + index[d];
            to = to.filter(|_| i < meta.shape[d]).map(|t| t * meta.shape[d] + i);
        }
        if let Some(to) = to {
            let to = (to * meta.shape[last] + at[last] * meta.chunks[last]) * element;
            let from = row * meta.chunks[last] * element;
            out[to..to + wide * element].copy_from_slice(&chunk[from..from + wide * element]);
        }
        row += 1;
        if !advance(&mut index, &meta.chunks[..last]) {
            break;
        }
    }
}
