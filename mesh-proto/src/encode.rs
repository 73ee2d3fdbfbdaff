//! The model onto the wire. Total: whatever the model can say has a form here, and `decode` reads it back unchanged.

use std::{collections::BTreeMap, fmt::Display, sync::Arc, time::Duration};

use mesh_model::{
    authz, identity, mesh, mtls, name, resource, route, service, text, traffic,
    workload::{self, Enrolment},
};

use crate::v1;

/// Encodes a resource.
pub fn resource(resource: &resource::Resource) -> v1::Resource {
    use v1::resource::Body;
    let body = match resource {
        resource::Resource::Mesh(mesh) => Body::Mesh(mesh_settings(mesh)),
        resource::Resource::Workload(workload) => Body::Workload(self::workload(workload)),
        resource::Resource::Service(service) => Body::Service(self::service(service)),
        resource::Resource::Policy(policy) => Body::Policy(self::policy(policy)),
        resource::Resource::Routes(table) => Body::Routes(routes(table)),
        resource::Resource::Destination(rule) => Body::Destination(destination(rule)),
    };
    v1::Resource { body: Some(body) }
}

/// Encodes the key of a resource.
pub fn key(key: &resource::ResourceKey) -> v1::ResourceKey {
    use v1::resource_key::Key;
    let key = match key {
        resource::ResourceKey::Mesh => Key::Mesh(v1::Unit {}),
        resource::ResourceKey::Workload(uid) => Key::Workload(uid.to_string()),
        resource::ResourceKey::Service(key) => Key::Service(service_key(key)),
        resource::ResourceKey::Policy(key) => Key::Policy(object_key(key)),
        resource::ResourceKey::Routes(key) => Key::Routes(object_key(key)),
        resource::ResourceKey::Destination(key, host) => Key::Destination(destination_key(key, host)),
    };
    v1::ResourceKey { key: Some(key) }
}

/// How many bytes the resource takes in a message.
pub fn encoded_len(resource: &v1::Resource) -> usize {
    prost::Message::encoded_len(resource)
}

fn object_key(key: &name::ObjectKey) -> v1::ObjectKey {
    v1::ObjectKey { namespace: key.namespace.to_string(), name: key.name.to_string() }
}

fn service_key(key: &name::ServiceKey) -> v1::ServiceKey {
    v1::ServiceKey { namespace: key.namespace.to_string(), host: key.host.to_string() }
}

fn destination_key(key: &name::ObjectKey, host: &name::Hostname) -> v1::DestinationKey {
    v1::DestinationKey { object: Some(object_key(key)), host: host.to_string() }
}

fn mesh_settings(mesh: &mesh::MeshSettings) -> v1::MeshSettings {
    v1::MeshSettings {
        trust_domain: mesh.trust_domain.to_string(),
        root_namespace: mesh.root_namespace.to_string(),
        outbound_policy: match mesh.outbound_policy {
            mesh::OutboundPolicy::AllowAny => v1::OutboundPolicy::AllowAny,
            mesh::OutboundPolicy::RegistryOnly => v1::OutboundPolicy::RegistryOnly,
        }
        .into(),
        path_normalization: match mesh.path_normalization {
            mesh::PathNormalization::None => v1::PathNormalization::None,
            mesh::PathNormalization::Base => v1::PathNormalization::Base,
            mesh::PathNormalization::MergeSlashes => v1::PathNormalization::MergeSlashes,
            mesh::PathNormalization::DecodeAndMergeSlashes => v1::PathNormalization::DecodeAndMergeSlashes,
        }
        .into(),
        same_node: match mesh.same_node {
            mesh::SameNode::Auto => v1::SameNode::Auto,
            mesh::SameNode::Trust => v1::SameNode::Trust,
            mesh::SameNode::Encrypt => v1::SameNode::Encrypt,
        }
        .into(),
        default_retry: Some(retry(&mesh.default_retry)),
        access_log: match mesh.access_log {
            mesh::AccessLog::Off => v1::AccessLog::Off,
            mesh::AccessLog::Text => v1::AccessLog::Text,
            mesh::AccessLog::Json => v1::AccessLog::Json,
        }
        .into(),
        enrolled_namespaces: mesh.enrolled_namespaces.iter().map(ToString::to_string).collect(),
        excluded_namespaces: mesh.excluded_namespaces.iter().map(ToString::to_string).collect(),
        leaving: mesh.leaving,
    }
}

