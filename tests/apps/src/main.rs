//! `mesh-app`: the unmodified applications that a mesh is tried with, and the client that calls them.
//!
//! Invariant: nothing in here knows that there is a mesh. Results go to stdout as JSON, everything else to stderr.
#![allow(clippy::print_stdout, reason = "the results of the client are read from stdout")]

mod client;
mod exec;
mod histogram;
mod hosts;
mod pattern;
mod serve;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "mesh-app", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the application of a pod: the echo server, or a part of the shop
    Serve(serve::Options),
    /// Make HTTP requests one after the other and print each answer
    Get(client::get::Options),
    /// Make HTTP requests at a rate, or as fast as it goes, and print the counts
    Load(client::load::Options),
    /// Open one TCP connection and follow a script of steps
    Talk(client::talk::Options),
    /// Send or fetch a long stream and compare its checksum
    Stream(client::stream::Options),
    /// Keep one TCP connection in use until it breaks
    Hold(client::hold::Options),
    /// Enter a network namespace and become another program that dies with its parent
    Exec(exec::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().verb) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mesh-app: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<()> {
    if let Verb::Exec(options) = verb {
        return exec::run(options);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no runtime")?;
    let done = runtime.block_on(async {
        match verb {
            Verb::Serve(options) => serve::run(options).await,
            Verb::Get(options) => client::get::run(options).await,
            Verb::Load(options) => client::load::run(options).await,
            Verb::Talk(options) => client::talk::run(options).await,
            Verb::Stream(options) => client::stream::run(options).await,
            Verb::Hold(options) => client::hold::run(options).await,
            Verb::Exec(_) => Ok(()),
        }
    });
    // A read of stdin cannot be cancelled; nobody waits for it.
    runtime.shutdown_background();
    done
}
