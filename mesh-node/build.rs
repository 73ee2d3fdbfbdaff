//! Embeds the kernel side: copies its object to `OUT_DIR/mesh-ebpf.o` and emits `TULLE_ABI_HASH`.
//!
//! Without an object an empty one is embedded, which the node refuses at run time by name: `cargo check`, clippy and
//! unit tests need neither bpf-linker nor a second compiler.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

#[path = "build/digest.rs"]
mod digest;

/// Names an object to embed instead of the one that `cargo xtask ebpf` leaves.
const OBJECT_VARIABLE: &str = "TULLE_EBPF_OBJECT";

fn main() -> Result<(), Box<dyn Error>> {
    let manifest = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let root = manifest.parent().unwrap_or(&manifest);
    let hash = digest::abi_hash(root)?;
    println!("cargo:rustc-env=TULLE_ABI_HASH={hash}");
    for folder in digest::ABI_FOLDERS {
        println!("cargo:rerun-if-changed={}", root.join(folder).display());
    }

    println!("cargo:rerun-if-env-changed={OBJECT_VARIABLE}");
    let object = match std::env::var_os(OBJECT_VARIABLE).map(PathBuf::from) {
        Some(named) => {
            fs::read(&named).map_err(|error| format!("{OBJECT_VARIABLE}={}: {error}", named.display()))?
        }
        None => default_object(&root.join("target/ebpf/mesh-ebpf.o"), &hash)?,
    };
    fs::write(Path::new(&std::env::var("OUT_DIR")?).join("mesh-ebpf.o"), object)?;
    Ok(())
}

/// The object of `cargo xtask ebpf`, or nothing if that has not run.
fn default_object(file: &Path, hash: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    println!("cargo:rerun-if-changed={}", file.display());
    if !file.exists() {
        // Cargo re-runs this script, and recompiles the node, for as long as a file it watches is missing.
        file.parent().map(fs::create_dir_all).transpose()?;
        fs::write(file, [])?;
    }
    let object = fs::read(file)?;
    // xtask notes which contract it built: an older object would be pinned under the name of a newer one.
    let built_from = fs::read_to_string(file.with_extension("abi")).unwrap_or_default();
    if !object.is_empty() && built_from.trim() != hash {
        println!("cargo:warning=the embedded kernel side is older than its sources; run `cargo xtask ebpf`");
    }
    Ok(object)
}
