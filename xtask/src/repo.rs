//! Where things are in the work tree. Every path that xtask reads or writes is named here or derived from here.

use std::path::{Path, PathBuf};

/// The work tree that this xtask was started for.
pub struct Repo {
    root: PathBuf,
}

impl Repo {
    /// The parent of xtask's own folder: cargo says at run time where that is, so a moved tree still works.
    pub fn locate() -> Self {
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        Self { root: manifest.parent().map(Path::to_path_buf).unwrap_or(manifest) }
    }

    /// A path below the root of the work tree.
    pub fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// The root of the work tree.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Tools that belong to this tree alone (`bpf-linker`): nothing global is changed by setup.
    pub fn tools(&self) -> PathBuf {
        self.path(".tools")
    }

    /// Where `xtask ebpf` leaves the object; `mesh-node/build.rs` looks at the same place.
    pub fn ebpf_object(&self) -> PathBuf {
        self.path("target/ebpf/mesh-ebpf.o")
    }

    /// A binary of the product or of the tests, as `xtask build` leaves it.
    pub fn binary(&self, name: &str) -> PathBuf {
        self.binaries().join(name)
    }

    /// Where the binaries are. Everything is built for the host's own target, named: see `.cargo/config.toml`.
    pub fn binaries(&self) -> PathBuf {
        let libc = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
        // Who shares one target folder between work trees says so to cargo, and cargo puts the binaries there.
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| self.path("target"), PathBuf::from);
        target.join(format!("{}-unknown-linux-{libc}/release", std::env::consts::ARCH))
    }
}
