//! Judges deployed Avoid episodes from the simulator's own state, with the predicate of the task (spec sim_tasks.md §4).

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tenon_core::avoid::{CHUNK_STEPS, CONTROL_PERIOD_MS, ModeBits, chunk_succeeds, reward};
use tenon_core::time::MonotonicTime;

/// One line of the simulator's truth file.
#[derive(Debug, Clone, Deserialize)]
struct Truth {
    t_ns: i64,
    tcp: [f64; 3],
    contact: bool,
}

/// The verdict on one episode.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JudgedEpisode {
    pub success: bool,
    /// The rod touched an obstacle during the episode.
    pub contact: bool,
    pub mode_bits: u16,
    /// x, y of the tool point every control step, m.
    pub path_xy_m: Vec<[f64; 2]>,
}

/// The simulator's record of a run.
pub struct TruthFile(Vec<Truth>);

impl TruthFile {
    /// Reads the JSON lines; a last line cut short by a kill is left out.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        let lines: Vec<&str> = text.lines().collect();
        let mut rows = Vec::with_capacity(lines.len());
        for (i, line) in lines.iter().enumerate() {
            match serde_json::from_str(line) {
                Ok(row) => rows.push(row),
                Err(_) if i + 1 == lines.len() => {}
                Err(e) => return Err(e).with_context(|| format!("{}:{}", path.display(), i + 1)),
            }
        }
        Ok(Self(rows))
    }

    /// Judges the episode between two moments of CLOCK_MONOTONIC.
    ///
    /// The rod's contacts count from the start on; positions are read every control step; an episode succeeds if one
    /// chunk of consecutive steps earned the full reward.
    pub fn judge(&self, start: MonotonicTime, end: MonotonicTime) -> JudgedEpisode {
        let from = self.0.partition_point(|r| r.t_ns <= start.as_nanos());
        let to = self.0.partition_point(|r| r.t_ns <= end.as_nanos());
        let rows = &self.0[from..to.max(from)];
        let mut episode =
            JudgedEpisode { success: false, contact: false, mode_bits: 0, path_xy_m: Vec::with_capacity(128) };
        let mut mode_bits = ModeBits::default();
        let (mut sum, mut steps) = (0.0, 0);
        let mut next = start.as_nanos();
        for row in rows {
            episode.contact |= row.contact;
            if row.t_ns < next {
                continue;
            }
            next += (CONTROL_PERIOD_MS * 1_000_000) as i64;
            let xy = [row.tcp[0], row.tcp[1]];
            episode.path_xy_m.push(xy);
            mode_bits.update(xy[0], xy[1]);
            sum += reward(episode.contact, mode_bits, xy);
            steps += 1;
            if steps == CHUNK_STEPS {
                episode.success |= chunk_succeeds(sum, steps);
                (sum, steps) = (0.0, 0);
            }
        }
        episode.mode_bits = mode_bits.bits();
        episode
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(contact_at: Option<usize>, end_x: f64) -> TruthFile {
        let rows = (0..700).map(|i| {
            let s = i as f64 / 600.0;
            let y = -0.28 + 0.75 * s.min(1.0);
            let x = if y < 0.0 {
                0.58
            } else if y < 0.15 {
                0.35
            } else {
                end_x
            };
            Truth { t_ns: i as i64 * 5_000_000 + 1, tcp: [x, y, 0.12], contact: Some(i) == contact_at }
        });
        TruthFile(rows.collect())
    }

    #[test]
    fn a_path_left_of_the_last_row_succeeds_and_a_touch_spoils_it() {
        let (start, end) = (MonotonicTime::from_nanos(0), MonotonicTime::from_nanos(3_500_000_000));
        assert!(truth(None, 0.3).judge(start, end).success);
        assert!(!truth(Some(300), 0.3).judge(start, end).success);
        assert!(!truth(None, 0.43).judge(start, end).success, "bit 6 is not the goal");
    }

    #[test]
    fn an_empty_window_is_a_failure() {
        let t = MonotonicTime::from_nanos(0);
        assert!(!truth(None, 0.3).judge(t, t).success);
    }
}
