//! Network namespaces as guards, and the work done inside them.
//!
//! Invariant: no thread of the harness that lives on ever changes its namespace; whatever must happen inside one happens
//! on a thread of its own.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};

use crate::ending;

/// Where `ip netns` keeps the names of namespaces.
const NAMES: &str = "/run/netns";

/// A named network namespace; dropping it removes the name.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// A new one with `lo` up.
    pub fn create(name: &str) -> Result<Self> {
        let _making = ending::making();
        command_ip(&["netns", "add", name], "")?;
        let made = Self { name: name.to_owned() };
        made.ip("link set lo up\n")?;
        Ok(made)
    }

    /// Its name, as `ip netns` knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that refers to it.
    pub fn path(&self) -> PathBuf {
        path_of(&self.name)
    }

    /// Runs lines of `ip` inside it, all or none reported as done.
    pub fn ip(&self, lines: &str) -> Result<()> {
        command_ip(&["-n", &self.name, "-batch", "-"], lines)
    }

    /// Writes values below `/proc/sys/net`, as seen from inside.
    pub fn sysctl(&self, values: &[(&str, &str)]) -> Result<()> {
        in_netns(&self.path(), || {
            for (key, value) in values {
                let file = Path::new("/proc/sys/net").join(key);
                std::fs::write(&file, value).with_context(|| format!("cannot write {}", file.display()))?;
            }
            Ok(())
        })?
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        delete(&self.name);
    }
}

/// The file that refers to a namespace of this name.
pub fn path_of(name: &str) -> PathBuf {
    Path::new(NAMES).join(name)
}

/// Removes a namespace by name. It lives on while a process is inside, so kill those first.
pub fn delete(name: &str) {
    // Nothing can be done about a name that is gone or busy; the next start looks again.
    let _ = command_ip(&["netns", "delete", name], "");
}

/// The names of all namespaces that begin with `prefix`.
pub fn names_with(prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(NAMES).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect()
}

/// Runs `work` on a thread inside the namespace that `path` refers to.
pub fn in_netns<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T> {
    let namespace = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let inside = || {
        setns(namespace, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot enter {}", path.display()))?;
        Ok(work())
    };
    thread::scope(|scope| scope.spawn(inside).join())
        .map_err(|_| anyhow!("panicked inside {}", path.display()))?
}

fn command_ip(arguments: &[&str], input: &str) -> Result<()> {
    let mut child = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start `ip` (Debian: iproute2)")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).context("`ip` does not read its input")?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("ip {}: {}\n{input}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
