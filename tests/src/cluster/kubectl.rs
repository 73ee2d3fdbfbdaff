//! kubectl, as a person runs it, with a deadline.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Cluster;
use crate::check::eventually;
use crate::repo;

/// No single question takes longer; waiting is done with `eventually`.
const PATIENCE: &str = "120";

/// Names the folder of the cluster's tools, if it is not this tree's.
const TOOLS: &str = "TULLE_KUBE_BIN";

/// A tool that `cargo xtask cluster up` has built: kubectl, helm.
pub(super) fn tool(name: &str) -> PathBuf {
    let folder =
        std::env::var_os(TOOLS).map_or_else(|| repo::root().join(".tools/kube-1.34.4/bin"), PathBuf::from);
    folder.join(name)
}

/// Runs a command to its end, at most two minutes, and gives what it wrote to stdout.
pub(super) fn output(command: &mut Command, input: &str) -> Result<String> {
    let shown = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("{shown}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8(output.stdout)?)
}

impl Cluster {
    /// The file that says where it is and who we are.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A program with this cluster's kubeconfig, ended after two minutes.
    pub(super) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", PATIENCE]).arg(program).env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// kubectl with these arguments; what it prints.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        output(self.command(tool("kubectl")).args(arguments), "")
    }

    /// Applies YAML.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        output(self.command(tool("kubectl")).args(["apply", "-f", "-"]), yaml)
    }

    /// An object, as JSON.
    pub fn get(&self, what: &[&str]) -> Result<Value> {
        let mut arguments = vec!["get", "-o", "json"];
        arguments.extend(what);
        Ok(serde_json::from_str(&self.kubectl(&arguments)?)?)
    }

    /// meshctl with these arguments: its exit code, stdout and stderr.
    pub fn meshctl(&self, arguments: &[&str]) -> Result<(i32, String, String)> {
        let output = self.command(repo::binary("meshctl")?).args(arguments).output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr)))
    }

    /// Waits for a rollout (`daemonset/mesh-node`) to finish.
    pub fn await_rollout(&self, namespace: &str, what: &str, deadline: Duration) -> Result<()> {
        let timeout = format!("--timeout={}s", deadline.as_secs());
        self.kubectl(&["-n", namespace, "rollout", "status", what, &timeout]).map(drop)
    }

    /// Asks until the answer is `Some`; a question that fails is asked again.
    pub fn eventually<T>(
        &self,
        what: &str,
        deadline: Duration,
        mut ask: impl FnMut(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let mut last = None;
        let found = eventually(what, deadline, || match ask(self) {
            Ok(answer) => answer,
            Err(error) => {
                last = Some(error);
                None
            }
        });
        found.with_context(|| last.map_or_else(String::new, |error| format!("{error:#}")))
    }
}
