//! Where the programs of this package find `libmujoco.so` when they start: first beside an installation
//! (`bin/` and `lib/`), then where the set-up unpacked it. Every package that links tenon-sim into a program, test or
//! bench carries these lines, because a library cannot pass linker arguments on to its users.
///
/// And the kernels of the networks' devices as the processor runs them (`src/device`): the same source that a graphics
/// card gets.
fn main() {
    println!("cargo::rerun-if-changed=src/device/kernels.cu");
    cc::Build::new().flag("-xc").flag("-std=c99").file("src/device/kernels.cu").opt_level(2).compile("tenon_kernels");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=MUJOCO_DYNAMIC_LINK_DIR");
    println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    if let Ok(directory) = std::env::var("MUJOCO_DYNAMIC_LINK_DIR") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{directory}");
    }
}
