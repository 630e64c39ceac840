//! Object headers: a list of typed messages, in one block and its continuations.

use super::source::{Cursor, Source};
use super::{Hdf5Error, checksum};

pub const DATASPACE: u16 = 0x01;
pub const LINK_INFO: u16 = 0x02;
pub const DATATYPE: u16 = 0x03;
pub const LINK: u16 = 0x06;
pub const LAYOUT: u16 = 0x08;
pub const FILTERS: u16 = 0x0b;
pub const ATTRIBUTE: u16 = 0x0c;
pub const CONTINUATION: u16 = 0x10;
pub const SYMBOL_TABLE: u16 = 0x11;
pub const ATTRIBUTE_INFO: u16 = 0x15;

/// Most blocks and messages of one header: a damaged one must not lead in circles.
const MAX_BLOCKS: usize = 4096;
const MAX_MESSAGES: usize = 1 << 20;
/// Flag of a message that stands elsewhere.
const SHARED: u8 = 0x02;

/// One message: its kind and its bytes.
#[derive(Debug, Clone)]
pub struct Message {
    pub kind: u16,
    pub shared: bool,
    pub bytes: Vec<u8>,
    /// Where in the file the bytes are.
    pub offset: u64,
}

impl Message {
    pub fn cursor(&self) -> Cursor<'_> {
        Cursor::new(&self.bytes, self.offset)
    }
}

/// The header of a group or data set.
#[derive(Debug, Clone)]
pub struct Header {
    pub address: u64,
    pub messages: Vec<Message>,
}

impl Header {
    pub fn read(source: &Source, address: u64) -> Result<Self, Hdf5Error> {
        let start = source.at(address, 4)?;
        let mut header = Self { address, messages: Vec::new() };
        if start == b"OHDR" {
            header.second_version(source)?
        } else {
            header.first_version(source)?
        }
        Ok(header)
    }

    /// The first message of a kind.
    pub fn message(&self, kind: u16) -> Option<&Message> {
        self.messages.iter().find(|m| m.kind == kind)
    }

    /// The first message of a kind, which must be there and stand here.
    pub fn needed(&self, kind: u16, what: &str) -> Result<&Message, Hdf5Error> {
        let message = self
            .message(kind)
            .ok_or_else(|| Hdf5Error::at(self.address, format!("this object has no {what}: it is no data set")))?;
        if message.shared {
            return Err(Hdf5Error::at(message.offset, format!("its {what} is shared, which is not read here")));
        }
        Ok(message)
    }

    fn first_version(&mut self, source: &Source) -> Result<(), Hdf5Error> {
        let bytes = source.at(self.address, 16)?;
        let mut c = Cursor::new(&bytes, self.address);
        let version = c.u8()?;
        if version != 1 {
            return Err(Hdf5Error::at(self.address, "no object header where one should be: the file is damaged"));
        }
        c.take(7)?;
        let size = c.u32()? as usize;
        let mut blocks = vec![(self.address + 16, size)];
        let mut i = 0;
        while i < blocks.len() {
            let (offset, size) = blocks[i];
            let bytes = source.at(offset, size)?;
            let mut c = Cursor::new(&bytes, offset);
            // What is shorter than a message's own header is padding.
            while c.left() >= 8 {
                let (kind, size) = (c.u16()?, c.u16()? as usize);
                let flags = c.u8()?;
                c.take(3)?;
                self.push(kind, flags, &mut c, size, &mut blocks)?;
            }
            i += 1;
        }
        Ok(())
    }

    fn second_version(&mut self, source: &Source) -> Result<(), Hdf5Error> {
        // Long enough for every optional field.
        let bytes = source.at(self.address, (source.length() - self.address).min(40) as usize)?;
        let mut c = Cursor::new(&bytes, self.address);
        c.take(4)?;
        let version = c.u8()?;
        if version != 2 {
            return Err(c.error(format!("object header of version {version}, known are 1 and 2")));
        }
        let flags = c.u8()?;
        if flags & 0x20 != 0 {
            c.take(16)?;
        }
        if flags & 0x10 != 0 {
            c.take(4)?;
        }
        let size = c.unsigned(1 << (flags & 3))?;
        let prefix = c.position();
        let size = usize::try_from(size).map_err(|_| c.error("a header that no memory holds"))?;
        // Where the block begins, what precedes its messages, and how many bytes they have.
        let mut blocks = vec![(self.address, prefix, size)];
        let order = flags & 0x04 != 0;
        let mut i = 0;
        while i < blocks.len() {
            let (start, prefix, size) = blocks[i];
            let total = prefix.checked_add(size).and_then(|t| t.checked_add(4));
            let total = total.ok_or_else(|| Hdf5Error::at(start, "a header that no memory holds"))?;
            let bytes = source.at(start, total)?;
            let (covered, stored) = bytes.split_at(prefix + size);
            if stored != checksum::lookup3(covered).to_le_bytes() {
                return Err(Hdf5Error::at(start, "the object header's checksum is wrong: the file is damaged"));
            }
            if i > 0 && !covered.starts_with(b"OCHK") {
                return Err(Hdf5Error::at(start, "no continuation of an object header here: the file is damaged"));
            }
            let mut c = Cursor::new(covered, start);
            c.take(prefix)?;
            let own = if order { 6 } else { 4 };
            let mut more = Vec::new();
            while c.left() >= own {
                let kind = u16::from(c.u8()?);
                let size = c.u16()? as usize;
                let flags = c.u8()?;
                if order {
                    c.take(2)?;
                }
                self.push(kind, flags, &mut c, size, &mut more)?;
            }
            for (offset, size) in more {
                let size = size.checked_sub(8).ok_or_else(|| Hdf5Error::at(offset, "a continuation without room"))?;
                blocks.push((offset, 4, size));
            }
            if blocks.len() > MAX_BLOCKS {
                return Err(Hdf5Error::at(start, "too many continuations of one header: the file is damaged"));
            }
            i += 1;
        }
        Ok(())
    }

    fn push(
        &mut self,
        kind: u16,
        flags: u8,
        c: &mut Cursor,
        size: usize,
        blocks: &mut Vec<(u64, usize)>,
    ) -> Result<(), Hdf5Error> {
        let offset = c.offset();
        let bytes = c.take(size)?;
        if kind == CONTINUATION {
            let mut c = Cursor::new(bytes, offset);
            let (to, size) = (c.u64()?, c.u64()?);
            let size = usize::try_from(size).map_err(|_| c.error("a continuation that no memory holds"))?;
            if blocks.len() >= MAX_BLOCKS {
                return Err(c.error("too many continuations of one header: the file is damaged"));
            }
            blocks.push((to, size));
        } else if kind != 0 {
            if self.messages.len() >= MAX_MESSAGES {
                return Err(c.error("too many messages in one header: the file is damaged"));
            }
            let shared = flags & SHARED != 0;
            self.messages.push(Message { kind, shared, bytes: bytes.to_vec(), offset });
        }
        Ok(())
    }
}
