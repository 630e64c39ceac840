//! Extent, element type and place of a data set.

use super::chunks::Chunking;
use super::datatype::Datatype;
use super::filters::Pipeline;
use super::header::{DATASPACE, DATATYPE, Header, LAYOUT};
use super::source::{Cursor, Source};
use super::{Hdf5Error, UNDEFINED, too_new};

/// Most dimensions of a data set.
const MAX_RANK: usize = 32;
/// A file of n bytes holds at most so many times n bytes of values: the most that deflate can pack, and some more.
const LARGEST_GROWTH: u64 = 2048;
/// A data set below this size may be empty space altogether.
const SMALL: u64 = 1 << 24;

/// Extent of a dataspace; a scalar has no dimension, no space (null) no element.
pub fn dataspace(c: &mut Cursor) -> Result<Vec<usize>, Hdf5Error> {
    let (version, rank) = (c.u8()?, usize::from(c.u8()?));
    c.u8()?;
    let kind = c.u8()?;
    match version {
        1 => {
            c.take(4)?;
        }
        2 if kind == 2 => return Ok(vec![0]),
        2 => {}
        other => return Err(c.error(format!("extent of version {other}, known are 1 and 2"))),
    }
    if rank > MAX_RANK {
        return Err(c.error(format!("{rank} dimensions: the file is damaged")));
    }
    let mut shape = Vec::with_capacity(rank);
    for _ in 0..rank {
        let d = c.u64()?;
        shape.push(usize::try_from(d).map_err(|_| c.error("an extent that no memory holds"))?);
    }
    Ok(shape)
}

pub fn shape(header: &Header) -> Result<Vec<usize>, Hdf5Error> {
    dataspace(&mut header.needed(DATASPACE, "extent")?.cursor())
}

pub fn datatype(header: &Header) -> Result<Datatype, Hdf5Error> {
    Datatype::read(&mut header.needed(DATATYPE, "element type")?.cursor())
}

/// The bytes of all elements, filters undone.
pub fn bytes(source: &Source, header: &Header) -> Result<Vec<u8>, Hdf5Error> {
    let (shape, element) = (shape(header)?, datatype(header)?.size());
    let message = header.needed(LAYOUT, "layout")?;
    let total = shape.iter().try_fold(element as u64, |n, &d| n.checked_mul(d as u64));
    let largest = source.length().saturating_mul(LARGEST_GROWTH).max(SMALL);
    let total = total.filter(|&t| t <= largest && usize::try_from(t).is_ok()).ok_or_else(|| {
        let reason = format!("an extent of {shape:?} in a file of {} bytes: the file is damaged", source.length());
        Hdf5Error::at(message.offset, reason)
    })? as usize;
    let mut c = message.cursor();
    let version = c.u8()?;
    match version {
        1 | 2 => old(source, header, &mut c, shape, element, total),
        3 | 4 => {
            let class = c.u8()?;
            match class {
                0 => {
                    let size = usize::from(c.u16()?);
                    exact(&c, size as u64, total)?;
                    Ok(c.take(size)?.to_vec())
                }
                1 => {
                    let (address, size) = (c.u64()?, c.u64()?);
                    contiguous(source, &c, address, size, total)
                }
                2 if version == 3 => {
                    let rank = usize::from(c.u8()?);
                    let tree = c.u64()?;
                    let chunk = chunk_extent(&mut c, rank, &shape, 4)?;
                    in_tree(source, header, tree, shape, chunk, element, total)
                }
                2 => newer_chunks(source, header, &mut c, shape, element, total),
                3 => Err(c.error("a virtual data set, whose values are in other files; write it out first")),
                other => Err(c.error(format!("layout of class {other}: the file is damaged"))),
            }
        }
        other => Err(c.error(too_new(&format!("layout of version {other}")))),
    }
}

fn exact(c: &Cursor, size: u64, total: usize) -> Result<(), Hdf5Error> {
    if size != total as u64 {
        return Err(c.error(format!("{size} bytes of values where {total} are needed: the file is damaged")));
    }
    Ok(())
}

fn contiguous(source: &Source, c: &Cursor, address: u64, size: u64, total: usize) -> Result<Vec<u8>, Hdf5Error> {
    if address == UNDEFINED {
        // Nothing was ever written: the library reads zeros.
        return zeros(c, total);
    }
    exact(c, size, total)?;
    source.at(address, total)
}

