//! Values of one field over the frames of an episode.

/// Elements in C order. Narrower integers are widened, half floats too: nothing is lost.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    /// Single floats.
    F32(Vec<f32>),
    /// Double floats.
    F64(Vec<f64>),
    /// Integers other than bytes.
    I64(Vec<i64>),
    /// Bytes: pictures, above all.
    U8(Vec<u8>),
    /// Truth values.
    Bool(Vec<bool>),
}

/// The same expression for the elements `$v` of every type.
macro_rules! each {
    ($data:expr, $v:ident => $expression:expr) => {
        match $data {
            Data::F32($v) => $expression,
            Data::F64($v) => $expression,
            Data::I64($v) => $expression,
            Data::U8($v) => $expression,
            Data::Bool($v) => $expression,
        }
    };
}

/// The same, the elements of every type being put into the same kind again.
macro_rules! map {
    ($data:expr, $v:ident => $expression:expr) => {
        match $data {
            Data::F32($v) => Data::F32($expression),
            Data::F64($v) => Data::F64($expression),
            Data::I64($v) => Data::I64($expression),
            Data::U8($v) => Data::U8($expression),
            Data::Bool($v) => Data::Bool($expression),
        }
    };
}

impl Data {
    /// Number of elements.
    pub fn len(&self) -> usize {
        each!(self, v => v.len())
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// NumPy's name of the element type.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::F32(_) => "float32",
            Self::F64(_) => "float64",
            Self::I64(_) => "int64",
            Self::U8(_) => "uint8",
            Self::Bool(_) => "bool",
        }
    }

    /// Little-endian bytes.
    pub fn to_le_bytes(&self) -> Vec<u8> {
        match self {
            Self::F32(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::F64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::I64(v) => v.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Self::U8(v) => v.clone(),
            Self::Bool(v) => v.iter().map(|&x| u8::from(x)).collect(),
        }
    }

    /// Whether `other` has elements of the same type.
    pub fn same_type(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// One field: `shape[0]` frames of `shape[1..]` values each.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    shape: Vec<usize>,
    data: Data,
}

impl Array {
    /// An array of at least one dimension.
    ///
    /// # Errors
    /// A sentence, where the elements do not fill the shape.
    pub fn new(shape: Vec<usize>, data: Data) -> Result<Self, String> {
        if shape.is_empty() {
            return Err("a single value, one for each frame is needed".into());
        }
        let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
        if count != Some(data.len()) {
            return Err(format!("shape {shape:?} does not hold {} values", data.len()));
        }
        Ok(Self { shape, data })
    }

    /// One value for each frame.
    pub fn column(data: Data) -> Self {
        Self { shape: vec![data.len()], data }
    }

    /// Rows of `width` values.
    ///
    /// # Errors
    /// A sentence, where the values are no whole rows.
    pub fn rows_of(width: usize, data: Data) -> Result<Self, String> {
        let rows = data.len().checked_div(width).ok_or("rows are empty")?;
        Self::new(vec![rows, width], data)
    }

    /// Frames first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements.
    pub fn data(&self) -> &Data {
        &self.data
    }

    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.shape[0]
    }

    /// Values of one frame.
    pub fn width(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// Whether frames are pictures: bytes of two or three dimensions.
    pub fn is_picture(&self) -> bool {
        self.shape.len() >= 3 && matches!(self.data, Data::U8(_))
    }

    /// An element as a double; a truth value is 0 or 1. Panics beyond the end.
    pub fn value(&self, i: usize) -> f64 {
        match &self.data {
            Data::F32(v) => v[i].into(),
            Data::F64(v) => v[i],
            Data::I64(v) => v[i] as f64,
            Data::U8(v) => v[i].into(),
            Data::Bool(v) => f64::from(u8::from(v[i])),
        }
    }

    /// All elements as doubles.
    pub fn values(&self) -> impl Iterator<Item = f64> {
        (0..self.data.len()).map(|i| self.value(i))
    }

    /// All elements as single floats; doubles are rounded.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.data {
            Data::F32(v) => v.clone(),
            _ => self.values().map(|v| v as f32).collect(),
        }
    }

    /// Frames of a range that lies inside. Panics where it does not.
    pub fn slice(&self, frames: std::ops::Range<usize>) -> Self {
        let width = self.width();
        let mut shape = self.shape.clone();
        shape[0] = frames.len();
        let data = map!(&self.data, v => v[frames.start * width..frames.end * width].to_vec());
        Self { shape, data }
    }

    /// The same values in another shape.
    ///
    /// # Errors
    /// A sentence, where the elements do not fill the shape.
    pub fn reshaped(self, shape: Vec<usize>) -> Result<Self, String> {
        Self::new(shape, self.data)
    }

    /// Values beyond ±`bound` are set to it; how many were.
    pub fn clip(&mut self, bound: f64) -> usize {
        let mut clipped = 0;
        let mut limit = |v: f64| {
            let new = v.clamp(-bound, bound);
            clipped += usize::from(new != v && !v.is_nan());
            new
        };
        match &mut self.data {
            Data::F32(v) => v.iter_mut().for_each(|x| *x = limit(f64::from(*x)) as f32),
            Data::F64(v) => v.iter_mut().for_each(|x| *x = limit(*x)),
            Data::I64(_) | Data::U8(_) | Data::Bool(_) => {}
        }
        clipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_the_values_do_not_fill_is_refused() {
        assert!(Array::new(vec![2, 2], Data::F32(vec![0.0; 3])).is_err());
        assert!(Array::new(vec![], Data::F32(vec![0.0])).is_err());
        assert!(Array::new(vec![usize::MAX, 2], Data::F32(vec![])).is_err());
        assert!(Array::rows_of(0, Data::F32(vec![])).is_err());
    }

    #[test]
    fn frames_are_cut_out_whole() {
        let array = Array::rows_of(2, Data::I64((0..8).collect())).unwrap();
        assert_eq!(array.slice(1..3), Array::rows_of(2, Data::I64((2..6).collect())).unwrap());
    }

    #[test]
    fn clipping_counts_what_it_changed() {
        let mut array = Array::column(Data::F64(vec![-2.0, 0.5, 1.0, f64::NAN, 7.0]));
        assert_eq!(array.clip(1.0), 2);
        assert_eq!(array.value(0), -1.0);
        assert_eq!(array.value(4), 1.0);
    }
}
