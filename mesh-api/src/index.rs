//! The facts: every object as last applied, where it was written, and the last good version of what was refused.
//!
//! Invariant: what [`crate::compile()`] sees is admitted. An object that admission refuses leaves the last good version of itself in
//! force. If it never was good, routes and the like are as if they were not there; policies fail closed: an AuthorizationPolicy is
//! there in name only (workloads are selected by it, and a policy that is named and missing denies), and a PeerAuthentication is
//! STRICT for what it selects.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_model::name::NodeName;

use crate::{
    admit,
    diagnostic::{Code, Diagnostic, Findings, Origin},
    object::{Kind, Object, ObjectRef},
    options::Options,
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
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Index {
    options: Options,
    /// An object may be defined in several files; the last file by name counts.
    objects: BTreeMap<ObjectRef, BTreeMap<Arc<str>, Version>>,
    /// The same by file, without empty sets: of a watch each object is its own file, so a change must not cost a walk over all.
    defined: BTreeMap<Arc<str>, BTreeSet<ObjectRef>>,
    files: BTreeMap<Arc<str>, File>,
}

/// What is known of a file besides its objects.
#[derive(Clone, PartialEq, Debug)]
struct File {
    /// Of parsing its latest text.
    findings: Vec<Diagnostic>,
    /// It once was without errors: that state is kept while it is broken.
    was_good: bool,
}

/// One definition of an object.
#[derive(Clone, PartialEq, Debug)]
struct Version {
    /// What is in force of it.
    standing: Standing,
    /// Of the latest text, whether it is in force or not.
    findings: Vec<Diagnostic>,
}

#[derive(Clone, PartialEq, Debug)]
enum Standing {
    /// This object, as written there.
    Good(Arc<Object>, Origin),
    /// The policy is refused and fails closed for the pods it selects.
    Closed(Arc<Object>, Origin),
    /// Nothing.
    Absent,
}

/// An object in force.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fact<'a, T> {
    /// The object.
    pub(crate) object: &'a T,
    /// Its name.
    pub(crate) reference: &'a ObjectRef,
    /// Where it was written.
    pub(crate) origin: &'a Origin,
    /// It was refused and never was good.
    pub(crate) is_closed: bool,
}

impl<'a, T> Fact<'a, T> {
    /// A collector of findings about the object.
    pub(crate) fn findings<'l>(&self, list: &'l mut Vec<Diagnostic>) -> Findings<'l> {
        Findings::new(self.reference.clone(), Some(self.origin.clone()), list)
    }
}

impl Index {
    /// An index without facts.
    pub fn new() -> Self {
        Self::default()
    }

    /// An index without facts, with other options than the default.
    pub fn with_options(options: Options) -> Self {
        Self { options, ..Self::default() }
    }

    /// The options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Says whether the mesh is being uninstalled.
    pub fn set_leaving(&mut self, leaving: bool) -> Changed {
        let before = std::mem::replace(&mut self.options.leaving, leaving);
        changed(before != leaving)
    }

    /// Puts one object in, or replaces it. An object that admission refuses does not replace a good one.
    pub fn apply(&mut self, object: Object, origin: Origin) -> Changed {
        let findings = admit::admit(&object, Some(&origin));
        match admit::is_refused(&findings) {
            false => self.put(
                object.reference(),
                origin.file.clone(),
                Standing::Good(Arc::new(object), origin),
                findings,
            ),
            true => self.refuse(object, origin, findings),
        }
    }

    /// Takes one object out, wherever it was defined.
    pub fn delete(&mut self, object: &ObjectRef) -> Changed {
        let Some(versions) = self.objects.remove(object) else { return Changed::No };
        for file in versions.keys() {
            self.forget(file, object);
        }
        Changed::Yes
    }

    /// Forgets everything but the options.
    pub fn reset(&mut self) {
        *self = Self::with_options(self.options.clone());
    }

    /// Makes the file say what `parsed` says. A broken file keeps its last good state (its findings are kept beside it); a file that
    /// never was good contributes what could be read of it, and its policies that could not be read fail closed.
    pub fn apply_file(&mut self, parsed: Parsed) -> Changed {
        let file: Arc<str> = parsed.file.as_str().into();
        let was_good = self.files.get(&file).is_some_and(|file| file.was_good);
        let is_broken = parsed.is_broken();
        let mut findings = parsed.diagnostics;
        if is_broken && was_good {
            return self.note(file, File { findings, was_good });
        }
        let before = self.said_by(&file);
        let mut named: BTreeMap<ObjectRef, u32> = BTreeMap::new();
        for (object, origin) in parsed.objects {
            let reference = object.reference();
            if let Some(line) = named.insert(reference.clone(), origin.line) {
                let message = format!("defined in line {line} too; this later definition counts");
                Findings::new(reference, Some(origin.clone()), &mut findings).add(
                    Code::DefinedTwice,
                    "",
                    message,
                );
            }
            let _ = self.apply(object, origin);
        }
        for (object, origin) in parsed.refused {
            named.insert(object.reference(), origin.line);
            let _ = self.refuse(object, origin, Vec::new());
        }
        self.retain(&file, |reference| named.contains_key(reference));
        let _ = self.note(file.clone(), File { findings, was_good: !is_broken });
        changed(self.said_by(&file) != before)
    }

    /// Forgets everything the file said.
    pub fn remove_file(&mut self, file: &str) -> Changed {
        let noted = self.files.remove(file).is_some();
        let held = self.retain(file, |_| false);
        changed(noted || held)
    }

