//! `echo-advanced`: the server that the Gateway API's conformance suite has in its mesh, and, under the name `client`, the client that the
//! suite runs in the server's pod.
//!
//! Invariant: what is printed is what the suite's `conformance/utils/echo/parse.go` reads. The suite's own image cannot be built from its
//! modules, so this one takes its name, its arguments and its place.
#![allow(clippy::print_stdout, reason = "the suite reads the results of the client from stdout")]

mod client;
mod grpc;
mod report;
mod server;
mod tls;

use std::{ffi::OsString, path::Path, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;

/// The name that makes it a client, as name of the program or as first argument.
const CLIENT: &str = "client";

fn main() -> ExitCode {
    match run(std::env::args_os().collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("echo-advanced: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut arguments: Vec<OsString>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    if arguments.get(1).is_some_and(|first| first == CLIENT) {
        arguments.remove(0);
    }
    let name = arguments.first().and_then(|program| Path::new(program).file_name());
    match name.is_some_and(|name| name == CLIENT) {
        true => runtime.block_on(client::run(client::Options::parse_from(arguments))),
        false => runtime.block_on(server::run(server::Options::parse_from(arguments))),
    }
}
