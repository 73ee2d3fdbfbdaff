//! Makes a bare machine able to build and test the mesh, and does nothing, quickly, on one that already is.
//!
//! Only Debian packages are installed system-wide; bpf-linker goes into `.tools` of this tree.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt::{self, Need};
use crate::repo::Repo;
use crate::step;
use crate::toolchain::{self, LINKER_VARIABLE, LINKER_VERSION, Toolchain};

/// The LLVM releases that this bpf-linker can be built against.
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// Everything: packages, compiler and linker of the kernel side, fmt and clippy.
pub fn run(repo: &Repo) -> Result<()> {
    apt::ensure(&[
        Need::new("g++", "c++", "aws-lc-rs compiles C, and bpf-linker links LLVM, which is C++"),
        Need::new("iproute2", "ip", "worlds and the demo build pods from network namespaces"),
        Need::new("nftables", "nft", "worlds prove that NetworkPolicy of other tools stays in force"),
        Need::new("tcpdump", "tcpdump", "worlds look at the wire to prove that it is encrypted"),
    ])?;
    lint_tools()?;
    let (toolchain, linker) = kernel_side(repo)?;
    let version = toolchain.version()?;
    check_linker(&linker, version.llvm, repo)?;
    eprintln!(
        "ok setup: kernel side by {} {} (LLVM {}), linker {}",
        toolchain.origin,
        version.release,
        version.llvm,
        linker.display()
    );
    Ok(())
}

/// The compiler and the linker of the kernel side, installed if they are missing. Looks at files only.
pub fn kernel_side(repo: &Repo) -> Result<(Toolchain, PathBuf)> {
    let toolchain = match Toolchain::find()? {
        Some(toolchain) => toolchain,
        None => install_compiler()?,
    };
    let linker = match toolchain::find_linker(repo)? {
        Some(linker) if !outdated(&linker, repo) => linker,
        _ => install_linker(repo, &toolchain)?,
    };
    Ok((toolchain, linker))
}

fn install_compiler() -> Result<Toolchain> {
    if apt::is_root() && apt::offers("rustc-web")? {
        const WHY: &str = "compiles the kernel side, for which core is built from source";
        apt::ensure(&[
            Need::new("rustc-web", "/usr/bin/rustc", WHY),
            Need::new("cargo-web", "/usr/bin/cargo", WHY),
            Need::new("rust-web-src", "/usr/lib/rustlib/src/rust/library/core/src/lib.rs", WHY),
        ])?;
    } else if toolchain::on_path("rustup").is_some() {
        let mut command = Command::new("rustup");
        step::quietly("rustup component add rust-src", command.args(["component", "add", "rust-src"]))?;
    }
    Toolchain::find()?.with_context(|| {
        "no compiler with the source of core. Either, on Debian as root: apt-get install rustc-web cargo-web \
         rust-web-src; or with rustup: rustup component add rust-src (stable or nightly)"
    })
}

/// Builds bpf-linker against the oldest LLVM that can read what the compiler writes.
fn install_linker(repo: &Repo, toolchain: &Toolchain) -> Result<PathBuf> {
    let oldest = toolchain.version()?.llvm.max(*LINKER_LLVM.start());
    let releases = oldest..=*LINKER_LLVM.end();
    let installed =
        releases.clone().find(|major| toolchain::llvm_prefix(*major).join("bin/llvm-config").exists());
    let llvm = match installed {
        Some(major) => major,
        None => releases
            .clone()
            .find_map(|major| {
                apt::offers(&format!("llvm-{major}-dev")).map(|yes| yes.then_some(major)).transpose()
            })
            .transpose()?
            .with_context(|| no_llvm(oldest))?,
    };
    let prefix = toolchain::llvm_prefix(llvm);
    let of_llvm = |file: &str| prefix.join(file).display().to_string();
    apt::ensure(&[
        Need::new(format!("llvm-{llvm}-dev"), of_llvm("bin/llvm-config"), "bpf-linker is built against it"),
        Need::new(format!("libpolly-{llvm}-dev"), of_llvm("lib/libPolly.a"), "LLVM's libraries ask for it"),
        Need::new("libzstd-dev", "/usr/include/zstd.h", "LLVM's libraries ask for it"),
        Need::new("zlib1g-dev", "/usr/include/zlib.h", "LLVM's libraries ask for it"),
    ])?;
    let scratch = repo.path("target/tools");
    let mut command = Command::new("cargo");
    command
        .args(["install", "bpf-linker", "--locked", "--force", "--version"])
        .arg(format!("={LINKER_VERSION}"))
        .args(["--no-default-features", "--features", &format!("llvm-{llvm}"), "--root"])
        .arg(repo.tools())
        .env("LLVM_PREFIX", &prefix)
        .env("PATH", prepend_path(&prefix.join("bin"))?)
        .env("RUSTFLAGS", format!("-L {}", of_llvm("lib")))
        .env("CARGO_TARGET_DIR", &scratch);
    step::quietly(&format!("bpf-linker {LINKER_VERSION} with LLVM {llvm}"), &mut command)?;
    // Built once per machine: what it leaves is of no further use, and a failure to remove it does no harm.
    let _ = fs::remove_dir_all(&scratch);
    Ok(repo.tools().join("bin/bpf-linker"))
}

