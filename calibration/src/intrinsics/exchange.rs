//! Intrinsics files of OpenCV (`%YAML:1.0`, FileStorage) and ROS (`camera_info` YAML), read and written.
//!
//! Both count pixels from the centre of the top left pixel, this project from its outer corner: their principal point is
//! half a pixel less than ours. Numbers are written so that reading them gives the same camera bit for bit (for a principal
//! point of a quarter pixel or more), and writing a file that was read gives its numbers back.

use super::IntrinsicsError;
use super::yaml::{Fault, Map};
use std::io::Write;
use std::path::Path;
use tenon_vision::{Camera, Distortion};

/// A camera and the resolution that it holds for.
#[derive(Debug, Clone, PartialEq)]
pub struct CameraInfo {
    /// ROS's `camera_name`; empty where a file has none.
    pub name: String,
    pub width: usize,
    pub height: usize,
    pub camera: Camera,
}

/// Whose file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    OpenCv,
    Ros,
}

/// Half a pixel between the two conventions.
const HALF_PX: f64 = 0.5;

/// Larger files are no calibration, bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Sides of a picture, px.
const MAX_SIDE_PX: usize = 1 << 16;

impl CameraInfo {
    /// Reads a file of either format.
    pub fn load(path: &Path) -> Result<Self, IntrinsicsError> {
        let fail = |source| IntrinsicsError::File { path: path.to_owned(), source };
        if std::fs::metadata(path).map_err(fail)?.len() > MAX_FILE_BYTES {
            return Err(fail(std::io::Error::other("too large for a calibration file")));
        }
        let bytes = std::fs::read(path).map_err(fail)?;
        let text = String::from_utf8(bytes).map_err(|_| fail(std::io::Error::other("is not a text file")))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// `origin` names the text in errors (a path).
    pub fn parse(text: &str, origin: &str) -> Result<Self, IntrinsicsError> {
        let located = |fault: Fault| IntrinsicsError::Syntax {
            origin: origin.to_owned(),
            line: fault.line,
            key: fault.key,
            message: fault.message,
        };
        Map::parse(text).and_then(|map| Self::from_map(&map)).map_err(located)
    }

    fn from_map(map: &Map) -> Result<Self, Fault> {
        let side = |key: &str| match map.whole_number(key) {
            Ok(side) if (1..=MAX_SIDE_PX).contains(&side) => Ok(side),
            Ok(side) => Err(map.fault(key, format!("{side} px is no picture"))),
            Err(fault) if !map.has(key) => {
                Err(Fault { message: "is missing: intrinsics hold for one resolution; add it".to_owned(), ..fault })
            }
            Err(fault) => Err(fault),
        };
        let (width, height) = (side("image_width")?, side("image_height")?);
        let name = if map.has("camera_name") { map.scalar("camera_name")?.to_owned() } else { String::new() };
        let k = matrix(map, "camera_matrix", &[(3, 3)])?;
        let bad_matrix = |message: &str| map.fault("camera_matrix", message);
        if [k[1], k[3], k[6], k[7]].iter().any(|v| *v != 0.0) || k[8] != 1.0 {
            return Err(bad_matrix("must be [fx, 0, cx, 0, fy, cy, 0, 0, 1] (skew is not supported)"));
        }
        let camera = Camera::pinhole(k[0], k[4], k[2] + HALF_PX, k[5] + HALF_PX)
            .map_err(|error| bad_matrix(&error.to_string()))?;
        if map.has("distortion_model") {
            let model = map.scalar("distortion_model")?;
            if !["plumb_bob", "rational_polynomial", ""].contains(&model) {
                let message = format!("{model:?} is not supported, only plumb_bob (Brown-Conrady)");
                return Err(map.fault("distortion_model", message));
            }
        }
        let d = distortion(map)?;
        let camera = if d.iter().all(|v| *v == 0.0) {
            camera
        } else {
            let bad = |error: tenon_vision::VisionError| map.fault("distortion_coefficients", error.to_string());
            let [k1, k2, p1, p2, k3] = d;
            camera.with_distortion(Distortion { k1, k2, p1, p2, k3 }).map_err(bad)?
        };
        Ok(Self { name, width, height, camera })
    }

    pub fn to_yaml(&self, format: Format) -> String {
        let [fx, fy] = self.camera.focal_px();
        let [cx, cy] = self.camera.principal_px().map(less_half);
        let k = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0];
        let d = self.camera.distortion().map_or([0.0; 5], |d| [d.k1, d.k2, d.p1, d.p2, d.k3]);
        let Self { name, width, height, .. } = self;
        let name = quoted(name);
        match format {
            Format::OpenCv => {
                let matrix = |key: &str, rows: usize, cols: usize, data: &[f64]| {
                    let data = list(data);
                    format!("{key}: !!opencv-matrix\n   rows: {rows}\n   cols: {cols}\n   dt: d\n   data: [ {data} ]\n")
                };
                format!(
                    "%YAML:1.0\n---\ncamera_name: {name}\nimage_width: {width}\nimage_height: {height}\n{}{}",
                    matrix("camera_matrix", 3, 3, &k),
                    matrix("distortion_coefficients", 1, 5, &d)
                )
            }
            Format::Ros => {
                let matrix = |key: &str, rows: usize, cols: usize, data: &[f64]| {
                    let data = list(data);
                    format!("{key}:\n  rows: {rows}\n  cols: {cols}\n  data: [{data}]\n")
                };
                let identity = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0];
                let projection = [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0];
                format!(
                    "image_width: {width}\nimage_height: {height}\ncamera_name: {name}\n{}distortion_model: plumb_bob\n{}{}{}",
                    matrix("camera_matrix", 3, 3, &k),
                    matrix("distortion_coefficients", 1, 5, &d),
                    matrix("rectification_matrix", 3, 3, &identity),
                    matrix("projection_matrix", 3, 4, &projection)
                )
            }
        }
    }

    /// Writes a new file as a whole; an existing one is never replaced.
    pub fn save_new(&self, path: &Path, format: Format) -> Result<(), IntrinsicsError> {
        let fail = |source| IntrinsicsError::File { path: path.to_owned(), source };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder).map_err(fail)?;
        file.write_all(self.to_yaml(format).as_bytes()).map_err(fail)?;
        file.as_file().sync_all().map_err(fail)?;
        file.persist_noclobber(path).map(|_| ()).map_err(|error| fail(error.error))
    }
}

