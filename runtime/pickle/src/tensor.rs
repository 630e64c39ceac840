//! Tensor values: shape and data in C order.

use crate::{FormatError, MAX_RANK};

/// Element type of a tensor, with the storage class that names it in a PyTorch pickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataType {
    /// `HalfStorage`
    F16,
    /// `BFloat16Storage`
    BF16,
    /// `FloatStorage`
    F32,
    /// `DoubleStorage`
    F64,
    /// `CharStorage`
    I8,
    /// `ByteStorage`
    U8,
    /// `ShortStorage`
    I16,
    /// `IntStorage`
    I32,
    /// `LongStorage`
    I64,
    /// `BoolStorage`, one byte a value
    Bool,
}

impl DataType {
    const ALL: [Self; 10] =
        [Self::F16, Self::BF16, Self::F32, Self::F64, Self::I8, Self::U8, Self::I16, Self::I32, Self::I64, Self::Bool];

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::Bool | Self::I8 | Self::U8 => 1,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// PyTorch's name of the type, for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
            Self::F32 => "float32",
            Self::F64 => "float64",
            Self::I8 => "int8",
            Self::U8 => "uint8",
            Self::I16 => "int16",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::Bool => "bool",
        }
    }

    /// Name of the storage class in module `torch`.
    pub fn storage_name(self) -> &'static str {
        match self {
            Self::F16 => "HalfStorage",
            Self::BF16 => "BFloat16Storage",
            Self::F32 => "FloatStorage",
            Self::F64 => "DoubleStorage",
            Self::I8 => "CharStorage",
            Self::U8 => "ByteStorage",
            Self::I16 => "ShortStorage",
            Self::I32 => "IntStorage",
            Self::I64 => "LongStorage",
            Self::Bool => "BoolStorage",
        }
    }

    /// The inverse of [`Self::storage_name`].
    pub fn from_storage_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|t| t.storage_name() == name)
    }

    /// The type of a NumPy type string without its byte order, e.g. `f4`.
    pub(crate) fn from_numpy(name: &str) -> Option<Self> {
        Some(match name {
            "f2" => Self::F16,
            "f4" => Self::F32,
            "f8" => Self::F64,
            "i1" => Self::I8,
            "u1" => Self::U8,
            "i2" => Self::I16,
            "i4" => Self::I32,
            "i8" => Self::I64,
            "b1" => Self::Bool,
            _ => return None,
        })
    }
}

/// The elements of a tensor in C order.
#[derive(Debug, Clone, PartialEq)]
pub enum TensorData {
    /// 16-bit floats, as their bits
    F16(Vec<u16>),
    /// bfloat16, as their bits
    BF16(Vec<u16>),
    /// 32-bit floats
    F32(Vec<f32>),
    /// 64-bit floats
    F64(Vec<f64>),
    /// 8-bit integers
    I8(Vec<i8>),
    /// 8-bit unsigned integers
    U8(Vec<u8>),
    /// 16-bit integers
    I16(Vec<i16>),
    /// 32-bit integers
    I32(Vec<i32>),
    /// 64-bit integers
    I64(Vec<i64>),
    /// truth values
    Bool(Vec<bool>),
}

/// The same expression for the elements `$v` of every type.
macro_rules! each_type {
    ($data:expr, $v:ident => $expression:expr) => {
        match $data {
            TensorData::F16($v) | TensorData::BF16($v) => $expression,
            TensorData::F32($v) => $expression,
            TensorData::F64($v) => $expression,
            TensorData::I8($v) => $expression,
            TensorData::U8($v) => $expression,
            TensorData::I16($v) => $expression,
            TensorData::I32($v) => $expression,
            TensorData::I64($v) => $expression,
            TensorData::Bool($v) => $expression,
        }
    };
}

