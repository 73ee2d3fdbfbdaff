//! The parts that Istio's kinds share.
//!
//! Every field that Istio has is listed in these files, also those that are not implemented: so a field is used, or named as not
//! implemented, or refused as unknown, and never dropped in silence. Fields that are not implemented are mostly [`Raw`].

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// An object of Istio's API.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Custom<S> {
    /// Group and version.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Name, namespace, annotations.
    pub metadata: ObjectMeta,
    /// What is wanted.
    pub spec: S,
    /// Written by controllers; not read.
    pub status: Option<Raw>,
}

/// A part that is kept as written because nothing here looks into it.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Raw(pub serde_json::Value);

impl JsonSchema for Raw {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Raw".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
    }
}

/// Picks pods of a namespace by their labels; all must be there.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkloadSelector {
    /// Label -> value, exact.
    pub match_labels: BTreeMap<String, String>,
}

/// One of the three; none of them means that the value is there.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StringMatch {
    /// The whole value.
    pub exact: Option<String>,
    /// The value's beginning.
    pub prefix: Option<String>,
    /// RE2, over the whole value.
    pub regex: Option<String>,
}

/// A port by its number.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PortSelector {
    /// 1 to 65535.
    pub number: Option<i64>,
}

/// What a policy is attached to, instead of a selector.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TargetReference {
    /// API group; empty for core.
    pub group: String,
    /// `Service`, `Gateway`, `GatewayClass`, `ServiceEntry`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Must be empty or the policy's own.
    pub namespace: String,
}
