//! Watches, compiles, pushes, signs: arguments -> `Config` -> `app::run`.

mod admin;
mod app;
mod auth;
mod ca;
mod config;
mod enrol;
mod files;
mod grant;
mod inspect;
mod metrics;
mod placement;
mod publish;
#[cfg(test)]
mod sample;
mod serve;
mod sign;
mod source;
mod state;
mod status;
mod tls;
mod token;

use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use config::{Config, LogFormat};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// How long what still reads or writes at the end is waited for.
const LAST_WAIT: Duration = Duration::from_secs(1);

fn main() -> anyhow::Result<()> {
    let config = Config::parse();
    start_log(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(run(config));
    // A look at a disk that does not answer must not keep the process.
    runtime.shutdown_timeout(LAST_WAIT);
    result
}

async fn run(config: Config) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let app = app::App::prepare(config).await?;
    let stopping = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
        stopping.cancel();
    });
    Ok(app.run(stop).await?)
}

fn start_log(config: &Config) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.log).with_context(|| format!("--log {:?}", config.log))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
