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
        Resource {
            kind: Kind::AuthorizationPolicy,
            plural: "authorizationpolicies",
            short: "ap",
            spec: spec::<AuthorizationPolicySpec>(),
            columns: &[("Action", ".spec.action", "What happens to what the rules match; ALLOW when empty.")],
        },
        Resource {
            kind: Kind::DestinationRule,
            plural: "destinationrules",
            short: "dr",
            spec: spec::<DestinationRuleSpec>(),
            columns: &[("Host", ".spec.host", "The service that it is about.")],
        },
        Resource {
            kind: Kind::PeerAuthentication,
            plural: "peerauthentications",
            short: "pa",
            spec: spec::<PeerAuthenticationSpec>(),
            columns: &[("Mode", ".spec.mtls.mode", "What ports accept that have no mode of their own.")],
        },
        Resource {
            kind: Kind::VirtualService,
            plural: "virtualservices",
            short: "vs",
            spec: spec::<VirtualServiceSpec>(),
            columns: &[
                ("Gateways", ".spec.gateways", "Where the routes hold; in the mesh when empty."),
                ("Hosts", ".spec.hosts", "Whose traffic is routed."),
            ],
        },
    ];
    all.into_iter().map(definition).collect()
}

/// What differs between definitions.
struct Resource {
    kind: Kind,
    plural: &'static str,
    short: &'static str,
    spec: Value,
    /// Name, path and description of what `kubectl get` shows beside name and age.
    columns: &'static [(&'static str, &'static str, &'static str)],
}

fn definition(resource: Resource) -> Result<(String, String), NotWritable> {
    let Resource { kind, plural, short, spec, columns } = resource;
    let columns = columns.iter().map(|(name, path, description)| {
        json!({ "name": name, "type": "string", "jsonPath": path, "description": description })
    });
    let age = json!({ "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" });
    let columns: Vec<Value> = columns.chain([age]).collect();
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
                "additionalPrinterColumns": columns,
                "schema": { "openAPIV3Schema": {
                    "type": "object",
                    "properties": {
                        "spec": spec,
                        "status": status(),
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

/// Conditions as everywhere in Kubernetes, one of each type, so that several writers do not undo each other's. The rest is Istio's.
fn status() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let time =
        |description: &str| json!({ "type": "string", "format": "date-time", "description": description });
    let condition = json!({
        "type": "object",
        "required": ["type", "status"],
        "properties": {
            "type": text("What the condition is about."),
            "status": text("True, False or Unknown."),
            "reason": text("Why, in one word."),
            "message": text("Why, in a sentence."),
            "observedGeneration": json!({ "x-kubernetes-int-or-string": true, "description": "The generation that was looked at." }),
            "lastTransitionTime": time("When the status became what it is."),
            "lastProbeTime": time("When it was looked at last."),
        },
    });
    json!({
        "type": "object",
        "description": "Written by controllers; the mesh does not read it.",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "conditions": {
                "type": "array",
                "items": condition,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["type"],
            },
        },
    })
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
