//! The reader answers any bytes with a value or an error: it never panics and never runs away.

mod common;

use common::{KQ, KQD, KX, KXD, REST, SAMPLES, TARGETS, golden};
use tenon_polymetis::archive::zip::{ZipArchive, ZipWriter};
use tenon_polymetis::archive::{
    LIMITS, ParameterArchive, hybrid_controller, pd_controller, read_controller, read_parameters,
};

/// SplitMix64: a fixed sequence without a dependency.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// The golden archives, and our own so that the test never runs empty.
fn samples() -> Vec<Vec<u8>> {
    let mut template = ParameterArchive::joint_pos_desired();
    let mut samples = vec![
        template.patch(&TARGETS).to_vec(),
        pd_controller(&REST, &KQ, &KQD).unwrap(),
        hybrid_controller(&REST, &KQ, &KQD, &KX, &KXD, "<robot/>").unwrap(),
    ];
    samples.extend(SAMPLES.iter().filter_map(|file| golden(file)));
    samples
}

/// Reads both ways and uses what comes out; says whether either way worked.
fn read_both(bytes: &[u8]) -> bool {
    let parameters = read_parameters(bytes);
    let controller = read_controller(bytes);
    parameters.is_ok() || controller.is_ok()
}

#[test]
fn every_truncation_is_refused() {
    for sample in samples() {
        assert!(read_both(&sample));
        for length in 0..sample.len() {
            assert!(!read_both(&sample[..length]), "{length} of {} bytes", sample.len());
        }
    }
}

#[test]
fn flipped_bytes_never_panic() {
    let mut random = Random(1);
    for sample in samples() {
        for _ in 0..3000 {
            let mut bytes = sample.clone();
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
            read_both(&bytes);
        }
    }
}

/// A wrong CRC would stop most damage at the door, so here entries are damaged and packed again.
#[test]
fn damaged_entries_with_right_crc_never_panic() {
    const OPCODES: &[u8] = b"\x80\x81\x85\x86\x87\x88\x89\x8aNKMJGXc)}](taesuqrhjQRb.";
    let mut random = Random(2);
    let mut accepted = 0;
    for sample in samples() {
        let zip = ZipArchive::open(&sample, &LIMITS).unwrap();
        let entries: Vec<_> = zip.entries().collect();
        for _ in 0..3000 {
            // Mostly the pickle: the other entries are simple.
            let chosen = match random.below(4) {
                0 => random.below(entries.len()),
                _ => entries.iter().position(|(name, _)| *name == "data.pkl").unwrap(),
            };
            let mut out = ZipWriter::new(&LIMITS);
            for (i, (name, data)) in entries.iter().enumerate() {
                let mut data = data.to_vec();
                if i == chosen {
                    for _ in 0..=random.below(3) {
                        damage(&mut data, &mut random, OPCODES);
                    }
                }
                out.add(&format!("{}/{name}", zip.top_folder()), &data).unwrap();
            }
            accepted += usize::from(read_both(&out.finish().0));
        }
    }
    // Changed tensor values and URDF texts stay readable: the damage does get past the zip layer.
    assert!(accepted > 0);
}

fn damage(data: &mut Vec<u8>, random: &mut Random, opcodes: &[u8]) {
    if data.is_empty() {
        data.push(random.next() as u8);
        return;
    }
    let at = random.below(data.len());
    match random.below(5) {
        0 => data[at] = random.next() as u8,
        1 => data[at] = opcodes[random.below(opcodes.len())],
        2 => data.insert(at, opcodes[random.below(opcodes.len())]),
        3 => {
            data.remove(at);
        }
        _ => data.truncate(at),
    }
}

#[test]
fn random_bytes_are_refused() {
    let mut random = Random(3);
    for _ in 0..2000 {
        let mut bytes = b"PK\x03\x04".to_vec();
        bytes.extend((0..random.below(400)).map(|_| random.next() as u8));
        bytes.extend_from_slice(b"PK\x05\x06");
        bytes.extend((0..18).map(|_| random.next() as u8 & 3));
        assert!(!read_both(&bytes));
    }
}
