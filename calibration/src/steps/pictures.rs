//! Pictures of one camera from a folder, searched for tags.

use std::path::{Path, PathBuf};

use tenon_vision::{Detector, StillImage, TagDetection};

use super::StepError;

/// A camera's pictures.
#[derive(Debug, Clone, PartialEq)]
pub struct Pictures {
    /// Serial number of the camera that took them.
    pub serial: String,
    /// What people call it.
    pub name: String,
    pub folder: PathBuf,
    pub size_px: [usize; 2],
    pub pictures: Vec<Picture>,
}

/// What one picture shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Name of the file.
    pub name: String,
    pub detections: Vec<TagDetection>,
}

/// The picture files of a folder in the order of their names, or the one file itself.
pub fn list(path: &Path) -> Result<Vec<PathBuf>, StepError> {
    let fail = |reason: std::io::Error| StepError::Read { path: path.to_owned(), reason: reason.to_string() };
    if std::fs::metadata(path).map_err(fail)?.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(fail)? {
        let file = entry.map_err(fail)?.path();
        let extension = file.extension().map(|e| e.to_string_lossy().to_lowercase());
        if extension.is_some_and(|e| ["png", "jpg", "jpeg"].contains(&e.as_str())) {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(StepError::NoPictures { path: path.to_owned() });
    }
    files.sort();
    Ok(files)
}

/// Reads and searches all pictures. `progress`: called with how many are done, and how many there are.
///
/// # Errors
/// The first file that cannot be read, or one of another size than the others.
pub fn search(
    serial: &str,
    name: &str,
    folder: &Path,
    detector: &mut Detector,
    mut progress: impl FnMut(usize, usize),
) -> Result<Pictures, StepError> {
    let files = list(folder)?;
    let mut size_px = None;
    let mut pictures = Vec::with_capacity(files.len());
    for (i, file) in files.iter().enumerate() {
        let image = StillImage::load(file)?;
        let size = [image.grey.width(), image.grey.height()];
        if *size_px.get_or_insert(size) != size {
            let reason = format!("it is {}x{}, the pictures before it are of another size", size[0], size[1]);
            return Err(StepError::Read { path: file.clone(), reason });
        }
        let detections = detector.detect(image.grey.view())?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        pictures.push(Picture { name, detections });
        progress(i + 1, files.len());
    }
    Ok(Pictures {
        serial: serial.to_owned(),
        name: name.to_owned(),
        folder: folder.to_owned(),
        size_px: size_px.unwrap_or_default(),
        pictures,
    })
}
