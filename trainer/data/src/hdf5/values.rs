//! Bytes → numbers and texts.

use super::datatype::Datatype;
use super::heap;
use super::source::{Cursor, Source};
use crate::array::Data;
use crate::npy::half;

/// Numbers and truth values.
pub fn numbers(bytes: &[u8], datatype: &Datatype) -> Result<Data, String> {
    match *datatype {
        Datatype::Bool => Ok(Data::Bool(bytes.iter().map(|&b| b != 0).collect())),
        Datatype::Integer { size: 1, signed: false, .. } => Ok(Data::U8(bytes.to_vec())),
        Datatype::Integer { size, signed, big_endian } => bytes
            .chunks_exact(size)
            .map(|element| integer(element, signed, big_endian))
            .collect::<Option<Vec<i64>>>()
            .map(Data::I64)
            .ok_or_else(|| "an unsigned integer beyond 2^63 − 1".to_string()),
        Datatype::Float { size, big_endian } => {
            let ordered = |element: &[u8]| {
                let mut full = [0; 8];
                for (i, &b) in element.iter().enumerate() {
                    full[if big_endian { size - 1 - i } else { i }] = b;
                }
                u64::from_le_bytes(full)
            };
            let words = bytes.chunks_exact(size).map(ordered);
            Ok(match size {
                2 => Data::F32(words.map(|w| half(w as u16)).collect()),
                4 => Data::F32(words.map(|w| f32::from_bits(w as u32)).collect()),
                _ => Data::F64(words.map(f64::from_bits).collect()),
            })
        }
        Datatype::Text { .. } | Datatype::VariableText => Err("texts where numbers are needed".into()),
        Datatype::Other { what, .. } => Err(format!("its elements are {what}, which are not read")),
    }
}

fn integer(element: &[u8], signed: bool, big_endian: bool) -> Option<i64> {
    let last = element.len() - 1;
    let top = if big_endian { element[0] } else { element[last] };
    let mut full = [if signed && top & 0x80 != 0 { 0xff } else { 0 }; 8];
    for (i, &b) in element.iter().enumerate() {
        full[if big_endian { last - i } else { i }] = b;
    }
    let value = i64::from_le_bytes(full);
    (signed || value >= 0).then_some(value)
}

/// Texts, of fixed or of variable length.
pub fn texts(source: &Source, bytes: &[u8], datatype: &Datatype) -> Result<Vec<String>, String> {
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
        String::from_utf8(bytes[..end].to_vec()).map_err(|_| "a text that is not UTF-8".to_string())
    };
    match *datatype {
        Datatype::Text { size } => bytes.chunks_exact(size).map(text).collect(),
        Datatype::VariableText => bytes
            .chunks_exact(16)
            .map(|element| {
                let mut c = Cursor::new(element, 0);
                let read = |c: &mut Cursor| Ok((c.u32()?, c.u64()?, c.u32()?));
                let (length, collection, index) = read(&mut c).map_err(|e: super::Hdf5Error| e.reason)?;
                if length == 0 {
                    return Ok(String::new());
                }
                let bytes = heap::global(source, collection, index).map_err(|e| e.to_string())?;
                text(
                    bytes
                        .get(..length as usize)
                        .ok_or("a text longer than its value in the heap: the file is damaged")?,
                )
            })
            .collect(),
        _ => Err("numbers where texts are needed".into()),
    }
}
