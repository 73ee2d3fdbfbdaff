//! Debian packages: which are missing, told from files alone, and how to get them.
//!
//! apt is started only when something is missing, because even asking it takes seconds and may need root.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{step, toolchain};

/// A package and how to see that it, or something as good, is there.
pub struct Need {
    /// The package's name in Debian.
    pub package: String,
    /// A program on PATH, or an absolute path, that the package brings.
    pub brings: String,
    /// What breaks without it.
    pub why: &'static str,
}

impl Need {
    /// `package`, known by the file or program `brings`.
    pub fn new(package: impl Into<String>, brings: impl Into<String>, why: &'static str) -> Self {
        Self { package: package.into(), brings: brings.into(), why }
    }

    fn missing(&self) -> bool {
        let there = Path::new(&self.brings);
        // sbin is not on everybody's PATH; nft and tcpdump live there.
        let programs = || ["/usr/sbin", "/sbin"].iter().any(|folder| Path::new(folder).join(there).is_file());
        if there.is_absolute() {
            !there.exists()
        } else {
            toolchain::on_path(&self.brings).is_none() && !programs()
        }
    }
}

/// Installs those of `needs` that are missing; says for each why.
pub fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<&Need> = needs.iter().filter(|need| need.missing()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        eprintln!("   missing {}: {}", need.package, need.why);
    }
    let names: Vec<&str> = missing.iter().map(|need| need.package.as_str()).collect();
    may_install(&names)?;
    let install = || {
        let mut command = Command::new("apt-get");
        command.args(["install", "-y", "--no-install-recommends"]).args(&names);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    let label = format!("apt-get install {}", names.join(" "));
    // A first failure is most often a stale list of packages: refresh it once and say the second failure.
    if step::quietly(&label, &mut install()).is_err() {
        update()?;
        step::quietly(&label, &mut install())?;
    }
    match missing.iter().find(|need| need.missing()) {
        Some(need) => bail!("{} is installed, yet `{}` is not there", need.package, need.brings),
        None => Ok(()),
    }
}

/// Whether apt can give this package, after a refresh of its lists if it did not know at first.
pub fn offers(package: &str) -> Result<bool> {
    if toolchain::on_path("apt-cache").is_none() {
        return Ok(false);
    }
    if has_candidate(package)? {
        return Ok(true);
    }
    if !is_root() {
        return Ok(false);
    }
    update()?;
    has_candidate(package)
}

fn has_candidate(package: &str) -> Result<bool> {
    let policy = step::output_of(Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C"))?;
    Ok(policy.lines().any(|line| line.trim_start().starts_with("Candidate:") && !line.contains("(none)")))
}

fn update() -> Result<()> {
    step::quietly("apt-get update", Command::new("apt-get").arg("update"))
}

fn may_install(names: &[&str]) -> Result<()> {
    let wanted = names.join(" ");
    if toolchain::on_path("apt-get").is_none() {
        bail!("this machine has no apt-get; install what Debian calls: {wanted}");
    }
    if !is_root() {
        bail!("installing packages needs root; run:\n  sudo apt-get install -y {wanted}\nand try again");
    }
    Ok(())
}

/// Whether this process may do what only root may.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").context("no /proc").is_ok_and(|meta| meta.uid() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_need_is_known_by_what_it_brings() {
        assert!(!Need::new("coreutils", "ls", "").missing());
        assert!(!Need::new("base-files", "/etc", "").missing());
        assert!(Need::new("none", "no-such-program", "").missing());
        assert!(Need::new("none", "/no/such/file", "").missing());
    }
}
