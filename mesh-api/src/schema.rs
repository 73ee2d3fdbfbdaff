//! CustomResourceDefinitions of the Istio kinds that are read, made from the very types that read them.
//!
//! Invariant: deterministic text, so that the committed files can be compared with what would be generated now. A field that the
//! types do not have is not in the schema: the API server refuses it (`--validate=strict`, the default of kubectl) or drops it with
//! a warning.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::object::{
    Kind, authorization_policy::AuthorizationPolicySpec, destination_rule::DestinationRuleSpec,
    peer_authentication::PeerAuthenticationSpec, virtual_service::VirtualServiceSpec,
};

const HEADER: &str = "# Generated from mesh-api by `cargo xtask generate`. Do not edit.\n";

/// Why a definition cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the definition of {kind} cannot be written as YAML: {reason}")]
pub struct NotWritable {
    kind: Kind,
    reason: serde_yaml_ng::Error,
}

/// A definition: file name and content.
pub fn definitions() -> Result<Vec<(String, String)>, NotWritable> {
    let all = [
        (Kind::AuthorizationPolicy, "authorizationpolicies", "ap", spec::<AuthorizationPolicySpec>()),
        (Kind::DestinationRule, "destinationrules", "dr", spec::<DestinationRuleSpec>()),
        (Kind::PeerAuthentication, "peerauthentications", "pa", spec::<PeerAuthenticationSpec>()),
        (Kind::VirtualService, "virtualservices", "vs", spec::<VirtualServiceSpec>()),
    ];
    all.into_iter().map(|(kind, plural, short, spec)| definition(kind, plural, short, &spec)).collect()
}

fn definition(kind: Kind, plural: &str, short: &str, spec: &Value) -> Result<(String, String), NotWritable> {
    let group = kind.api().group();
    let name = format!("{plural}.{group}");
    let versions: Vec<Value> = kind
        .api()
        .versions()
        .iter()
        .enumerate()
        // One version is stored; as all mean the same, no conversion is needed between them.
        .map(|(number, version)| {
            json!({
                "name": version,
                "served": true,
                "storage": number == 0,
                "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "properties": {
                        "spec": spec,
                        "status": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                    },
                } },
            })
        })
        .collect();
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": name },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "kind": kind.as_str(),
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.as_str().to_lowercase(),
                "shortNames": [short],
                "categories": ["istio-io"],
            },
            "versions": versions,
        },
    });
    let text =
        serde_yaml_ng::to_string(&sorted(&definition)).map_err(|reason| NotWritable { kind, reason })?;
    Ok((format!("{name}.yaml"), format!("{HEADER}{text}")))
}

fn spec<T: JsonSchema>() -> Value {
    let mut settings = SchemaSettings::openapi3();
    settings.inline_subschemas = true;
    let schema = settings.into_generator().into_root_schema_for::<T>();
    structural(schema.as_value())
}

/// What the API server calls structural: every place has one type, and nothing is filled in.
fn structural(schema: &Value) -> Value {
    match schema {
        Value::Object(fields) => {
            // `anyOf: [X, null]` is an X that may be absent, and absence needs no saying.
            let inner = fields.get("anyOf").and_then(Value::as_array).and_then(|options| options.first());
            let mut plain: Map<String, Value> = inner.and_then(Value::as_object).cloned().unwrap_or_default();
            plain.extend(
                fields
                    .iter()
                    .filter(|(name, _)| *name != "anyOf")
                    .map(|(name, value)| (name.clone(), value.clone())),
            );
            for name in ["$schema", "title", "default", "nullable", "format", "components"] {
                plain.remove(name);
            }
            if let Some(Value::Array(options)) = plain.remove("oneOf") {
                plain.extend(variants(&options));
            }
            Value::Object(plain.into_iter().map(|(name, value)| (name, structural(&value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(structural).collect()),
        other => other.clone(),
    }
}

/// An enum whose variants have descriptions comes as one schema for each: here it is one list of texts.
fn variants(options: &[Value]) -> [(String, Value); 2] {
    let texts =
        options.iter().flat_map(|option| option.get("enum").and_then(Value::as_array)).flatten().cloned();
    [("type".to_owned(), json!("string")), ("enum".to_owned(), Value::Array(texts.collect()))]
}

/// The same value with the keys of every object in order, whatever map this build of `serde_json` uses.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort();
            let entries =
                names.into_iter().filter_map(|name| Some((name.clone(), sorted(fields.get(name)?))));
            Value::Object(entries.collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}
