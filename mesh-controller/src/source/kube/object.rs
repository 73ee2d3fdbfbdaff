//! An object of the API -> what [`mesh_api`] reads, without the parts that mean nothing to the mesh.
//!
//! Invariant: two versions of an object that differ only in bookkeeping (who wrote which field, a heartbeat, a counter) read the same,
//! so that they cause no compilation; and a byte that nobody reads is not kept.

use kube::{
    Error,
    api::{ApiResource, DynamicObject, TypeMeta},
};
use mesh_api::{Diagnostic, Kind, Origin, Parsed, Severity, parse_value};

/// `kubectl apply` keeps a copy of the object in it.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Characters of an error that are told.
const MAX_ERROR: usize = 300;

/// `Kind namespace/name`, as [`mesh_api::ObjectRef`] writes it.
pub(super) fn text_name(kind: Kind, object: &DynamicObject) -> String {
    let name = object.metadata.name.as_deref().unwrap_or_default();
    match object.metadata.namespace.as_deref().filter(|_| kind.is_namespaced()) {
        Some(namespace) => format!("{kind} {namespace}/{name}"),
        None => format!("{kind} {name}"),
    }
}

/// Reads one object.
pub(super) fn read(kind: Kind, resource: &ApiResource, object: DynamicObject) -> Parsed {
    let name = text_name(kind, &object);
    let origin = Origin { file: name.as_str().into(), line: 0 };
    match serde_json::to_value(slim(kind, resource, object)) {
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

fn slim(kind: Kind, resource: &ApiResource, mut object: DynamicObject) -> DynamicObject {
    // Items of a list come without it.
    object.types = Some(TypeMeta { api_version: resource.api_version.clone(), kind: resource.kind.clone() });
    object.metadata.managed_fields = None;
    object.metadata.resource_version = None;
    if let Some(annotations) = &mut object.metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
    // Of the others the status is what somebody (we, for some) found, or a list of a node's images.
    if !matches!(kind, Kind::Pod | Kind::Service)
        && let Some(fields) = object.data.as_object_mut()
    {
        fields.remove("status");
    }
    object
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
