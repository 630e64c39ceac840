//! Files that are cut off or have flipped bytes: an error or a defect, never a panic, and never other values unseen where
//! the format has a checksum.

use super::*;

/// A small generator of places (xorshift).
struct Places(u64);

impl Places {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// Reads whatever is there with every step that a command takes.
fn survives(path: &Path, format: Format) -> bool {
    let Ok(seen) = detect(path) else { return false };
    let _ = seen;
    match found_as(path, format, true) {
        Ok(found) => {
            let _ = tenon_data::summary::Summary::of(&found.demonstrations, format);
            verify(path, &found, format.bounds()).is_empty()
        }
        Err(_) => false,
    }
}

fn damaged_copies(name: &str, format: Format, cuts: usize, flips: usize) {
    let bytes = std::fs::read(data(name)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged");
    let mut places = Places(0x9e37_79b9_7f4a_7c15);
    // Ends and beginnings of structures lie at the beginning and the end: look there at every byte.
    let near = (0..bytes.len().min(200)).chain(bytes.len().saturating_sub(200)..bytes.len());
    let more: Vec<usize> = (0..cuts).map(|_| places.below(bytes.len())).collect();
    for keep in near.step_by(7).chain(more) {
        std::fs::write(&path, &bytes[..keep]).unwrap();
        assert!(!survives(&path, format), "{name} cut to {keep} of {} bytes looks whole", bytes.len());
    }
    for _ in 0..flips {
        let mut copy = bytes.clone();
        for _ in 0..=places.below(3) {
            let (at, bit) = (places.below(copy.len()), places.below(8));
            copy[at] ^= 1 << bit;
        }
        std::fs::write(&path, &copy).unwrap();
        survives(&path, format);
    }
}

#[test]
fn damaged_hdf5_is_an_error() {
    damaged_copies("d4rl.hdf5", Format::D4rl, 20, 300);
    damaged_copies("robomimic.hdf5", Format::Robomimic, 10, 100);
}

#[test]
fn every_flipped_byte_of_the_metadata_of_hdf5_ends_well() {
    // The first bytes are superblock, root group, B-trees, heaps and headers.
    let bytes = std::fs::read(data("d4rl.hdf5")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged");
    let flips = [|_| 0, |_| 0xff, |byte| byte ^ 0x80];
    for at in 0..bytes.len().min(3000) {
        let mut copy = bytes.clone();
        copy[at] = flips[at % 3](bytes[at]);
        std::fs::write(&path, &copy).unwrap();
        survives(&path, Format::D4rl);
    }
}

#[test]
fn damaged_npz_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("demos");
    written(&whole, found("d4rl.hdf5", Format::D4rl).demonstrations, Format::Npz, Format::D4rl);
    let bytes = std::fs::read(whole.join("train.npz")).unwrap();
    let path = folder.path().join("damaged.npz");
    let mut places = Places(7);
    for keep in (0..bytes.len()).step_by(97) {
        std::fs::write(&path, &bytes[..keep]).unwrap();
        assert!(!survives(&path, Format::Npz), "cut to {keep}");
    }
    for _ in 0..200 {
        let mut copy = bytes.clone();
        copy[places.below(bytes.len())] ^= 1 << places.below(8);
        std::fs::write(&path, &copy).unwrap();
        survives(&path, Format::Npz);
    }
}

#[test]
fn damaged_zarr_is_an_error() {
    damaged_copies("store.zarr.zip", Format::Zarr, 20, 50);
    // Without the archive's checksums: chunks and metadata themselves.
    let folder = tempfile::tempdir().unwrap();
    let mut archive = tenon_data::archive::Archive::open(&data("store.zarr.zip")).unwrap();
    let names = archive.names();
    let mut files = Vec::new();
    for name in names {
        let path = folder.path().join(&name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let bytes = archive.entry(&name).unwrap().unwrap();
        std::fs::write(&path, &bytes).unwrap();
        files.push((path, bytes));
    }
    let mut places = Places(11);
    for _ in 0..600 {
        let (path, bytes) = &files[places.below(files.len())];
        if bytes.is_empty() {
            continue;
        }
        let mut copy = bytes.clone();
        if places.below(4) == 0 {
            copy.truncate(places.below(bytes.len()));
        } else {
            copy[places.below(bytes.len())] ^= 1 << places.below(8);
        }
        std::fs::write(path, &copy).unwrap();
        survives(folder.path(), Format::Zarr);
        std::fs::write(path, bytes).unwrap();
    }
}

#[test]
fn damaged_pickles_are_an_error() {
    damaged_copies("avoid.pkl", Format::Avoid, 30, 400);
    damaged_copies("furniture/2023-01-01T10:00:00.pkl", Format::Furniture, 30, 200);
}

#[test]
fn damaged_tables_of_lerobot_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("set");
    let files = ["meta/info.json", "meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet"];
    for name in files {
        std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        std::fs::copy(data("lerobot").join(name), root.join(name)).unwrap();
    }
    assert!(survives(&root, Format::Lerobot));
    let mut places = Places(3);
    for name in files {
        let bytes = std::fs::read(root.join(name)).unwrap();
        for i in 0..200 {
            let mut copy = bytes.clone();
            if i % 4 == 0 {
                copy.truncate(places.below(bytes.len()));
            } else {
                copy[places.below(bytes.len())] ^= 1 << places.below(8);
            }
            std::fs::write(root.join(name), &copy).unwrap();
            let whole = survives(&root, Format::Lerobot);
            assert!(!whole || copy.len() == bytes.len(), "{name} cut to {} bytes looks whole", copy.len());
        }
        std::fs::write(root.join(name), &bytes).unwrap();
    }
}

/// Damage in one demonstration leaves the others readable.
#[test]
fn one_damaged_demonstration_is_named_and_the_others_are_read() {
    let mut bytes = std::fs::read(data("robomimic.hdf5")).unwrap();
    // A packed picture of demo_2: its checksum (Adler-32) or its stream breaks.
    let whole = found("robomimic.hdf5", Format::Robomimic).demonstrations;
    let path = tempfile::tempdir().unwrap();
    let file = path.path().join("x.hdf5");
    let mut named = false;
    let streams: Vec<usize> =
        bytes.windows(2).enumerate().filter(|(_, w)| *w == [0x78, 0x5e]).map(|(i, _)| i).collect();
    assert!(!streams.is_empty(), "the file has packed chunks");
    for at in streams {
        bytes[at + 4] ^= 0xff;
        std::fs::write(&file, &bytes).unwrap();
        let found = found_as(&file, Format::Robomimic, true).unwrap();
        bytes[at + 4] ^= 0xff;
        if let [defect] = &found.defects[..] {
            let name = defect.episode.clone().unwrap();
            assert_eq!((defect.kind, found.demonstrations.episodes.len()), (Kind::Unreadable, 2), "{defect}");
            assert!(defect.field.is_some(), "{defect}");
            assert!(found.demonstrations.episodes.iter().all(|e| e.name != name && whole.episodes.contains(e)));
            named = true;
        }
    }
    assert!(named);
}
