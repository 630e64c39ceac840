//! NumPy's `.npy` arrays, and its type strings.

use crate::array::{Array, Data};

const MAGIC: &[u8] = b"\x93NUMPY";
/// Largest header that is read.
const MAX_HEADER: usize = 1 << 16;
/// Most dimensions.
const MAX_RANK: usize = 32;

/// An element type of NumPy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NumpyType {
    kind: u8,
    size: usize,
    big_endian: bool,
}

impl NumpyType {
    /// Of a type string, e.g. `<f4`.
    ///
    /// # Errors
    /// A sentence, where it is none that is read.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refused =
            || format!("elements of type {text:?}; numbers and truth values are read (b1, u1, i8, f4, f8, …)");
        let (order, rest) = match text.as_bytes() {
            [order @ (b'<' | b'>' | b'|' | b'='), ..] => (*order, &text[1..]),
            _ => (b'=', text),
        };
        let kind = *rest.as_bytes().first().ok_or_else(refused)?;
        let size: usize = rest.get(1..).and_then(|s| s.parse().ok()).ok_or_else(refused)?;
        let known = matches!((kind, size), (b'b', 1) | (b'u' | b'i', 1 | 2 | 4 | 8) | (b'f', 2 | 4 | 8));
        if !known {
            return Err(refused());
        }
        Ok(Self { kind, size, big_endian: order == b'>' })
    }

    /// Bytes of an element.
    pub fn size(self) -> usize {
        self.size
    }

    /// Elements of little- or big-endian bytes; what fills no element is left out.
    ///
    /// # Errors
    /// A sentence, where an unsigned integer is too large.
    pub fn values(self, bytes: &[u8]) -> Result<Data, String> {
        let size = self.size;
        let words = bytes.chunks_exact(size).map(|element| {
            let mut full = [0; 8];
            for (i, &b) in element.iter().enumerate() {
                full[if self.big_endian { size - 1 - i } else { i }] = b;
            }
            u64::from_le_bytes(full)
        });
        Ok(match (self.kind, size) {
            (b'b', _) => Data::Bool(bytes.iter().map(|&b| b != 0).collect()),
            (b'u', 1) => Data::U8(bytes.to_vec()),
            (b'u', _) => {
                let values = words.map(|w| i64::try_from(w).map_err(|_| format!("the integer {w} is beyond 2^63 − 1")));
                Data::I64(values.collect::<Result<_, _>>()?)
            }
            (b'i', _) => {
                // The sign is moved to the top and back.
                let unused = 64 - 8 * size as u32;
                Data::I64(words.map(|w| (w << unused) as i64 >> unused).collect())
            }
            (_, 2) => Data::F32(words.map(|w| half(w as u16)).collect()),
            (_, 4) => Data::F32(words.map(|w| f32::from_bits(w as u32)).collect()),
            _ => Data::F64(words.map(f64::from_bits).collect()),
        })
    }
}

/// The value of a 16-bit float (IEEE 754 binary16): every one is an f32 too.
pub fn half(bits: u16) -> f32 {
    let (exponent, fraction) = (bits >> 10 & 0x1f, u32::from(bits & 0x3ff));
    let magnitude = match exponent {
        // Subnormal: the fraction counts 2^-24.
        0 => fraction as f32 * (-24_f32).exp2(),
        0x1f => f32::from_bits(0x7f80_0000 | fraction << 13),
        _ => f32::from_bits((u32::from(exponent) + 127 - 15) << 23 | fraction << 13),
    };
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

/// What a `.npy` file says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Element type.
    pub kind: NumpyType,
    /// First index fastest.
    pub fortran: bool,
    /// Extent.
    pub shape: Vec<usize>,
    /// Where the elements begin.
    pub start: usize,
}

/// Reads the header of a `.npy` file.
///
/// # Errors
/// A sentence.
pub fn header(bytes: &[u8]) -> Result<Header, String> {
    let cut = || "the .npy header is cut off".to_string();
    let rest = bytes.strip_prefix(MAGIC).ok_or("no .npy array: its first bytes are others")?;
    let (&[major, _minor], rest) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
    let (length, before) = if major == 1 {
        (usize::from(u16::from_le_bytes(*rest.first_chunk().ok_or_else(cut)?)), 10)
    } else {
        (u32::from_le_bytes(*rest.first_chunk().ok_or_else(cut)?) as usize, 12)
    };
    if length > MAX_HEADER {
        return Err(format!("a .npy header of {length} bytes"));
    }
    let text = bytes.get(before..before + length).ok_or_else(cut)?;
    let text = std::str::from_utf8(text).map_err(|_| "a .npy header that is not UTF-8")?;
    let after = |key: &str| {
        let at = text.find(key)?;
        Some(text[at + key.len()..].trim_start_matches(['\'', '"', ' ']).strip_prefix(':')?.trim_start())
    };
    let missing = |key: &str| format!("its .npy header says no {key}");
    let descr = after("descr").ok_or_else(|| missing("descr"))?;
    let quote = descr.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let quote = quote.ok_or("its elements are records, which are not read")?;
    let descr = descr[1..].split(quote).next().unwrap_or_default();
    let fortran = after("fortran_order").ok_or_else(|| missing("fortran_order"))?.starts_with("True");
    let shape = after("shape").and_then(|s| s.strip_prefix('(')?.split(')').next()).ok_or_else(|| missing("shape"))?;
    let shape = shape.split(',').map(str::trim).filter(|s| !s.is_empty());
    let shape: Vec<usize> = shape.map(str::parse).collect::<Result<_, _>>().map_err(|_| missing("whole shape"))?;
    if shape.len() > MAX_RANK {
        return Err(format!("{} dimensions", shape.len()));
    }
    Ok(Header { kind: NumpyType::parse(descr)?, fortran, shape, start: before + length })
}

