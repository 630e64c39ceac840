//! The tests of this package start the simulated server, whose library cannot say where `libmujoco.so` is found.
fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=MUJOCO_DYNAMIC_LINK_DIR");
    if let Ok(directory) = std::env::var("MUJOCO_DYNAMIC_LINK_DIR") {
        println!("cargo::rustc-link-arg-tests=-Wl,-rpath,{directory}");
    }
}
