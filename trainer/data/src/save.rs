//! Files and folders that are written beside their place and then renamed.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::DataError;

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Writes a file beside `path`, flushes it to the disk and renames it. Folders above it are made.
///
/// # Errors
/// What `content` or the disk says; nothing is left behind then.
pub fn file(path: &Path, content: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<(), DataError> {
    let fail = |e: std::io::Error| DataError::file(path, format!("cannot be written: {e}"));
    let folder = folder_of(path);
    std::fs::create_dir_all(folder).map_err(fail)?;
    let readable = std::fs::Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().permissions(readable).tempfile_in(folder).map_err(fail)?;
    content(file.as_file_mut()).map_err(fail)?;
    file.as_file_mut().flush().and_then(|()| file.as_file().sync_all()).map_err(fail)?;
    file.persist(path).map_err(|e| fail(e.error))?;
    Ok(())
}

/// A folder that is being written beside its place. Dropped before [`Folder::finish`], it vanishes.
#[derive(Debug)]
pub struct Folder {
    temporary: tempfile::TempDir,
    target: PathBuf,
}

impl Folder {
    /// Begins a folder that is to stand at `target`, where nothing or an empty folder may be.
    ///
    /// # Errors
    /// Where something is there, or the disk says no.
    pub fn begin(target: &Path) -> Result<Self, DataError> {
        let fail = |e: std::io::Error| DataError::file(target, format!("cannot be written: {e}"));
        let full = match std::fs::read_dir(target) {
            Ok(mut entries) => entries.next().is_some(),
            Err(_) => target.exists(),
        };
        if full {
            return Err(DataError::file(target, "is there already; choose another place, or remove it first"));
        }
        let parent = folder_of(target);
        std::fs::create_dir_all(parent).map_err(fail)?;
        let readable = std::fs::Permissions::from_mode(0o777);
        let temporary = tempfile::Builder::new().permissions(readable).tempdir_in(parent).map_err(fail)?;
        Ok(Self { temporary, target: target.to_owned() })
    }

    /// Where to write to meanwhile.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Puts the folder to its place.
    ///
    /// # Errors
    /// What the disk says.
    pub fn finish(self) -> Result<(), DataError> {
        let fail = |e: std::io::Error| DataError::file(&self.target, format!("cannot be written: {e}"));
        // An empty folder may stand there; `rename` replaces it.
        let path = self.temporary.keep();
        std::fs::rename(&path, &self.target).map_err(|e| {
            let _ = std::fs::remove_dir_all(&path);
            fail(e)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        assert!(file(&path, |_| Err(std::io::Error::other("no"))).is_err());
        drop(Folder::begin(&path).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_that_holds_something_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("x"), "").unwrap();
        assert!(Folder::begin(folder.path()).unwrap_err().to_string().contains("is there already"));
        let begun = Folder::begin(&folder.path().join("new")).unwrap();
        std::fs::write(begun.path().join("y"), "").unwrap();
        begun.finish().unwrap();
        assert!(folder.path().join("new/y").is_file());
    }
}
