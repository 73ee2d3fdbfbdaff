//! What is wrong with what people wrote, said in one shape for logs, status conditions and `meshctl analyze`.
//!
//! Codes are Istio's (`IST…`) where `istioctl analyze` has one for the same finding, else ours (`MESH…`).

use std::{fmt, sync::Arc};

use crate::object::ObjectRef;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Severity {
    /// Worth knowing; nothing is lost.
    Info,
    /// Probably not what was meant.
    Warning,
    /// It has no effect, or it fails closed.
    Error,
}

/// Where an object came from.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Origin {
    /// The file's name relative to the directory, or `kubernetes`.
    pub file: Arc<str>,
    /// The line of the document's first content, from 1; 0 when there is none.
    pub line: u32,
}

/// One finding.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Diagnostic {
    /// How bad.
    pub severity: Severity,
    /// Which kind of finding.
    pub code: Code,
    /// The object, when one could be told from the text.
    pub object: Option<ObjectRef>,
    /// Path of the field, `spec.http[0].timeout`; empty when the object as a whole is meant.
    pub field: String,
    /// What is wrong and what happens because of it, in a sentence.
    pub message: String,
    /// Where it was written.
    pub origin: Option<Origin>,
}

macro_rules! codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $severity:ident;)*) => {
        /// The kinds of findings.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Code {
            $($(#[doc = $doc])+ $name,)*
        }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &[Code] = &[$(Code::$name,)*];

            /// The code as printed, `IST0101`.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }

            /// The severity it usually has.
            pub fn severity(self) -> Severity {
                match self { $(Code::$name => Severity::$severity,)* }
            }
        }
    };
}

