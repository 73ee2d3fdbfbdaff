//! ConfigMap `istio`, key `mesh` -> the mesh's settings.

use k8s_openapi::api::core::v1::ConfigMap;
use mesh_model::{
    identity::TrustDomain,
    mesh::{AccessLog, MeshSettings, OutboundPolicy, PathNormalization, SameNode},
    name::Namespace,
};

use super::{retry, value};
use crate::{
    diagnostic::{Code, Findings},
    object::mesh_config::{
        self as written, AccessLogEncoding, MeshConfig, Normalization, OutboundMode, TulleSettings,
    },
};

/// The ConfigMap's name, and the key in it.
const NAME: &str = "istio";
const KEY: &str = "mesh";

/// Whether this is the ConfigMap with the mesh's settings.
pub(crate) fn is_mesh_config(map: &ConfigMap) -> bool {
    map.metadata.name.as_deref() == Some(NAME) && map.data.as_ref().is_some_and(|data| data.contains_key(KEY))
}

/// Reads the settings over `base`.
pub(crate) fn read(map: &ConfigMap, base: &MeshSettings, findings: &mut Findings<'_>) -> MeshSettings {
    let mut settings = base.clone();
    let Some(text) = map.data.as_ref().and_then(|data| data.get(KEY)) else { return settings };
    let config: MeshConfig = match parse(text) {
        Ok(config) => config,
        Err((field, problem)) => {
            let field = if field.is_empty() { "data.mesh".to_owned() } else { format!("data.mesh.{field}") };
            findings.add(Code::Invalid, field, problem);
            return settings;
        }
    };
    for name in config.others.keys() {
        match written::WITHOUT_EFFECT.contains(&name.as_str()) {
            true => findings.add(
                Code::SettingWithoutEffect,
                format!("data.mesh.{name}"),
                "has no effect here yet",
            ),
            false => {
                findings.add(Code::Invalid, format!("data.mesh.{name}"), "there is no such setting (a typo?)")
            }
        }
    }
    if let Some(domain) = &config.trust_domain {
        match value::is_dns_name(domain) {
            true => settings.trust_domain = TrustDomain::new(domain.as_str()),
            false => {
                findings.add(Code::Invalid, "data.mesh.trustDomain", format!("{domain:?} is not a DNS name"))
            }
        }
    }
    if let Some(namespace) = &config.root_namespace {
        match value::is_dns_label(namespace) {
            true => settings.root_namespace = Namespace::new(namespace.as_str()),
            false => {
                let message = format!("{namespace:?} is not a namespace");
                findings.add(Code::Invalid, "data.mesh.rootNamespace", message);
            }
        }
    }
    settings.outbound_policy = match config.outbound_traffic_policy.and_then(|policy| policy.mode) {
        Some(OutboundMode::RegistryOnly) => OutboundPolicy::RegistryOnly,
        Some(OutboundMode::AllowAny) => OutboundPolicy::AllowAny,
        None => settings.outbound_policy,
    };
    settings.path_normalization = match config.path_normalization.and_then(|paths| paths.normalization) {
        Some(Normalization::None) => PathNormalization::None,
        Some(Normalization::Default | Normalization::Base) => PathNormalization::Base,
        Some(Normalization::MergeSlashes) => PathNormalization::MergeSlashes,
        Some(Normalization::DecodeAndMergeSlashes) => PathNormalization::DecodeAndMergeSlashes,
        None => settings.path_normalization,
    };
    if let Some(policy) = &config.default_http_retry_policy {
        settings.default_retry = retry::read(policy, "data.mesh.defaultHttpRetryPolicy", findings);
    }
    settings.access_log = match (config.access_log_file.as_deref(), config.access_log_encoding) {
        (Some(""), _) => AccessLog::Off,
        (_, Some(AccessLogEncoding::Json)) => AccessLog::Json,
        (_, Some(AccessLogEncoding::Text)) => AccessLog::Text,
        (Some(_), None) if settings.access_log == AccessLog::Off => AccessLog::Text,
        (_, None) => settings.access_log,
    };
    own(config.tulle.unwrap_or_default(), &mut settings, findings);
    settings
}

/// What Istio does not have.
fn own(written: TulleSettings, settings: &mut MeshSettings, findings: &mut Findings<'_>) {
    settings.same_node = match written.same_node {
        Some(written::SameNode::Auto) => SameNode::Auto,
        Some(written::SameNode::Trust) => SameNode::Trust,
        Some(written::SameNode::Encrypt) => SameNode::Encrypt,
        None => settings.same_node,
    };
    let Some(excluded) = written.excluded_namespaces else { return };
    for (number, name) in excluded.iter().enumerate().filter(|(_, name)| !value::is_dns_label(name)) {
        let field = format!("data.mesh.tulle.excludedNamespaces[{number}]");
        findings.add(Code::Invalid, field, format!("{name:?} is not a namespace"));
    }
    settings.excluded_namespaces = excluded.into_iter().map(Namespace::new).collect();
}

fn parse(text: &str) -> Result<MeshConfig, (String, String)> {
    serde_path_to_error::deserialize(serde_yaml_ng::Deserializer::from_str(text)).map_err(|error| {
        let field = error.path().to_string();
        let field = if field == "." { String::new() } else { field };
        (field, error.into_inner().to_string())
    })
}
