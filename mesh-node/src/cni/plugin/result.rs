//! What the plugin answers in the specification's words.

use serde_json::json;

/// The versions that are spoken.
pub const SUPPORTED: [&str; 4] = ["0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// Error codes: below 100 the specification's, from 100 our own.
pub mod code {
    /// The configuration's version is not spoken.
    pub const VERSION: u32 = 1;
    /// A variable is missing or wrong.
    pub const ENVIRONMENT: u32 = 4;
    /// Input could not be read.
    pub const IO: u32 = 5;
    /// Input is not of its form.
    pub const DECODE: u32 = 6;
    /// The configuration cannot work.
    pub const CONFIGURATION: u32 = 7;
    /// A pod of the mesh is not captured; the runtime may try again.
    pub const NOT_CAPTURED: u32 = 100;
}

/// Why an operation failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// One of [`code`].
    pub code: u32,
    /// For people: it stands in the pod's events.
    pub message: String,
}

impl Failure {
    /// A failure.
    pub fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// In the specification's form.
    pub fn to_json(&self, version: &str) -> String {
        json!({"cniVersion": version, "code": self.code, "msg": self.message}).to_string()
    }
}

/// The answer to VERSION, in the form of `version`.
pub fn versions(version: &str) -> String {
    json!({"cniVersion": version, "supportedVersions": SUPPORTED}).to_string()
}
