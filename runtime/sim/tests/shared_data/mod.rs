//! The recorded human demonstrations of Avoid, read from `../shared/data/avoid` beside the checkout.

use std::fs::File;
use std::path::{Path, PathBuf};

use ndarray_npz::NpzReader;
// The reader brings an ndarray of its own version.
use ndarray_npz::ndarray::{Array1, Array2};

/// One demonstration: a row every control step, base frame, metres.
pub struct Demonstration {
    pub commanded_m: Vec<[f64; 3]>,
    pub measured_m: Vec<[f64; 3]>,
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/avoid/demos.npz")
}

/// All demonstrations, or `None` (and one line) where the data are not there.
pub fn demonstrations() -> Option<Vec<Demonstration>> {
    let path = file();
    if !path.is_file() {
        println!("skipped: {} is not there", path.display());
        return None;
    }
    let mut archive = NpzReader::new(File::open(&path).unwrap()).unwrap();
    let lengths: Array1<i64> = archive.by_name("lengths.npy").unwrap();
    let commanded: Array2<f32> = archive.by_name("des_xyz.npy").unwrap();
    let measured: Array2<f32> = archive.by_name("c_xyz.npy").unwrap();
    let rows = |array: &Array2<f32>, from: usize, len: usize| -> Vec<[f64; 3]> {
        (from..from + len).map(|row| std::array::from_fn(|axis| f64::from(array[(row, axis)]))).collect()
    };
    let mut start = 0;
    let mut demonstrations = Vec::new();
    for &len in &lengths {
        let len = usize::try_from(len).unwrap();
        demonstrations
            .push(Demonstration { commanded_m: rows(&commanded, start, len), measured_m: rows(&measured, start, len) });
        start += len;
    }
    assert_eq!(start, commanded.nrows());
    Some(demonstrations)
}
