//! Reading a case and comparing with it.

use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::Value;
use tenon_train::device::{Choice, Device};
use tenon_train::network::ParameterTable;
use tenon_train::workers::{Compute, Workers};

/// One golden case: settings, scalar results and arrays.
pub struct Case {
    name: String,
    pub config: Value,
    pub scalars: Value,
    bytes: Vec<u8>,
}

/// The case, or `None` after a line that says why it is skipped.
pub fn case(name: &str) -> Option<Case> {
    let named = std::env::var_os("TENON_GOLDEN").map(PathBuf::from);
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/golden");
    let folder = named.clone().unwrap_or(default);
    if !folder.is_dir() {
        assert!(named.is_none(), "TENON_GOLDEN = {} is not a folder", folder.display());
        println!("skipped: golden set {} is not here", folder.display());
        return None;
    }
    let path = folder.join(format!("{name}.safetensors"));
    if named.is_some() && !path.is_file() {
        println!("skipped: the golden set {} has no case {name}", folder.display());
        return None;
    }
    let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let json = std::fs::read_to_string(path.with_extension("json")).expect("a case has a JSON file");
    let json: Value = serde_json::from_str(&json).expect("the JSON file parses");
    let part = |key: &str| json.get(key).cloned().expect("config and scalars are there");
    Some(Case { name: name.into(), config: part("config"), scalars: part("scalars"), bytes })
}

