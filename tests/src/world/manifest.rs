//! The Kubernetes objects that the harness writes, and the names of their files.

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

use super::topology;

/// A Node.
pub fn node(number: u8) -> String {
    render(&[json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": { "name": format!("node-{number}") },
        "spec": { "podCIDRs": [format!("10.244.{number}.0/24"), format!("fd00:10:244:{number}::/64")] },
        "status": { "addresses": [{ "type": "InternalIP", "address": topology::node_address(number) }] },
    })])
}

/// A Namespace with the mesh's label.
pub fn namespace(name: &str, in_mesh: bool) -> String {
    let word = if in_mesh { "enabled" } else { "disabled" };
    render(&[json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": { "name": name, "labels": { "tulle.dev/mesh": word } },
    })])
}

/// Documents as one YAML text.
pub fn render(documents: &[Value]) -> String {
    let texts = documents.iter().map(|document| serde_yaml_ng::to_string(document).unwrap_or_default());
    texts.collect::<Vec<_>>().join("---\n")
}

/// The documents of a YAML text.
pub fn documents(yaml: &str) -> Result<Vec<Value>> {
    serde_yaml_ng::Deserializer::from_str(yaml)
        .map(|document| {
            Value::deserialize(document).context("bad YAML in a test; use write_file if that is the point")
        })
        .filter(|document| !matches!(document, Ok(Value::Null)))
        .collect()
}

/// The file that an object is written to.
pub fn file_of(object: &Value) -> Result<String> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind").context("an object without kind")?;
    let name = text("/metadata/name").context("an object without name")?;
    Ok(file_name(kind, text("/metadata/namespace").unwrap_or_default(), name))
}

/// The file of an object by kind, namespace (may be empty) and name.
pub fn file_name(kind: &str, namespace: &str, name: &str) -> String {
    let parts = [&kind.to_ascii_lowercase(), namespace, name];
    parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}
