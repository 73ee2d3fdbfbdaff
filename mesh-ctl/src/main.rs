//! The `meshctl` binary; everything is in the library, so that the reference can be generated from it.

use std::process::ExitCode;

fn main() -> ExitCode {
    mesh_ctl::main()
}
