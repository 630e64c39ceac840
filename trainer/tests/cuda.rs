//! What can be known of an NVIDIA card on a machine without one. Built with the feature `cuda` only; `make check-cuda` fetches
//! NVRTC and runs it. With a card, `TENON_CUDA=cuda make check-cuda` also runs the golden cases on it.
#![cfg(feature = "cuda")]

use tenon_train::device::{Choice, kernels_for};

#[test]
fn kernels_compile_for_every_generation_of_cards() {
    for architecture in ["compute_70", "compute_80", "compute_90", "compute_100"] {
        let Some(ptx) = kernels_for(architecture).unwrap_or_else(|e| panic!("{e}")) else {
            assert!(std::env::var_os("TENON_NVRTC").is_none(), "TENON_NVRTC is set, but libnvrtc.so is not found");
            println!("skipped: libnvrtc.so is not found; `make check-cuda` fetches it");
            return;
        };
        println!("{architecture}: {} lines of PTX", ptx.lines().count());
        assert!(ptx.contains(&format!(".target {}", architecture.replace("compute", "sm"))), "{architecture}");
    }
}

#[test]
fn a_card_that_is_not_there_is_answered_with_what_is_missing() {
    let error = Choice::Cuda { ordinal: 99 }.open().expect_err("nobody has a hundred cards").to_string();
    assert!(error.contains("cuda:99"), "{error}");
    assert!(["libcuda.so", "cards", "driver"].iter().any(|word| error.contains(word)), "{error}");
}