fn identity(identity: &identity::Identity) -> v1::Identity {
    v1::Identity {
        trust_domain: identity.trust_domain.to_string(),
        namespace: identity.namespace.to_string(),
        service_account: identity.service_account.to_string(),
    }
}

fn protocol(protocol: service::Protocol) -> i32 {
    match protocol {
        service::Protocol::Unknown => v1::Protocol::Unknown,
        service::Protocol::Http => v1::Protocol::Http,
        service::Protocol::Http2 => v1::Protocol::Http2,
        service::Protocol::Grpc => v1::Protocol::Grpc,
        service::Protocol::Tcp => v1::Protocol::Tcp,
        service::Protocol::Tls => v1::Protocol::Tls,
    }
    .into()
}

fn mtls_mode(mode: mtls::MtlsMode) -> i32 {
    match mode {
        mtls::MtlsMode::Permissive => v1::MtlsMode::Permissive,
        mtls::MtlsMode::Strict => v1::MtlsMode::Strict,
        mtls::MtlsMode::Disable => v1::MtlsMode::Disable,
    }
    .into()
}

fn workload(workload: &workload::Workload) -> v1::Workload {
    v1::Workload {
        uid: workload.uid.to_string(),
        name: workload.name.to_string(),
        namespace: workload.namespace.to_string(),
        identity: Some(identity(&workload.identity)),
        node: workload.node.to_string(),
        ips: texts(&workload.ips),
        contested_ips: texts(&workload.contested_ips),
        labels: labels(&workload.labels),
        telemetry: Some(telemetry(&workload.telemetry)),
        tunnel: match workload.tunnel {
            workload::Tunnel::None => v1::Tunnel::None,
            workload::Tunnel::Hbone => v1::Tunnel::Hbone,
        }
        .into(),
        enrolled: workload.enrolment == Enrolment::Yes,
        endpoints: workload.endpoints.iter().map(endpoint).collect(),
        protocols: workload.protocols.iter().map(|(port, of)| (u32::from(*port), protocol(*of))).collect(),
        mtls: Some(v1::MtlsModes {
            default: mtls_mode(workload.mtls.default),
            ports: workload
                .mtls
                .ports
                .iter()
                .map(|(port, mode)| (u32::from(*port), mtls_mode(*mode)))
                .collect(),
            from: workload.mtls.from.clone(),
        }),
        policies: workload.policies.iter().map(object_key).collect(),
        exclusions: Some(v1::Exclusions {
            outbound_ports: ports(&workload.exclusions.outbound_ports),
            outbound_cidrs: texts(&workload.exclusions.outbound_cidrs),
            inbound_ports: ports(&workload.exclusions.inbound_ports),
        }),
        netns: workload.netns.as_ref().map(ToString::to_string),
        probe_ports: ports(&workload.probe_ports),
    }
}

fn telemetry(telemetry: &workload::Telemetry) -> v1::Telemetry {
    v1::Telemetry {
        workload_name: telemetry.workload_name.to_string(),
        workload_type: telemetry.workload_type.to_string(),
        app: telemetry.app.to_string(),
        version: telemetry.version.to_string(),
        canonical_service: telemetry.canonical_service.to_string(),
        canonical_revision: telemetry.canonical_revision.to_string(),
        cluster: telemetry.cluster.to_string(),
    }
}

fn endpoint(endpoint: &workload::EndpointOf) -> v1::EndpointOf {
    v1::EndpointOf {
        service: Some(service_key(&endpoint.service)),
        ports: endpoint.ports.iter().map(|(port, target)| (u32::from(*port), u32::from(*target))).collect(),
        ready: endpoint.ready,
    }
}

