//! The process log, to standard error: standard output is the access log's.
//!
//! Invariant: a reader of it that stands still costs lines, never time: a worker that writes would stop with it.

use std::io;

use anyhow::Context;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::config::LogConfig;

/// Lines that wait for the reader; more are dropped.
const WAITING: usize = 16_384;

/// Starts logging; once per process. The guard writes what waits when it is dropped, for a second at most.
pub(super) fn start(config: &LogConfig) -> anyhow::Result<WorkerGuard> {
    let filter = EnvFilter::try_new(&config.filter).context("--log")?;
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(WAITING)
        .thread_name("log")
        .finish(io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let started = if config.json { builder.json().try_init() } else { builder.with_ansi(false).try_init() };
    started.map_err(|error| anyhow::anyhow!("starting the log: {error}"))?;
    Ok(guard)
}
