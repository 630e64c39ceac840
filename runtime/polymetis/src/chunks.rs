//! Cuts an archive into the messages of SetController and UpdateController, and joins them again.

use crate::archive::{ArchiveError, FormatError, MAX_ARCHIVE_BYTES};
use crate::proto::ControllerChunk;

/// Bytes in one message. Any size works; this is what existing clients send (spec §4.2).
pub const CHUNK_BYTES: usize = 1024;

/// Largest upload that [`collect_chunks`] accepts.
pub const MAX_UPLOAD_BYTES: usize = MAX_ARCHIVE_BYTES;

/// The messages of an upload, in order: [`CHUNK_BYTES`] each, the last one shorter.
pub fn chunks(archive: &[u8]) -> impl ExactSizeIterator<Item = ControllerChunk> + '_ {
    archive.chunks(CHUNK_BYTES).map(|chunk| ControllerChunk { torchscript_binary_chunk: chunk.to_vec() })
}

/// Appends one message to an upload being received.
///
/// # Errors
/// [`FormatError::TooLarge`] past [`MAX_UPLOAD_BYTES`], so that a stream without end cannot fill the
/// server's memory.
pub fn collect_chunks(upload: &mut Vec<u8>, chunk: &ControllerChunk) -> Result<(), ArchiveError> {
    let size = upload.len() + chunk.torchscript_binary_chunk.len();
    if size > MAX_UPLOAD_BYTES {
        return Err(FormatError::TooLarge { what: "upload", size, limit: MAX_UPLOAD_BYTES }.into());
    }
    upload.extend_from_slice(&chunk.torchscript_binary_chunk);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_join_to_what_was_cut() {
        for length in [0_usize, 1, 1023, 1024, 1025, 4096, 5000] {
            let archive: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let messages: Vec<_> = chunks(&archive).collect();
            assert_eq!(messages.len(), length.div_ceil(CHUNK_BYTES));
            let mut joined = Vec::new();
            for message in &messages {
                collect_chunks(&mut joined, message).unwrap();
            }
            assert_eq!(joined, archive);
        }
    }

    #[test]
    fn upload_without_end_is_refused() {
        let mut upload = vec![0; MAX_UPLOAD_BYTES];
        let chunk = ControllerChunk { torchscript_binary_chunk: vec![0] };
        assert!(collect_chunks(&mut upload, &chunk).is_err());
        assert_eq!(upload.len(), MAX_UPLOAD_BYTES);
    }
}
