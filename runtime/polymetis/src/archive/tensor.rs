//! Tensor values: shape and data in C order.

use super::{ArchiveError, MAX_TENSOR_RANK};

/// Element type of a tensor, with the storage class that names it in the pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataType {
    /// `FloatStorage`
    F32,
    /// `DoubleStorage`
    F64,
    /// `IntStorage`
    I32,
    /// `LongStorage`
    I64,
    /// `BoolStorage`, one byte a value
    Bool,
}

impl DataType {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::Bool => 1,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// Name of the storage class in module `torch`.
    pub fn storage_name(self) -> &'static str {
        match self {
            Self::F32 => "FloatStorage",
            Self::F64 => "DoubleStorage",
            Self::I32 => "IntStorage",
            Self::I64 => "LongStorage",
            Self::Bool => "BoolStorage",
        }
    }

    /// The inverse of [`Self::storage_name`].
    pub fn from_storage_name(name: &str) -> Option<Self> {
        [Self::F32, Self::F64, Self::I32, Self::I64, Self::Bool].into_iter().find(|t| t.storage_name() == name)
    }
}

/// The elements of a tensor in C order.
#[derive(Debug, Clone, PartialEq)]
pub enum TensorData {
    /// 32-bit floats
    F32(Vec<f32>),
    /// 64-bit floats
    F64(Vec<f64>),
    /// 32-bit integers
    I32(Vec<i32>),
    /// 64-bit integers
    I64(Vec<i64>),
    /// truth values
    Bool(Vec<bool>),
}

impl TensorData {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::Bool(v) => v.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element type.
    pub fn data_type(&self) -> DataType {
        match self {
            Self::F32(_) => DataType::F32,
            Self::F64(_) => DataType::F64,
            Self::I32(_) => DataType::I32,
            Self::I64(_) => DataType::I64,
            Self::Bool(_) => DataType::Bool,
        }
    }

    /// Little-endian bytes, as a `data/<n>` entry holds them.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        match self {
            Self::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::Bool(v) => v.iter().map(|&x| u8::from(x)).collect(),
        }
    }

    /// Picks the elements at `indices` out of a storage's little-endian bytes.
    ///
    /// Every index must lie inside the storage; the caller has checked that.
    fn gather(storage: &[u8], data_type: DataType, indices: impl Iterator<Item = usize>) -> Self {
        fn pick<const N: usize>(storage: &[u8], i: usize) -> [u8; N] {
            let mut bytes = [0; N];
            bytes.copy_from_slice(&storage[i * N..(i + 1) * N]);
            bytes
        }
        match data_type {
            DataType::F32 => Self::F32(indices.map(|i| f32::from_le_bytes(pick(storage, i))).collect()),
            DataType::F64 => Self::F64(indices.map(|i| f64::from_le_bytes(pick(storage, i))).collect()),
            DataType::I32 => Self::I32(indices.map(|i| i32::from_le_bytes(pick(storage, i))).collect()),
            DataType::I64 => Self::I64(indices.map(|i| i64::from_le_bytes(pick(storage, i))).collect()),
            DataType::Bool => Self::Bool(indices.map(|i| storage[i] != 0).collect()),
        }
    }
}

/// A tensor: shape and elements in C order. The product of the shape is the number of elements.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorValue {
    shape: Vec<usize>,
    data: TensorData,
}

impl TensorValue {
    /// A tensor of any shape, `[]` being a scalar.
    ///
    /// # Errors
    /// [`ArchiveError::Shape`] where the data does not fill the shape, [`ArchiveError::TooLarge`]
    /// where there are too many dimensions.
    pub fn new(shape: Vec<usize>, data: TensorData) -> Result<Self, ArchiveError> {
        if shape.len() > MAX_TENSOR_RANK {
            return Err(ArchiveError::TooLarge { what: "rank of a tensor", size: shape.len(), limit: MAX_TENSOR_RANK });
        }
        let expected = element_count(&shape).unwrap_or(usize::MAX);
        if expected != data.len() {
            return Err(ArchiveError::Shape { expected, got: data.len(), shape });
        }
        Ok(Self { shape, data })
    }

    /// A vector of 32-bit floats, shape `[n]`.
    pub fn f32_vector(values: &[f32]) -> Self {
        Self { shape: vec![values.len()], data: TensorData::F32(values.to_vec()) }
    }

    /// A vector of 64-bit floats, shape `[n]`.
    pub fn f64_vector(values: &[f64]) -> Self {
        Self { shape: vec![values.len()], data: TensorData::F64(values.to_vec()) }
    }

