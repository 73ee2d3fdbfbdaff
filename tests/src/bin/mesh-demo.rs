//! `cargo xtask demo`: the mesh at work on this machine, in six steps that check what they claim.

use std::io::{self, Write};
use std::process::ExitCode;

use mesh_tests::demo::{self, Options};

const USAGE: &str = "\
Usage: cargo xtask demo [--keep]

Shows the mesh on two virtual nodes of this machine (root needed), in six steps: the nodes, the shop, enrolment under
load, routes, policies, numbers. Nothing is left behind, also after Ctrl-C.

  --keep   leave it up, print what to try, end at Ctrl-C
  --help   this text

After a kill -9, the next demo or `cargo xtask clean` removes what was left.";

/// Wrong arguments (sysexits' EX_USAGE).
const USAGE_ERROR: u8 = 64;

fn main() -> ExitCode {
    let mut options = Options::default();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--keep" => options.keep = true,
            "--help" | "-h" => {
                // A closed pipe is no failure of a help text.
                let _ = writeln!(io::stdout(), "{USAGE}");
                return ExitCode::SUCCESS;
            }
            other => {
                eprintln!("error: {other} is not an option\n\n{USAGE}");
                return ExitCode::from(USAGE_ERROR);
            }
        }
    }
    match demo::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
