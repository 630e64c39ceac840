//! How chunks are packed.

use std::io::Read;

use serde_json::Value;

use super::{blosc, lz};

/// A compressor of numcodecs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Codec {
    Raw,
    Zlib,
    Gzip,
    Zstd,
    Lz4,
    Blosc,
}

impl Codec {
    /// Of the entry `compressor`.
    pub fn of(compressor: &Value) -> Result<Self, String> {
        if compressor.is_null() {
            return Ok(Self::Raw);
        }
        match compressor.get("id").and_then(Value::as_str) {
            Some("zlib") => Ok(Self::Zlib),
            Some("gzip") => Ok(Self::Gzip),
            Some("zstd") => Ok(Self::Zstd),
            Some("lz4") => Ok(Self::Lz4),
            Some("blosc") => Ok(Self::Blosc),
            Some(other) => Err(format!("its chunks are packed by codec {other}, which is not read")),
            None => Err("its compressor has no id".into()),
        }
    }

    /// The chunk of `size` bytes.
    pub fn unpack(self, packed: &[u8], size: usize) -> Result<Vec<u8>, String> {
        let bytes = match self {
            Self::Raw => packed.to_vec(),
            Self::Zlib => zlib(packed, size)?,
            Self::Gzip => gzip(packed, size)?,
            Self::Zstd => zstd(packed, size)?,
            Self::Lz4 => {
                let (length, packed) = packed.split_first_chunk::<4>().ok_or("it is cut off")?;
                if u32::from_le_bytes(*length) as usize != size {
                    return Err(format!("it says {} bytes where {size} are needed", u32::from_le_bytes(*length)));
                }
                lz::lz4(packed, size)?
            }
            Self::Blosc => blosc::unpack(packed, size)?,
        };
        if bytes.len() != size {
            return Err(format!("it has {} bytes where {size} are needed: it is cut off or damaged", bytes.len()));
        }
        Ok(bytes)
    }
}

/// At most `size` bytes.
pub fn zlib(packed: &[u8], size: usize) -> Result<Vec<u8>, String> {
    miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(packed, size)
        .map_err(|e| format!("it cannot be inflated ({:?}): it is damaged", e.status))
}

fn gzip(packed: &[u8], size: usize) -> Result<Vec<u8>, String> {
    let cut = "it is cut off";
    let (header, mut rest) = packed.split_first_chunk::<10>().ok_or(cut)?;
    if header[..3] != [0x1f, 0x8b, 8] {
        return Err("it is not packed by gzip".into());
    }
    let flags = header[3];
    if flags & 4 != 0 {
        let (length, after) = rest.split_first_chunk::<2>().ok_or(cut)?;
        rest = after.get(usize::from(u16::from_le_bytes(*length))..).ok_or(cut)?;
    }
    for flag in [8, 16] {
        if flags & flag != 0 {
            let end = rest.iter().position(|&b| b == 0).ok_or(cut)?;
            rest = &rest[end + 1..];
        }
    }
    if flags & 2 != 0 {
        rest = rest.get(2..).ok_or(cut)?;
    }
    miniz_oxide::inflate::decompress_to_vec_with_limit(rest, size)
        .map_err(|e| format!("it cannot be inflated ({:?}): it is damaged", e.status))
}

/// At most `size` bytes, and one more where there are too many.
pub fn zstd(packed: &[u8], size: usize) -> Result<Vec<u8>, String> {
    let damaged = |e: &dyn std::fmt::Display| format!("Zstandard cannot unpack it ({e}): it is damaged");
    let mut reader = packed;
    let decoder = ruzstd::decoding::StreamingDecoder::new(&mut reader).map_err(|e| damaged(&e))?;
    let mut bytes = Vec::new();
    decoder.take(size as u64 + 1).read_to_end(&mut bytes).map_err(|e| damaged(&e))?;
    Ok(bytes)
}
