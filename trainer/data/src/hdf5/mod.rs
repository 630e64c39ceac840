//! HDF5 files, read and written without the C library.
//!
//! The part of the format that demonstrations use: superblocks 0 to 3, groups as symbol tables or as links in their
//! header, data sets that are compact, contiguous or chunked (B-tree of version 1; a single chunk), the filters deflate,
//! shuffle, Fletcher-32 and LZF, numbers, truth values and strings, attributes. What is outside of it is refused by name.
//! Names and numbers are those of the HDF Group's "HDF5 File Format Specification" 3.0.
//!
//! The C library is not used because a file may be damaged: here any bytes end in a value or an [`Hdf5Error`], and no
//! program needs a library of the system for it.

mod attribute;
mod checksum;
mod chunks;
mod datatype;
mod filters;
mod group;
mod header;
mod heap;
mod layout;
mod source;
mod superblock;
mod values;
mod writer;

use std::collections::BTreeMap;
use std::path::Path;

pub use attribute::Attribute;
pub use datatype::Datatype;
pub use filters::unshuffle;
pub use writer::{AttributeValue, Writer, Written};

use crate::array::Array;
use header::Header;
use source::Source;

/// The first bytes of every file.
pub const SIGNATURE: &[u8; 8] = b"\x89HDF\r\n\x1a\n";
/// An address that leads nowhere.
const UNDEFINED: u64 = u64::MAX;

/// Why an HDF5 file could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("byte {offset}: {reason}")]
pub struct Hdf5Error {
    /// Where in the file.
    pub offset: u64,
    /// What is wrong.
    pub reason: String,
}

impl Hdf5Error {
    fn at(offset: u64, reason: impl Into<String>) -> Self {
        Self { offset, reason: reason.into() }
    }
}

/// About what only the newest versions of the library write.
fn too_new(what: &str) -> String {
    format!(
        "{what} (libver='latest'), which is not read; write the file again with `h5repack --low=0 --high=0 IN OUT`, or \
         with h5py and libver='earliest'"
    )
}

/// Whether bytes from a file's beginning are those of an HDF5 file.
pub fn is_hdf5(start: &[u8]) -> bool {
    start.starts_with(SIGNATURE)
}

/// An open file.
#[derive(Debug)]
pub struct Hdf5 {
    source: Source,
    root: u64,
}

/// A group or a data set.
#[derive(Debug, Clone)]
pub struct Object {
    header: Header,
    links: Option<BTreeMap<String, u64>>,
}

impl Hdf5 {
    /// Opens a file and reads its superblock.
    ///
    /// # Errors
    /// Where it is no HDF5 file, or shorter than it says.
    pub fn open(path: &Path) -> Result<Self, Hdf5Error> {
        let source = Source::open(path).map_err(|e| Hdf5Error::at(0, e.to_string()))?;
        let root = superblock::read(&source)?;
        Ok(Self { source, root })
    }

    /// The root group.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn root(&self) -> Result<Object, Hdf5Error> {
        self.object(self.root)
    }

    fn object(&self, address: u64) -> Result<Object, Hdf5Error> {
        let header = Header::read(&self.source, address)?;
        let links = group::links(&self.source, &header)?;
        Ok(Object { header, links })
    }

    /// A member of a group; `None` where it has none of the name.
    ///
    /// # Errors
    /// Where the member cannot be read.
    pub fn member(&self, group: &Object, name: &str) -> Result<Option<Object>, Hdf5Error> {
        let Some(&address) = group.links.as_ref().and_then(|links| links.get(name)) else { return Ok(None) };
        self.object(address).map(Some)
    }

    /// The values of a data set.
    ///
    /// # Errors
    /// Where it is none, is damaged, or of a kind that is not read.
    pub fn array(&self, data_set: &Object) -> Result<Array, Hdf5Error> {
        let (bytes, datatype) = (layout::bytes(&self.source, &data_set.header)?, data_set.datatype()?);
        let data = values::numbers(&bytes, &datatype).map_err(|r| Hdf5Error::at(data_set.header.address, r))?;
        Array::new(data_set.shape()?, data).map_err(|r| Hdf5Error::at(data_set.header.address, r))
    }

    /// The texts of a data set.
    ///
    /// # Errors
    /// As [`Self::array`].
    pub fn texts(&self, data_set: &Object) -> Result<Vec<String>, Hdf5Error> {
        let bytes = layout::bytes(&self.source, &data_set.header)?;
        values::texts(&self.source, &bytes, &data_set.datatype()?)
            .map_err(|r| Hdf5Error::at(data_set.header.address, r))
    }

    /// The attributes of a group or data set.
    ///
    /// # Errors
    /// Where one is damaged.
    pub fn attributes(&self, object: &Object) -> Result<BTreeMap<String, Attribute>, Hdf5Error> {
        attribute::read_all(&self.source, &object.header)
    }
}

impl Object {
    /// Whether it is a group.
    pub fn is_group(&self) -> bool {
        self.links.is_some()
    }

    /// Names of a group's members, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.links.iter().flatten().map(|(name, _)| name.as_str())
    }

    /// Whether a group has a member.
    pub fn has(&self, name: &str) -> bool {
        self.links.as_ref().is_some_and(|links| links.contains_key(name))
    }

    /// Extent of a data set.
    ///
    /// # Errors
    /// Where it is none.
    pub fn shape(&self) -> Result<Vec<usize>, Hdf5Error> {
        layout::shape(&self.header)
    }

    /// Element type of a data set.
    ///
    /// # Errors
    /// Where it is none, or has one that is not known.
    pub fn datatype(&self) -> Result<Datatype, Hdf5Error> {
        layout::datatype(&self.header)
    }
}
