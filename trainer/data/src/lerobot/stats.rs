//! Statistics of features, as LeRobot keeps them for its normalisers.

use serde_json::{Map, Value, json};

use crate::array::Array;

/// Of each component of a feature.
pub struct Stats {
    pub min: Vec<f64>,
    pub max: Vec<f64>,
    pub mean: Vec<f64>,
    /// Of the population.
    pub std: Vec<f64>,
    pub count: usize,
}

/// Quantiles that LeRobot's newer normalisers want.
const QUANTILES: [(&str, f64); 5] = [("q01", 0.01), ("q10", 0.1), ("q50", 0.5), ("q90", 0.9), ("q99", 0.99)];

impl Stats {
    pub fn of<'a>(arrays: impl Iterator<Item = &'a Array> + Clone, width: usize) -> Self {
        let count: usize = arrays.clone().map(Array::frames).sum();
        let mut stats = Self {
            min: vec![f64::INFINITY; width],
            max: vec![f64::NEG_INFINITY; width],
            mean: vec![0.0; width],
            std: vec![0.0; width],
            count,
        };
        for array in arrays.clone() {
            for (i, v) in array.values().enumerate() {
                let c = i % width;
                stats.min[c] = stats.min[c].min(v);
                stats.max[c] = stats.max[c].max(v);
                stats.mean[c] += v / count as f64;
            }
        }
        for array in arrays {
            for (i, v) in array.values().enumerate() {
                stats.std[i % width] += (v - stats.mean[i % width]).powi(2) / count as f64;
            }
        }
        stats.std.iter_mut().for_each(|s| *s = s.sqrt());
        stats
    }

    /// Name and values of each statistic but the count.
    pub fn columns(&self) -> [(&'static str, &[f64]); 4] {
        [("min", &self.min), ("max", &self.max), ("mean", &self.mean), ("std", &self.std)]
    }
}

/// The entry of `meta/stats.json`.
pub fn entry<'a>(arrays: impl Iterator<Item = &'a Array> + Clone, width: usize) -> Value {
    let stats = Stats::of(arrays.clone(), width);
    let mut entry = Map::new();
    for (name, values) in stats.columns() {
        entry.insert(name.into(), json!(values));
    }
    entry.insert("count".into(), json!([stats.count]));
    let mut columns = vec![Vec::with_capacity(stats.count); width];
    for array in arrays {
        array.values().enumerate().for_each(|(i, v)| columns[i % width].push(v));
    }
    columns.iter_mut().for_each(|c| c.sort_by(f64::total_cmp));
    for (name, share) in QUANTILES {
        entry.insert(name.into(), json!(columns.iter().map(|c| quantile(c, share)).collect::<Vec<_>>()));
    }
    Value::Object(entry)
}

/// Between the two nearest of sorted values, linearly (NumPy's default).
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return 0.0 };
    let place = share * last as f64;
    let low = place.floor() as usize;
    let high = (low + 1).min(last);
    sorted[low] + (place - low as f64) * (sorted[high] - sorted[low])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::Data;

    #[test]
    fn statistics_are_those_of_each_component() {
        let arrays = [
            Array::rows_of(2, Data::F32(vec![0.0, 10.0, 1.0, 10.0])).unwrap(),
            Array::rows_of(2, Data::F32(vec![2.0, 10.0, 3.0, 10.0])).unwrap(),
        ];
        let entry = entry(arrays.iter(), 2);
        assert_eq!(entry["min"], json!([0.0, 10.0]));
        assert_eq!(entry["max"], json!([3.0, 10.0]));
        assert_eq!(entry["mean"], json!([1.5, 10.0]));
        assert_eq!(entry["count"], json!([4]));
        assert_eq!(entry["q50"], json!([1.5, 10.0]));
        assert!((entry["q10"][0].as_f64().unwrap() - 0.3).abs() < 1e-12);
        assert!((entry["std"][0].as_f64().unwrap() - 1.25f64.sqrt()).abs() < 1e-12);
    }
}
