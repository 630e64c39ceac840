//! Which video device belongs to which camera, from the kernel's device tree.

use std::path::{Path, PathBuf};

use super::super::frame::Serial;

pub const CLASS: &str = "/sys/class/video4linux";
/// From a video device up to the USB device: interface, device; a hub or two more never hurt.
const MAX_PARENTS: usize = 4;

/// A video device and the camera it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// `/dev/video4`.
    pub node: PathBuf,
    /// `video4`.
    pub name: String,
    /// Of the USB descriptor; `None` for what is not USB or has none.
    pub serial: Option<Serial>,
    /// "Intel(R) RealSense(TM) Depth Camera 435".
    pub product: String,
}

/// All video devices, by number. A camera has several: a RealSense D435 one each for depth, infrared, colour, metadata.
pub fn candidates(class: &Path) -> Vec<Candidate> {
    let Ok(entries) = std::fs::read_dir(class) else { return Vec::new() };
    let mut found: Vec<(u32, Candidate)> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let number = name.strip_prefix("video")?.parse().ok()?;
            Some((number, candidate(class, name)))
        })
        .collect();
    found.sort_by_key(|&(number, _)| number);
    found.into_iter().map(|(_, candidate)| candidate).collect()
}

/// What is known of the video device `name`.
pub fn candidate(class: &Path, name: String) -> Candidate {
    let node = Path::new("/dev").join(&name);
    let device = std::fs::canonicalize(class.join(&name).join("device")).ok();
    let parents = device.iter().flat_map(|device| device.ancestors().take(MAX_PARENTS));
    let mut candidate = Candidate { node, name, serial: None, product: String::new() };
    for parent in parents {
        let read = |file: &str| std::fs::read_to_string(parent.join(file)).ok().map(|text| text.trim().to_owned());
        // The first parent with a descriptor is the camera; the next one would be its hub.
        if parent.join("idVendor").exists() {
            candidate.serial = read("serial").and_then(|text| Serial::new(&text).ok());
            candidate.product = read("product").unwrap_or_default();
            break;
        }
    }
    candidate
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two cameras as sysfs shows them: devices in a tree, links to them in the class folder.
    fn tree() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let class = root.path().join("class");
        let hub = root.path().join("usb2/2-1");
        std::fs::create_dir_all(&class).unwrap();
        std::fs::create_dir_all(&hub).unwrap();
        std::fs::write(hub.join("idVendor"), "05e3\n").unwrap();
        std::fs::write(hub.join("serial"), "HUB\n").unwrap();
        for (port, serial, videos) in [("2-1.1", Some("036522070660"), [10, 2]), ("2-1.2", None, [3, 4])] {
            let device = hub.join(port);
            let interface = device.join(format!("{port}:1.0"));
            std::fs::create_dir_all(&interface).unwrap();
            std::fs::write(device.join("idVendor"), "8086\n").unwrap();
            std::fs::write(device.join("product"), "Depth Camera 435\n").unwrap();
            if let Some(serial) = serial {
                std::fs::write(device.join("serial"), format!("{serial}\n")).unwrap();
            }
            for video in videos {
                let entry = class.join(format!("video{video}"));
                std::fs::create_dir_all(&entry).unwrap();
                std::os::unix::fs::symlink(&interface, entry.join("device")).unwrap();
            }
        }
        std::fs::create_dir_all(class.join("v4l-subdev0")).unwrap();
        root
    }

    #[test]
    fn serials_come_from_the_camera_never_from_its_hub() {
        let root = tree();
        let found = candidates(&root.path().join("class"));
        let names: Vec<_> = found.iter().map(|c| (c.name.as_str(), c.serial.is_some())).collect();
        assert_eq!(names, [("video2", true), ("video3", false), ("video4", false), ("video10", true)]);
        assert_eq!(found[0].serial.unwrap().as_str(), "036522070660");
        assert_eq!(found[3].node, Path::new("/dev/video10"));
        assert_eq!(found[1].product, "Depth Camera 435");
    }

    #[test]
    fn without_a_device_tree_there_is_no_candidate() {
        assert!(candidates(Path::new("/nowhere")).is_empty());
        assert_eq!(candidate(Path::new("/nowhere"), "video0".to_owned()).serial, None);
    }
}
