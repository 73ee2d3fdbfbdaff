//! Where the facts come from. In this slice: a directory of YAML files.

pub mod dir;

use mesh_api::Parsed;

/// What is different since the last look.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct FileChanges {
    /// Files that are new or say something else, parsed.
    pub parsed: Vec<Parsed>,
    /// Files that are gone.
    pub removed: Vec<String>,
    /// Why the source as a whole could not be read: everything stays as it was.
    pub unreadable: Option<String>,
}
