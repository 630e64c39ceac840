//! Values and tensors of a running script.
//!
//! Everything lives in slabs and is named by an index, so a value is a few plain words, two names of one tensor share
//! their elements as in PyTorch, and copying the slabs copies a whole module with its sharing. After each call
//! [`Heap::sweep`] takes back what no module reaches; buffers keep their memory, so a control step allocates nothing
//! once it has run.
//!
//! Elements are `f64`, rounded to the tensor's type after every operation. For + − × ÷ √ in single precision that is
//! the single-precision result, exactly; integers are exact up to 2⁵³.

use std::collections::HashMap;
use std::sync::Arc;

use tenon_pickle::{DataType, TensorData, TensorValue};

use super::{MAX_CONTAINERS, MAX_ELEMENTS, MAX_TENSORS};

/// Most dimensions of a tensor.
pub const RANK: usize = 4;

/// A buffer no larger than this is kept for the next call.
const KEPT_ELEMENTS: usize = 4096;
/// Most multiplications in one matrix product.
const MAX_PRODUCT: usize = 1 << 24;

/// Why an operation failed.
pub type Fault = String;
pub type Outcome<T> = Result<T, Fault>;

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Bool,
    I32,
    I64,
    F32,
    F64,
}

impl Kind {
    /// Rounds to what the type can hold.
    pub fn round(self, x: f64) -> f64 {
        match self {
            Self::Bool => f64::from(u8::from(x != 0.0)),
            Self::I32 | Self::I64 => x.trunc(),
            Self::F32 => f64::from(x as f32),
            Self::F64 => x,
        }
    }

    pub fn is_float(self) -> bool {
        self >= Self::F32
    }

    /// Bool, integer or float: what decides a promotion.
    fn category(self) -> u8 {
        match self {
            Self::Bool => 0,
            Self::I32 | Self::I64 => 1,
            Self::F32 | Self::F64 => 2,
        }
    }

    /// The number that stands for the type in serialised text.
    pub fn of_number(number: i64) -> Outcome<Self> {
        Ok(match number {
            3 => Self::I32,
            4 => Self::I64,
            6 => Self::F32,
            7 => Self::F64,
            11 => Self::Bool,
            other => return Err(format!("dtype {other} is not known here")),
        })
    }

    pub fn number(self) -> i64 {
        match self {
            Self::I32 => 3,
            Self::I64 => 4,
            Self::F32 => 6,
            Self::F64 => 7,
            Self::Bool => 11,
        }
    }
}

/// A tensor: a view into a storage. Strides in elements.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tensor {
    pub storage: u32,
    pub offset: u32,
    pub rank: u8,
    pub sizes: [u32; RANK],
    pub strides: [u32; RANK],
}

impl Tensor {
    pub fn sizes(&self) -> &[u32] {
        &self.sizes[..usize::from(self.rank)]
    }

    pub fn strides(&self) -> &[u32] {
        &self.strides[..usize::from(self.rank)]
    }

    pub fn rank(&self) -> usize {
        usize::from(self.rank)
    }

    pub fn len(&self) -> usize {
        self.sizes().iter().map(|&n| n as usize).product()
    }

    /// Whether its elements lie one after the other in C order.
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        for (&size, &stride) in self.sizes().iter().zip(self.strides()).rev() {
            if size != 1 && stride != expected {
                return false;
            }
            expected *= size.max(1);
        }
        true
    }

    /// A dimension of an operation, counted from the end where negative.
    pub fn dimension(&self, dim: i64) -> Outcome<usize> {
        let rank = self.rank() as i64;
        let at = if dim < 0 { dim + rank } else { dim };
        usize::try_from(at)
            .ok()
            .filter(|&at| at < self.rank())
            .ok_or_else(|| format!("Dimension out of range: {dim} of {rank}"))
    }

    /// Storage index of the element at this place in C order.
    pub fn place(&self, flat: usize) -> usize {
        let (mut rest, mut at) = (flat, self.offset as usize);
        for (&size, &stride) in self.sizes().iter().zip(self.strides()).rev() {
            let size = size as usize;
            at += rest % size * stride as usize;
            rest /= size;
        }
        at
    }
}

/// Shape of a tensor, for messages.
pub fn shape_text(sizes: &[u32]) -> String {
    format!("{sizes:?}")
}