    /// Makes the index say what these files say and nothing else; a broken one keeps its last good state.
    pub fn replace_all(&mut self, files: Vec<Parsed>) -> Changed {
        let before = self.clone();
        let gone: Vec<Arc<str>> =
            self.files.keys().filter(|name| files.iter().all(|file| file.file != ***name)).cloned().collect();
        for name in gone {
            let _ = self.remove_file(&name);
        }
        for file in files {
            let _ = self.apply_file(file);
        }
        changed(*self != before)
    }

    /// The names of all Node objects: the nodes that may connect.
    pub fn nodes(&self) -> Vec<NodeName> {
        self.facts(|object| matches!(object, Object::Node(_)).then_some(object))
            .map(|fact| NodeName::new(fact.reference.name.clone()))
            .collect()
    }

    /// Every object in force that `pick` takes, by kind, namespace and name.
    pub(crate) fn facts<'a, T: 'a>(
        &'a self,
        pick: impl Fn(&'a Object) -> Option<&'a T> + 'a,
    ) -> impl Iterator<Item = Fact<'a, T>> + 'a {
        self.objects.iter().filter_map(move |(reference, versions)| {
            let mut in_force = versions.values().rev().filter_map(|version| version.standing.in_force());
            let last = in_force.next()?;
            // A good version in another file is the last good one.
            let good = if last.2 { in_force.find(|(_, _, is_closed)| !is_closed) } else { None };
            let (object, origin, is_closed) = good.unwrap_or(last);
            Some(Fact { object: pick(object)?, reference, origin, is_closed })
        })
    }

    /// The findings of parsing and admission.
    pub(crate) fn diagnostics(&self) -> Vec<Diagnostic> {
        let mut list: Vec<Diagnostic> = self.files.values().flat_map(|file| file.findings.clone()).collect();
        for (reference, versions) in &self.objects {
            list.extend(versions.values().flat_map(|version| version.findings.clone()));
            let mut files = versions.keys().rev();
            if let (Some(last), Some(other)) = (files.next(), files.next()) {
                let origin =
                    versions.get(last).and_then(|version| version.standing.in_force()).map(|found| found.1);
                let message = format!("defined in {other} and in {last}; the last file by name counts");
                Findings::new(reference.clone(), origin.cloned(), &mut list).add(
                    Code::DefinedTwice,
                    "",
                    message,
                );
            }
        }
        list
    }

    fn note(&mut self, name: Arc<str>, file: File) -> Changed {
        let same = self.files.get(&name) == Some(&file);
        self.files.insert(name, file);
        changed(!same)
    }

    fn put(
        &mut self,
        reference: ObjectRef,
        file: Arc<str>,
        standing: Standing,
        findings: Vec<Diagnostic>,
    ) -> Changed {
        let version = Version { standing, findings };
        self.defined.entry(file.clone()).or_default().insert(reference.clone());
        let versions = self.objects.entry(reference).or_default();
        let same = versions.get(&file) == Some(&version);
        versions.insert(file, version);
        changed(!same)
    }

    /// Keeps the last good version; without one, a policy fails closed and anything else is absent.
    fn refuse(&mut self, object: Object, origin: Origin, mut findings: Vec<Diagnostic>) -> Changed {
        let reference = object.reference();
        let file = origin.file.clone();
        let last_good = self.objects.get(&reference).and_then(|versions| versions.get(&file));
        let standing = match last_good.map(|version| &version.standing) {
            Some(good @ Standing::Good(..)) => good.clone(),
            _ if let Some(message) = closed_means(reference.kind) => {
                Findings::new(reference.clone(), Some(origin.clone()), &mut findings).add(
                    Code::FailsClosed,
                    "",
                    message,
                );
                Standing::Closed(Arc::new(object), origin)
            }
            _ => Standing::Absent,
        };
        self.put(reference, file, standing, findings)
    }

    /// Everything that the file contributes.
    fn said_by(&self, file: &Arc<str>) -> (Option<File>, BTreeMap<ObjectRef, Version>) {
        let version = |reference: &ObjectRef| {
            Some((reference.clone(), self.objects.get(reference)?.get(file)?.clone()))
        };
        let versions = self.defined.get(file).into_iter().flatten().filter_map(version);
        (self.files.get(file).cloned(), versions.collect())
    }

    /// Keeps of the file's definitions only these; says whether any went.
    fn retain(&mut self, file: &str, keep: impl Fn(&ObjectRef) -> bool) -> bool {
        let defined = self.defined.get(file).into_iter().flatten();
        let gone: Vec<ObjectRef> = defined.filter(|reference| !keep(reference)).cloned().collect();
        for reference in &gone {
            self.forget(file, reference);
            let Some(versions) = self.objects.get_mut(reference) else { continue };
            versions.remove(file);
            if versions.is_empty() {
                self.objects.remove(reference);
            }
        }
        !gone.is_empty()
    }

    /// The file no longer defines the object.
    fn forget(&mut self, file: &str, object: &ObjectRef) {
        if let Some(defined) = self.defined.get_mut(file) {
            defined.remove(object);
            if defined.is_empty() {
                self.defined.remove(file);
            }
        }
    }
}

impl Standing {
    fn in_force(&self) -> Option<(&Object, &Origin, bool)> {
        match self {
            Self::Good(object, origin) => Some((object, origin, false)),
            Self::Closed(object, origin) => Some((object, origin, true)),
            Self::Absent => None,
        }
    }
}

/// What a refused object of this kind does that never was good; None: nothing.
fn closed_means(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::AuthorizationPolicy => {
            Some("refused, and there is no earlier version: it denies everything to the pods it selects")
        }
        Kind::PeerAuthentication => Some(
            "refused, and there is no earlier version: the pods it selects take mTLS only, as with STRICT",
        ),
        _ => None,
    }
}

fn changed(it_did: bool) -> Changed {
    if it_did { Changed::Yes } else { Changed::No }
}