fn service(service: &service::Service) -> v1::Service {
    let port = |port: &service::ServicePort| v1::ServicePort {
        port: port.port.into(),
        name: port.name.clone(),
        protocol: protocol(port.protocol),
    };
    v1::Service {
        key: Some(service_key(&service.key)),
        name: service.name.clone(),
        vips: texts(&service.vips),
        ports: service.ports.iter().map(port).collect(),
    }
}

fn policy(policy: &authz::AuthzPolicy) -> v1::AuthzPolicy {
    let rule = |rule: &authz::Rule| v1::AuthzRule {
        from: rule.from.iter().map(source).collect(),
        to: rule.to.iter().map(operation).collect(),
        unsupported: rule.unsupported,
    };
    v1::AuthzPolicy {
        key: Some(object_key(&policy.key)),
        action: match policy.action {
            authz::Action::Allow => v1::AuthzAction::Allow,
            authz::Action::Deny => v1::AuthzAction::Deny,
        }
        .into(),
        rules: policy.rules.iter().map(rule).collect(),
    }
}

fn source(source: &authz::Source) -> v1::AuthzSource {
    v1::AuthzSource {
        principals: texts(&source.principals),
        not_principals: texts(&source.not_principals),
        namespaces: texts(&source.namespaces),
        not_namespaces: texts(&source.not_namespaces),
        ip_blocks: texts(&source.ip_blocks),
        not_ip_blocks: texts(&source.not_ip_blocks),
    }
}

fn operation(operation: &authz::Operation) -> v1::AuthzOperation {
    v1::AuthzOperation {
        hosts: texts(&operation.hosts),
        not_hosts: texts(&operation.not_hosts),
        ports: ports(&operation.ports),
        not_ports: ports(&operation.not_ports),
        methods: texts(&operation.methods),
        not_methods: texts(&operation.not_methods),
        paths: texts(&operation.paths),
        not_paths: texts(&operation.not_paths),
    }
}

fn routes(table: &route::RouteTable) -> v1::RouteTable {
    v1::RouteTable {
        key: Some(object_key(&table.key)),
        hosts: texts(&table.hosts),
        export_to: Some(visibility(&table.export_to)),
        created: table.created.clone(),
        gateway_port: match table.source {
            route::RouteSource::VirtualService => None,
            route::RouteSource::Gateway { port } => Some(port.into()),
        },
        rules: table.rules.iter().map(|rule| http_rule(rule)).collect(),
    }
}

fn visibility(visibility: &route::Visibility) -> v1::Visibility {
    match visibility {
        route::Visibility::All => v1::Visibility { all: true, namespaces: Vec::new() },
        route::Visibility::Namespaces(list) => v1::Visibility { all: false, namespaces: texts(list) },
    }
}

fn http_rule(rule: &route::HttpRule) -> v1::HttpRule {
    v1::HttpRule {
        name: rule.name.clone(),
        matches: rule.matches.iter().map(http_match).collect(),
        destinations: rule.destinations.iter().map(weighted).collect(),
        timeout: rule.timeout.map(nanos),
        retry: Some(retry(&rule.retry)),
        request_headers: Some(edits(&rule.request_headers)),
        response_headers: Some(edits(&rule.response_headers)),
    }
}

fn http_match(wanted: &route::HttpMatch) -> v1::HttpMatch {
    let map = |map: &BTreeMap<String, text::StringMatch>| {
        map.iter().map(|(name, wanted)| (name.clone(), string_match(wanted))).collect()
    };
    v1::HttpMatch {
        name: wanted.name.clone(),
        uri: wanted.uri.as_ref().map(string_match),
        path_segments: wanted.path_segments.clone(),
        ignore_uri_case: wanted.ignore_uri_case,
        scheme: wanted.scheme.as_ref().map(string_match),
        method: wanted.method.as_ref().map(string_match),
        authority: wanted.authority.as_ref().map(string_match),
        headers: map(&wanted.headers),
        without_headers: map(&wanted.without_headers),
        query: map(&wanted.query),
        port: wanted.port.map(u32::from),
        source_labels: wanted.source_labels.clone(),
        source_namespace: wanted.source_namespace.as_ref().map(ToString::to_string),
    }
}