/// Any value. Tensors, lists, dicts, tuples and modules are names of what the heap holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A local before its first assignment, an argument that was not given.
    Absent,
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(u32),
    Tensor(Tensor),
    List(u32),
    Tuple(u32),
    Dict(u32),
    Module(u32),
    /// An object of the server's custom class for robot models.
    RobotModel,
}

impl Value {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Absent => "nothing",
            Self::None => "None",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Text(_) => "str",
            Self::Tensor(_) => "Tensor",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::Module(_) => "module",
            Self::RobotModel => "RobotModelPinocchio",
        }
    }

    pub fn tensor(&self) -> Outcome<Tensor> {
        match self {
            Self::Tensor(tensor) => Ok(*tensor),
            other => Err(format!("a Tensor is wanted, found {}", other.kind())),
        }
    }

    pub fn int(&self) -> Outcome<i64> {
        match self {
            Self::Int(i) => Ok(*i),
            other => Err(format!("an int is wanted, found {}", other.kind())),
        }
    }

    pub fn text(&self) -> Outcome<u32> {
        match self {
            Self::Text(id) => Ok(*id),
            other => Err(format!("a str is wanted, found {}", other.kind())),
        }
    }

    /// A plain number with the type that it has among tensors.
    pub fn number(&self) -> Option<(f64, Kind)> {
        match self {
            Self::Bool(b) => Some((f64::from(u8::from(*b)), Kind::Bool)),
            Self::Int(i) => Some((*i as f64, Kind::I64)),
            Self::Float(x) => Some((*x, Kind::F64)),
            _ => None,
        }
    }
}

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

    // Tensors

    /// A storage of `len` zeros.
    fn storage(&mut self, kind: Kind, len: usize) -> Outcome<u32> {
        self.elements = self.elements.saturating_add(len);
        if self.elements > MAX_ELEMENTS {
            return Err(format!("more than {MAX_ELEMENTS} tensor elements at a time"));
        }
        let id = match self.free_storages.pop() {
            Some(id) => id,
            None if self.storages.len() >= MAX_TENSORS => return Err(format!("more than {MAX_TENSORS} tensors")),
            None => {
                self.storages.push(Storage { kind, data: Vec::new(), live: false, marked: false });
                (self.storages.len() - 1) as u32
            }
        };
        let storage = &mut self.storages[id as usize];
        storage.kind = kind;
        storage.live = true;
        storage.data.clear();
        storage.data.resize(len, 0.0);
        Ok(id)
    }

    /// A new tensor of zeros.
    pub fn zeros(&mut self, kind: Kind, sizes: &[u32]) -> Outcome<Tensor> {
        if sizes.len() > RANK {
            return Err(format!("a tensor of {} dimensions; {RANK} are the most here", sizes.len()));
        }
        let mut tensor =
            Tensor { storage: 0, offset: 0, rank: sizes.len() as u8, sizes: [1; RANK], strides: [1; RANK] };
        tensor.sizes[..sizes.len()].copy_from_slice(sizes);
        let mut len = 1_usize;
        for i in (0..sizes.len()).rev() {
            tensor.strides[i] = len as u32;
            len = len.saturating_mul(sizes[i] as usize);
            if len > MAX_ELEMENTS {
                return Err(format!("a tensor of more than {MAX_ELEMENTS} elements"));
            }
        }
        tensor.storage = self.storage(kind, len)?;
        Ok(tensor)
    }

    /// A new tensor with these elements, rounded to its type.
    pub fn filled(&mut self, kind: Kind, sizes: &[u32], fill: impl Fn(usize) -> f64) -> Outcome<Tensor> {
        let tensor = self.zeros(kind, sizes)?;
        for (i, x) in self.data_mut(&tensor).iter_mut().enumerate() {
            *x = kind.round(fill(i));
        }
        Ok(tensor)
    }

    pub fn scalar(&mut self, kind: Kind, x: f64) -> Outcome<Tensor> {
        self.filled(kind, &[], |_| x)
    }

    pub fn element_kind(&self, tensor: &Tensor) -> Kind {
        self.storages[tensor.storage as usize].kind
    }

    /// All elements of a fresh (contiguous, unshared) tensor.
    pub fn data_mut(&mut self, tensor: &Tensor) -> &mut [f64] {
        &mut self.storages[tensor.storage as usize].data
    }

    pub fn get(&self, tensor: &Tensor, flat: usize) -> f64 {
        self.storages[tensor.storage as usize].data[tensor.place(flat)]
    }

    /// Puts a value, rounded, at an element in C order.
    pub fn set(&mut self, tensor: &Tensor, flat: usize, x: f64) {
        let storage = &mut self.storages[tensor.storage as usize];
        storage.data[tensor.place(flat)] = storage.kind.round(x);
    }

    /// The elements in C order.
    pub fn elements<'a>(&'a self, tensor: &'a Tensor) -> impl Iterator<Item = f64> + 'a {
        (0..tensor.len()).map(|i| self.get(tensor, i))
    }

    /// The elements of a contiguous tensor.
    fn slice(&self, tensor: &Tensor) -> &[f64] {
        let start = tensor.offset as usize;
        &self.storages[tensor.storage as usize].data[start..start + tensor.len()]
    }

    /// Reads a tensor as `sizes` (its broadcast) into `out`.
    fn read(&self, tensor: &Tensor, sizes: &[u32], out: &mut Vec<f64>) {
        out.clear();
        if tensor.sizes() == sizes && tensor.is_contiguous() {
            out.extend_from_slice(self.slice(tensor));
            return;
        }
        let len: usize = sizes.iter().map(|&n| n as usize).product();
        let view = stretch(tensor, sizes);
        let data = &self.storages[tensor.storage as usize].data;
        out.extend((0..len).map(|i| data[view.place(i)]));
    }

    /// `function` on every element, with a result of type `kind`.
    pub fn map(&mut self, tensor: &Tensor, kind: Kind, function: impl Fn(f64) -> f64) -> Outcome<Tensor> {
        let out = self.zeros(kind, tensor.sizes())?;
        let mut left = std::mem::take(&mut self.left);
        self.read(tensor, tensor.sizes(), &mut left);
        for (to, x) in self.data_mut(&out).iter_mut().zip(&left) {
            *to = kind.round(function(*x));
        }
        self.left = left;
        Ok(out)
    }

    /// `function` on every pair of elements, both first converted to their common type; the result has that type, or
    /// the one that `kind` makes of it.
    pub fn zip(
        &mut self,
        a: Value,
        b: Value,
        kind: impl Fn(Kind) -> Kind,
        function: impl Fn(f64, f64) -> f64,
    ) -> Outcome<Tensor> {
        let common = self.promoted(&[a, b])?;
        let (sizes, rank) = self.broadcast(&[a, b])?;
        let sizes = &sizes[..rank];
        let out_kind = kind(common);
        // A quotient of integers is a float: its operands are converted first.
        let common = if out_kind.is_float() && !common.is_float() { out_kind } else { common };
        let out = self.zeros(out_kind, sizes)?;
        let (mut left, mut right) = (std::mem::take(&mut self.left), std::mem::take(&mut self.right));
        self.operand(a, sizes, common, &mut left);
        self.operand(b, sizes, common, &mut right);
        for (to, (x, y)) in self.data_mut(&out).iter_mut().zip(left.iter().zip(&right)) {
            *to = out_kind.round(function(*x, *y));
        }
        (self.left, self.right) = (left, right);
        Ok(out)
    }

    /// `condition ? a : b`, element by element.
    pub fn select(&mut self, condition: Value, a: Value, b: Value) -> Outcome<Tensor> {
        let common = self.promoted(&[a, b])?;
        let (sizes, rank) = self.broadcast(&[condition, a, b])?;
        let sizes = &sizes[..rank];
        let out = self.zeros(common, sizes)?;
        let (mut left, mut right) = (std::mem::take(&mut self.left), std::mem::take(&mut self.right));
        let mut third = std::mem::take(&mut self.third);
        self.operand(condition, sizes, Kind::Bool, &mut third);
        self.operand(a, sizes, common, &mut left);
        self.operand(b, sizes, common, &mut right);
        for (i, to) in self.data_mut(&out).iter_mut().enumerate() {
            *to = if third[i] != 0.0 { left[i] } else { right[i] };
        }
        (self.left, self.right, self.third) = (left, right, third);
        Ok(out)
    }

    fn operand(&self, value: Value, sizes: &[u32], kind: Kind, out: &mut Vec<f64>) {
        match value {
            Value::Tensor(tensor) => {
                self.read(&tensor, sizes, out);
                if self.element_kind(&tensor) > kind || kind == Kind::F32 && self.element_kind(&tensor) == Kind::I64 {
                    out.iter_mut().for_each(|x| *x = kind.round(*x));
                }
            }
            other => {
                let x = other.number().map_or(f64::NAN, |(x, _)| kind.round(x));
                let len: usize = sizes.iter().map(|&n| n as usize).product();
                out.clear();
                out.resize(len, x);
            }
        }
    }

    /// The common type of tensors and numbers: tensors with dimensions before those without before plain numbers,
    /// unless the later has the higher category.
    pub fn promoted(&self, values: &[Value]) -> Outcome<Kind> {
        let mut classes: [Option<Kind>; 3] = [None; 3];
        for value in values {
            let (class, kind) = match value {
                Value::Tensor(t) => (usize::from(t.rank == 0), self.element_kind(t)),
                other => match other.number() {
                    // A plain float has the default type.
                    Some((_, Kind::F64)) => (2, Kind::F32),
                    Some((_, kind)) => (2, kind),
                    None => return Err(format!("a Tensor or a number is wanted, found {}", other.kind())),
                },
            };
            classes[class] = Some(classes[class].map_or(kind, |have| have.max(kind)));
        }
        let mut result: Option<Kind> = None;
        for kind in classes.into_iter().flatten() {
            result = Some(result.map_or(kind, |have| if kind.category() > have.category() { kind } else { have }));
        }
        result.ok_or_else(|| "nothing to compute with".to_owned())
    }

    /// The common shape and its rank.
    fn broadcast(&self, values: &[Value]) -> Outcome<([u32; RANK], usize)> {
        let (mut sizes, mut rank) = ([1_u32; RANK], 0);
        for value in values {
            let Value::Tensor(t) = value else { continue };
            let have = t.rank();
            if have > rank {
                sizes.copy_within(0..rank, have - rank);
                sizes[..have - rank].fill(1);
                rank = have;
            }
            for (i, &size) in t.sizes().iter().enumerate() {
                let to = &mut sizes[rank - have + i];
                if *to == 1 {
                    *to = size;
                } else if size != 1 && size != *to {
                    return Err(format!(
                        "The size of tensor a ({to}) must match the size of tensor b ({size}) at non-singleton \
                         dimension {}",
                        rank - have + i
                    ));
                }
            }
        }
        Ok((sizes, rank))
    }

    /// Writes `value`, converted and broadcast, into `tensor` in place.
    pub fn assign(&mut self, tensor: &Tensor, value: Value) -> Outcome<()> {
        let (sizes, rank) = self.broadcast(&[Value::Tensor(*tensor), value])?;
        if sizes[..rank] != *tensor.sizes() {
            return Err(format!(
                "The expanded size of the tensor {} must match the existing size {}",
                shape_text(tensor.sizes()),
                shape_text(&sizes[..rank])
            ));
        }
        let mut right = std::mem::take(&mut self.right);
        let kind = self.element_kind(tensor);
        self.operand(value, tensor.sizes(), Kind::F64, &mut right);
        let data = &mut self.storages[tensor.storage as usize].data;
        for (i, x) in right.iter().enumerate() {
            data[tensor.place(i)] = kind.round(*x);
        }
        self.right = right;
        Ok(())
    }

    /// A contiguous copy.
    pub fn copy(&mut self, tensor: &Tensor, kind: Kind) -> Outcome<Tensor> {
        self.map(tensor, kind, |x| x)
    }

    /// Matrix product of vectors and matrices.
    pub fn matmul(&mut self, a: &Tensor, b: &Tensor) -> Outcome<Tensor> {
        let (ka, kb) = (self.element_kind(a), self.element_kind(b));
        if ka != kb {
            return Err(format!("expected m1 and m2 to have the same dtype, found {ka:?} and {kb:?}"));
        }
        if a.rank() == 0 || b.rank() == 0 || a.rank() > 2 || b.rank() > 2 {
            return Err("matmul of vectors and matrices only".to_owned());
        }
        let (rows, inner) = if a.rank() == 2 { (a.sizes[0], a.sizes[1]) } else { (1, a.sizes[0]) };
        let (inner_b, columns) = if b.rank() == 2 { (b.sizes[0], b.sizes[1]) } else { (b.sizes[0], 1) };
        if inner != inner_b {
            return Err(format!(
                "mat1 and mat2 shapes cannot be multiplied ({} and {})",
                shape_text(a.sizes()),
                shape_text(b.sizes())
            ));
        }
        if (rows as usize).saturating_mul(inner as usize).saturating_mul(columns as usize) > MAX_PRODUCT {
            return Err(format!("a matrix product of more than {MAX_PRODUCT} multiplications"));
        }
        let mut sizes = [0; 2];
        let mut rank = 0;
        for (size, given) in [(rows, a.rank() == 2), (columns, b.rank() == 2)] {
            if given {
                sizes[rank] = size;
                rank += 1;
            }
        }
        let out = self.zeros(ka, &sizes[..rank])?;
        let (mut left, mut right) = (std::mem::take(&mut self.left), std::mem::take(&mut self.right));
        self.read(a, a.sizes(), &mut left);
        self.read(b, b.sizes(), &mut right);
        let (rows, inner, columns) = (rows as usize, inner as usize, columns as usize);
        let data = self.data_mut(&out);
        for row in 0..rows {
            for column in 0..columns {
                let sum: f64 = (0..inner).map(|k| left[row * inner + k] * right[k * columns + column]).sum();
                data[row * columns + column] = ka.round(sum);
            }
        }
        (self.left, self.right) = (left, right);
        Ok(out)
    }

    // Outside values

    /// A tensor that came out of a pickle.
    pub fn import(&mut self, value: &TensorValue) -> Outcome<Tensor> {
        let sizes: Vec<u32> = value
            .shape()
            .iter()
            .map(|&n| u32::try_from(n).map_err(|_| "a dimension beyond 2^32".to_owned()))
            .collect::<Outcome<_>>()?;
        let kind = match value.data_type() {
            DataType::F32 => Kind::F32,
            DataType::F64 => Kind::F64,
            DataType::I32 => Kind::I32,
            DataType::I64 => Kind::I64,
            DataType::Bool => Kind::Bool,
            other => return Err(format!("tensors of {} are not computed with", other.name())),
        };
        let tensor = self.zeros(kind, &sizes)?;
        let data = self.data_mut(&tensor);
        match value.data() {
            TensorData::F32(v) => data.iter_mut().zip(v).for_each(|(to, x)| *to = f64::from(*x)),
            TensorData::F64(v) => data.copy_from_slice(v),
            TensorData::I32(v) => data.iter_mut().zip(v).for_each(|(to, x)| *to = f64::from(*x)),
            TensorData::I64(v) => data.iter_mut().zip(v).for_each(|(to, x)| *to = *x as f64),
            TensorData::Bool(v) => data.iter_mut().zip(v).for_each(|(to, x)| *to = f64::from(u8::from(*x))),
            _ => return Err("tensors of this type are not computed with".to_owned()),
        }
        Ok(tensor)
    }

    /// A tensor as plain data.
    pub fn export(&self, tensor: &Tensor) -> TensorValue {
        let elements = self.elements(tensor);
        let data = match self.element_kind(tensor) {
            Kind::F32 => TensorData::F32(elements.map(|x| x as f32).collect()),
            Kind::F64 => TensorData::F64(elements.collect()),
            Kind::I32 => TensorData::I32(elements.map(|x| x as i32).collect()),
            Kind::I64 => TensorData::I64(elements.map(|x| x as i64).collect()),
            Kind::Bool => TensorData::Bool(elements.map(|x| x != 0.0).collect()),
        };
        let shape = tensor.sizes().iter().map(|&n| n as usize).collect();
        TensorValue::new(shape, data)
            .expect("a tensor has as many elements as its shape says, in at most four dimensions")
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

/// The view of a tensor as a shape that it broadcasts to.
pub fn stretch(tensor: &Tensor, sizes: &[u32]) -> Tensor {
    let mut view = *tensor;
    let missing = sizes.len() - tensor.rank();
    view.rank = sizes.len() as u8;
    for i in 0..sizes.len() {
        view.sizes[i] = sizes[i];
        view.strides[i] = match i.checked_sub(missing) {
            Some(from) if tensor.sizes[from] == sizes[i] => tensor.strides[from],
            _ => 0,
        };
    }
    view
}
