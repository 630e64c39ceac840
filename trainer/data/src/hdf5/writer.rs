//! Writing: superblock 2, groups and data sets with headers of version 2, values contiguous.
//!
//! HDF5 1.8 and later (h5py, robomimic) open such files. Data sets are written as they come; a group is written once
//! its members stand, the superblock at the end.

use std::io::{BufWriter, Seek, SeekFrom, Write};

use super::{SIGNATURE, UNDEFINED, checksum, header};
use crate::array::{Array, Data};

/// Bytes of a superblock of version 2.
const SUPERBLOCK_BYTES: u64 = 48;
/// Largest message of a header.
const MAX_MESSAGE: usize = u16::MAX as usize;
/// Smallest global heap.
const MIN_HEAP: usize = 4096;

/// Value of an attribute.
#[derive(Debug, Clone, Copy)]
pub enum AttributeValue<'a> {
    /// UTF-8, of any length.
    Text(&'a str),
    /// A whole number.
    Integer(i64),
    /// A number.
    Float(f64),
}

/// Address of something that stands in the file.
#[derive(Debug, Clone, Copy)]
pub struct Written(u64);

/// Writes one file.
#[derive(Debug)]
pub struct Writer<W: Write + Seek> {
    out: BufWriter<W>,
    position: u64,
}