fn zeros(c: &Cursor, total: usize) -> Result<Vec<u8>, Hdf5Error> {
    Vec::<u8>::new().try_reserve_exact(total).map_err(|_| c.error(format!("no memory for {total} bytes of values")))?;
    Ok(vec![0; total])
}

/// The extent of chunks; the last number, the bytes of an element, is left out.
fn chunk_extent(c: &mut Cursor, rank: usize, shape: &[usize], bytes: usize) -> Result<Vec<usize>, Hdf5Error> {
    if rank != shape.len() + 1 || shape.is_empty() {
        return Err(c.error("chunks of other dimensions than their data set: the file is damaged"));
    }
    let mut chunk = Vec::with_capacity(rank);
    for _ in 0..rank {
        let d = usize::try_from(c.unsigned(bytes)?).unwrap_or(0);
        if d == 0 {
            return Err(c.error("chunks without extent: the file is damaged"));
        }
        chunk.push(d);
    }
    chunk.pop();
    Ok(chunk)
}

fn in_tree(
    source: &Source,
    header: &Header,
    tree: u64,
    shape: Vec<usize>,
    chunk: Vec<usize>,
    element: usize,
    total: usize,
) -> Result<Vec<u8>, Hdf5Error> {
    let chunking = chunking(source, header, shape, chunk, element)?;
    let mut out = zeros(&Cursor::new(&[], header.address), total)?;
    if total > 0 {
        chunking.tree(source, tree, &mut out)?;
    }
    Ok(out)
}

fn chunking(
    source: &Source,
    header: &Header,
    shape: Vec<usize>,
    chunk: Vec<usize>,
    element: usize,
) -> Result<Chunking, Hdf5Error> {
    let pipeline = Pipeline::read(header)?;
    let size = chunk.iter().try_fold(element as u64, |n, &d| n.checked_mul(d as u64));
    let most = if pipeline.is_empty() { source.length() } else { source.length().saturating_mul(LARGEST_GROWTH) };
    if size.is_none_or(|s| s > most.max(SMALL)) {
        return Err(Hdf5Error::at(header.address, format!("chunks of {chunk:?}: the file is damaged")));
    }
    Ok(Chunking { shape, chunk, element, pipeline })
}

/// Layout of versions 1 and 2.
fn old(
    source: &Source,
    header: &Header,
    c: &mut Cursor,
    shape: Vec<usize>,
    element: usize,
    total: usize,
) -> Result<Vec<u8>, Hdf5Error> {
    let (rank, class) = (usize::from(c.u8()?), c.u8()?);
    c.take(5)?;
    match class {
        0 => {
            c.take(4 * rank)?;
            let size = c.u32()? as usize;
            exact(c, size as u64, total)?;
            Ok(c.take(size)?.to_vec())
        }
        1 => {
            let address = c.u64()?;
            contiguous(source, c, address, total as u64, total)
        }
        2 => {
            let tree = c.u64()?;
            let chunk = chunk_extent(c, rank, &shape, 4)?;
            in_tree(source, header, tree, shape, chunk, element, total)
        }
        other => Err(c.error(format!("layout of class {other}: the file is damaged"))),
    }
}

/// Chunks of version 4: only the index of a single chunk is read.
fn newer_chunks(
    source: &Source,
    header: &Header,
    c: &mut Cursor,
    shape: Vec<usize>,
    element: usize,
    total: usize,
) -> Result<Vec<u8>, Hdf5Error> {
    let (flags, rank, bytes) = (c.u8()?, usize::from(c.u8()?), usize::from(c.u8()?));
    let chunk = chunk_extent(c, rank, &shape, bytes)?;
    let index = c.u8()?;
    if index != 1 {
        let name = ["", "", "an implicit index", "a fixed array", "an extensible array", "a B-tree of version 2"];
        let name = name.get(usize::from(index)).unwrap_or(&"an unknown index");
        return Err(c.error(too_new(&format!("its chunks are found through {name}"))));
    }
    let chunking = chunking(source, header, shape, chunk, element)?;
    let size = chunking.chunk.iter().product::<usize>() * element;
    let (packed, skipped) = if flags & 2 != 0 { (c.u64()?, c.u32()?) } else { (size as u64, 0) };
    let packed = usize::try_from(packed).map_err(|_| c.error("a chunk that no memory holds"))?;
    let address = c.u64()?;
    let mut out = zeros(c, total)?;
    if address != UNDEFINED && total > 0 {
        chunking.one(source, address, packed, skipped, &vec![0; chunking.shape.len()], &mut out)?;
    }
    Ok(out)
}
