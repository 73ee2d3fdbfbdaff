//! Which compiler and which linker build the kernel side.
//!
//! The bpf target is not shipped precompiled, so the compiler must come with the source of `core`; building that on
//! a stable compiler needs RUSTC_BOOTSTRAP. Two homes are known: Debian's packages and rustup. Finding them only
//! looks at files: it starts no process, because every `xtask build` passes here.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use crate::repo::Repo;
use crate::step;

/// The release of bpf-linker that setup installs. Its features name the LLVM releases it can be built against.
pub const LINKER_VERSION: &str = "0.13.0";
/// Names a linker to use instead of the one in `.tools`.
pub const LINKER_VARIABLE: &str = "TULLE_BPF_LINKER";
const TOOLCHAIN_VARIABLE: &str = "TULLE_EBPF_TOOLCHAIN";
const SOURCE_OF_CORE: &str = "lib/rustlib/src/rust/library/core/src/lib.rs";

/// A compiler that has the source of `core` beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Toolchain {
    /// Where it comes from, for people.
    pub origin: String,
    /// Its cargo, not a proxy of rustup.
    pub cargo: PathBuf,
    /// Its rustc, not a proxy of rustup.
    pub rustc: PathBuf,
}

impl Toolchain {
    fn at(origin: String, sysroot: &Path) -> Option<Self> {
        let (cargo, rustc) = (sysroot.join("bin/cargo"), sysroot.join("bin/rustc"));
        let complete = sysroot.join(SOURCE_OF_CORE).exists() && cargo.exists() && rustc.exists();
        complete.then_some(Self { origin, cargo, rustc })
    }

    /// The first usable compiler: the one named by `TULLE_EBPF_TOOLCHAIN`, else Debian's, else one of rustup.
    pub fn find() -> Result<Option<Self>> {
        let Some(wanted) = std::env::var(TOOLCHAIN_VARIABLE).ok() else {
            return Ok(debian().or_else(|| rustup().into_iter().next()));
        };
        let found = match wanted.as_str() {
            "debian" => debian(),
            name => rustup().into_iter().find(|toolchain| toolchain.origin.contains(name)),
        };
        match found {
            Some(toolchain) => Ok(Some(toolchain)),
            None => bail!(
                "{TOOLCHAIN_VARIABLE}={wanted}: no such compiler with the source of core; say `debian` (apt: rustc-web \
                 cargo-web rust-web-src) or the name of a rustup toolchain that has the component rust-src"
            ),
        }
    }

    /// Its release and the LLVM inside, asked from the compiler itself.
    pub fn version(&self) -> Result<Version> {
        Version::parse(&step::output_of(Command::new(&self.rustc).arg("-vV"))?)
    }
}

/// What `rustc -vV` says that matters here.
#[derive(Debug, PartialEq, Eq)]
pub struct Version {
    /// For example `1.96.0`.
    pub release: String,
    /// The major release of LLVM; the linker must be built with this one or a later one to read the bitcode.
    pub llvm: u32,
}

impl Version {
    fn parse(text: &str) -> Result<Self> {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let llvm =
            field("LLVM version:").and_then(|v| v.split('.').next()).and_then(|major| major.parse().ok());
        match (field("release:"), llvm) {
            (Some(release), Some(llvm)) => Ok(Self { release: release.to_owned(), llvm }),
            _ => bail!("`rustc -vV` gave neither release nor LLVM version:\n{text}"),
        }
    }
}

fn debian() -> Option<Toolchain> {
    Toolchain::at("Debian's rustc-web".to_owned(), Path::new("/usr"))
}

/// Toolchains of rustup with the component rust-src, the best first: the one in use, nightly, stable, others.
fn rustup() -> Vec<Toolchain> {
    let Some(folder) = rustup_home().map(|home| home.join("toolchains")) else { return Vec::new() };
    let in_use = std::env::var("RUSTUP_TOOLCHAIN").unwrap_or_default();
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort_by_key(|name| {
        let rank = [name == &in_use, name.starts_with("nightly"), name.starts_with("stable"), true];
        (rank.iter().position(|fits| *fits), name.clone())
    });
    names.iter().filter_map(|name| Toolchain::at(format!("rustup's {name}"), &folder.join(name))).collect()
}

fn rustup_home() -> Option<PathBuf> {
    let home = std::env::var_os("RUSTUP_HOME").map(PathBuf::from);
    home.or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".rustup")))
}

/// The linker to use: named by a person, else this tree's own, else one on PATH (a prebuilt release).
pub fn find_linker(repo: &Repo) -> Result<Option<PathBuf>> {
    if let Some(named) = std::env::var_os(LINKER_VARIABLE).map(PathBuf::from) {
        if !named.is_file() {
            bail!("{LINKER_VARIABLE}={}: there is no such file", named.display());
        }
        return Ok(Some(named));
    }
    let own = repo.tools().join("bin/bpf-linker");
    Ok(own.is_file().then_some(own).or_else(|| on_path("bpf-linker")))
}

/// The first executable of this name on PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// The folder of an LLVM release as Debian lays it out, whether it is there or not.
pub fn llvm_prefix(major: u32) -> PathBuf {
    PathBuf::from(format!("/usr/lib/llvm-{major}"))
}

/// A tool of any installed LLVM release of at least `oldest`, the oldest first.
pub fn llvm_tool(name: &str, oldest: u32) -> Option<PathBuf> {
    (oldest..oldest + 8).map(|major| llvm_prefix(major).join("bin").join(name)).find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_from_rustc() {
        let text = "rustc 1.96.0 (ac68faa20 2026-05-25)\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        assert_eq!(Version::parse(text).unwrap(), Version { release: "1.96.0".to_owned(), llvm: 22 });
        assert!(Version::parse("rustc 1.96.0\n").is_err());
    }

    #[test]
    fn a_compiler_without_the_source_of_core_is_not_usable() {
        let sysroot = tempfile::tempdir().unwrap();
        let add = |file: &str| {
            let file = sysroot.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        };
        add("bin/cargo");
        add("bin/rustc");
        assert_eq!(Toolchain::at("t".to_owned(), sysroot.path()), None);
        add(SOURCE_OF_CORE);
        assert!(Toolchain::at("t".to_owned(), sysroot.path()).is_some());
    }
}
