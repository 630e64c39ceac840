//! Where the scenes of the Robomimic tasks lie. They come out of the robosuite wheel and are part of no program.

use std::path::{Path, PathBuf};

use super::RobomimicTask;
use crate::error::SimError;

/// Names the folder of the scenes explicitly; nothing else is tried then.
pub const FOLDER_VARIABLE: &str = "TENON_ROBOMIMIC";

/// The folders that are searched, in order: `$TENON_ROBOMIMIC` alone where it is set, else beside an installed program
/// (`../share/tenon/robomimic`), then the `.deps/robomimic` of the source tree that the program was built from.
fn folders() -> Vec<PathBuf> {
    if let Some(named) = std::env::var_os(FOLDER_VARIABLE) {
        return vec![PathBuf::from(named)];
    }
    let installed =
        std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.parent()?.join("share/tenon/robomimic")));
    let development = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.deps/robomimic");
    installed.into_iter().chain([development]).collect()
}

/// The file of a task's scene; meshes and pictures lie in `assets` beside it.
///
/// # Errors
/// [`SimError::RobomimicSceneMissing`] with the places where it was looked for.
pub fn scene_path(task: RobomimicTask) -> Result<PathBuf, SimError> {
    scene_path_in(task, &folders())
}

fn scene_path_in(task: RobomimicTask, folders: &[PathBuf]) -> Result<PathBuf, SimError> {
    let file = task.scene_file();
    folders.iter().map(|folder| folder.join(file)).find(|path| path.is_file()).ok_or_else(|| {
        let places: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
        SimError::RobomimicSceneMissing { file, places: places.join(" or "), variable: FOLDER_VARIABLE }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_scene_names_the_places_and_what_to_run() {
        let places = [PathBuf::from("/nowhere/a"), PathBuf::from("/nowhere/b")];
        let message = scene_path_in(RobomimicTask::Square, &places).unwrap_err().to_string();
        for part in ["square.xml", "/nowhere/a or /nowhere/b", "make assets-robomimic", "TENON_ROBOMIMIC"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(!message.contains('\n'));
    }
}
