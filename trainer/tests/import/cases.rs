//! Cases of a TOML file: configurations of the paper with changes laid over them, as `data/policies.py` reads them too.

use std::collections::BTreeMap;
use std::path::Path;

use tenon_core::config::{TaskConfig, Values};

/// The configurations of a file, by name.
pub fn cases(path: &Path) -> BTreeMap<String, TaskConfig> {
    let text = std::fs::read_to_string(path).unwrap();
    let cases: BTreeMap<String, toml::Table> = toml::from_str(&text).unwrap();
    assert!(!cases.is_empty());
    cases.into_iter().map(|(name, case)| (name, configuration(&case))).collect()
}

fn configuration(case: &toml::Table) -> TaskConfig {
    let base = case["base"].as_str().unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../configs/paper/{base}.toml"));
    let mut table: toml::Table = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    if let Some(changes) = case.get("changes") {
        lay_over(&mut table, changes.as_table().unwrap().clone());
    }
    TaskConfig::parse(base, &toml::to_string(&table).unwrap(), Values::Latest).unwrap()
}

/// Table by table; one that names its `kind` takes the place of the other.
fn lay_over(table: &mut toml::Table, changes: toml::Table) {
    for (key, value) in changes {
        match (table.get_mut(&key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(changes)) if !changes.contains_key("kind") => {
                lay_over(inner, changes);
            }
            (_, value) => drop(table.insert(key, value)),
        }
    }
}
