//! One agent per instance at a time.
//!
//! Two that share pins swap each other's listeners, and when one of them ends, what it had captured is refused while the other says that
//! all is well. Invariant: whoever holds the claim is the only one that changes the pins of its instance; the kernel gives it back
//! with the process, however that ends.

use std::fs::{self, File, TryLockError};

use super::pins::Pins;
use super::{HooksConfig, KernelError};
use crate::sys;

/// The right to the pins of an instance, until it is dropped.
#[derive(Debug)]
pub struct Claim {
    _folder: File,
}

impl Claim {
    /// Takes the claim, or says that another agent has it. Never waits.
    pub fn take(config: &HooksConfig) -> Result<Claim, KernelError> {
        let bpffs = &config.bpffs;
        sys::mount_bpffs(bpffs).map_err(|error| KernelError::Bpffs { path: bpffs.clone(), error })?;
        let path = Pins::of(config).instance().to_owned();
        let failed = |error| KernelError::Pin { path: path.clone(), error };
        fs::create_dir_all(&path).map_err(failed)?;
        let folder = File::open(&path).map_err(failed)?;
        match folder.try_lock() {
            Ok(()) => Ok(Claim { _folder: folder }),
            Err(TryLockError::WouldBlock) => Err(KernelError::Claimed { instance: config.instance.clone() }),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}
