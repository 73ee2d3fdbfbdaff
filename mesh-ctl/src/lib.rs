//! meshctl: status, configuration and explanations of a Tulle mesh.
//!
//! Invariant: nothing is decided here. Route and authorization answers come from `mesh_model`, the code of the data path.

mod authz;
mod chart;
mod check;
mod cli;
mod cluster;
mod config;
mod connect;
pub mod docs;
mod enroll;
mod exit;
mod install;
mod leave;
mod names;
mod print;
mod progress;
mod route;
mod source;
mod status;
mod uninstall;
mod version;

use std::process::ExitCode;

use clap::Parser;

use crate::{
    cli::{Cli, Command, Globals},
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
    let deadline = cli.timeout();
    let globals = Globals { timeout: Some(deadline), ..cli.globals };
    // It bounds itself: what it asked of the mesh is taken back when it ends early.
    let undoes = matches!(cli.command, Command::Uninstall(_));
    let work = async {
        match cli.command {
            Command::Install(args) => install::run(&globals, &args).await,
            Command::Uninstall(args) => uninstall::run(&globals, &args).await,
            Command::Check(args) => check::run(&globals, &args).await,
            Command::Enroll(args) => enroll::enroll(&globals, &args).await,
            Command::Unenroll(args) => enroll::unenroll(&globals, &args).await,
            Command::Status(args) => status::run(&globals, &args).await,
            Command::Version(args) => version::run(&globals, &args).await,
            Command::Config(args) => config::run(&globals, &args).await,
            Command::Route(args) => route::run(&globals, &args).await,
            Command::Authz(args) => authz::run(&globals, &args).await,
        }
    };
    if undoes { work.await } else { exit::bounded(deadline, work).await }
}
