//! How much a file may ask for.

/// Most dimensions of one tensor.
pub const MAX_RANK: usize = 8;

/// Longest part of a global's name and longest storage key: both end up in messages.
pub const MAX_NAME_BYTES: usize = 512;

/// Bounds of what is read from one file. Whoever reads chooses them; a file cannot raise them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a ZIP archive, or of a pickle that stands alone.
    pub archive_bytes: usize,
    /// Sum of all entries after unpacking; also sum of all values that a pickle makes (tensors, encoded bytes).
    pub unpacked_bytes: usize,
    /// Entries of a ZIP archive.
    pub entries: usize,
    /// Opcodes of a pickle.
    pub opcodes: usize,
    /// Nesting of values.
    pub depth: usize,
    /// Distinct TorchScript classes of a pickle.
    pub classes: usize,
}

/// Largest checkpoint or file of statistics that is read.
pub const MAX_FILE_BYTES: usize = 2 << 30;

impl Limits {
    /// For a checkpoint or a file of statistics of `file_bytes` bytes. What is made of it stays in proportion: a small
    /// file can neither unpack nor expand (tensors with stride 0, tensors that share a storage) into a large one.
    pub fn for_file(file_bytes: usize) -> Self {
        const GROWTH: usize = 64;
        const SMALLEST: usize = 1 << 20;
        Self {
            archive_bytes: MAX_FILE_BYTES,
            unpacked_bytes: file_bytes.saturating_mul(GROWTH).clamp(SMALLEST, 2 * MAX_FILE_BYTES),
            entries: 65_000,
            // PyTorch stores its pickles as they are, and an opcode has at least one byte.
            opcodes: file_bytes.min(1_000_000),
            depth: 64,
            classes: 0,
        }
    }
}
