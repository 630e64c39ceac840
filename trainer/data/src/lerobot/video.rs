//! Frames of a video, decoded by the program `ffmpeg`.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::read::Feature;
use crate::array::{Array, Data};

/// Whether there is a decoder; if not, what to do.
pub fn decoder() -> Result<(), String> {
    let started = Command::new("ffmpeg").arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    match started {
        Ok(status) if status.success() => Ok(()),
        _ => Err("it is video, which the program `ffmpeg` decodes, and that is not installed here".into()),
    }
}

/// Frames of an episode, `[frames, height, width, 3]`. `place`: chunk, file, and the second where the episode begins.
pub fn decode(
    root: &Path,
    info: &Value,
    feature: &Feature,
    place: Option<&(i64, i64, f64)>,
    frames: usize,
    rate_hz: Option<f64>,
) -> Result<Array, String> {
    let &(chunk, file, from_s) = place.ok_or("meta/episodes does not say where its video is")?;
    let rate_hz = rate_hz.filter(|r| *r > 0.0).ok_or("meta/info.json says no fps")?;
    let [height, width] = match feature.shape[..] {
        [h, w, 3] => [h, w],
        [3, h, w] => [h, w],
        _ => return Err(format!("frames of {:?}; height, width, 3 is read", feature.shape)),
    };
    let template = info.get("video_path").and_then(Value::as_str);
    let template = template.unwrap_or("videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4");
    let name = template
        .replace("{video_key}", &feature.name)
        .replace("{chunk_index:03d}", &format!("{chunk:03}"))
        .replace("{file_index:03d}", &format!("{file:03}"));
    let path = root.join(&name);
    if !path.is_file() {
        return Err(format!("{name} is not there"));
    }
    let size = height.checked_mul(width).and_then(|n| n.checked_mul(3)).and_then(|n| n.checked_mul(frames));
    let size = size.ok_or("a video that no memory holds")?;
    // Half a frame earlier, so that rounding of the time never skips the first one.
    let start_s = (from_s - 0.5 / rate_hz).max(0.0);
    let mut child = Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-ss", &format!("{start_s:.6}"), "-i"])
        .arg(&path)
        .args(["-frames:v", &frames.to_string(), "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|e| format!("ffmpeg does not start: {e}"))?;
    let mut bytes = Vec::new();
    let read = child.stdout.take().map(|out| out.take(size as u64 + 1).read_to_end(&mut bytes));
    let status = child.wait().map_err(|e| format!("ffmpeg: {e}"))?;
    match read {
        Some(Ok(_)) if status.success() && bytes.len() == size => {
            Array::new(vec![frames, height, width, 3], Data::U8(bytes))
        }
        _ => Err(format!(
            "ffmpeg made {} bytes of {name} where {frames} frames of {height} × {width} have {size}",
            bytes.len()
        )),
    }
}
