//! Compiles `proto/polymetis.proto` into `OUT_DIR` without a `protoc` on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/polymetis.proto");
    let descriptors = protox::compile(["proto/polymetis.proto"], ["proto"])?;
    tonic_prost_build::configure().build_client(true).build_server(true).compile_fds(descriptors)?;
    Ok(())
}
