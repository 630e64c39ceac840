//! What a chunk went through before it was written.

use super::Hdf5Error;
use super::header::{FILTERS, Header};

const DEFLATE: u16 = 1;
const SHUFFLE: u16 = 2;
const FLETCHER32: u16 = 3;
const LZF: u16 = 32000;

/// The filters of a data set, in the order of writing: number, and whether a chunk may go without.
#[derive(Debug, Clone, Default)]
pub struct Pipeline {
    filters: Vec<u16>,
}

impl Pipeline {
    pub fn read(header: &Header) -> Result<Self, Hdf5Error> {
        let Some(message) = header.message(FILTERS) else { return Ok(Self::default()) };
        let mut c = message.cursor();
        let (version, count) = (c.u8()?, c.u8()?);
        match version {
            1 => {
                c.take(6)?;
            }
            2 => {}
            other => return Err(c.error(format!("filters of version {other}, known are 1 and 2"))),
        }
        let mut filters = Vec::new();
        for _ in 0..count {
            let id = c.u16()?;
            let name = if version == 1 || id >= 256 { c.u16()? } else { 0 };
            c.take(2)?;
            let values = c.u16()?;
            c.take(if version == 1 { usize::from(name).next_multiple_of(8) } else { usize::from(name) })?;
            c.take(4 * usize::from(values))?;
            if version == 1 && values % 2 == 1 {
                c.take(4)?;
            }
            if ![DEFLATE, SHUFFLE, FLETCHER32, LZF].contains(&id) {
                let name = match id {
                    4 => "SZIP",
                    5 => "n-bit",
                    6 => "scale-offset",
                    32001 => "Blosc",
                    32004 => "LZ4",
                    32008 => "bitshuffle",
                    32015 => "Zstandard",
                    _ => "unknown",
                };
                return Err(c.error(format!(
                    "its chunks are packed by filter {id} ({name}), which is not read; pack them with deflate: \
                     `h5repack -f GZIP=4 IN OUT`"
                )));
            }
            filters.push(id);
        }
        Ok(Self { filters })
    }

    pub fn is_empty(&self) -> bool {
        self.filters.is_empty()
    }

    /// The chunk as it was before the filters. `skipped`: bit i is set where filter i was left out. `size`: its bytes.
    pub fn undo(&self, packed: Vec<u8>, skipped: u32, size: usize, element: usize) -> Result<Vec<u8>, String> {
        let mut bytes = packed;
        for (i, filter) in self.filters.iter().enumerate().rev() {
            if i < 32 && skipped >> i & 1 == 1 {
                continue;
            }
            bytes = match *filter {
                // A checksum may still stand behind the values.
                DEFLATE => miniz_oxide::inflate::decompress_to_vec_zlib_with_limit(&bytes, size + 4)
                    .map_err(|e| format!("a chunk that cannot be inflated ({:?}): the file is damaged", e.status))?,
                SHUFFLE => unshuffle(&bytes, element),
                FLETCHER32 => checked(bytes)?,
                _ => unpack_lzf(&bytes, size + 4)?,
            };
        }
        if bytes.len() != size {
            return Err(format!("a chunk of {} bytes where {size} are needed: the file is damaged", bytes.len()));
        }
        Ok(bytes)
    }
}

/// Bytes of the same place in every element stand together; what does not fill an element stands at the end.
pub fn unshuffle(bytes: &[u8], element: usize) -> Vec<u8> {
    if element <= 1 {
        return bytes.to_vec();
    }
    let count = bytes.len() / element;
    let mut out = vec![0; bytes.len()];
    for place in 0..element {
        for i in 0..count {
            out[i * element + place] = bytes[place * count + i];
        }
    }
    out[count * element..].copy_from_slice(&bytes[count * element..]);
    out
}

/// Takes Fletcher's checksum away that stands behind the bytes, having compared it.
fn checked(mut bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    let Some(length) = bytes.len().checked_sub(4) else {
        return Err("a chunk shorter than its checksum: the file is damaged".into());
    };
    let stored = bytes.split_off(length);
    if stored != fletcher32(&bytes).to_le_bytes() {
        return Err("a chunk whose checksum is wrong: the file is damaged".into());
    }
    Ok(bytes)
}

/// As the library computes it: words of 16 bits, most significant byte first.
fn fletcher32(bytes: &[u8]) -> u32 {
    let (mut low, mut high) = (0u32, 0u32);
    let (words, rest) = bytes.as_chunks::<2>();
    for word in words {
        low = (low + u32::from(u16::from_be_bytes(*word))) % 65535;
        high = (high + low) % 65535;
    }
    if let [last] = rest {
        low = (low + (u32::from(*last) << 8)) % 65535;
        high = (high + low) % 65535;
    }
    high << 16 | low
}

/// LibLZF's format: runs of literals, and references to at most 8 KiB before.
fn unpack_lzf(packed: &[u8], limit: usize) -> Result<Vec<u8>, String> {
    let damaged = || "a chunk that LZF cannot unpack: the file is damaged".to_string();
    let mut out = Vec::with_capacity(limit.min(packed.len() * 4));
    let mut bytes = packed.iter().copied();
    while let Some(control) = bytes.next() {
        let control = usize::from(control);
        if control < 32 {
            for _ in 0..=control {
                out.push(bytes.next().ok_or_else(damaged)?);
            }
        } else {
            let mut length = control >> 5;
            if length == 7 {
                length += usize::from(bytes.next().ok_or_else(damaged)?);
            }
            let distance = ((control & 0x1f) << 8 | usize::from(bytes.next().ok_or_else(damaged)?)) + 1;
            let from = out.len().checked_sub(distance).ok_or_else(damaged)?;
            for i in 0..length + 2 {
                out.push(out[from + i]);
            }
        }
        if out.len() > limit {
            return Err(damaged());
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shuffled_bytes_come_back() {
        assert_eq!(unshuffle(&[0, 2, 4, 1, 3, 5, 9], 2), [0, 1, 2, 3, 4, 5, 9]);
    }

    #[test]
    fn lzf_repeats_what_stands_before() {
        // Two literals, then 3 + 2 bytes from two places before.
        assert_eq!(unpack_lzf(&[1, b'a', b'b', 0x60, 1], 100).unwrap(), b"abababa");
        assert!(unpack_lzf(&[0x60, 1], 100).is_err());
        assert!(unpack_lzf(&[5, 1], 100).is_err());
        assert!(unpack_lzf(&[0, 0, 0xe0, 255, 0], 100).is_err(), "larger than the chunk");
    }
}
