//! What we leave on the node for the container runtime: the plugin's binary, and our entry in its primary configuration.
//!
//! Invariants: nothing is written that is already so; a file that is changed keeps its owner and mode; removing gives back every
//! configuration as it was.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use mesh_model::name::Namespace;

use super::{
    conflist::{self, ConflistError, Entry},
    file::{self, Access},
};
use crate::config::CniPaths;

/// The plugin's name: its binary's and its entry's.
pub const ENTRY_TYPE: &str = "tulle-cni";

/// The largest configuration that is looked at, in bytes.
const CONFIGURATION_BYTES: u64 = 1 << 20;

/// What a single configuration is called while the list that we made of it is in force.
const ASIDE: &str = ".tulle-original";

/// The list that we made of a single configuration.
const LIST: &str = ".conflist";

/// Why something is not installed or not removed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The runtime has no configuration yet.
    #[error("{0} holds no CNI configuration yet")]
    NoConfiguration(PathBuf),
    /// A configuration is not of its form.
    #[error("{path}: {error}")]
    Conflist {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        error: ConflistError,
    },
    /// A file cannot be read or written.
    #[error("{path}: {error}")]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

/// Our files on a node.
#[derive(Debug)]
pub struct Files {
    paths: CniPaths,
    own_namespace: Option<Namespace>,
    /// The plugin's binary as we left it.
    plugin: Option<Shape>,
}

/// Enough to see that a file was replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Shape {
    inode: u64,
    length: u64,
    modified: SystemTime,
}

impl Files {
    /// Touches nothing yet.
    pub fn new(paths: CniPaths, own_namespace: Option<Namespace>) -> Self {
        Self { paths, own_namespace, plugin: None }
    }

    /// The runtime's configuration.
    pub fn conf_dir(&self) -> &Path {
        &self.paths.conf_dir
    }

    /// Where the agent listens.
    pub fn socket(&self) -> PathBuf {
        self.paths.run_dir.join("cni.sock")
    }

    /// The file of enrolled namespaces.
    pub fn state(&self) -> PathBuf {
        self.paths.state_dir.join("enrolment.json")
    }

    fn plugin(&self) -> PathBuf {
        self.paths.bin_dir.join(ENTRY_TYPE)
    }

    fn entry(&self) -> Entry {
        Entry {
            kind: ENTRY_TYPE.into(),
            socket: self.socket().to_string_lossy().into_owned(),
            state: self.state().to_string_lossy().into_owned(),
            own_namespace: self.own_namespace.as_ref().map(ToString::to_string),
        }
    }

    /// Puts this program into the runtime's plugins, if it is not there. Says whether it wrote.
    pub fn install_plugin(&mut self) -> Result<bool, InstallError> {
        let path = self.plugin();
        let of = failed(&path);
        let now = shape(&path);
        if now.is_some() && now == self.plugin {
            return Ok(false);
        }
        let own = || File::open("/proc/self/exe");
        let is_ours =
            now.is_some() && is_same(own().map_err(&of)?, File::open(&path).map_err(&of)?).map_err(&of)?;
        if !is_ours {
            fs::create_dir_all(&self.paths.bin_dir).map_err(&of)?;
            file::write(&path, own().map_err(&of)?, Access::mode(0o755)).map_err(&of)?;
        }
        self.plugin = shape(&path);
        Ok(!is_ours)
    }

    /// Chains the plugin last in the configuration that the runtime uses, if it is not. Says which file it wrote.
    pub fn install_entry(&self) -> Result<Option<PathBuf>, InstallError> {
        let primary = self.configurations(&["conf", "conflist", "json"])?.into_iter().next();
        let path = primary.ok_or_else(|| InstallError::NoConfiguration(self.paths.conf_dir.clone()))?;
        if path.extension().is_some_and(|kind| kind == "conflist") {
            let is_written = self.edit(&path, |text| conflist::with_entry(text, &self.entry()))?;
            return Ok(is_written.then_some(path));
        }
        self.make_list(&path).map(Some)
    }