/// Data of a matrix with one of the shapes (rows, columns); any shape where none is given.
fn matrix(map: &Map, key: &str, shapes: &[(usize, usize)]) -> Result<Vec<f64>, Fault> {
    let inner = map.map(key)?;
    let shape = (inner.whole_number("rows")?, inner.whole_number("cols")?);
    if !shapes.is_empty() && !shapes.contains(&shape) {
        return Err(inner.fault("rows", format!("a matrix of {} x {} is not expected here", shape.0, shape.1)));
    }
    let data = inner.numbers("data")?;
    if shape.0.checked_mul(shape.1) != Some(data.len()) {
        return Err(inner.fault("data", format!("{} numbers do not fill {} x {}", data.len(), shape.0, shape.1)));
    }
    Ok(data)
}

/// k1, k2, p1, p2, k3. OpenCV's longer models are accepted where their further coefficients are zero.
fn distortion(map: &Map) -> Result<[f64; 5], Fault> {
    const KEY: &str = "distortion_coefficients";
    let inner = map.map(KEY)?;
    let data = matrix(map, KEY, &[])?;
    if ![0, 4, 5, 8, 12, 14].contains(&data.len()) {
        return Err(inner.fault("data", format!("{} coefficients: must be 4, 5, 8, 12 or 14", data.len())));
    }
    if data.iter().skip(5).any(|v| *v != 0.0) {
        let message = "only k1, k2, p1, p2, k3 are supported, and the coefficients after them are not zero; calibrate \
                       without the rational, thin-prism and tilted models";
        return Err(inner.fault("data", message));
    }
    let mut out = [0.0; 5];
    for (to, from) in out.iter_mut().zip(&data) {
        *to = *from;
    }
    Ok(out)
}

