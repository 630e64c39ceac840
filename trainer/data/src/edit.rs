//! Mending: what is left of demonstrations once bad episodes are gone or cut.

use serde::Serialize;

use crate::model::{Demonstrations, Found};
use crate::verify::{Defect, Kind};

/// What to do about an episode that is bad from a frame on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// The whole episode goes.
    Drop,
    /// What stands before the first bad frame is kept, where it has so many frames.
    Cut {
        /// Least frames worth keeping.
        least_frames: usize,
    },
}

/// What was done to one episode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Its name.
    pub episode: String,
    /// Frames it had; `None` where it could not be read.
    pub frames: Option<usize>,
    /// Frames it has now; 0: it is gone.
    pub kept: usize,
    /// Why.
    pub reasons: Vec<String>,
}

/// Takes out or cuts what `defects` names. Defects of the file as a whole are mended by writing it anew.
pub fn repair(found: Found, defects: &[Defect], remedy: Remedy) -> (Demonstrations, Vec<Change>) {
    let mut demonstrations = found.demonstrations;
    let mut changes: Vec<Change> = Vec::new();
    let mut kept = Vec::new();
    for episode in std::mem::take(&mut demonstrations.episodes) {
        let of_it: Vec<&Defect> = defects
            .iter()
            .filter(|d| d.kind.spoils_episode() && d.episode.as_deref() == Some(episode.name.as_str()))
            .filter(|d| episode.file.as_ref().is_none_or(|f| *f == d.file))
            .collect();
        if of_it.is_empty() {
            kept.push(episode);
            continue;
        }
        let frames = episode.frames();
        // Only what begins at a frame leaves something before it.
        let first_bad = of_it.iter().map(|d| d.frame.unwrap_or(0)).min().unwrap_or(0);
        let keeps = match remedy {
            Remedy::Cut { least_frames } if first_bad >= least_frames.max(1) => first_bad,
            _ => 0,
        };
        let reasons = of_it.iter().map(|d| d.to_string()).collect();
        changes.push(Change { episode: episode.name.clone(), frames: Some(frames), kept: keeps, reasons });
        if keeps > 0 {
            kept.push(episode.cut(0..keeps));
        }
    }
    for defect in defects.iter().filter(|d| d.kind == Kind::Unreadable) {
        let Some(name) = &defect.episode else { continue };
        if !changes.iter().any(|c| c.episode == *name) {
            let reasons = vec![defect.to_string()];
            changes.push(Change { episode: name.clone(), frames: None, kept: 0, reasons });
        }
    }
    // Numbers of a list are those of its places; names of a file stay.
    if kept.iter().all(|e| e.name.bytes().all(|b| b.is_ascii_digit())) {
        kept.iter_mut().enumerate().for_each(|(i, e)| e.name = i.to_string());
    }
    demonstrations.episodes = kept;
    (demonstrations, changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::{Array, Data};
    use crate::model::{ACTIONS, Episode};
    use std::path::Path;

    fn found(frames: &[usize]) -> Found {
        let episodes = frames.iter().enumerate().map(|(i, &n)| Episode {
            name: format!("demo_{i}"),
            fields: [(ACTIONS.to_string(), Array::column(Data::F32(vec![0.0; n])))].into(),
            ..Episode::default()
        });
        let demonstrations = Demonstrations { episodes: episodes.collect(), ..Demonstrations::default() };
        Found { demonstrations, defects: vec![] }
    }

    fn defect(episode: &str, frame: Option<usize>, kind: Kind) -> Defect {
        Defect { frame, ..Defect::of_episode(Path::new("x"), episode, kind, "bad") }
    }

    #[test]
    fn a_bad_episode_is_dropped_or_cut_before_its_first_bad_frame() {
        let defects = [
            defect("demo_1", Some(7), Kind::NotFinite),
            defect("demo_1", Some(5), Kind::OutOfRange),
            defect("demo_2", None, Kind::Duplicate),
            defect("demo_9", None, Kind::Unreadable),
        ];
        let frames = |d: &Demonstrations| d.episodes.iter().map(Episode::frames).collect::<Vec<_>>();
        let (kept, changes) = repair(found(&[10, 10, 10]), &defects, Remedy::Drop);
        assert_eq!(frames(&kept), [10]);
        assert_eq!(changes.iter().map(|c| c.kept).collect::<Vec<_>>(), [0, 0, 0]);
        assert_eq!(changes[2].frames, None);
        let (kept, changes) = repair(found(&[10, 10, 10]), &defects, Remedy::Cut { least_frames: 3 });
        assert_eq!(frames(&kept), [10, 5]);
        assert_eq!((changes[0].kept, changes[0].reasons.len()), (5, 2));
        let (kept, _) = repair(found(&[10, 10, 10]), &defects, Remedy::Cut { least_frames: 6 });
        assert_eq!(frames(&kept), [10]);
    }
}
