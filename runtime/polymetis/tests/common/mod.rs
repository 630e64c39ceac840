//! Where the golden files are.
#![allow(dead_code)] // each test binary uses a part of this

pub mod bench;

use std::path::PathBuf;

use tenon_polymetis::archive::LIMITS;
use tenon_polymetis::archive::zip::{ZipArchive, ZipWriter};

/// The five sample archives (described in golden/polymetis/README.md).
pub const SAMPLES: [&str; 5] = [
    "update_joint_pos_desired.minimal.pt",
    "update_joint_pos_desired.torch28.pt",
    "update_joint_pos_desired.torch113.pt",
    "pd_controller.minimal.pt",
    "hybrid_controller.minimal.pt",
];

/// The joint targets in all update samples.
pub const TARGETS: [f32; 7] = [0.1, 0.2, 0.3, -1.4, 0.5, 1.6, 0.7];

/// The rest pose, in the controller samples.
pub const REST: [f32; 7] =
    [-0.139_354_26, -0.020_481_698, -0.052_014_14, -2.069_125_7, 0.050_589_137, 2.002_865, -0.916_787_45];
pub const KQ: [f32; 7] = [40.0, 30.0, 50.0, 25.0, 35.0, 25.0, 10.0];
pub const KQD: [f32; 7] = [4.0, 6.0, 5.0, 5.0, 3.0, 2.0, 1.0];
pub const KX: [f32; 6] = [750.0, 750.0, 750.0, 15.0, 15.0, 15.0];
pub const KXD: [f32; 6] = [37.0, 37.0, 37.0, 2.0, 2.0, 2.0];

/// Whether the golden files are those whose values are written down here.
pub fn is_default_set() -> bool {
    std::env::var_os("TENON_GOLDEN").is_none()
}

/// A golden file, or `None` after saying that the test skips. Another set (`TENON_GOLDEN`) may lack a
/// case; where the default folder exists it must be whole.
pub fn golden(file: &str) -> Option<Vec<u8>> {
    let chosen = std::env::var_os("TENON_GOLDEN").map(PathBuf::from);
    let is_default = chosen.is_none();
    let root = chosen.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden"));
    let path = root.join("polymetis").join(file);
    match std::fs::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) if is_default && root.is_dir() => {
            panic!("the default golden set must be whole: {}: {error}", path.display())
        }
        Err(error) => {
            println!("skipped: golden file {}: {error}", path.display());
            None
        }
    }
}

/// Writes an archive again with one entry (name inside the top folder) changed or, where the change
/// gives `None`, left out. CRCs are right again.
pub fn with_entry(archive: &[u8], entry: &str, change: impl Fn(&[u8]) -> Option<Vec<u8>>) -> Vec<u8> {
    let zip = ZipArchive::open(archive, &LIMITS).unwrap();
    let mut out = ZipWriter::new(&LIMITS);
    for (name, data) in zip.entries() {
        let data = if name == entry { change(data) } else { Some(data.to_vec()) };
        if let Some(data) = data {
            out.add(&format!("{}/{name}", zip.top_folder()), &data).unwrap();
        }
    }
    out.finish().0
}

/// Replaces text in the class text of an archive.
pub fn with_text(archive: &[u8], from: &str, to: &str) -> Vec<u8> {
    with_entry(archive, "code/__torch__.py", |text| {
        let text = std::str::from_utf8(text).unwrap();
        assert!(text.contains(from));
        Some(text.replace(from, to).into_bytes())
    })
}
