//! Blosc 1: blocks, each shuffled and packed by a codec of its own.

use super::codec::{zlib, zstd};
use super::lz;
use crate::hdf5::unshuffle;

const HEADER: usize = 16;
/// Flags of the header.
const SHUFFLED: u8 = 0x01;
const COPIED: u8 = 0x02;
const BITS_SHUFFLED: u8 = 0x04;
const NOT_SPLIT: u8 = 0x10;
/// Widest element whose bytes are packed each by themselves, and the fewest elements of such a block.
const MAX_SPLITS: usize = 16;
const MIN_SPLIT: usize = 128;

/// Unpacks a buffer that must have `size` bytes.
pub fn unpack(packed: &[u8], size: usize) -> Result<Vec<u8>, String> {
    let cut = || "it is shorter than its Blosc header says: it is cut off".to_string();
    let header = packed.first_chunk::<HEADER>().ok_or_else(cut)?;
    let number = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
    let (version, flags, element) = (header[0], header[2], usize::from(header[3]).max(1));
    let (bytes, block, total) = (number(4), number(8), number(12));
    if version != 2 {
        return Err(format!("Blosc of version {version}, 2 is read"));
    }
    if bytes != size {
        return Err(format!("it says {bytes} bytes where {size} are needed"));
    }
    let packed = packed.get(..total).filter(|_| total >= HEADER).ok_or_else(cut)?;
    if flags & COPIED != 0 {
        return packed.get(HEADER..HEADER + bytes).map(<[u8]>::to_vec).ok_or_else(cut);
    }
    if bytes == 0 {
        return Ok(Vec::new());
    }
    if block == 0 {
        return Err("blocks without extent: it is damaged".into());
    }
    let mut out = Vec::with_capacity(bytes);
    for (i, start) in (0..bytes).step_by(block).enumerate() {
        let length = block.min(bytes - start);
        let at = packed.get(HEADER + 4 * i..HEADER + 4 * i + 4).ok_or_else(cut)?;
        let at = u32::from_le_bytes([at[0], at[1], at[2], at[3]]) as usize;
        let mut rest = packed.get(at..).ok_or_else(cut)?;
        let split = flags & NOT_SPLIT == 0 && length == block && element <= MAX_SPLITS && block / element >= MIN_SPLIT;
        let parts = if split { element } else { 1 };
        let part = length / parts;
        let mut shuffled = Vec::with_capacity(length);
        for _ in 0..parts {
            let (stored, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
            let stored = u32::from_le_bytes(*stored) as usize;
            let (stored, after) = after.split_at_checked(stored).ok_or_else(cut)?;
            rest = after;
            let unpacked = if stored.len() == part { stored.to_vec() } else { inner(flags >> 5, stored, part)? };
            if unpacked.len() != part {
                return Err("a block of another length than it should have: it is damaged".into());
            }
            shuffled.extend_from_slice(&unpacked);
        }
        if shuffled.len() != length {
            return Err("a block that cannot be split evenly: it is damaged".into());
        }
        if flags & SHUFFLED != 0 {
            out.extend_from_slice(&unshuffle(&shuffled, element));
        } else if flags & BITS_SHUFFLED != 0 {
            out.extend_from_slice(&unshuffle_bits(shuffled, element));
        } else {
            out.extend_from_slice(&shuffled);
        }
    }
    Ok(out)
}

fn inner(codec: u8, packed: &[u8], size: usize) -> Result<Vec<u8>, String> {
    match codec {
        0 => lz::blosclz(packed, size),
        1 => lz::lz4(packed, size),
        2 => Err("it is packed by Snappy, which is not read".into()),
        3 => zlib(packed, size),
        4 => zstd(packed, size),
        other => Err(format!("it is packed by codec {other} of Blosc, which is not known")),
    }
}

/// Bits of the same place in every element stand together. Blocks whose number of elements is no multiple of 8 were not
/// shuffled.
fn unshuffle_bits(bytes: Vec<u8>, element: usize) -> Vec<u8> {
    let count = bytes.len() / element;
    if !count.is_multiple_of(8) {
        return bytes;
    }
    let row = count / 8;
    let mut out = vec![0; bytes.len()];
    for place in 0..8 * element {
        for i in 0..count {
            let bit = bytes[place * row + i / 8] >> (i % 8) & 1;
            out[i * element + place / 8] |= bit << (place % 8);
        }
    }
    out[count * element..].copy_from_slice(&bytes[count * element..]);
    out
}
