//! Data sets in chunks.

use super::filters::Pipeline;
use super::source::{Cursor, Source};
use super::{Hdf5Error, UNDEFINED};

const MAX_DEPTH: u8 = 32;

/// How a data set is cut.
#[derive(Debug)]
pub struct Chunking {
    /// Extent of the data set.
    pub shape: Vec<usize>,
    /// Extent of a chunk.
    pub chunk: Vec<usize>,
    /// Bytes of an element.
    pub element: usize,
    pub pipeline: Pipeline,
}

impl Chunking {
    fn chunk_bytes(&self) -> Option<usize> {
        self.chunk.iter().try_fold(self.element, |n, &d| n.checked_mul(d))
    }

    /// Puts one chunk to its place. Panics where `bytes` is no whole chunk.
    fn place(&self, offsets: &[usize], bytes: &[u8], out: &mut [u8]) {
        let rank = self.shape.len();
        let last = rank - 1;
        let wide = self.shape[last].saturating_sub(offsets[last]).min(self.chunk[last]);
        if wide == 0 {
            return;
        }
        let rows: usize = self.chunk[..last].iter().product();
        let mut index = vec![0; last];
        for row in 0..rows {
            // Where this row of the chunk lies in the data set, unless it hangs over the edge.
            let mut place = Some(0usize);
            for d in 0..last {
                let at = offsets[d] + index[d];
                place = place.filter(|_| at < self.shape[d]).map(|p| p * self.shape[d] + at);
            }
            if let Some(place) = place {
                let to = (place * self.shape[last] + offsets[last]) * self.element;
                let from = row * self.chunk[last] * self.element;
                out[to..to + wide * self.element].copy_from_slice(&bytes[from..from + wide * self.element]);
            }
            for d in (0..last).rev() {
                index[d] += 1;
                if index[d] < self.chunk[d] {
                    break;
                }
                index[d] = 0;
            }
        }
    }

    /// Reads a chunk that lies at `address`, packed into `packed` bytes.
    pub fn one(
        &self,
        source: &Source,
        address: u64,
        packed: usize,
        skipped: u32,
        offsets: &[usize],
        out: &mut [u8],
    ) -> Result<(), Hdf5Error> {
        let size = self.chunk_bytes().ok_or_else(|| Hdf5Error::at(address, "chunks that no memory holds"))?;
        let bytes = source.at(address, packed)?;
        let bytes =
            self.pipeline.undo(bytes, skipped, size, self.element).map_err(|reason| Hdf5Error::at(address, reason))?;
        self.place(offsets, &bytes, out);
        Ok(())
    }

    /// Reads every chunk below a node of a B-tree of version 1. Chunks that were never written stay as they are.
    pub fn tree(&self, source: &Source, address: u64, out: &mut [u8]) -> Result<(), Hdf5Error> {
        if address == UNDEFINED {
            return Ok(());
        }
        // A whole tree has no more chunks than places; a damaged one may lead in circles.
        let places = self.shape.iter().zip(&self.chunk).map(|(s, c)| s.div_ceil((*c).max(1)));
        let mut left = places.fold(2usize, usize::saturating_mul).saturating_add(64);
        self.node(source, address, MAX_DEPTH, &mut left, out)
    }

    fn node(
        &self,
        source: &Source,
        address: u64,
        depth: u8,
        left: &mut usize,
        out: &mut [u8],
    ) -> Result<(), Hdf5Error> {
        let rank = self.shape.len();
        let start = source.at(address, 24)?;
        let mut c = Cursor::new(&start, address);
        c.signature(b"TREE", "B-tree of chunks")?;
        let (kind, level, used) = (c.u8()?, c.u8()?, c.u16()?);
        if kind != 1 || level >= depth {
            return Err(c.error("a B-tree that does not hold chunks: the file is damaged"));
        }
        spend(left, &c)?;
        let key = 8 + 8 * (rank + 1);
        let bytes = source.at(address + 24, usize::from(used) * (key + 8))?;
        let mut c = Cursor::new(&bytes, address + 24);
        for _ in 0..used {
            let (packed, skipped) = (c.u32()? as usize, c.u32()?);
            let mut offsets = Vec::with_capacity(rank);
            for d in 0..rank {
                let offset = c.u64()?;
                let offset =
                    usize::try_from(offset).ok().filter(|&o| o < self.shape[d].max(1) && o % self.chunk[d] == 0);
                offsets.push(offset.ok_or_else(|| c.error("a chunk outside its data set: the file is damaged"))?);
            }
            c.u64()?;
            let child = c.u64()?;
            if level > 0 {
                self.node(source, child, level, left, out)?;
                continue;
            }
            spend(left, &c)?;
            self.one(source, child, packed, skipped, &offsets, out)?;
        }
        Ok(())
    }
}

/// One node or chunk of those that there can be.
fn spend(left: &mut usize, c: &Cursor) -> Result<(), Hdf5Error> {
    *left = left.checked_sub(1).ok_or_else(|| c.error("more chunks than places: the file is damaged"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_that_hangs_over_the_edge_is_cut() {
        let chunking = Chunking { shape: vec![3, 5], chunk: vec![2, 3], element: 1, pipeline: Pipeline::default() };
        let mut out = vec![0; 15];
        chunking.place(&[2, 3], &[1, 2, 3, 4, 5, 6], &mut out);
        assert_eq!(out, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        chunking.place(&[0, 0], &[1, 2, 3, 4, 5, 6], &mut out);
        assert_eq!(out, [1, 2, 3, 0, 0, 4, 5, 6, 0, 0, 0, 0, 0, 1, 2]);
    }
}
