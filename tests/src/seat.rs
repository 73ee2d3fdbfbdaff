//! Where a client sits: a pod of a world, or one of a cluster.
//!
//! Invariant: calls, loads and held connections are the same wherever they are made from; only how the client is started differs.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

use crate::call::Outcome;
use crate::process::Process;

/// A place from which `mesh-app` can be run as a client.
pub trait Seat: Debug + Send + Sync {
    /// For messages.
    fn name(&self) -> &str;

    /// Starts the client there, with pipes.
    fn client(&self, arguments: &[&str]) -> Result<Process>;
}

impl dyn Seat {
    /// Runs the client and reads its one line of JSON.
    pub fn client_once<T: DeserializeOwned>(&self, arguments: &[&str], deadline: Duration) -> Result<T> {
        let text = self.text(arguments, deadline)?;
        serde_json::from_str(text.trim()).with_context(|| format!("{}: not an answer: {text}", self.name()))
    }

    /// Runs the client and reads its lines of JSON.
    pub fn client_lines(&self, arguments: &[&str], deadline: Duration) -> Result<Vec<Outcome>> {
        let parse = |line| Outcome::parse(line).with_context(|| format!("not an answer: {line}"));
        self.text(arguments, deadline)?.lines().map(parse).collect()
    }

    fn text(&self, arguments: &[&str], deadline: Duration) -> Result<String> {
        self.client(arguments)?.output(deadline).with_context(|| format!("{}: {arguments:?}", self.name()))
    }
}
