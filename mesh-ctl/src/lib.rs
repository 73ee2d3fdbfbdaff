//! meshctl: status, configuration and explanations of a Tulle mesh.
//!
//! Invariant: nothing is decided here. Route and authorization answers come from `mesh_model`, the code of the data path.

mod authz;
mod cli;
mod config;
mod connect;
pub mod docs;
mod exit;
mod names;
mod print;
mod route;
mod source;
mod status;
mod version;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    cli::{Cli, Command},
    exit::Failure,
};

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return exit::usage(&error),
    };
    let output = cli.globals.output;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::runtime(format!("no async runtime: {error}")).report(output),
    };
    match runtime.block_on(run(cli)) {
        Ok(code) => code,
        Err(failure) => failure.report(output),
    }
}

/// Runs one command, or stops at Ctrl-C or at `--timeout`.
async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let globals = cli.globals;
    let deadline = globals.timeout;
    let work = async {
        match cli.command {
            Command::Status(args) => status::run(&globals, &args).await,
            Command::Version(args) => version::run(&globals, &args).await,
            Command::Config(args) => config::run(&globals, &args).await,
            Command::Route(args) => route::run(&globals, &args).await,
            Command::Authz(args) => authz::run(&globals, &args).await,
        }
    };
    tokio::select! {
        result = tokio::time::timeout(deadline, work) => {
            result.unwrap_or_else(|_| Err(Failure::timeout(deadline)))
        }
        _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(exit::INTERRUPTED)),
    }
}
