//! Heaps: names of a group's members, and values of variable length.

use super::Hdf5Error;
use super::source::{Cursor, Source};

/// Names of members.
pub struct LocalHeap {
    bytes: Vec<u8>,
    address: u64,
}

impl LocalHeap {
    pub fn read(source: &Source, address: u64) -> Result<Self, Hdf5Error> {
        let bytes = source.at(address, 32)?;
        let mut c = Cursor::new(&bytes, address);
        c.signature(b"HEAP", "local heap")?;
        c.take(4)?;
        let size = c.u64()?;
        c.u64()?;
        let data = c.u64()?;
        let size = usize::try_from(size).map_err(|_| c.error("a heap that no memory holds"))?;
        Ok(Self { bytes: source.at(data, size)?, address: data })
    }

    /// The text that begins at an offset and ends with a zero byte.
    pub fn text(&self, offset: u64) -> Result<String, Hdf5Error> {
        let at = self.address.saturating_add(offset);
        let rest = usize::try_from(offset).ok().and_then(|o| self.bytes.get(o..));
        let rest = rest.ok_or_else(|| Hdf5Error::at(at, "a name outside its heap: the file is damaged"))?;
        let end = rest.iter().position(|&b| b == 0);
        let end = end.ok_or_else(|| Hdf5Error::at(at, "a name without an end: the file is damaged"))?;
        let text = std::str::from_utf8(&rest[..end]).map_err(|_| Hdf5Error::at(at, "a name that is not UTF-8"))?;
        Ok(text.to_owned())
    }
}

/// An object of a global heap.
pub fn global(source: &Source, collection: u64, wanted: u32) -> Result<Vec<u8>, Hdf5Error> {
    let start = source.at(collection, 16)?;
    let mut c = Cursor::new(&start, collection);
    c.signature(b"GCOL", "global heap")?;
    c.take(4)?;
    let size = c.u64()?;
    let end = collection.checked_add(size).filter(|&end| end <= source.length());
    let end = end.ok_or_else(|| Hdf5Error::at(collection, "a heap that ends beyond the file: the file is damaged"))?;
    let mut at = collection + 16;
    while at + 16 <= end {
        let head = source.at(at, 16)?;
        let mut c = Cursor::new(&head, at);
        let index = c.u16()?;
        c.take(6)?;
        let size = c.u64()?;
        if index == 0 {
            break;
        }
        let padded = size.checked_add(7).map(|s| s & !7).filter(|s| at + 16 <= end && *s <= end - at - 16);
        let padded =
            padded.ok_or_else(|| Hdf5Error::at(at, "a value that ends beyond its heap: the file is damaged"))?;
        if u32::from(index) == wanted {
            return source.at(at + 16, size as usize);
        }
        at += 16 + padded;
    }
    Err(Hdf5Error::at(collection, format!("the heap has no value {wanted}: the file is damaged")))
}