fn string_match(wanted: &text::StringMatch) -> v1::StringMatch {
    use v1::string_match::Kind;
    let kind = match wanted {
        text::StringMatch::Exact(text) => Kind::Exact(text.clone()),
        text::StringMatch::Prefix(text) => Kind::Prefix(text.clone()),
        text::StringMatch::Regex(pattern) => Kind::Regex(pattern.source().to_owned()),
        text::StringMatch::Present => Kind::Present(v1::Unit {}),
    };
    v1::StringMatch { kind: Some(kind) }
}

fn weighted(weighted: &route::WeightedDestination) -> v1::WeightedDestination {
    v1::WeightedDestination {
        host: weighted.destination.host.to_string(),
        subset: weighted.destination.subset.as_ref().map(ToString::to_string),
        port: weighted.destination.port.map(u32::from),
        weight: weighted.weight,
        invalid: weighted.invalid.clone(),
        request_headers: Some(edits(&weighted.request_headers)),
        response_headers: Some(edits(&weighted.response_headers)),
    }
}

fn edits(edits: &route::HeaderEdits) -> v1::HeaderEdits {
    let pairs = |pairs: &[(String, String)]| {
        pairs
            .iter()
            .map(|(name, value)| v1::HeaderPair { name: name.clone(), value: value.clone() })
            .collect()
    };
    v1::HeaderEdits { set: pairs(&edits.set), add: pairs(&edits.add), remove: edits.remove.clone() }
}

fn retry(retry: &route::RetryPolicy) -> v1::RetryPolicy {
    let on = &retry.on;
    v1::RetryPolicy {
        attempts: retry.attempts,
        per_try_timeout: retry.per_try_timeout.map(nanos),
        on: Some(v1::RetryOn {
            server_error: on.server_error,
            gateway_error: on.gateway_error,
            reset: on.reset,
            reset_before_request: on.reset_before_request,
            connect_failure: on.connect_failure,
            refused_stream: on.refused_stream,
            retriable_4xx: on.retriable_4xx,
            rate_limited: on.rate_limited,
            statuses: ports(&on.statuses),
            grpc: ports(&on.grpc),
        }),
        backoff: Some(nanos(retry.backoff)),
    }
}

fn destination(rule: &traffic::DestinationPolicy) -> v1::DestinationPolicy {
    let subset = |subset: &traffic::Subset| v1::Subset {
        labels: labels(&subset.labels),
        policy: Some(traffic_policy(&subset.policy)),
    };
    v1::DestinationPolicy {
        key: Some(destination_key(&rule.key, &rule.host)),
        export_to: Some(visibility(&rule.export_to)),
        policy: Some(traffic_policy(&rule.policy)),
        subsets: rule.subsets.iter().map(|(name, of)| (name.to_string(), subset(of))).collect(),
    }
}

fn traffic_policy(policy: &traffic::TrafficPolicy) -> v1::TrafficPolicy {
    v1::TrafficPolicy {
        all: Some(port_policy(&policy.all)),
        ports: policy.ports.iter().map(|(port, policy)| (u32::from(*port), port_policy(policy))).collect(),
    }
}

fn port_policy(policy: &traffic::PortPolicy) -> v1::PortPolicy {
    v1::PortPolicy {
        balancer: match policy.balancer {
            traffic::Balancer::LeastRequest => v1::Balancer::LeastRequest,
            traffic::Balancer::RoundRobin => v1::Balancer::RoundRobin,
            traffic::Balancer::Random => v1::Balancer::Random,
            traffic::Balancer::Passthrough => v1::Balancer::Passthrough,
        }
        .into(),
        connect_timeout: policy.connect_timeout.map(nanos),
        max_requests_per_connection: policy.max_requests_per_connection,
    }
}

fn texts<T: Display>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn ports(values: &[u16]) -> Vec<u32> {
    values.iter().copied().map(u32::from).collect()
}

fn labels(labels: &BTreeMap<Arc<str>, Arc<str>>) -> BTreeMap<String, String> {
    labels.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}

/// Longer than 584 years is as long as the wire can say.
fn nanos(duration: Duration) -> v1::Nanos {
    v1::Nanos { nanos: u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX) }
}