impl<W: Write + Seek> Writer<W> {
    /// Begins a file at the start of `out`.
    ///
    /// # Errors
    /// What the disk says.
    pub fn new(out: W) -> std::io::Result<Self> {
        let mut writer = Self { out: BufWriter::new(out), position: 0 };
        writer.put(&[0; SUPERBLOCK_BYTES as usize])?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> std::io::Result<u64> {
        let at = self.position;
        self.out.write_all(bytes)?;
        self.position += bytes.len() as u64;
        Ok(at)
    }

    /// Puts bytes to an address that is a multiple of 8.
    fn aligned(&mut self, bytes: &[u8]) -> std::io::Result<u64> {
        let padding = (8 - self.position % 8) % 8;
        self.put(&[0; 8][..padding as usize])?;
        self.put(bytes)
    }

    /// Writes a data set of numbers.
    ///
    /// # Errors
    /// What the disk says.
    pub fn array(&mut self, array: &Array) -> std::io::Result<Written> {
        let shape: Vec<u64> = array.shape().iter().map(|&d| d as u64).collect();
        self.data_set(&shape, &datatype(array.data()), &array.data().to_le_bytes())
    }

    /// Writes a data set of texts, of the length of the longest (robomimic's lists of demonstrations).
    ///
    /// # Errors
    /// What the disk says.
    pub fn texts(&mut self, texts: &[String]) -> std::io::Result<Written> {
        let size = texts.iter().map(String::len).max().unwrap_or(0).max(1);
        let mut bytes = Vec::with_capacity(size * texts.len());
        for (i, text) in texts.iter().enumerate() {
            bytes.extend_from_slice(text.as_bytes());
            bytes.resize((i + 1) * size, 0);
        }
        // Class 3, padded with zeros.
        let mut datatype = vec![0x13, 0x01, 0, 0];
        datatype.extend_from_slice(&(size as u32).to_le_bytes());
        self.data_set(&[texts.len() as u64], &datatype, &bytes)
    }

    fn data_set(&mut self, shape: &[u64], datatype: &[u8], bytes: &[u8]) -> std::io::Result<Written> {
        let address = if bytes.is_empty() { UNDEFINED } else { self.aligned(bytes)? };
        let mut layout = vec![3, 1];
        layout.extend_from_slice(&address.to_le_bytes());
        layout.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        // Space is given late, and filled only where a value was defined; none is.
        let fill = vec![3, 0x0a];
        self.header(&[
            (header::DATASPACE, dataspace(shape)),
            (header::DATATYPE, datatype.to_vec()),
            (0x05, fill),
            (header::LAYOUT, layout),
        ])
    }

    /// Writes a group whose members stand already.
    ///
    /// # Errors
    /// What the disk says; also where a name or attribute is too long for the format.
    pub fn group(
        &mut self,
        members: &[(String, Written)],
        attributes: &[(&str, AttributeValue)],
    ) -> std::io::Result<Written> {
        let mut info = vec![0, 0];
        info.extend_from_slice(&[0xff; 16]);
        let mut messages = vec![(header::LINK_INFO, info), (0x0a, vec![0, 0])];
        for (name, Written(address)) in members {
            // Length of the name in two bytes.
            let mut link = vec![1, 0x01];
            link.extend_from_slice(&(name.len() as u16).to_le_bytes());
            link.extend_from_slice(name.as_bytes());
            link.extend_from_slice(&address.to_le_bytes());
            messages.push((header::LINK, link));
        }
        for (name, value) in attributes {
            messages.push((header::ATTRIBUTE, self.attribute(name, *value)?));
        }
        self.header(&messages)
    }

    fn attribute(&mut self, name: &str, value: AttributeValue) -> std::io::Result<Vec<u8>> {
        let (datatype, bytes) = match value {
            AttributeValue::Integer(i) => (datatype(&Data::I64(vec![])), i.to_le_bytes().to_vec()),
            AttributeValue::Float(f) => (datatype(&Data::F64(vec![])), f.to_le_bytes().to_vec()),
            AttributeValue::Text(text) => {
                let heap = self.heap(text.as_bytes())?;
                let mut element = (text.len() as u32).to_le_bytes().to_vec();
                element.extend_from_slice(&heap.to_le_bytes());
                element.extend_from_slice(&1u32.to_le_bytes());
                // Text of variable length, UTF-8, of characters of a byte.
                let mut datatype = vec![0x19, 0x01, 0x01, 0x00, 16, 0, 0, 0];
                datatype.extend_from_slice(&[0x13, 0x10, 0, 0, 1, 0, 0, 0]);
                (datatype, element)
            }
        };
        let space = dataspace(&[]);
        let mut message = vec![3, 0];
        for size in [name.len() + 1, datatype.len(), space.len()] {
            message.extend_from_slice(&(size as u16).to_le_bytes());
        }
        // The name is UTF-8.
        message.push(1);
        message.extend_from_slice(name.as_bytes());
        message.push(0);
        message.extend_from_slice(&datatype);
        message.extend_from_slice(&space);
        message.extend_from_slice(&bytes);
        Ok(message)
    }

    /// Writes a global heap with one value; its address.
    fn heap(&mut self, value: &[u8]) -> std::io::Result<u64> {
        let padded = value.len().next_multiple_of(8);
        // Heap, value, and the free space behind it, which is value 0.
        let used = 16 + 16 + padded;
        let size = (used + 16).max(MIN_HEAP).next_multiple_of(8);
        let mut bytes = b"GCOL\x01\0\0\0".to_vec();
        bytes.extend_from_slice(&(size as u64).to_le_bytes());
        bytes.extend_from_slice(&[1, 0, 1, 0, 0, 0, 0, 0]);
        bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(used, 0);
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(&((size - used) as u64).to_le_bytes());
        bytes.resize(size, 0);
        self.aligned(&bytes)
    }

    fn header(&mut self, messages: &[(u16, Vec<u8>)]) -> std::io::Result<Written> {
        let mut body = Vec::new();
        for (kind, message) in messages {
            if message.len() > MAX_MESSAGE {
                return Err(std::io::Error::other("a name or attribute of more than 64 KiB, which HDF5 cannot hold"));
            }
            body.push(*kind as u8);
            body.extend_from_slice(&(message.len() as u16).to_le_bytes());
            body.push(0);
            body.extend_from_slice(message);
        }
        // The size of the messages in four bytes.
        let mut bytes = b"OHDR\x02\x02".to_vec();
        bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&body);
        bytes.extend_from_slice(&checksum::lookup3(&bytes).to_le_bytes());
        self.aligned(&bytes).map(Written)
    }