    /// A list beside a single configuration, which is put aside under a name that the runtime does not read.
    fn make_list(&self, path: &Path) -> Result<PathBuf, InstallError> {
        let text = read(path)?;
        let list = conflist::list_of(&text, &self.entry())
            .map_err(|error| InstallError::Conflist { path: path.to_owned(), error })?;
        let (list_path, aside) = (with_suffix(path, LIST), with_suffix(path, ASIDE));
        let access = Access::of(path).map_err(failed(path))?;
        file::write(&list_path, list.as_bytes(), access).map_err(failed(&list_path))?;
        // Until this moment the runtime reads the single configuration, from then on the list: never none.
        fs::rename(path, &aside).and_then(|()| file::sync_folder(&aside)).map_err(failed(&aside))?;
        Ok(list_path)
    }

    /// Takes our entry out of every configuration. Says how many files it wrote.
    pub fn remove_entries(&self) -> Result<usize, InstallError> {
        let mut written = 0;
        for aside in self.configurations(&[&ASIDE[1..]])? {
            let original = aside.with_extension("");
            if original.exists() {
                file::remove(&aside).map_err(failed(&aside))?;
            } else {
                fs::rename(&aside, &original).map_err(failed(&original))?;
            }
            let list = with_suffix(&original, LIST);
            file::remove(&list).map_err(failed(&list))?;
            written += 1;
        }
        for path in self.configurations(&["conflist"])? {
            match self.edit(&path, conflist::without_entry) {
                Ok(is_written) => written += usize::from(is_written),
                // What is no list cannot hold our entry.
                Err(InstallError::Conflist { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(written)
    }

    /// Removes the plugin and its memory, once no runtime calls it any more. The socket stays: a mesh that was asked to leave may be asked
    /// to stay, and we still listen.
    pub fn remove_rest(&mut self) -> Result<(), InstallError> {
        self.plugin = None;
        for path in [self.plugin(), self.state()] {
            file::remove(&path).map_err(failed(&path))?;
        }
        Ok(())
    }

    /// Removes the socket, when nobody listens any more.
    pub fn remove_socket(&self) -> Result<(), InstallError> {
        let path = self.socket();
        file::remove(&path).map(drop).map_err(failed(&path))
    }

    /// Replaces the text of a file, if the edit changes it. A link is followed, not replaced.
    fn edit(
        &self,
        path: &Path,
        edit: impl FnOnce(&str) -> Result<String, ConflistError>,
    ) -> Result<bool, InstallError> {
        let path = fs::canonicalize(path).map_err(failed(path))?;
        let text = read(&path)?;
        let edited = edit(&text).map_err(|error| InstallError::Conflist { path: path.clone(), error })?;
        if edited == text {
            return Ok(false);
        }
        let access = Access::of(&path).map_err(failed(&path))?;
        file::write(&path, edited.as_bytes(), access).map_err(failed(&path))?;
        Ok(true)
    }

    /// Files of these kinds, in the order in which runtimes look at them: the first is the one they use.
    fn configurations(&self, kinds: &[&str]) -> Result<Vec<PathBuf>, InstallError> {
        let folder = &self.paths.conf_dir;
        let is_kind = |path: &PathBuf| {
            path.extension().is_some_and(|kind| kinds.iter().any(|each| kind == *each)) && !path.is_dir()
        };
        let entries = match fs::read_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed(folder))?,
        };
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        let mut paths: Vec<PathBuf> = paths.collect::<io::Result<_>>().map_err(failed(folder))?;
        paths.retain(is_kind);
        paths.sort();
        Ok(paths)
    }
}

fn read(path: &Path) -> Result<String, InstallError> {
    file::read(path, CONFIGURATION_BYTES).map_err(failed(path))
}

fn failed(path: &Path) -> impl Fn(io::Error) -> InstallError {
    let path = path.to_owned();
    move |error| InstallError::Io { path: path.clone(), error }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn shape(path: &Path) -> Option<Shape> {
    let file = fs::metadata(path).ok()?;
    Some(Shape { inode: file.ino(), length: file.len(), modified: file.modified().ok()? })
}

/// Whether two files hold the same bytes.
fn is_same(one: File, other: File) -> io::Result<bool> {
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    let (mut one, mut other) = (io::BufReader::new(one), io::BufReader::new(other));
    loop {
        let length = one.read(&mut left)?;
        if length == 0 {
            return Ok(true);
        }
        if other.read_exact(&mut right[..length]).is_err() || left[..length] != right[..length] {
            return Ok(false);
        }
    }
}

#[cfg(test)]
mod tests;
