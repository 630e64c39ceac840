//! Attributes: small values with names.

use std::collections::BTreeMap;

use super::datatype::Datatype;
use super::header::{ATTRIBUTE, ATTRIBUTE_INFO, Header, Message};
use super::layout::dataspace;
use super::source::Source;
use super::{Hdf5Error, UNDEFINED, too_new, values};
use crate::array::{Array, Data};

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Attribute {
    /// A text.
    Text(String),
    /// Several texts.
    Texts(Vec<String>),
    /// Numbers; a single one has the shape `[1]`.
    Numbers(Array),
    /// Of a type that is not read.
    Other(&'static str),
}

impl Attribute {
    /// The text, where it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The number, where it is a single one.
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Numbers(array) if array.data().len() == 1 => Some(array.value(0)),
            _ => None,
        }
    }
}

pub fn read_all(source: &Source, header: &Header) -> Result<BTreeMap<String, Attribute>, Hdf5Error> {
    if let Some(info) = header.message(ATTRIBUTE_INFO) {
        let mut c = info.cursor();
        c.u8()?;
        if c.u8()? & 1 != 0 {
            c.u16()?;
        }
        if c.u64()? != UNDEFINED {
            return Err(Hdf5Error::at(info.offset, too_new("its attributes are kept in a fractal heap")));
        }
    }
    header.messages.iter().filter(|m| m.kind == ATTRIBUTE).map(|m| read(source, m)).collect()
}

fn read(source: &Source, message: &Message) -> Result<(String, Attribute), Hdf5Error> {
    let mut c = message.cursor();
    let version = c.u8()?;
    if !(1..=3).contains(&version) {
        return Err(c.error(format!("attribute of version {version}, known are 1 to 3")));
    }
    let flags = c.u8()?;
    if version > 1 && flags & 3 != 0 {
        return Err(c.error("an attribute whose type is shared, which is not read here"));
    }
    let (name_size, type_size, space_size) = (c.u16()?, c.u16()?, c.u16()?);
    if version == 3 {
        c.u8()?;
    }
    // Parts are padded to multiples of 8 in version 1.
    let part = |c: &mut super::source::Cursor<'_>, size: u16| -> Result<(Vec<u8>, u64), Hdf5Error> {
        let at = c.offset();
        let bytes = c.take(usize::from(size))?.to_vec();
        if version == 1 {
            c.align()?;
        }
        Ok((bytes, at))
    };
    let (name, name_at) = part(&mut c, name_size)?;
    let (datatype, datatype_at) = part(&mut c, type_size)?;
    let (space, space_at) = part(&mut c, space_size)?;
    let end = name.iter().position(|&b| b == 0).unwrap_or(name.len());
    let name = std::str::from_utf8(&name[..end])
        .map_err(|_| Hdf5Error::at(name_at, "an attribute's name that is not UTF-8"))?
        .to_owned();
    let datatype = Datatype::read(&mut super::source::Cursor::new(&datatype, datatype_at))?;
    let shape = dataspace(&mut super::source::Cursor::new(&space, space_at))?;
    let count = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let size = count.and_then(|n| n.checked_mul(datatype.size()));
    let size = size.ok_or_else(|| c.error("an attribute that no memory holds: the file is damaged"))?;
    let at = c.offset();
    let bytes = c.take(size)?;
    let fail = |reason: String| Hdf5Error::at(at, format!("attribute {name}: {reason}"));
    let value = match datatype {
        Datatype::Text { .. } | Datatype::VariableText => {
            let mut texts = values::texts(source, bytes, &datatype).map_err(fail)?;
            if shape.is_empty() && texts.len() == 1 {
                Attribute::Text(texts.remove(0))
            } else {
                Attribute::Texts(texts)
            }
        }
        Datatype::Other { what, .. } => Attribute::Other(what),
        _ => {
            let data: Data = values::numbers(bytes, &datatype).map_err(fail)?;
            let shape = if shape.is_empty() { vec![1] } else { shape };
            Attribute::Numbers(Array::new(shape, data).map_err(fail)?)
        }
    };
    Ok((name, value))
}
