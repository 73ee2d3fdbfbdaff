//! `security.istio.io` AuthorizationPolicy.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::istio::{Custom, Raw, TargetReference, WorkloadSelector};

/// Who may call.
pub type AuthorizationPolicy = Custom<AuthorizationPolicySpec>;

/// What an AuthorizationPolicy says.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AuthorizationPolicySpec {
    /// Which pods; none: all of the namespace, or of the mesh in the root namespace.
    pub selector: Option<WorkloadSelector>,
    /// Not implemented; fails closed.
    pub target_ref: Option<TargetReference>,
    /// Not implemented; fails closed.
    pub target_refs: Vec<TargetReference>,
    /// OR of these; ALLOW with none allows nothing.
    pub rules: Vec<Rule>,
    /// What a match means; ALLOW when absent.
    pub action: Option<Action>,
    /// Of CUSTOM; not implemented.
    pub provider: Option<Raw>,
}

/// `action`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    /// Lets in what matches, and nothing else.
    Allow,
    /// Keeps out what matches.
    Deny,
    /// Says so in the log; never decides.
    Audit,
    /// Asks an external authorizer; not implemented, denies what matches.
    Custom,
}

/// from and to and when.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    /// OR of these.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub from: Vec<From>,
    /// OR of these.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub to: Vec<To>,
    /// AND of these; not implemented, fails closed.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub when: Vec<Condition>,
}

/// An entry of `from`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct From {
    /// Who calls.
    pub source: Source,
}

/// An entry of `to`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct To {
    /// What is called.
    pub operation: Operation,
}

/// AND of what is set; the values of a field are OR.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Source {
    /// `trust-domain/ns/N/sa/S`.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub principals: Vec<String>,
    /// Negative.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub not_principals: Vec<String>,
    /// `iss/sub` of a JWT; not implemented, fails closed.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub request_principals: Vec<String>,
    /// Negative; not implemented, fails closed.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub not_request_principals: Vec<String>,
    /// The caller's namespace.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub namespaces: Vec<String>,
    /// Negative.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub not_namespaces: Vec<String>,
    /// `ns/sa`, or `sa` of the policy's namespace.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub service_accounts: Vec<String>,
    /// Negative.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub not_service_accounts: Vec<String>,
    /// The TCP peer.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub ip_blocks: Vec<String>,
    /// Negative.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub not_ip_blocks: Vec<String>,
    /// From `x-forwarded-for`; not implemented, fails closed.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub remote_ip_blocks: Vec<String>,
    /// Negative; not implemented, fails closed.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub not_remote_ip_blocks: Vec<String>,
    /// Not implemented, fails closed.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub trust_domains: Vec<String>,
    /// Negative; not implemented, fails closed.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub not_trust_domains: Vec<String>,
}

/// AND of what is set; the values of a field are OR.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Operation {
    /// `Host`.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub hosts: Vec<String>,
    /// Negative.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub not_hosts: Vec<String>,
    /// Ports of the pod, as texts.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub ports: Vec<String>,
    /// Negative.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub not_ports: Vec<String>,
    /// Methods.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub methods: Vec<String>,
    /// Negative.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub not_methods: Vec<String>,
    /// Normalised paths without the query.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub paths: Vec<String>,
    /// Negative.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub not_paths: Vec<String>,
}

/// An entry of `when`.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// The attribute.
    pub key: String,
    /// One of these.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub values: Vec<String>,
    /// None of these.
    #[serde(deserialize_with = "not_empty", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub not_values: Vec<String>,
}

/// A list that matches nothing when it is meant to match nobody: an empty one would be no condition at all, so it is refused.
fn not_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let list = Vec::deserialize(deserializer)?;
    match list.is_empty() {
        true => {
            Err(D::Error::custom("an empty list would be no condition: leave the field out, or name a value"))
        }
        false => Ok(list),
    }
}
