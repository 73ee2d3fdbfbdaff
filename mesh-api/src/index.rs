//! The facts: every object as last applied, its place, and the last good version of what was refused.

use mesh_model::name::NodeName;

use crate::{
    diagnostic::Origin,
    object::{Object, ObjectRef},
    parse::Parsed,
};

/// Whether a call changed a fact; only then is it worth compiling again.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Changed {
    /// Something is different now.
    Yes,
    /// Nothing is.
    No,
}

/// All facts. `apply`, `delete` and `reset` are for a watch; the `_file` calls for a directory.
#[derive(Clone, Debug, Default)]
pub struct Index {}

impl Index {
    /// An index without facts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts one object in, or replaces it.
    pub fn apply(&mut self, object: Object, origin: Origin) -> Changed {
        let _ = (object, origin);
        Changed::No
    }

    /// Takes one object out.
    pub fn delete(&mut self, object: &ObjectRef) -> Changed {
        let _ = object;
        Changed::No
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        *self = Self::default();
    }

    /// Makes the file say what `parsed` says. A broken file keeps its last good state (its diagnostics are kept beside it); a
    /// file that never was good contributes what could be read of it, and policies that could not fail closed.
    pub fn apply_file(&mut self, parsed: Parsed) -> Changed {
        let _ = parsed;
        Changed::No
    }

    /// Forgets everything the file said.
    pub fn remove_file(&mut self, file: &str) -> Changed {
        let _ = file;
        Changed::No
    }

    /// Makes the index say what these files say and nothing else; a broken one keeps its last good state.
    pub fn replace_all(&mut self, files: Vec<Parsed>) -> Changed {
        let _ = files;
        Changed::No
    }

    /// The names of all Node objects: the nodes that may connect.
    pub fn nodes(&self) -> Vec<NodeName> {
        Vec::new()
    }
}