    /// Names the root group and ends the file.
    ///
    /// # Errors
    /// What the disk says.
    pub fn finish(mut self, root: Written) -> std::io::Result<W> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend_from_slice(&[2, 8, 8, 0]);
        for address in [0, UNDEFINED, self.position, root.0] {
            bytes.extend_from_slice(&address.to_le_bytes());
        }
        bytes.extend_from_slice(&checksum::lookup3(&bytes).to_le_bytes());
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&bytes)?;
        self.out.flush()?;
        self.out.into_inner().map_err(std::io::IntoInnerError::into_error)
    }
}

fn dataspace(shape: &[u64]) -> Vec<u8> {
    let mut bytes = vec![2, shape.len() as u8, 0, u8::from(!shape.is_empty())];
    shape.iter().for_each(|d| bytes.extend_from_slice(&d.to_le_bytes()));
    bytes
}

fn datatype(data: &Data) -> Vec<u8> {
    let integer = |size: u8, signed: u8| vec![0x10, 8 * signed, 0, 0, size, 0, 0, 0, 0, 0, 8 * size, 0];
    match data {
        Data::U8(_) => integer(1, 0),
        Data::I64(_) => integer(8, 1),
        // Normalised mantissa; sign, exponent and mantissa where IEEE 754 has them.
        Data::F32(_) => vec![0x11, 0x20, 31, 0, 4, 0, 0, 0, 0, 0, 32, 0, 23, 8, 0, 23, 127, 0, 0, 0],
        Data::F64(_) => vec![0x11, 0x20, 63, 0, 8, 0, 0, 0, 0, 0, 64, 0, 52, 11, 0, 52, 0xff, 3, 0, 0],
        Data::Bool(_) => {
            // h5py's own: an enumeration of two in a signed byte.
            let mut bytes = vec![0x18, 2, 0, 0, 1, 0, 0, 0];
            bytes.extend_from_slice(&integer(1, 1));
            bytes.extend_from_slice(b"FALSE\0\0\0TRUE\0\0\0\0\x00\x01");
            bytes
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Attribute, Hdf5};
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut w = Writer::new(file.as_file_mut()).unwrap();
        let arrays = [
            Array::rows_of(3, Data::F32((0..12).map(|i| i as f32 * 0.5).collect())).unwrap(),
            Array::column(Data::F64(vec![1e300, -0.0])),
            Array::column(Data::I64(vec![i64::MIN, 7])),
            Array::new(vec![1, 2, 2, 3], Data::U8((0..12).collect())).unwrap(),
            Array::column(Data::Bool(vec![true, false, true])),
            Array::new(vec![0, 4], Data::F32(vec![])).unwrap(),
        ];
        let mut members = Vec::new();
        for (i, array) in arrays.iter().enumerate() {
            members.push((format!("a{i}"), w.array(array).unwrap()));
        }
        let names = ["demo_0".to_string(), "demo_10".into(), "d".into()];
        members.push(("names".into(), w.texts(&names).unwrap()));
        let long = "x".repeat(100_000);
        let values = [
            ("text", AttributeValue::Text(&long)),
            ("n", AttributeValue::Integer(-3)),
            ("f", AttributeValue::Float(0.5)),
        ];
        let inner = w.group(&members, &values).unwrap();
        let root = w.group(&[("data".into(), inner)], &[]).unwrap();
        w.finish(root).unwrap();

        let h5 = Hdf5::open(file.path()).unwrap();
        let group = h5.member(&h5.root().unwrap(), "data").unwrap().unwrap();
        assert!(group.is_group());
        for (i, array) in arrays.iter().enumerate() {
            let member = h5.member(&group, &format!("a{i}")).unwrap().unwrap();
            assert!(!member.is_group());
            assert_eq!(&h5.array(&member).unwrap(), array);
        }
        let member = h5.member(&group, "names").unwrap().unwrap();
        assert_eq!(h5.texts(&member).unwrap(), names);
        let attributes = h5.attributes(&group).unwrap();
        assert_eq!(attributes["text"], Attribute::Text(long));
        assert_eq!(attributes["n"].number(), Some(-3.0));
        assert_eq!(attributes["f"].number(), Some(0.5));
        assert!(h5.member(&group, "nothing").unwrap().is_none());
    }
}
