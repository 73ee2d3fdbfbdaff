//! Writes the CustomResourceDefinitions into a folder: `cargo run -p mesh-api --example crds -- FOLDER`.

use std::{env, error::Error, fs, path::PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let folder = PathBuf::from(env::args_os().nth(1).ok_or("usage: crds FOLDER")?);
    fs::create_dir_all(&folder)?;
    for (name, text) in mesh_api::schema::definitions()? {
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}