/// Reads a whole `.npy` file.
///
/// # Errors
/// A sentence.
pub fn read(bytes: &[u8]) -> Result<Array, String> {
    let header = header(bytes)?;
    let count = header.shape.iter().try_fold(header.kind.size(), |n, &d| n.checked_mul(d));
    let body = &bytes[header.start..];
    if count != Some(body.len()) {
        return Err(format!(
            "shape {:?} does not fit {} bytes of values: the file is truncated or damaged",
            header.shape,
            body.len()
        ));
    }
    let shape = if header.shape.is_empty() { vec![1] } else { header.shape };
    if !header.fortran || shape.len() < 2 {
        return Array::new(shape, header.kind.values(body)?);
    }
    Array::new(shape.clone(), header.kind.values(&c_order(body, &shape, header.kind.size()))?)
}

/// Elements whose first index runs fastest → last index fastest.
pub fn c_order(bytes: &[u8], shape: &[usize], element: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = vec![0; shape.len()];
    let count: usize = shape.iter().product();
    for _ in 0..count {
        let place = index.iter().zip(shape).rev().fold(0, |place, (i, d)| place * d + i);
        out.extend_from_slice(&bytes[place * element..(place + 1) * element]);
        for d in (0..shape.len()).rev() {
            index[d] += 1;
            if index[d] < shape[d] {
                break;
            }
            index[d] = 0;
        }
    }
    out
}

/// A whole `.npy` file.
pub fn write(array: &Array) -> Vec<u8> {
    let descr = match array.data() {
        Data::F32(_) => "<f4",
        Data::F64(_) => "<f8",
        Data::I64(_) => "<i8",
        Data::U8(_) => "|u1",
        Data::Bool(_) => "|b1",
    };
    let shape: Vec<String> = array.shape().iter().map(usize::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let mut text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}{comma}), }}", shape.join(", "));
    // Elements begin at a multiple of 64.
    while (10 + text.len() + 1) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&[1, 0]);
    bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
    bytes.extend_from_slice(text.as_bytes());
    bytes.extend_from_slice(&array.data().to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for array in [
            Array::rows_of(3, Data::F32((0..6).map(|i| i as f32).collect())).unwrap(),
            Array::column(Data::I64(vec![-5, 5])),
            Array::column(Data::Bool(vec![true, false])),
            Array::new(vec![1, 2, 2], Data::U8(vec![1, 2, 3, 4])).unwrap(),
        ] {
            let bytes = write(&array);
            assert_eq!(header(&bytes).unwrap().start % 64, 0);
            assert_eq!(read(&bytes).unwrap(), array);
            assert!(read(&bytes[..bytes.len() - 1]).unwrap_err().contains("truncated"));
        }
    }

    #[test]
    fn the_order_of_fortran_is_turned() {
        // [[0, 1, 2], [3, 4, 5]], first index fastest.
        let array = Array::rows_of(3, Data::U8(vec![0, 3, 1, 4, 2, 5])).unwrap();
        let mut fortran = write(&array);
        let at = fortran.windows(5).position(|w| w == b"False").unwrap();
        fortran[at..at + 5].copy_from_slice(b"True ");
        assert_eq!(read(&fortran).unwrap(), Array::rows_of(3, Data::U8(vec![0, 1, 2, 3, 4, 5])).unwrap());
    }

    #[test]
    fn integers_and_halves_keep_their_value() {
        let values = |t: &str, b: &[u8]| NumpyType::parse(t).unwrap().values(b).unwrap();
        assert_eq!(values("<i2", &[0xfe, 0xff]), Data::I64(vec![-2]));
        assert_eq!(values(">i4", &[0, 0, 1, 0]), Data::I64(vec![256]));
        assert_eq!(values("<f2", &[0x00, 0x3c, 0x00, 0xc0]), Data::F32(vec![1.0, -2.0]));
        assert!(NumpyType::parse("<u8").unwrap().values(&[0xff; 8]).is_err());
        assert!(NumpyType::parse("<U7").is_err() && NumpyType::parse("").is_err());
    }
}
