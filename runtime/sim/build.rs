//! Where the programs of this package find `libmujoco.so` when they start: first beside an installation
//! (`bin/` and `lib/`), then where the set-up unpacked it. Every package that links tenon-sim into a program, test or
//! bench carries these lines, because a library cannot pass linker arguments on to its users.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=MUJOCO_DYNAMIC_LINK_DIR");
    println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    if let Ok(directory) = std::env::var("MUJOCO_DYNAMIC_LINK_DIR") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{directory}");
    }
}
