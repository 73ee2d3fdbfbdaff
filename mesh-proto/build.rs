//! Generates the Rust code of `proto/` with protox: no protoc is needed on the machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files =
        ["proto/tulle/v1/resource.proto", "proto/tulle/v1/control.proto", "proto/tulle/v1/inspect.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".")
        // Ordered maps make the encoding deterministic; a resource's version is the hash of it.
        .btree_map(".")
        // It carries a token; `debug.rs` writes it without.
        .skip_debug(["tulle.v1.GrantReply"])
        .compile_fds(descriptors)?;
    Ok(())
}
