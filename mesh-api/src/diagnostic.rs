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
    /// The text is not YAML, or a field has the wrong type.
    Malformed = "MESH0001", Error;
    /// A field that the kind does not have.
    UnknownField = "MESH0002", Error;
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

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.severity, self.code)?;
        if let Some(object) = &self.object {
            write!(f, " {object}")?;
        }
        if let Some(origin) = &self.origin {
            write!(f, " ({origin})")?;
        }
        if !self.field.is_empty() {
            write!(f, " {}", self.field)?;
        }
        write!(f, ": {}", self.message)
    }
}
