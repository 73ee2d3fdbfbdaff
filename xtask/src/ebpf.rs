//! Builds the kernel side (`mesh-ebpf`) into `target/ebpf/mesh-ebpf.o`, where `mesh-node/build.rs` finds it.
//!
//! Invariant: the object is written only when its bytes changed, and its stamp only after the object: an interrupted
//! build is repeated, and an unchanged one does not make cargo rebuild the node.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result};

use crate::repo::Repo;
use crate::toolchain::{self, Toolchain};
use crate::{digest, setup, step};

/// What the object is made from, besides the toolchain.
const SOURCES: &[&str] = &[
    "mesh-ebpf/Cargo.toml",
    "mesh-ebpf/Cargo.lock",
    "mesh-ebpf/.cargo",
    "mesh-ebpf/src",
    "mesh-abi",
    "Cargo.toml",
];

/// How to build.
#[derive(clap::Args, Default)]
pub struct Options {
    /// Build even when nothing changed
    #[arg(long)]
    pub force: bool,
    /// Also write the disassembly with source lines, for review, to target/ebpf/mesh-ebpf.s
    #[arg(long)]
    pub disassemble: bool,
}

/// Brings the object up to date.
pub fn build(repo: &Repo, options: &Options) -> Result<()> {
    let (toolchain, linker) = setup::kernel_side(repo)?;
    let object = repo.ebpf_object();
    let stamp_file = object.with_extension("stamp");
    let stamp = stamp(repo, &toolchain, &linker)?;
    let fresh = fs::metadata(&object).is_ok_and(|object| object.len() > 0)
        && fs::read_to_string(&stamp_file).is_ok_and(|old| old == stamp);
    if fresh && !options.force {
        eprintln!("ok kernel side is up to date");
    } else {
        // Taken before the build: an edit made while it runs is then seen as a change next time.
        let abi = digest::abi_hash(repo.root())?;
        compile(repo, &toolchain, &linker)?;
        let built = repo.path("target/ebpf/bpfel-unknown-none/release/mesh-ebpf");
        let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
        // The note first: whoever sees the new object finds the contract that it was built from.
        write_if_changed(&object.with_extension("abi"), abi.as_bytes())?;
        write_if_changed(&object, &bytes)?;
        write_if_changed(&stamp_file, stamp.as_bytes())?;
    }
    if options.disassemble { disassemble(&object, &toolchain) } else { Ok(()) }
}

fn compile(repo: &Repo, toolchain: &Toolchain, linker: &Path) -> Result<()> {
    let mut command = Command::new(&toolchain.cargo);
    command
        .current_dir(repo.path("mesh-ebpf"))
        .args(["build", "--release", "--target-dir"])
        .arg(repo.path("target/ebpf"))
        .env("RUSTC", &toolchain.rustc)
        // Lets a stable compiler build core; without effect on nightly.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
    // What the cargo that started xtask left behind is meant for the host's build, not for this one.
    for inherited in [
        "RUSTUP_TOOLCHAIN",
        "CARGO",
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTC_WRAPPER",
        "CARGO_BUILD_TARGET",
    ] {
        command.env_remove(inherited);
    }
    step::quietly(&format!("kernel side with {}", toolchain.origin), &mut command).with_context(|| {
        "the eBPF build failed; if the linker could not read the bitcode, its LLVM is older than the compiler's: \
         remove .tools and run `cargo xtask setup`"
    })
}

/// Everything that decides what the object looks like. Tools count by path, size and time: asking them costs more.
fn stamp(repo: &Repo, toolchain: &Toolchain, linker: &Path) -> Result<String> {
    let tools = [identity_of(&toolchain.rustc)?, identity_of(linker)?];
    Ok(format!("{}\n{}\n", digest::of_files(repo.root(), SOURCES)?, tools.join("\n")))
}

fn identity_of(tool: &Path) -> Result<String> {
    let meta = fs::metadata(tool).with_context(|| format!("cannot look at {}", tool.display()))?;
    let written = meta.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    Ok(format!("{} {} {written}", tool.display(), meta.len()))
}

/// Replaces `file` in one step, and not at all if it holds `content` already.
fn write_if_changed(file: &Path, content: &[u8]) -> Result<()> {
    if fs::read(file).is_ok_and(|old| old == content) {
        return Ok(());
    }
    let beside = PathBuf::from(format!("{}.{}", file.display(), std::process::id()));
    let mut new = fs::File::create(&beside).with_context(|| format!("cannot write {}", beside.display()))?;
    new.write_all(content)?;
    fs::rename(&beside, file).with_context(|| format!("cannot replace {}", file.display()))
}

fn disassemble(object: &Path, toolchain: &Toolchain) -> Result<()> {
    let llvm = toolchain.version()?.llvm;
    let tool = toolchain::llvm_tool("llvm-objdump", llvm)
        .or_else(|| toolchain::on_path("llvm-objdump"))
        .with_context(|| {
            format!(
                "no llvm-objdump of LLVM {llvm} or later: `apt-get install llvm-{llvm}` (or put one on PATH)"
            )
        })?;
    let text = step::output_of(Command::new(tool).args(["-d", "-l", "--no-show-raw-insn"]).arg(object))?;
    let file = object.with_extension("s");
    write_if_changed(&file, text.as_bytes())?;
    eprintln!("ok {} ({} lines)", file.display(), text.lines().count());
    Ok(())
}
