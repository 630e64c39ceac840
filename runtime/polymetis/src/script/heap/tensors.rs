//! Tensors of a heap: made, read, computed with, and exchanged with the world outside.

use tenon_pickle::{DataType, TensorData, TensorValue};

use super::super::{MAX_ELEMENTS, MAX_TENSORS};
use super::{Heap, Kind, Outcome, RANK, Storage, Tensor, Value, shape_text};

/// Most multiplications in one matrix product.
const MAX_PRODUCT: usize = 1 << 24;

impl Heap {
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
