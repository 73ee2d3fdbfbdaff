//! What people write — Kubernetes core objects and Istio's networking and security resources — and its compilation to the model.
//!
//! The journey of a YAML line: [`parse`] reads it into an [`object::Object`] (a typo is an error with file, line and field),
//! [`admit`] refuses nonsense, [`index::Index`] keeps the facts, [`mod@compile`] turns the facts into resources of `mesh-model`
//! plus [`diagnostic::Diagnostic`]s for people.
//!
//! Invariant: pure and synchronous. No clock, no file, no network: the same facts always compile to the same resources.

pub mod admit;
pub mod compile;
pub mod diagnostic;
pub mod index;
pub mod object;
pub mod options;
pub mod parse;
mod read;
pub mod schema;
pub mod status;

pub use compile::{Compiled, Enrolled, EnrolmentDecision, compile};
pub use diagnostic::{Code, Diagnostic, Origin, Severity};
pub use index::{Changed, Index};
pub use object::{Kind, Object, ObjectRef};
pub use options::Options;
pub use parse::{Parsed, parse, parse_value};
pub use status::{ParentStatus, RouteStatus};