/// The shortest number that gives `ours` again when half a pixel is added.
fn less_half(ours: f64) -> f64 {
    let exact = ours - HALF_PX;
    for digits in 0..17 {
        if let Ok(short) = format!("{exact:.digits$e}").parse::<f64>()
            && short + HALF_PX == ours
        {
            return short;
        }
    }
    // Below a quarter pixel half a pixel does not come off without rounding; a neighbour may still give it back.
    [exact, exact.next_up(), exact.next_down()].into_iter().find(|v| v + HALF_PX == ours).unwrap_or(exact)
}

/// Shortest decimals that read back as the same numbers.
fn list(numbers: &[f64]) -> String {
    let shown: Vec<String> = numbers.iter().map(|v| format!("{v:?}")).collect();
    shown.join(", ")
}

fn quoted(name: &str) -> String {
    let safe: String = name.chars().map(|c| if c.is_control() { '_' } else { c }).collect();
    format!("\"{}\"", safe.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cx: f64) -> CameraInfo {
        let distortion = Distortion { k1: 0.1 + 0.2, k2: -0.25, p1: 1.1e-3, p2: -7e-17, k3: 1.0 / 3.0 };
        let camera = Camera::pinhole(915.123456789, 1.0e3 / 1.1, cx, 348.2).unwrap();
        let camera = camera.with_distortion(distortion).unwrap();
        CameraInfo { name: "left \"1\" # a".to_owned(), width: 1280, height: 720, camera }
    }

    #[test]
    fn a_camera_survives_both_formats_bit_for_bit() {
        for format in [Format::OpenCv, Format::Ros] {
            for cx in [642.1, 512.2, 512.3, 0.3, 0.7, 1.0 / 3.0, 1023.9, 64.0 + 1.0 / 7.0] {
                let info = sample(cx);
                let text = info.to_yaml(format);
                let back = CameraInfo::parse(&text, "c.yaml").unwrap();
                assert_eq!(back, info, "{text}");
                assert_eq!(back.to_yaml(format), text);
            }
            let plain = CameraInfo { camera: Camera::pinhole(900.0, 901.0, 640.0, 360.0).unwrap(), ..sample(1.0) };
            assert_eq!(CameraInfo::parse(&plain.to_yaml(format), "c").unwrap(), plain);
        }
    }

    /// As OpenCV 4 writes it (FileStorage), with its rounding and line breaks.
    const OPENCV: &str = "%YAML:1.0\n---\ncalibration_time: \"Mon 01 Jan 2024\"\nimage_width: 1280\nimage_height: 720\n\
        flags: 0\ncamera_matrix: !!opencv-matrix\n   rows: 3\n   cols: 3\n   dt: d\n   \
        data: [ 9.1525000000000000e+02, 0., 5.1170000000000005e+02, 0.,\n       9.1212500000000000e+02, 3.4869999999999999e+02, \
        0., 0., 1. ]\ndistortion_coefficients: !!opencv-matrix\n   rows: 5\n   cols: 1\n   dt: d\n   data: [ 0.11, -0.22, \
        0.001, -0.0007,\n       0.08 ]\navg_reprojection_error: 0.21\n";

    const ROS: &str = "image_width: 640\nimage_height: 480\ncamera_name: narrow_stereo\ncamera_matrix:\n  rows: 3\n  cols: 3\n  \
        data: [433.5, 0, 320.25, 0, 434.75, 240.5, 0, 0, 1]\ndistortion_model: plumb_bob\ndistortion_coefficients:\n  \
        rows: 1\n  cols: 5\n  data: [-0.1, 0.02, 0.001, 0.002, 0]\nrectification_matrix:\n  rows: 3\n  cols: 3\n  \
        data: [1, 0, 0, 0, 1, 0, 0, 0, 1]\nprojection_matrix:\n  rows: 3\n  cols: 4\n  \
        data: [433, 0, 320, 0, 0, 434, 240, 0, 0, 0, 1, 0]\n";

    #[test]
    fn files_of_both_programs_are_read_half_a_pixel_over_and_give_their_numbers_back() {
        let opencv = CameraInfo::parse(OPENCV, "a.yml").unwrap();
        assert_eq!((opencv.width, opencv.height), (1280, 720));
        assert_eq!(opencv.camera.focal_px(), [915.25, 912.125]);
        assert_eq!(opencv.camera.principal_px(), [511.7 + 0.5, 348.7 + 0.5]);
        assert_eq!(opencv.camera.distortion().unwrap().p2, -0.0007);
        assert!(opencv.to_yaml(Format::OpenCv).contains("915.25, 0.0, 511.7, 0.0, 912.125, 348.7,"));
        let ros = CameraInfo::parse(ROS, "b.yaml").unwrap();
        assert_eq!(ros.name, "narrow_stereo");
        assert_eq!(ros.camera.principal_px(), [320.75, 241.0]);
        assert!(ros.to_yaml(Format::Ros).contains("data: [433.5, 0.0, 320.25, 0.0, 434.75, 240.5, 0.0, 0.0, 1.0]"));
        // From one to the other and back.
        assert_eq!(CameraInfo::parse(&ros.to_yaml(Format::OpenCv), "c").unwrap(), ros);
    }

    #[test]
    fn what_is_wrong_is_named_with_file_line_and_key() {
        let refusal = |text: String| CameraInfo::parse(&text, "cam.yml").unwrap_err().to_string();
        let missing = refusal(OPENCV.replace("image_width: 1280\n", ""));
        assert!(missing.starts_with("cam.yml:1: image_width: is missing"), "{missing}");
        let skew = refusal(OPENCV.replace("e+02, 0., 5.117", "e+02, 0.5, 5.117"));
        assert!(skew.starts_with("cam.yml:7: camera_matrix: ") && skew.contains("skew"), "{skew}");
        let few = refusal(ROS.replace("240.5, 0, 0, 1]", "240.5, 0, 0]"));
        assert!(few.starts_with("cam.yml:7: camera_matrix.data: 8 numbers"), "{few}");
        let fisheye = refusal(ROS.replace("plumb_bob", "equidistant"));
        assert!(fisheye.starts_with("cam.yml:8: distortion_model: "), "{fisheye}");
        let negative = refusal(ROS.replace("433.5", "-433.5"));
        assert!(negative.contains("fx"), "{negative}");
        let word = refusal(ROS.replace("434.75", "abc"));
        assert!(word.contains("cam.yml:7: camera_matrix.data: \"abc\""), "{word}");
        let rational =
            refusal(ROS.replace(
                "cols: 5\n  data: [-0.1, 0.02, 0.001, 0.002, 0]",
                "cols: 8\n  data: [0, 0, 0, 0, 0, 0.1, 0, 0]",
            ));
        assert!(rational.contains("rational"), "{rational}");
    }

    #[test]
    fn cut_and_damaged_files_never_panic_and_a_cut_matrix_is_an_error() {
        for text in [OPENCV, ROS] {
            for cut in 0..text.len() {
                let result = CameraInfo::parse(&text[..cut], "cut");
                let matrix_end = text.find("0.08 ]").or_else(|| text.find("0.002, 0]")).unwrap();
                assert!(cut > matrix_end || result.is_err(), "{cut}");
            }
            for place in 0..text.len() {
                for flip in [1u8, 2, 4, 8, 16, 32, 64, 0x7F] {
                    let mut damaged = text.as_bytes().to_vec();
                    damaged[place] ^= flip;
                    if let Ok(damaged) = String::from_utf8(damaged) {
                        let _ = CameraInfo::parse(&damaged, "damaged");
                    }
                }
            }
        }
    }

    #[test]
    fn saving_replaces_nothing_and_loading_names_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("camera.yaml");
        sample(642.1).save_new(&path, Format::Ros).unwrap();
        assert_eq!(CameraInfo::load(&path).unwrap(), sample(642.1));
        let again = sample(600.0).save_new(&path, Format::Ros).unwrap_err().to_string();
        assert!(again.contains("camera.yaml"), "{again}");
        assert_eq!(CameraInfo::load(&path).unwrap(), sample(642.1));
        let missing = CameraInfo::load(&folder.path().join("no.yaml")).unwrap_err().to_string();
        assert!(missing.contains("no.yaml"), "{missing}");
    }
}
