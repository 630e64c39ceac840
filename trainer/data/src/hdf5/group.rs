//! The members of a group.

use std::collections::BTreeMap;

use super::header::{Header, LINK, LINK_INFO, SYMBOL_TABLE};
use super::heap::LocalHeap;
use super::source::{Cursor, Source};
use super::{Hdf5Error, UNDEFINED, too_new};

/// Deepest tree and most members of one group.
const MAX_DEPTH: u8 = 16;
const MAX_MEMBERS: usize = 1 << 22;

/// Addresses of the members by name; `None` where the object is no group. Soft and external links are left out.
pub fn links(source: &Source, header: &Header) -> Result<Option<BTreeMap<String, u64>>, Hdf5Error> {
    let mut links = BTreeMap::new();
    if let Some(table) = header.message(SYMBOL_TABLE) {
        let mut c = table.cursor();
        let (tree, heap) = (c.u64()?, c.u64()?);
        let heap = LocalHeap::read(source, heap)?;
        // A file has no more nodes than its bytes hold; a damaged one may lead in circles.
        let mut left = source.length() / 24;
        walk(source, tree, MAX_DEPTH, &heap, &mut left, &mut links)?;
        return Ok(Some(links));
    }
    let is_group = match header.message(LINK_INFO) {
        None => header.message(LINK).is_some(),
        Some(info) => {
            let mut c = info.cursor();
            c.u8()?;
            if c.u8()? & 1 != 0 {
                c.u64()?;
            }
            if c.u64()? != UNDEFINED {
                return Err(Hdf5Error::at(info.offset, too_new("its members are kept in a fractal heap")));
            }
            true
        }
    };
    for message in header.messages.iter().filter(|m| m.kind == LINK) {
        let mut c = message.cursor();
        let version = c.u8()?;
        if version != 1 {
            return Err(c.error(format!("link of version {version}, known is 1")));
        }
        let flags = c.u8()?;
        let kind = if flags & 0x08 != 0 { c.u8()? } else { 0 };
        if flags & 0x04 != 0 {
            c.u64()?;
        }
        if flags & 0x10 != 0 {
            c.u8()?;
        }
        let length = c.unsigned(1 << (flags & 3))?;
        let length = usize::try_from(length).map_err(|_| c.error("a name that no memory holds"))?;
        let name = std::str::from_utf8(c.take(length)?).map_err(|_| c.error("a link's name that is not UTF-8"))?;
        if kind == 0 {
            links.insert(name.to_owned(), c.u64()?);
        }
    }
    Ok(is_group.then_some(links))
}

/// Collects the members below a node of a B-tree of version 1.
fn walk(
    source: &Source,
    address: u64,
    depth: u8,
    heap: &LocalHeap,
    left: &mut u64,
    links: &mut BTreeMap<String, u64>,
) -> Result<(), Hdf5Error> {
    let start = source.at(address, 24)?;
    let mut c = Cursor::new(&start, address);
    *left = left.checked_sub(1).ok_or_else(|| c.error("more nodes than the file holds: the file is damaged"))?;
    c.signature(b"TREE", "B-tree of a group")?;
    let (kind, level, used) = (c.u8()?, c.u8()?, c.u16()?);
    if kind != 0 || level >= depth {
        return Err(c.error("a B-tree that does not belong to a group: the file is damaged"));
    }
    let bytes = source.at(address + 24, usize::from(used) * 16)?;
    let mut c = Cursor::new(&bytes, address + 24);
    for _ in 0..used {
        c.u64()?;
        let child = c.u64()?;
        if level > 0 {
            walk(source, child, level, heap, left, links)?;
        } else {
            *left =
                left.checked_sub(1).ok_or_else(|| c.error("more nodes than the file holds: the file is damaged"))?;
            leaf(source, child, heap, links)?;
        }
        if links.len() > MAX_MEMBERS {
            return Err(c.error("too many members of one group: the file is damaged"));
        }
    }
    Ok(())
}

fn leaf(source: &Source, address: u64, heap: &LocalHeap, links: &mut BTreeMap<String, u64>) -> Result<(), Hdf5Error> {
    let start = source.at(address, 8)?;
    let mut c = Cursor::new(&start, address);
    c.signature(b"SNOD", "symbol table node")?;
    c.take(2)?;
    let count = c.u16()?;
    let bytes = source.at(address + 8, usize::from(count) * 40)?;
    let mut c = Cursor::new(&bytes, address + 8);
    for _ in 0..count {
        let (name, object) = (c.u64()?, c.u64()?);
        let cached = c.u32()?;
        c.take(4 + 16)?;
        // 2: a soft link, which has no object.
        if cached != 2 {
            links.insert(heap.text(name)?, object);
        }
    }
    Ok(())
}
