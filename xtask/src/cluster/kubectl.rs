//! `kubectl`, as the administrator of the test cluster.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::layout;
use crate::kube::Tools;

/// Longer than any answer of a healthy API server takes.
const TIMEOUT: &str = "--request-timeout=5s";

/// The program, and whom it speaks to.
pub struct Kubectl {
    program: PathBuf,
}

impl Kubectl {
    /// The one that was built with the cluster.
    pub fn of(tools: &Tools) -> Self {
        Self { program: tools.bin("kubectl") }
    }

    /// What it says; if it fails, why, as a reason to go on waiting.
    pub fn output(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.command(arguments).output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(said.lines().last().unwrap_or("kubectl failed without a word").to_owned())
    }

    /// What it says, as JSON.
    pub fn json(&self, arguments: &[&str]) -> Result<serde_json::Value, String> {
        let said = self.output(&[arguments, &["--output=json"]].concat())?;
        serde_json::from_str(&said).map_err(|error| error.to_string())
    }

    /// Makes the cluster as `manifests` (YAML) say.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        let mut command = self.command(&["apply", "--filename=-"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start kubectl")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(manifests.as_bytes()).context("kubectl does not read")?;
        }
        let output = child.wait_with_output().context("cannot wait for kubectl")?;
        if !output.status.success() {
            bail!("kubectl apply: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(TIMEOUT).args(arguments).env("KUBECONFIG", layout::kubeconfig());
        command
    }
}
