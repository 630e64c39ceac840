//! The superblock: where the root group is.

use super::source::{Cursor, Source};
use super::{Hdf5Error, SIGNATURE, checksum};

/// Bytes of offsets and of lengths in every file that is read here.
const OFFSET_BYTES: u8 = 8;

/// Address of the root group's header.
pub fn read(source: &Source) -> Result<u64, Hdf5Error> {
    let bytes = source.at(0, source.length().min(128) as usize)?;
    let mut c = Cursor::new(&bytes, 0);
    c.signature(SIGNATURE, "HDF5 signature")?;
    let version = c.u8()?;
    let (base, end, root) = match version {
        0 | 1 => {
            c.take(4)?;
            check_sizes(&mut c)?;
            c.take(1 + 4 + 4)?;
            if version == 1 {
                c.take(4)?;
            }
            let base = c.u64()?;
            c.u64()?;
            let end = c.u64()?;
            c.u64()?;
            // Symbol table entry of the root group: offset of its name, address of its header.
            c.u64()?;
            (base, end, c.u64()?)
        }
        2 | 3 => {
            check_sizes(&mut c)?;
            c.take(1)?;
            let base = c.u64()?;
            c.u64()?;
            let (end, root) = (c.u64()?, c.u64()?);
            let covered = c.position();
            if c.u32()? != checksum::lookup3(&bytes[..covered]) {
                return Err(Hdf5Error::at(0, "the superblock's checksum is wrong: the file is damaged"));
            }
            (base, end, root)
        }
        other => return Err(Hdf5Error::at(8, format!("superblock of version {other}, known are 0 to 3"))),
    };
    if base != 0 {
        return Err(Hdf5Error::at(0, format!("its addresses count from byte {base}, which is not read here")));
    }
    if end > source.length() {
        let reason = format!(
            "the file should have {end} bytes and has {}: it is truncated; fetch or copy it again",
            source.length()
        );
        return Err(Hdf5Error::at(source.length(), reason));
    }
    Ok(root)
}

fn check_sizes(c: &mut Cursor) -> Result<(), Hdf5Error> {
    let (offsets, lengths) = (c.u8()?, c.u8()?);
    if (offsets, lengths) != (OFFSET_BYTES, OFFSET_BYTES) {
        return Err(c.error(format!("offsets of {offsets} and lengths of {lengths} bytes; 8 and 8 are read")));
    }
    Ok(())
}
