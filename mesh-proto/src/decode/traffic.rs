//! Mesh settings and destination policies.

use std::collections::{BTreeMap, BTreeSet};

use mesh_model::{
    identity::TrustDomain,
    mesh::{AccessLog, MeshSettings, OutboundPolicy, PathNormalization, SameNode},
    name::{Namespace, SubsetName},
    traffic::{Balancer, DestinationPolicy, PortPolicy, Subset, TrafficPolicy},
};

use super::{
    error::{DecodeError, Located, list, required},
    routes::retry,
    scalar::{by_port, destination_key, duration, known, labels, namespace, text, visibility},
};
use crate::v1;

pub(super) fn mesh(wire: v1::MeshSettings) -> Result<MeshSettings, DecodeError> {
    Ok(MeshSettings {
        trust_domain: text(wire.trust_domain).map(TrustDomain::new).at("trust_domain")?,
        root_namespace: namespace(wire.root_namespace).at("root_namespace")?,
        outbound_policy: match known("OutboundPolicy", wire.outbound_policy).at("outbound_policy")? {
            v1::OutboundPolicy::AllowAny => OutboundPolicy::AllowAny,
            v1::OutboundPolicy::RegistryOnly => OutboundPolicy::RegistryOnly,
        },
        path_normalization: match known("PathNormalization", wire.path_normalization)
            .at("path_normalization")?
        {
            v1::PathNormalization::None => PathNormalization::None,
            v1::PathNormalization::Base => PathNormalization::Base,
            v1::PathNormalization::MergeSlashes => PathNormalization::MergeSlashes,
            v1::PathNormalization::DecodeAndMergeSlashes => PathNormalization::DecodeAndMergeSlashes,
        },
        same_node: match known("SameNode", wire.same_node).at("same_node")? {
            v1::SameNode::Auto => SameNode::Auto,
            v1::SameNode::Trust => SameNode::Trust,
            v1::SameNode::Encrypt => SameNode::Encrypt,
        },
        default_retry: retry(required("default_retry", wire.default_retry)?).at("default_retry")?,
        access_log: match known("AccessLog", wire.access_log).at("access_log")? {
            v1::AccessLog::Off => AccessLog::Off,
            v1::AccessLog::Text => AccessLog::Text,
            v1::AccessLog::Json => AccessLog::Json,
        },
        enrolled_namespaces: namespaces("enrolled_namespaces", wire.enrolled_namespaces)?,
        excluded_namespaces: namespaces("excluded_namespaces", wire.excluded_namespaces)?,
        leaving: wire.leaving,
    })
}

fn namespaces(field: &'static str, wire: Vec<String>) -> Result<BTreeSet<Namespace>, DecodeError> {
    Ok(list(field, wire, namespace)?.into_iter().collect())
}

pub(super) fn destination(wire: v1::DestinationPolicy) -> Result<DestinationPolicy, DecodeError> {
    let (key, host) = destination_key(required("key", wire.key)?).at("key")?;
    Ok(DestinationPolicy {
        key,
        host,
        export_to: visibility(wire.export_to)?,
        policy: traffic_policy(wire.policy)?,
        subsets: subsets(wire.subsets)?,
    })
}

fn subsets(wire: BTreeMap<String, v1::Subset>) -> Result<BTreeMap<SubsetName, Subset>, DecodeError> {
    wire.into_iter()
        .map(|(name, wire)| {
            let policy = traffic_policy(wire.policy).at_item("subsets", &name)?;
            let subset = Subset { labels: labels(wire.labels), policy };
            Ok((text(name).map(SubsetName::new).at("subsets")?, subset))
        })
        .collect()
}

fn traffic_policy(wire: Option<v1::TrafficPolicy>) -> Result<TrafficPolicy, DecodeError> {
    let wire = required("policy", wire)?;
    Ok(TrafficPolicy {
        all: port_policy(required("policy.all", wire.all)?).at("policy.all")?,
        ports: by_port("policy.ports", wire.ports, port_policy)?,
    })
}

fn port_policy(wire: v1::PortPolicy) -> Result<PortPolicy, DecodeError> {
    Ok(PortPolicy {
        balancer: match known("Balancer", wire.balancer).at("balancer")? {
            v1::Balancer::LeastRequest => Balancer::LeastRequest,
            v1::Balancer::RoundRobin => Balancer::RoundRobin,
            v1::Balancer::Random => Balancer::Random,
            v1::Balancer::Passthrough => Balancer::Passthrough,
        },
        connect_timeout: wire.connect_timeout.map(duration),
        max_requests_per_connection: wire.max_requests_per_connection,
    })
}
