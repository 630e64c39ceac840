//! Runs the commands: files in, report on standard output, pictures beside it.

use crate::cli::PhotoArgs;
use crate::photo::{Measured, Setup, measure};
use crate::{CalibrateError, draw, text};
use image::ImageFormat;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;
use tenon_vision::{Detector, StillImage};

/// How a command ended; the order is from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    Done,
    /// A picture without tags, or without the camera pose that was required.
    NothingFound,
    /// A file could not be read or written.
    BadFile,
}

impl Outcome {
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::NothingFound => 1,
            Self::BadFile => 2,
        }
    }
}

/// `tenon-calibrate photo`. Every file is looked at, whatever happens with the others; the worst outcome counts.
///
/// # Errors
/// Wrong options or layouts, and a report that cannot be written.
pub fn photo(args: &PhotoArgs, out: &mut impl Write) -> Result<Outcome, CalibrateError> {
    let setup = Setup::from_args(args)?;
    let mut detector = Detector::new(setup.settings)?;
    let mut worst = Outcome::Done;
    for (i, path) in args.files.iter().enumerate() {
        if i > 0 && !args.json {
            writeln!(out)?;
        }
        let outcome = match photo_file(args, &setup, &mut detector, path) {
            Ok(measured) => {
                let report = &measured.report;
                if args.json {
                    let encode = |error: serde_json::Error| CalibrateError::Encode {
                        what: "the report",
                        reason: error.to_string(),
                    };
                    writeln!(out, "{}", serde_json::to_string(report).map_err(encode)?)?;
                } else {
                    text::print(out, report)?;
                }
                let lacking = args.need_board && report.board.camera_in_april.is_none();
                if report.tags.is_empty() || lacking { Outcome::NothingFound } else { Outcome::Done }
            }
            Err(error) => {
                // Said where people look for errors, and on the line that a program reads for this file.
                eprintln!("tenon-calibrate: {error}");
                if args.json {
                    let line = serde_json::json!({
                        "schema": crate::report::SCHEMA,
                        "file": path.display().to_string(),
                        "error": error.to_string(),
                    });
                    writeln!(out, "{line}")?;
                }
                Outcome::BadFile
            }
        };
        worst = worst.max(outcome);
        out.flush()?;
    }
    Ok(worst)
}

fn photo_file(
    args: &PhotoArgs,
    setup: &Setup,
    detector: &mut Detector,
    path: &Path,
) -> Result<Measured, CalibrateError> {
    let image = StillImage::load(path)?;
    let mut measured = measure(setup, detector, &path.display().to_string(), &image)?;
    if !args.no_picture && !measured.detections.is_empty() {
        let picture = draw::annotate(&image.rgb, &measured, args.zoom);
        // A path that was loaded as a file ends in a name.
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let written = write_picture(&picture, &args.out, &stem, args.overwrite)?;
        measured.report.picture = Some(written.display().to_string());
    }
    Ok(measured)
}

/// Writes `<stem>_tags.png` into `folder` as a whole (beside the target, then renamed). An existing file is replaced only
/// with `overwrite`; otherwise the new one is `<stem>_tags_2.png` and so on. Returns the path.
pub fn write_picture(
    picture: &image::RgbImage,
    folder: &Path,
    stem: &str,
    overwrite: bool,
) -> Result<PathBuf, CalibrateError> {
    let first = folder.join(format!("{stem}_tags.png"));
    let fail = |source: std::io::Error| CalibrateError::WritePicture { path: first.clone(), source };
    std::fs::create_dir_all(folder).map_err(fail)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".tenon-").suffix(".png");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Temporary files are private by default; a picture should be as readable as any new file (umask applies).
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let mut file: NamedTempFile = builder.tempfile_in(folder).map_err(fail)?;
    let mut writer = BufWriter::new(file.as_file_mut());
    let mut encoded = std::io::Cursor::new(Vec::new());
    picture
        .write_to(&mut encoded, ImageFormat::Png)
        .map_err(|error| CalibrateError::Encode { what: "the annotated picture", reason: error.to_string() })?;
    writer.write_all(encoded.get_ref()).and_then(|()| writer.flush()).map_err(fail)?;
    drop(writer);
    if overwrite {
        file.persist(&first).map_err(|error| fail(error.error))?;
        return Ok(first);
    }
    for number in 1.. {
        let target = match number {
            1 => first.clone(),
            _ => folder.join(format!("{stem}_tags_{number}.png")),
        };
        match file.persist_noclobber(&target) {
            Ok(_) => return Ok(target),
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => file = error.file,
            Err(error) => return Err(fail(error.error)),
        }
    }
    unreachable!("some number is free")
}
