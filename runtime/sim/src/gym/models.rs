//! Where the models of the Gym tasks lie. They come out of the gymnasium wheel at set-up and are part of no program.

use std::path::{Path, PathBuf};

use crate::error::SimError;
use crate::gym::GymTask;

/// Names the folder of the models explicitly; nothing else is tried then.
pub const FOLDER_VARIABLE: &str = "TENON_GYM";

/// The folders that are searched for models, in order: `$TENON_GYM` alone where it is set, else beside an installed
/// program (`../share/tenon/gym`), then the `.deps/gym` of the source tree that the program was built from.
fn folders() -> Vec<PathBuf> {
    if let Some(named) = std::env::var_os(FOLDER_VARIABLE) {
        return vec![PathBuf::from(named)];
    }
    let installed = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.parent()?.join("share/tenon/gym")));
    let development = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.deps/gym");
    installed.into_iter().chain([development]).collect()
}

/// The file of a task's model.
///
/// # Errors
/// [`SimError::GymModelMissing`] with the places where it was looked for.
pub fn model_path(task: GymTask) -> Result<PathBuf, SimError> {
    model_path_in(task, &folders())
}

fn model_path_in(task: GymTask, folders: &[PathBuf]) -> Result<PathBuf, SimError> {
    let file = task.model_file();
    folders.iter().map(|folder| folder.join(file)).find(|path| path.is_file()).ok_or_else(|| {
        let places: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        SimError::GymModelMissing { file, places: places.join(" or "), variable: FOLDER_VARIABLE }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_model_names_the_places_and_what_to_run() {
        let places = [PathBuf::from("/nowhere/a"), PathBuf::from("/nowhere/b")];
        let message = model_path_in(GymTask::WALKER2D, &places).unwrap_err().to_string();
        for part in ["walker2d.xml", "/nowhere/a or /nowhere/b", "make setup", "TENON_GYM"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(!message.contains('\n'));
    }
}
