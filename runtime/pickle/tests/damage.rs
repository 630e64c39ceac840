//! The reader answers any bytes with a value or an error: it never panics, and what it takes from memory stays in
//! proportion to the file.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use proptest::prelude::*;
use tenon_pickle::zip::{ZipArchive, ZipWriter};
use tenon_pickle::{FormatError, Limits, read_file, read_pickle, read_torch};

/// Counts what the current thread holds and the most that it held.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends has no counters any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = MOST.try_with(|most| most.set(most.get().max(held.get())));
    });
}

// SAFETY: every call is handed on unchanged; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Memory a file of `bytes` bytes may take: unpacked entries and made values (64 times, at least 1 MiB each), the
/// machine's arena (some hundred bytes for each opcode), and the buffers that grow by doubling.
fn allowance(bytes: usize) -> isize {
    (2 * (2 << 20) + 1000 * bytes) as isize
}

/// Reads the bytes in every way; says whether any worked.
fn read_all(bytes: &[u8]) -> bool {
    let before = HELD.with(Cell::get);
    MOST.with(|most| most.set(before));
    let read = [read_file(bytes).is_ok(), read_torch(bytes).is_ok(), read_pickle(bytes).is_ok()];
    let taken = MOST.with(Cell::get) - before;
    assert!(taken <= allowance(bytes.len()), "{} bytes took {taken} bytes of memory", bytes.len());
    read.contains(&true)
}

/// The files that PyTorch and NumPy wrote for the trainer's tests, the smaller ones of each kind.
fn samples() -> Vec<(&'static str, Vec<u8>)> {
    // Asked when the test runs: one target folder may serve several checkouts, and this crate is seldom built anew.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let folder = Path::new(&here).join("../../trainer/tests/data");
    let read = |name| (name, std::fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}")));
    ["tensors.pt", "furniture.pth", "parameters.pth", "limits_p2.pkl", "limits_p4.pkl", "limits_p5.pkl"]
        .map(read)
        .into()
}

#[test]
fn every_truncation_is_refused() {
    for (name, sample) in samples() {
        assert!(read_all(&sample), "{name}");
        for length in 0..sample.len() {
            assert!(!read_all(&sample[..length]), "{name}: {length} of {} bytes", sample.len());
        }
    }
}

/// Puts other bytes into an archive's entry, with a right CRC: damage beyond the zip layer.
fn with_entry(archive: &[u8], wanted: &str, content: &[u8]) -> Result<Vec<u8>, FormatError> {
    let limits = Limits::for_file(archive.len());
    let zip = ZipArchive::open(archive, &limits)?;
    let mut out = ZipWriter::new(&limits);
    for (name, data) in zip.entries() {
        let data = if name == wanted { content } else { data };
        out.add(&format!("{}/{name}", zip.top_folder()), data)?;
    }
    Ok(out.finish().0)
}

fn pickle_of(name: &str, sample: &[u8]) -> Vec<u8> {
    if name.ends_with(".pkl") {
        return sample.to_vec();
    }
    let limits = Limits::for_file(sample.len());
    ZipArchive::open(sample, &limits).unwrap().entry("data.pkl").unwrap().to_vec()
}

const OPCODES: &[u8] = b"\x80\x81\x85\x86\x87\x88\x89\x8a\x8c\x8d\x8e\x93\x94\x95\x96NKMJGXCBc)}](taesuqrhjQRb.";

#[derive(Debug, Clone)]
enum Damage {
    Flip(u8),
    Replace(u8),
    Insert(u8),
    Remove,
    Copy(usize),
}

fn damage() -> impl Strategy<Value = (prop::sample::Index, Damage)> {
    let opcode = || prop::sample::select(OPCODES);
    let kind = prop_oneof![
        (0_u8..8).prop_map(|bit| Damage::Flip(1 << bit)),
        any::<u8>().prop_map(Damage::Replace),
        opcode().prop_map(Damage::Replace),
        opcode().prop_map(Damage::Insert),
        Just(Damage::Remove),
        (1_usize..200).prop_map(Damage::Copy),
    ];
    (any::<prop::sample::Index>(), kind)
}

fn apply(bytes: &mut Vec<u8>, damages: &[(prop::sample::Index, Damage)]) {
    for (index, damage) in damages {
        if bytes.is_empty() {
            return;
        }
        let at = index.index(bytes.len());
        match damage {
            Damage::Flip(mask) => bytes[at] ^= mask,
            Damage::Replace(byte) => bytes[at] = *byte,
            Damage::Insert(byte) => bytes.insert(at, *byte),
            Damage::Remove => {
                bytes.remove(at);
            }
            Damage::Copy(length) => {
                let end = (at + length).min(bytes.len());
                let part = bytes[at..end].to_vec();
                bytes.splice(at..at, part);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        read_all(&bytes);
        read_all(&[b"\x80\x04", &bytes[..]].concat());
        read_all(&[b"PK\x03\x04", &bytes[..], b"PK\x05\x06\0\0\0\0\x01\0\x01\0", &[0; 10]].concat());
    }

    #[test]
    fn random_opcodes_are_answered(bytes in prop::collection::vec(prop_oneof![
        8 => prop::sample::select(OPCODES),
        1 => 0_u8..8,
        1 => any::<u8>(),
    ], 0..200)) {
        read_all(&[b"\x80\x04", &bytes[..], b"."].concat());
    }

    #[test]
    fn damaged_files_are_answered(which in 0_usize..6, damages in prop::collection::vec(damage(), 1..5)) {
        let (_, mut bytes) = samples().swap_remove(which);
        apply(&mut bytes, &damages);
        read_all(&bytes);
    }

    #[test]
    fn damaged_pickles_are_answered(which in 0_usize..6, damages in prop::collection::vec(damage(), 1..5)) {
        let (name, sample) = samples().swap_remove(which);
        let mut pickle = pickle_of(name, &sample);
        apply(&mut pickle, &damages);
        read_all(&pickle);
        if !name.ends_with(".pkl") {
            read_all(&with_entry(&sample, "data.pkl", &pickle).unwrap());
        }
    }
}

#[test]
fn storage_that_is_too_short_is_named() {
    let (_, sample) = samples().swap_remove(1);
    let short = with_entry(&sample, "data/2", &[0; 4]).unwrap();
    let error = read_torch(&short).unwrap_err();
    assert_eq!(error, FormatError::ShortStorage { entry: "data/2".into(), have_bytes: 4, need_bytes: 8 });
    let big = with_entry(&sample, "byteorder", b"big").unwrap();
    assert!(read_torch(&big).unwrap_err().to_string().contains("little-endian"));
}