impl TensorData {
    /// Number of elements.
    pub fn len(&self) -> usize {
        each_type!(self, v => v.len())
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element type.
    pub fn data_type(&self) -> DataType {
        match self {
            Self::F16(_) => DataType::F16,
            Self::BF16(_) => DataType::BF16,
            Self::F32(_) => DataType::F32,
            Self::F64(_) => DataType::F64,
            Self::I8(_) => DataType::I8,
            Self::U8(_) => DataType::U8,
            Self::I16(_) => DataType::I16,
            Self::I32(_) => DataType::I32,
            Self::I64(_) => DataType::I64,
            Self::Bool(_) => DataType::Bool,
        }
    }

    /// Little-endian bytes, as a `data/<n>` entry holds them.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        match self {
            Self::F16(v) | Self::BF16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I8(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::U8(v) => v.clone(),
            Self::I16(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
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
            DataType::F16 => Self::F16(indices.map(|i| u16::from_le_bytes(pick(storage, i))).collect()),
            DataType::BF16 => Self::BF16(indices.map(|i| u16::from_le_bytes(pick(storage, i))).collect()),
            DataType::F32 => Self::F32(indices.map(|i| f32::from_le_bytes(pick(storage, i))).collect()),
            DataType::F64 => Self::F64(indices.map(|i| f64::from_le_bytes(pick(storage, i))).collect()),
            DataType::I8 => Self::I8(indices.map(|i| i8::from_le_bytes(pick(storage, i))).collect()),
            DataType::U8 => Self::U8(indices.map(|i| storage[i]).collect()),
            DataType::I16 => Self::I16(indices.map(|i| i16::from_le_bytes(pick(storage, i))).collect()),
            DataType::I32 => Self::I32(indices.map(|i| i32::from_le_bytes(pick(storage, i))).collect()),
            DataType::I64 => Self::I64(indices.map(|i| i64::from_le_bytes(pick(storage, i))).collect()),
            DataType::Bool => Self::Bool(indices.map(|i| storage[i] != 0).collect()),
        }
    }
}

/// The value of a 16-bit float (IEEE 754 binary16): every one is an f32 too.
fn f32_of_f16(bits: u16) -> f32 {
    let (exponent, fraction) = (bits >> 10 & 0x1f, u32::from(bits & 0x3ff));
    let magnitude = match exponent {
        // Subnormal: the fraction counts 2^-24.
        0 => fraction as f32 * (-24_f32).exp2(),
        0x1f => f32::from_bits(0x7f80_0000 | fraction << 13),
        _ => f32::from_bits((u32::from(exponent) + 127 - 15) << 23 | fraction << 13),
    };
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
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
    /// [`FormatError::Shape`] where the data does not fill the shape, [`FormatError::TooLarge`]
    /// where there are too many dimensions.
    pub fn new(shape: Vec<usize>, data: TensorData) -> Result<Self, FormatError> {
        if shape.len() > MAX_RANK {
            return Err(FormatError::TooLarge { what: "rank of a tensor", size: shape.len(), limit: MAX_RANK });
        }
        let expected = element_count(&shape).unwrap_or(usize::MAX);
        if expected != data.len() {
            return Err(FormatError::Shape { expected, got: data.len(), shape });
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
            TensorData::F16(v) => v.iter().map(|&x| f32_of_f16(x)).collect(),
            TensorData::BF16(v) => v.iter().map(|&x| f32::from_bits(u32::from(x) << 16)).collect(),
            TensorData::F32(v) => v.clone(),
            TensorData::I8(v) => v.iter().map(|&x| f32::from(x)).collect(),
            TensorData::U8(v) => v.iter().map(|&x| f32::from(x)).collect(),
            TensorData::I16(v) => v.iter().map(|&x| f32::from(x)).collect(),
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
    pub(crate) fn from_view(
        storage: &[u8],
        data_type: DataType,
        storage_elements: usize,
        offset: usize,
        shape: Vec<usize>,
        strides: &[usize],
    ) -> Option<Self> {
        if shape.len() != strides.len() || shape.len() > MAX_RANK {
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
pub(crate) fn element_count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1_usize, |product, &n| product.checked_mul(n))
}

/// Strides of a C-ordered tensor, in elements. PyTorch writes 1 for the dimensions of an empty tensor.
pub fn c_strides(shape: &[usize]) -> Vec<usize> {
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
    fn half_floats_have_their_values() {
        let known: [(u16, f32); 8] = [
            (0x0000, 0.0),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x0400, 6.103_515_6e-5),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0xfc00, f32::NEG_INFINITY),
        ];
        for (bits, value) in known {
            assert_eq!(f32_of_f16(bits), value, "{bits:#06x}");
        }
        assert!(f32_of_f16(0x7e00).is_nan());
        assert!(f32_of_f16(0x8000).is_sign_negative());
        let b = TensorValue::new(vec![2], TensorData::BF16(vec![0x3f80, 0xc040])).unwrap();
        assert_eq!(b.to_f32_vec(), [1.0, -3.0]);
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