    /// A vector of 64-bit integers, shape `[n]`.
    pub fn i64_vector(values: &[i64]) -> Self {
        Self { shape: vec![values.len()], data: TensorData::I64(values.to_vec()) }
    }

    /// Length of each dimension.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements in C order.
    pub fn data(&self) -> &TensorData {
        &self.data
    }

    /// Element type.
    pub fn data_type(&self) -> DataType {
        self.data.data_type()
    }

    /// The values as a vector of exactly `N` 32-bit floats; `None` for another shape or type.
    pub fn as_f32_array<const N: usize>(&self) -> Option<[f32; N]> {
        match &self.data {
            TensorData::F32(v) if self.shape == [N] => v.as_slice().try_into().ok(),
            _ => None,
        }
    }

    /// All values converted to 32-bit floats as `copy_` into a float tensor does.
    pub fn to_f32_vec(&self) -> Vec<f32> {
        match &self.data {
            TensorData::F32(v) => v.clone(),
            TensorData::F64(v) => v.iter().map(|&x| x as f32).collect(),
            TensorData::I32(v) => v.iter().map(|&x| x as f32).collect(),
            TensorData::I64(v) => v.iter().map(|&x| x as f32).collect(),
            TensorData::Bool(v) => v.iter().map(|&x| f32::from(u8::from(x))).collect(),
        }
    }

    /// A view into a storage, copied to C order.
    ///
    /// `storage` must hold at least `storage_elements` elements. `None` where the view leaves the
    /// storage, where shape and strides differ in length, or where anything overflows.
    pub(super) fn from_view(
        storage: &[u8],
        data_type: DataType,
        storage_elements: usize,
        offset: usize,
        shape: Vec<usize>,
        strides: &[usize],
    ) -> Option<Self> {
        if shape.len() != strides.len() || shape.len() > MAX_TENSOR_RANK {
            return None;
        }
        let count = element_count(&shape)?;
        if count == 0 {
            return Some(Self { shape, data: TensorData::gather(&[], data_type, 0..0) });
        }
        let mut last = offset;
        for (&size, &stride) in shape.iter().zip(strides) {
            last = last.checked_add((size - 1).checked_mul(stride)?)?;
        }
        if last >= storage_elements {
            return None;
        }
        let data = if strides == c_strides(&shape) {
            TensorData::gather(storage, data_type, offset..offset + count)
        } else {
            let indices = (0..count).map(|flat| {
                let mut rest = flat;
                let mut index = offset;
                for (&size, &stride) in shape.iter().zip(strides).rev() {
                    index += rest % size * stride;
                    rest /= size;
                }
                index
            });
            TensorData::gather(storage, data_type, indices)
        };
        Some(Self { shape, data })
    }
}

/// Product of a shape, 1 for a scalar; `None` where it overflows.
pub(super) fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |product, &n| product.checked_mul(n))
}

/// Strides of a C-ordered tensor, in elements. PyTorch writes 1 for the dimensions of an empty tensor.
pub(super) fn c_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1_usize; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(shape[i].max(1));
    }
    strides
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposed_view_is_read_in_c_order() {
        let bytes = TensorData::F32(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).to_le_bytes();
        let t = TensorValue::from_view(&bytes, DataType::F32, 6, 0, vec![3, 2], &[1, 3]).unwrap();
        assert_eq!(t.to_f32_vec(), [1.0, 4.0, 2.0, 5.0, 3.0, 6.0]);
    }

    #[test]
    fn view_that_leaves_its_storage_is_refused() {
        let bytes = [0_u8; 24];
        let view = |offset, shape: &[usize], strides: &[usize]| {
            TensorValue::from_view(&bytes, DataType::F32, 6, offset, shape.to_vec(), strides)
        };
        assert!(view(0, &[6], &[1]).is_some());
        assert!(view(1, &[6], &[1]).is_none());
        assert!(view(0, &[3], &[3]).is_none());
        assert!(view(usize::MAX, &[6], &[1]).is_none());
        assert!(view(0, &[usize::MAX, 2], &[1, 1]).is_none());
        assert!(view(0, &[2], &[usize::MAX]).is_none());
    }

    #[test]
    fn shape_must_match_data() {
        assert!(TensorValue::new(vec![2, 3], TensorData::F64(vec![0.0; 6])).is_ok());
        assert!(TensorValue::new(vec![2, 3], TensorData::F64(vec![0.0; 7])).is_err());
        assert!(TensorValue::new(vec![], TensorData::I64(vec![3])).is_ok());
    }
}
