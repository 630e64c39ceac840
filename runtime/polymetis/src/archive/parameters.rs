//! Writes update archives: named tensors for a running controller (spec `polymetis.md` §4.3, §6.3).

use std::collections::HashSet;

use super::pickle::PickleBuilder;
use super::zip::{EntryPlace, ZipWriter};
use super::{ArchiveError, FormatError, LIMITS, MAX_ARCHIVE_BYTES, TensorValue};

/// The parameter that every joint-space controller accepts.
pub const JOINT_POS_DESIRED: &str = "joint_pos_desired";

/// `constants.pkl`: protocol 2, an empty tuple.
const CONSTANTS: &[u8] = b"\x80\x02).";
/// The loader accepts 1 to 10.
const VERSION: &[u8] = b"3\n";
/// Class text of the container `P` with its one attribute `d`.
const CONTAINER_TEXT: &str = "class P(Module):
  d : Dict[str, Tensor]
  def forward(self: __torch__.P) -> Dict[str, Tensor]:
    return self.d
";
/// Joints of the arm.
const JOINTS: usize = 7;

/// Writes the entries of an archive in the order of §6.3. The second value is the places of the
/// entries: `data.pkl`, `data/0`, …, `code`, `constants.pkl`, `version`.
pub(super) fn write_module(
    top_folder: &str,
    pickle: PickleBuilder,
    class_text: &str,
) -> Result<(Vec<u8>, Vec<EntryPlace>), ArchiveError> {
    let (data_pkl, storages) = pickle.finish();
    let mut zip = ZipWriter::new(&LIMITS);
    zip.add(&format!("{top_folder}/data.pkl"), &data_pkl)?;
    for (i, storage) in storages.iter().enumerate() {
        zip.add(&format!("{top_folder}/data/{i}"), storage)?;
    }
    zip.add(&format!("{top_folder}/code/__torch__.py"), class_text.as_bytes())?;
    zip.add(&format!("{top_folder}/constants.pkl"), CONSTANTS)?;
    zip.add(&format!("{top_folder}/version"), VERSION)?;
    Ok(zip.finish())
}

/// An update archive with one or more named tensors, applied by the server in the order given.
///
/// The values are not judged here: the client checks what it sends, and the tests of a server need
/// archives with NaN too.
///
/// # Errors
/// [`ArchiveError::ParameterName`] for an empty or repeated name or no parameter at all,
/// [`FormatError::TooLarge`] where the archive would pass [`MAX_ARCHIVE_BYTES`].
pub fn write_parameters(parameters: &[(&str, &TensorValue)]) -> Result<Vec<u8>, ArchiveError> {
    Ok(write_container(parameters)?.0)
}

fn write_container(parameters: &[(&str, &TensorValue)]) -> Result<(Vec<u8>, Vec<EntryPlace>), ArchiveError> {
    let mut names = HashSet::new();
    if parameters.is_empty() {
        return Err(ArchiveError::ParameterName { name: String::new() });
    }
    for (name, tensor) in parameters {
        if name.is_empty() || !names.insert(*name) {
            return Err(ArchiveError::ParameterName { name: (*name).to_owned() });
        }
        let size = name.len() + tensor.data().len() * tensor.data_type().size();
        if size > MAX_ARCHIVE_BYTES {
            return Err(FormatError::TooLarge { what: "parameter", size, limit: MAX_ARCHIVE_BYTES }.into());
        }
    }
    let mut pickle = PickleBuilder::module("P");
    pickle.tensor_dict_attribute("d", parameters);
    write_module("a", pickle, CONTAINER_TEXT)
}

/// The update archive for `joint_pos_desired`, built once and patched for every target.
#[derive(Debug, Clone)]
pub struct ParameterArchive {
    bytes: Vec<u8>,
    data: EntryPlace,
}

impl ParameterArchive {
    /// Builds the template, with all joints at zero. 910 bytes: one chunk.
    pub fn joint_pos_desired() -> Self {
        let zeros = TensorValue::f32_vector(&[0.0; JOINTS]);
        let (bytes, places) = write_container(&[(JOINT_POS_DESIRED, &zeros)])
            .expect("one short name and 28 bytes are far below every limit");
        Self { bytes, data: places[1] }
    }

    /// Writes new joint targets (rad) and returns the whole archive. Changes 36 bytes (the data, and
    /// its CRC in both headers) and allocates nothing.
    ///
    /// The values are not checked; the server does not check them either.
    pub fn patch(&mut self, joints: &[f32; JOINTS]) -> &[u8] {
        let data = &mut self.bytes[self.data.data_offset..][..4 * JOINTS];
        for (bytes, joint) in data.chunks_exact_mut(4).zip(joints) {
            bytes.copy_from_slice(&joint.to_le_bytes());
        }
        let crc = crc32fast::hash(data).to_le_bytes();
        self.bytes[self.data.local_crc_offset..][..4].copy_from_slice(&crc);
        self.bytes[self.data.central_crc_offset..][..4].copy_from_slice(&crc);
        &self.bytes
    }

    /// The archive as last patched.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
