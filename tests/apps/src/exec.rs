//! Enters a network namespace and becomes another program.
//!
//! Invariant: the program never outlives the thread that started it, even if that thread is killed. Setting the
//! parent-death signal here, between fork and exec, needs no unsafe hook in the harness.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::getppid;

/// Where to go and what to become.
#[derive(clap::Args)]
pub struct Options {
    /// A file that refers to the network namespace; absent: stay
    #[arg(long)]
    netns: Option<PathBuf>,
    /// The process that started this one: if it is gone already, give up
    #[arg(long)]
    parent: Option<i32>,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Does not return unless something failed.
pub fn run(options: Options) -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot set the parent-death signal")?;
    // The parent may have died before the line above: then no signal would ever come.
    if options.parent.is_some_and(|parent| getppid().as_raw() != parent) {
        bail!("the parent is gone");
    }
    if let Some(path) = &options.netns {
        let namespace = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        setns(namespace, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot enter {}", path.display()))?;
    }
    let Some((program, arguments)) = options.command.split_first() else { bail!("no program named") };
    Err(Command::new(program).args(arguments).exec()).with_context(|| format!("cannot start {program}"))
}
