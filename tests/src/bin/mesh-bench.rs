//! `cargo xtask bench`: Tulle beside the real Envoy, in one topology and one run, reported as ratios.

use std::{path::PathBuf, process::ExitCode};

use mesh_tests::bench::{self, Options};

const USAGE: &str = "\
Usage: cargo xtask bench [--rounds N] [--seconds N] [--setup NAME]... [--scenario NAME]... [--json FILE]

Setups:    direct direct-same tulle-same tulle-cross envoy-hop envoy-pair-h2 envoy-tcp
Scenarios: http1-c32 http1-c1 http1-1krps conn stream

Examples:
  cargo xtask bench
  cargo xtask bench --rounds 3 --seconds 3 --setup direct --setup tulle-cross --scenario http1-c32
  cargo xtask bench --json bench.json";

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            eprintln!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error}\n\n{USAGE}");
            return ExitCode::from(64);
        }
    };
    match bench::run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options::default();
    let mut arguments = arguments;
    while let Some(flag) = arguments.next() {
        if flag == "--help" || flag == "-h" {
            return Ok(None);
        }
        let value = arguments.next().ok_or_else(|| format!("{flag} wants a value"))?;
        let number = || value.parse().map_err(|_| format!("{flag} wants a number, not {value:?}"));
        match flag.as_str() {
            "--rounds" => options.rounds = number()?,
            "--seconds" => options.seconds = u64::from(number()?),
            "--setup" => options.setups.push(value.parse()?),
            "--scenario" => options.scenarios.push(value.parse()?),
            "--json" => options.json = Some(PathBuf::from(value)),
            _ => return Err(format!("{flag} is not an option")),
        }
    }
    Ok(Some(options))
}