codes! {
    /// A host, subset, port or node that is named and is not there.
    ReferenceNotFound = "IST0101", Error;
    /// A value that the schema allows and the meaning does not: the object is refused.
    Invalid = "IST0106", Error;
    /// Several VirtualServices define one host; one of them is used.
    DuplicateHost = "IST0109", Error;
    /// Two services declare different protocols for one port of a pod: the port is treated as unknown.
    ProtocolConflict = "IST0116", Warning;
    /// A port's name says no protocol: the port is sniffed.
    PortName = "IST0118", Info;
    /// A regular expression that does not compile: the object is refused.
    BadPattern = "IST0122", Error;
    /// A namespace has several enrolment labels that contradict each other.
    ContradictingLabels = "IST0123", Warning;
    /// An annotation or label of ours with a value that cannot be read; it has no effect.
    InvalidAnnotation = "IST0125", Warning;
    /// A policy that selects no pod.
    SelectsNothing = "IST0127", Warning;
    /// A rule after one that catches everything.
    UnreachableRule = "IST0130", Warning;
    /// A match that an earlier rule has already.
    IneffectiveMatch = "IST0131", Info;
    /// A subset whose labels no pod has: 503 to whoever is routed there.
    EmptySubset = "IST0173", Error;
    /// A DestinationRule for a host that no service has.
    UnknownDestinationHost = "IST0174", Warning;
    /// The text is not YAML, or a field has the wrong type: the file keeps its last good state.
    Malformed = "MESH0001", Error;
    /// A field that the kind does not have: the file keeps its last good state.
    UnknownField = "MESH0002", Error;
    /// A kind that the mesh does not read.
    KindSkipped = "MESH0003", Info;
    /// A kind of Istio's that is not implemented: it has no effect.
    KindNotImplemented = "MESH0004", Warning;
    /// One object is defined twice; the later definition counts.
    DefinedTwice = "MESH0005", Warning;
    /// A part of an object that is not implemented; the rest of the object is used.
    NotImplemented = "MESH0010", Warning;
    /// A part without which the object would mean something else: the object is refused (routes) or fails closed (policies).
    Unsupported = "MESH0011", Error;
    /// A refused policy that never was good: AuthorizationPolicy denies everything, PeerAuthentication is STRICT, for what it selects.
    FailsClosed = "MESH0012", Error;
    /// Two live pods claim one address, or two services, or a service that of another's or of a pod: one of them has it.
    AddressConflict = "MESH0020", Error;
    /// Enrolment is asked for and cannot be.
    EnrolmentRefused = "MESH0021", Warning;
    /// A label or annotation that asks for something and has no effect here: Istio's, one in an excluded namespace, a netns on a cluster.
    LabelWithoutEffect = "MESH0022", Warning;
    /// A service whose endpoints are not all pods the mesh knows: traffic to it passes through as dialled.
    ServiceNotInMesh = "MESH0023", Info;
    /// A service's target port that no container of a pod has.
    UnknownTargetPort = "MESH0024", Warning;
    /// A probe or lifecycle hook that names a host: the kubelet calls that host, and is let in where its own probes are.
    ProbeOfAnother = "MESH0025", Warning;
    /// Routes for a host of another namespace.
    ForeignHost = "MESH0030", Warning;
    /// Routes for a host that no service has.
    RouteWithoutService = "MESH0031", Warning;
    /// A host as `name.namespace`: Istio would not complete it.
    PartialHost = "MESH0032", Warning;
    /// A subset, or another part of DestinationRules for one host, that is defined twice; the oldest counts.
    DefinedByOlder = "MESH0033", Warning;
    /// Routes that are never used, because HTTPRoutes of the same service come first.
    ShadowedByHttpRoute = "MESH0034", Warning;
    /// An HTTPRoute that its service does not take.
    RouteNotAccepted = "MESH0035", Error;
    /// A path rule that can be dodged under the path normalisation in force.
    DodgeablePath = "MESH0040", Warning;
    /// A policy that never decides: AUDIT, or a dry run.
    NeverDecides = "MESH0041", Info;
    /// Several PeerAuthentications for one scope; the oldest counts.
    ShadowedMtls = "MESH0042", Warning;
    /// A mode that means less here than its name says.
    WeakMode = "MESH0043", Info;
    /// A setting of the mesh that has no effect.
    SettingWithoutEffect = "MESH0050", Info;
    /// A NetworkPolicy that lets one workload of the mesh call another, but not by the mesh's port: from other nodes it is cut.
    MeshPortBlocked = "MESH0060", Error;
    /// A NetworkPolicy whose limit to some ports means nothing, because the mesh's port carries all of them.
    PortLimitVoid = "MESH0061", Warning;
    /// Somebody uninstalls the mesh: nothing is captured, whatever labels say.
    Leaving = "MESH0070", Error;
}

/// Collects findings about one object.
#[derive(Debug)]
pub(crate) struct Findings<'a> {
    object: ObjectRef,
    origin: Option<Origin>,
    list: &'a mut Vec<Diagnostic>,
}

impl<'a> Findings<'a> {
    pub(crate) fn new(object: ObjectRef, origin: Option<Origin>, list: &'a mut Vec<Diagnostic>) -> Self {
        Self { object, origin, list }
    }

    /// Adds one. `field` is the path in the object.
    pub(crate) fn add(&mut self, code: Code, field: impl Into<String>, message: impl Into<String>) {
        self.list.push(Diagnostic {
            severity: code.severity(),
            code,
            object: Some(self.object.clone()),
            field: field.into(),
            message: message.into(),
            origin: self.origin.clone(),
        });
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 { write!(f, "{}", self.file) } else { write!(f, "{}:{}", self.file, self.line) }
    }
}

impl Diagnostic {
    /// Where it was written, unless that says no more than the object's name, as with an object of an API server.
    pub fn place(&self) -> Option<&Origin> {
        let is_name = |origin: &Origin| {
            origin.line == 0 && self.object.as_ref().is_some_and(|object| object.to_string() == *origin.file)
        };
        self.origin.as_ref().filter(|origin| !is_name(origin))
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.severity, self.code)?;
        if let Some(object) = &self.object {
            write!(f, " {object}")?;
        }
        if let Some(origin) = self.place() {
            write!(f, " ({origin})")?;
        }
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}