impl Case {
    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).expect("a whole safetensors file")
    }

    pub fn names(&self) -> Vec<String> {
        self.tensors().names().into_iter().map(String::from).collect()
    }

    pub fn has(&self, name: &str) -> bool {
        self.tensors().tensor(name).is_ok()
    }

    pub fn shape(&self, name: &str) -> Vec<usize> {
        self.tensors().tensor(name).unwrap_or_else(|e| panic!("{}: {name}: {e}", self.name)).shape().to_vec()
    }

    pub fn f64(&self, name: &str) -> Vec<f64> {
        let tensors = self.tensors();
        let view = tensors.tensor(name).unwrap_or_else(|e| panic!("{}: {name}: {e}", self.name));
        let data = view.data();
        match view.dtype() {
            Dtype::F32 => data.as_chunks().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect(),
            Dtype::F64 => data.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect(),
            Dtype::I64 => data.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64).collect(),
            other => panic!("{}: {name} has type {other:?}", self.name),
        }
    }

    pub fn f32(&self, name: &str) -> Vec<f32> {
        self.f64(name).into_iter().map(|v| v as f32).collect()
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        self.tensors().tensor(name).unwrap_or_else(|e| panic!("{}: {name}: {e}", self.name)).data().to_vec()
    }

    pub fn indices(&self, name: &str) -> Vec<usize> {
        self.f64(name).into_iter().map(|v| v as usize).collect()
    }

    pub fn bools(&self, name: &str) -> Vec<bool> {
        self.f64(name).into_iter().map(|v| v != 0.0).collect()
    }

    /// The reference for an f32 result: the f64 array where there is one.
    pub fn reference(&self, name: &str) -> Vec<f64> {
        let double = format!("{name}.f64");
        self.f64(if self.has(&double) { &double } else { name })
    }

    pub fn scalar(&self, name: &str) -> f64 {
        let double = self.scalars.get(format!("{name}.f64")).and_then(Value::as_f64);
        double
            .or_else(|| self.scalars.get(name).and_then(Value::as_f64))
            .unwrap_or_else(|| panic!("{}: scalar {name} is missing", self.name))
    }

    pub fn parameters(&self, prefix: &str, table: &ParameterTable) -> Vec<f32> {
        let mut values = Vec::with_capacity(table.len());
        for (name, shape, _) in table.iter() {
            let full = format!("{prefix}.{name}");
            assert_eq!(self.shape(&full), shape, "{}: {full}", self.name);
            values.extend(self.f32(&full));
        }
        values
    }

    pub fn usize(&self, key: &str) -> usize {
        self.config[key].as_u64().unwrap_or_else(|| panic!("{}: config.{key}", self.name)) as usize
    }

    pub fn number(&self, key: &str) -> f64 {
        self.config[key].as_f64().unwrap_or_else(|| panic!("{}: config.{key}", self.name))
    }

    pub fn dims(&self, key: &str) -> Vec<usize> {
        self.config[key]
            .as_array()
            .map_or_else(Vec::new, |a| a.iter().map(|v| v.as_u64().expect("a width") as usize).collect())
    }

    /// Each value within `tolerance` of the reference's largest magnitude. Returns the largest deviation so measured.
    pub fn compare(&self, what: &str, ours: &[f32], reference: &[f64], tolerance: f64) -> f64 {
        assert_eq!(ours.len(), reference.len(), "{}: {what}", self.name);
        let largest = reference.iter().fold(0.0f64, |m, v| m.max(v.abs())).max(1e-30);
        let mut worst = 0.0f64;
        for (i, (&a, &b)) in ours.iter().zip(reference).enumerate() {
            let deviation = (f64::from(a) - b).abs() / largest;
            assert!(
                deviation <= tolerance,
                "{}: {what}[{i}] = {a}, not {b}: off by {deviation:.1e} of the largest, {tolerance:.0e} allowed",
                self.name
            );
            worst = worst.max(deviation);
        }
        println!("{}: {what}: {worst:.1e} of {tolerance:.0e}", self.name);
        worst
    }

    /// As [`Case::compare`], with the reference of that name.
    pub fn compare_to(&self, name: &str, ours: &[f32], tolerance: f64) {
        self.compare(name, ours, &self.reference(name), tolerance);
    }

    /// A gradient, parameter by parameter: 1e-3 of each tensor's largest entry.
    ///
    /// A tensor whose gradient is nothing but rounding (a bias before a normalisation that takes it out again) is
    /// measured by a ten-thousandth of the whole gradient's largest entry.
    pub fn compare_gradient(&self, table: &ParameterTable, ours: &[f32], reference: impl Fn(&str) -> Vec<f64>) {
        let mut worst = 0.0f64;
        let magnitude = |values: &[f64]| values.iter().fold(0.0f64, |m, v| m.max(v.abs()));
        let whole = table.iter().map(|(name, _, _)| magnitude(&reference(name))).fold(0.0, f64::max);
        for (name, _, range) in table.iter() {
            let reference = reference(name);
            let ours = &ours[range];
            let largest = magnitude(&reference).max(1e-4 * whole).max(1e-30);
            for (&a, &b) in ours.iter().zip(&reference) {
                worst = worst.max((f64::from(a) - b).abs() / largest);
            }
            assert_eq!(ours.len(), reference.len());
            assert!(worst <= 1e-3, "{}: gradient of {name}: off by {worst:.1e} of its largest entry", self.name);
        }
        println!("{}: gradient: {worst:.1e} of 1e-3", self.name);
    }

    /// A loss: 1e-5 absolute plus 1e-4 relative.
    pub fn compare_loss(&self, name: &str, ours: f64) {
        let reference = self.scalar(name);
        let deviation = (ours - reference).abs();
        assert!(
            deviation <= 1e-5 + 1e-4 * reference.abs(),
            "{}: {name} = {ours}, not {reference}: off by {deviation:.1e}",
            self.name
        );
    }
}

/// All values of f64 results within `tolerance`, absolute below 1 and relative above.
pub fn compare_f64(what: &str, ours: &[f64], reference: &[f64], tolerance: f64) {
    assert_eq!(ours.len(), reference.len(), "{what}");
    for (i, (a, b)) in ours.iter().zip(reference).enumerate() {
        let deviation = (a - b).abs();
        assert!(deviation <= tolerance * b.abs().max(1.0), "{what}[{i}] = {a}, not {b}: off by {deviation:.1e}");
    }
}

/// What the golden cases are computed on: the processor, the kernels of a card on the processor, and the card itself where
/// the test is built with the feature `cuda` and `TENON_CUDA` names one (`cuda`, `cuda:1`).
pub fn devices() -> Vec<Option<Device>> {
    let card = std::env::var("TENON_CUDA").ok().filter(|name| !name.is_empty());
    let names = ["cpu", "emulated"].into_iter().map(String::from).chain(card);
    names.map(|name| name.parse::<Choice>().unwrap().open().unwrap()).collect()
}

/// One thread, and the networks on a device.
pub fn workers(device: &Option<Device>) -> Workers {
    Workers::new(Compute { threads: 1, device: device.clone() }).unwrap()
}