fn no_llvm(oldest: u32) -> String {
    format!(
        "bpf-linker needs LLVM {oldest} or later (up to {}), and apt offers no llvm-{oldest}-dev.\n\
         Either add the packages of apt.llvm.org and run this again,\n\
         or take a prebuilt bpf-linker {LINKER_VERSION} (github.com/aya-rs/bpf-linker/releases, it carries its LLVM) and\n\
         put it on PATH or name it in {LINKER_VARIABLE}",
        LINKER_LLVM.end()
    )
}

/// Whether this is our own linker, of another release than the pinned one. A linker somebody chose is left alone.
fn outdated(linker: &Path, repo: &Repo) -> bool {
    linker.starts_with(repo.tools()) && installed_llvm(repo).is_none()
}

/// The LLVM that the pinned linker in `.tools` was built with, by cargo's own record of what it installed there.
fn installed_llvm(repo: &Repo) -> Option<u32> {
    #[derive(serde::Deserialize)]
    struct Record {
        installs: BTreeMap<String, Install>,
    }
    #[derive(serde::Deserialize)]
    struct Install {
        features: Vec<String>,
    }
    let record = fs::read(repo.tools().join(".crates2.json")).ok()?;
    let record: Record = serde_json::from_slice(&record).ok()?;
    let (_, install) = record
        .installs
        .iter()
        .find(|(name, _)| name.starts_with(&format!("bpf-linker {LINKER_VERSION} ")))?;
    install.features.iter().find_map(|feature| feature.strip_prefix("llvm-")?.parse().ok())
}

/// Runs the linker once: it fails here, with advice, when its LLVM went away or is older than the compiler's.
fn check_linker(linker: &Path, compiler_llvm: u32, repo: &Repo) -> Result<()> {
    let advice = || format!("remove {} and run `cargo xtask setup` again", repo.tools().display());
    step::output_of(Command::new(linker).arg("--version")).with_context(advice)?;
    match installed_llvm(repo) {
        Some(llvm) if linker.starts_with(repo.tools()) && llvm < compiler_llvm => {
            bail!("bpf-linker has LLVM {llvm}, the compiler LLVM {compiler_llvm}: {}", advice())
        }
        _ => Ok(()),
    }
}

/// fmt and clippy: components with rustup, packages with Debian's cargo.
fn lint_tools() -> Result<()> {
    if toolchain::on_path("cargo").is_some_and(|cargo| cargo == Path::new("/usr/bin/cargo")) {
        return apt::ensure(&[
            Need::new("rustfmt-web", "/usr/bin/cargo-fmt", "`cargo xtask ci` checks the format"),
            Need::new("rust-web-clippy", "/usr/bin/cargo-clippy", "`cargo xtask ci` runs clippy"),
        ]);
    }
    let lacking = |tool: &str| toolchain::on_path(tool).is_none();
    if lacking("cargo-fmt") || lacking("cargo-clippy") {
        let mut command = Command::new("rustup");
        step::quietly("rustfmt and clippy", command.args(["component", "add", "rustfmt", "clippy"]))?;
    }
    Ok(())
}

fn prepend_path(folder: &Path) -> Result<std::ffi::OsString> {
    let old = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(folder.to_path_buf()).chain(std::env::split_paths(&old));
    std::env::join_paths(folders).context("PATH cannot be extended")
}
