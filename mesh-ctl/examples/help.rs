//! Writes the command reference into a folder; `cargo xtask generate` runs it.

use std::{env, fs, io, path::PathBuf};

fn main() -> io::Result<()> {
    let folder = env::args_os()
        .nth(1)
        .map(PathBuf::from)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "give the folder to write to"))?;
    fs::write(folder.join("meshctl.md"), mesh_ctl::docs::reference())
}
