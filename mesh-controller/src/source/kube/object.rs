//! An object of the API -> what [`mesh_api`] reads.
//!
//! Invariant: two versions of an object that differ only in bookkeeping (who wrote which field, a heartbeat, a counter, a status that
//! we wrote ourselves) read the same, so that they cause no compilation: [`mesh_api::parse_value`] sees to it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Error,
    api::{ApiResource, DynamicObject, TypeMeta},
};
use mesh_api::{Diagnostic, Kind, Origin, Parsed, Severity, parse_value};

/// Characters of an error that are told.
const MAX_ERROR: usize = 300;

/// `Kind namespace/name`, as [`mesh_api::ObjectRef`] writes it.
pub(super) fn text_name(kind: Kind, metadata: &ObjectMeta) -> String {
    let name = metadata.name.as_deref().unwrap_or_default();
    match metadata.namespace.as_deref().filter(|_| kind.is_namespaced()) {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

/// A `resourceVersion`: a number that grows with each write to the API (KEP-5504).
pub(super) fn version(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Reads one object.
pub(super) fn read(kind: Kind, resource: &ApiResource, mut object: DynamicObject) -> Parsed {
    let name = text_name(kind, &object.metadata);
    let origin = Origin { file: name.as_str().into(), line: 0 };
    // Items of a list come without it.
    object.types = Some(TypeMeta { api_version: resource.api_version.clone(), kind: resource.kind.clone() });
    // Half of an object, and the first thing that the parser would drop.
    object.metadata.managed_fields = None;
    match serde_json::to_value(object) {
        Ok(value) => parse_value(&origin, &value),
        Err(error) => Parsed {
            file: name,
            diagnostics: vec![Diagnostic {
                severity: Severity::Error,
                code: mesh_api::Code::Malformed,
                object: None,
                field: String::new(),
                message: error.to_string(),
                origin: Some(origin),
            }],
            ..Parsed::default()
        },
    }
}

/// An error of the client in a line.
pub(super) fn brief(error: &Error) -> String {
    let text = match error {
        Error::Api(status) => format!("{} ({})", status.message, status.code),
        // The cause of the cause says "connection refused".
        other => {
            let mut text = other.to_string();
            let mut cause = std::error::Error::source(other);
            while let Some(error) = cause {
                let more = error.to_string();
                if !text.contains(&more) {
                    text = format!("{text}: {more}");
                }
                cause = error.source();
            }
            text
        }
    };
    text.chars().take(MAX_ERROR).collect()
}

#[cfg(test)]
mod tests;
