//! Element types.

use super::Hdf5Error;
use super::source::Cursor;

/// Types that a type is made of, one inside the other.
const MAX_DEPTH: u8 = 4;

/// Type of an element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datatype {
    /// An integer.
    Integer {
        /// Bytes.
        size: usize,
        /// Two's complement.
        signed: bool,
        /// Most significant byte first.
        big_endian: bool,
    },
    /// An IEEE 754 float.
    Float {
        /// Bytes: 2, 4 or 8.
        size: usize,
        /// Most significant byte first.
        big_endian: bool,
    },
    /// h5py's truth value: an enumeration of FALSE and TRUE in a byte.
    Bool,
    /// Text of fixed length.
    Text {
        /// Bytes.
        size: usize,
    },
    /// Text of variable length, in the global heap.
    VariableText,
    /// What is not read, in words.
    Other {
        /// Bytes.
        size: usize,
        /// What it is.
        what: &'static str,
    },
}

impl Datatype {
    /// Bytes of an element.
    pub fn size(&self) -> usize {
        match self {
            Self::Integer { size, .. } | Self::Float { size, .. } | Self::Text { size } | Self::Other { size, .. } => {
                *size
            }
            Self::Bool => 1,
            Self::VariableText => 16,
        }
    }

    pub(super) fn read(c: &mut Cursor) -> Result<Self, Hdf5Error> {
        Self::nested(c, 0)
    }

    fn nested(c: &mut Cursor, depth: u8) -> Result<Self, Hdf5Error> {
        if depth > MAX_DEPTH {
            return Err(c.error("element types in one another without end: the file is damaged"));
        }
        let class = c.u8()?;
        let (class, version) = (class & 0x0f, class >> 4);
        if !(1..=5).contains(&version) {
            return Err(c.error(format!("element type of version {version}, known are 1 to 5: the file is damaged")));
        }
        let bits = c.take(3)?;
        let size = c.u32()? as usize;
        if size == 0 {
            return Err(c.error("elements of no bytes: the file is damaged"));
        }
        let big_endian = bits[0] & 1 != 0;
        let other = |what| Ok(Self::Other { size, what });
        match class {
            0 => {
                let (offset, precision) = (c.u16()?, c.u16()?);
                if offset != 0 || usize::from(precision) != 8 * size || size > 8 {
                    return other("integers of odd widths");
                }
                Ok(Self::Integer { size, signed: bits[0] & 8 != 0, big_endian })
            }
            1 => {
                c.take(12)?;
                match size {
                    2 | 4 | 8 => Ok(Self::Float { size, big_endian }),
                    _ => other("floats of more than 64 bits"),
                }
            }
            3 => Ok(Self::Text { size }),
            8 => {
                let members = u16::from_le_bytes([bits[0], bits[1]]);
                let base = Self::nested(c, depth + 1)?;
                if members == 2
                    && size == 1
                    && matches!(base, Self::Integer { .. })
                    && names(c, version)? == ["FALSE", "TRUE"]
                {
                    return Ok(Self::Bool);
                }
                Ok(base)
            }
            9 if bits[0] & 0x0f == 1 => match size {
                16 => Ok(Self::VariableText),
                _ => Err(c.error(format!("text of variable length in {size} bytes, 16 are known"))),
            },
            2 => other("times"),
            4 => other("bit fields"),
            5 => other("opaque bytes"),
            6 => other("compounds"),
            7 => other("references"),
            9 => other("sequences of variable length"),
            10 => other("arrays as elements"),
            _ => Err(c.error(format!("element type of class {class}: the file is damaged"))),
        }
    }
}

/// The two names of an enumeration of two.
fn names<'a>(c: &mut Cursor<'a>, version: u8) -> Result<[&'a str; 2], Hdf5Error> {
    let mut names = [""; 2];
    for name in &mut names {
        let mut rest = c.clone();
        let mut length = 0;
        while rest.u8()? != 0 {
            length += 1;
        }
        let bytes = c.take(length)?;
        *name = std::str::from_utf8(bytes).unwrap_or("");
        // Before version 3, names are padded to a multiple of 8.
        let padded = if version < 3 { (length + 8) & !7 } else { length + 1 };
        c.take(padded - length)?;
    }
    Ok(names)
}
