//! LeRobotDataset v3: `meta/info.json`, tables of episodes, tasks and frames, pictures as video.
//!
//! | LeRobot | here |
//! |---|---|
//! | `observation.KEY` | `obs/KEY` |
//! | `action` | `actions` |
//! | `next.reward`, `next.done`, `timestamp` | `rewards`, `dones`, `time_s` |
//! | `next.success` in any frame | success of the episode |
//!
//! Video is decoded by the program `ffmpeg`, where it is installed and pictures are asked for.

mod columns;
mod read;
mod stats;
mod table_writer;
mod video;
mod write;

pub use read::read;
pub use write::write;

use crate::model::{ACTIONS, DONES, OBSERVATIONS, REWARDS, TIME};

/// Version of the layout.
const VERSION: &str = "v3.0";
/// Columns that every table of frames has.
const INDICES: [&str; 5] = ["timestamp", "frame_index", "episode_index", "index", "task_index"];
const SUCCESS: &str = "next.success";

/// LeRobot's name of a feature → name of the field.
fn field_of(feature: &str) -> String {
    match feature {
        "action" => ACTIONS.into(),
        "next.reward" => REWARDS.into(),
        "next.done" => DONES.into(),
        "timestamp" => TIME.into(),
        _ => match feature.strip_prefix("observation.") {
            Some(key) => format!("{OBSERVATIONS}{key}"),
            None => feature.into(),
        },
    }
}

/// Name of a field → LeRobot's name of the feature, which has no slash.
fn feature_of(field: &str) -> String {
    match field {
        ACTIONS => "action".into(),
        REWARDS => "next.reward".into(),
        DONES => "next.done".into(),
        _ => match field.strip_prefix(OBSERVATIONS) {
            Some(key) => format!("observation.{}", key.replace('/', ".")),
            None => field.replace('/', "."),
        },
    }
}
