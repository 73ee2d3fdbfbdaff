//! Where the product's binaries are.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// Names the folder of the binaries, if it is not the release folder of this work tree.
const VARIABLE: &str = "TULLE_BIN";

/// A binary as `cargo xtask build` leaves it.
pub fn binary(name: &str) -> Result<PathBuf> {
    let folder = std::env::var_os(VARIABLE).map_or_else(release, PathBuf::from);
    let file = folder.join(name);
    if !file.is_file() {
        bail!("{name} is not built: run `cargo xtask build` (or name its folder in {VARIABLE})");
    }
    Ok(file)
}

/// Where `cargo build --release` leaves binaries: it builds for the host's own target, named (`.cargo/config.toml`).
fn release() -> PathBuf {
    let libc = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    root().join(format!("target/{}-unknown-linux-{libc}/release", std::env::consts::ARCH))
}

/// The root of the work tree: cargo says at run time where the package is, so a moved tree still works.
pub fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or_else(|| manifest.clone(), Path::to_path_buf)
}
