//! Where everything is pinned: `<bpffs>/tulle/<instance>/<ABI>-<sizes>/{maps,links,pods}/…`.
//!
//! Invariant: pins of one folder belong together. Another ABI, or other sizes, is another folder; a folder that is damaged
//! is renamed, so that its hooks stay in force until their successors are attached.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::object::ABI;
use super::raw;
use super::{HooksConfig, KernelError};

/// The folder of one product on a bpffs.
pub const ROOT: &str = "tulle";

/// The folders of one set of pins.
#[derive(Clone, Debug)]
pub struct Pins {
    instance: PathBuf,
    folder: PathBuf,
}

impl Pins {
    /// The pins of this build under this configuration.
    pub fn of(config: &HooksConfig) -> Pins {
        let instance = config.bpffs.join(ROOT).join(file_name(&config.instance));
        let folder = instance.join(format!("{ABI}-{:08x}", config.sizes.digest()));
        Pins { instance, folder }
    }

    /// Everything of the instance.
    pub fn instance(&self) -> &Path {
        &self.instance
    }

    /// Pins of the maps.
    pub fn maps(&self) -> PathBuf {
        self.folder.join("maps")
    }

    /// Pin of a map.
    pub fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// Pin of the link of a hook of the node.
    pub fn link(&self, hook: &str) -> PathBuf {
        self.folder.join("links").join(hook)
    }

    /// Pins of the links of pods.
    pub fn pods(&self) -> PathBuf {
        self.folder.join("pods")
    }

    /// Pin of the link of a pod's hook.
    pub fn pod(&self, cookie: u64) -> PathBuf {
        self.pods().join(cookie.to_string())
    }

    /// Makes the folders.
    pub fn make(&self) -> Result<(), KernelError> {
        for folder in [self.maps(), self.folder.join("links"), self.pods()] {
            fs::create_dir_all(&folder).map_err(|error| KernelError::Pin { path: folder, error })?;
        }
        Ok(())
    }

    /// Is there something already?
    pub fn exist(&self) -> bool {
        self.map(mesh_abi::map::PODS).exists()
    }

    /// Sets this folder aside, hooks in force, to be retired later.
    pub fn set_aside(&self) -> Result<(), KernelError> {
        let mut aside = self.folder.clone();
        for number in 0_u32.. {
            aside.set_file_name(format!("damaged-{number}"));
            if !aside.exists() {
                break;
            }
        }
        fs::rename(&self.folder, &aside)
            .map_err(|error| KernelError::Pin { path: self.folder.clone(), error })
    }

    /// Folders of other ABIs, other sizes, or set aside.
    pub fn others(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(&self.instance).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| *path != self.folder).collect()
    }

    /// Cookies of the pods that have a hook.
    pub fn pod_cookies(&self) -> Vec<u64> {
        let entries = fs::read_dir(self.pods()).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
    }
}

/// Detaches every link under `folder` and removes all pins there; says how many links. What an agent that still runs removes meanwhile is
/// removed as well.
pub fn remove_all(folder: &Path) -> io::Result<usize> {
    let mut links = 0;
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            links += remove_all(&path)?;
        } else if is_link(&path) {
            links += usize::from(remove_link(&path)?);
        } else {
            remove_file(&path)?;
        }
    }
    match fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(links),
    }
}

/// Removes a pin; one that is not there is removed.
fn remove_file(pin: &Path) -> io::Result<()> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Links are in `links` and `pods`; everything else is a map.
fn is_link(path: &Path) -> bool {
    path.parent().and_then(Path::file_name).is_some_and(|folder| folder == "links" || folder == "pods")
}

/// Detaches a pinned link at once, even while another process holds it, and removes its pin; false if there is none.
pub fn remove_link(path: &Path) -> io::Result<bool> {
    match raw::open_pin(path) {
        Ok(link) => match raw::detach_link(link.as_fd()) {
            // Defunct already: its netns or cgroup is gone.
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => {}
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "link not detached; its pin is removed")
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => tracing::warn!(path = %path.display(), %error, "not a link; the pin is removed"),
    }
    remove_file(path)?;
    Ok(true)
}

/// bpffs reserves dots, and a node name has some: everything but letters, digits, `-` and `_` is written as `%XX`.
pub fn file_name(instance: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    instance
        .bytes()
        .map(|byte| if plain(byte) { (byte as char).to_string() } else { format!("%{byte:02x}") })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_node_name_with_dots_becomes_a_name_that_bpffs_takes() {
        assert_eq!(super::file_name("ip-10-0-0-1.ec2"), "ip-10-0-0-1%2eec2");
        assert_ne!(super::file_name("a.b"), super::file_name("a_b"));
    }
}
