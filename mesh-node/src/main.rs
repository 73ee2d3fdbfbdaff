//! Arguments in, exit code out; everything else is `mesh_node::app`.

use std::process::ExitCode;

fn main() -> ExitCode {
    mesh_node::app::main()
}
