//! Workloads and services.

use mesh_model::{
    identity::{Identity, TrustDomain},
    mtls::{MtlsMode, MtlsModes},
    name::{NodeName, ServiceAccount, WorkloadUid},
    service::{Protocol, Service, ServicePort},
    workload::{EndpointOf, Enrolment, Exclusions, Telemetry, Tunnel, Workload},
};

use super::{
    error::{DecodeError, Located, Problem, list, required},
    scalar::{address, by_port, known, labels, namespace, network, object_key, port, service_key, text},
};
use crate::v1;

pub(super) fn workload(wire: v1::Workload) -> Result<Workload, DecodeError> {
    Ok(Workload {
        uid: text(wire.uid).map(WorkloadUid::new).at("uid")?,
        name: text(wire.name).at("name")?.into(),
        namespace: namespace(wire.namespace).at("namespace")?,
        identity: identity(required("identity", wire.identity)?).at("identity")?,
        node: text(wire.node).map(NodeName::new).at("node")?,
        ips: list("ips", wire.ips, address)?,
        contested_ips: list("contested_ips", wire.contested_ips, address)?,
        labels: labels(wire.labels),
        telemetry: telemetry(required("telemetry", wire.telemetry)?),
        tunnel: match known("Tunnel", wire.tunnel).at("tunnel")? {
            v1::Tunnel::None => Tunnel::None,
            v1::Tunnel::Hbone => Tunnel::Hbone,
        },
        enrolment: if wire.enrolled { Enrolment::Yes } else { Enrolment::No },
        endpoints: list("endpoints", wire.endpoints, endpoint)?,
        protocols: by_port("protocols", wire.protocols, protocol)?,
        mtls: modes(required("mtls", wire.mtls)?).at("mtls")?,
        policies: list("policies", wire.policies, object_key)?,
        exclusions: exclusions(required("exclusions", wire.exclusions)?).at("exclusions")?,
        probe_ports: list("probe_ports", wire.probe_ports, port)?,
        netns: wire.netns.map(text).transpose().at("netns")?.map(Into::into),
    })
}

fn identity(wire: v1::Identity) -> Result<Identity, DecodeError> {
    Ok(Identity {
        trust_domain: text(wire.trust_domain).map(TrustDomain::new).at("trust_domain")?,
        namespace: namespace(wire.namespace).at("namespace")?,
        service_account: text(wire.service_account).map(ServiceAccount::new).at("service_account")?,
    })
}

fn telemetry(wire: v1::Telemetry) -> Telemetry {
    Telemetry {
        workload_name: wire.workload_name.into(),
        workload_type: wire.workload_type.into(),
        app: wire.app.into(),
        version: wire.version.into(),
        canonical_service: wire.canonical_service.into(),
        canonical_revision: wire.canonical_revision.into(),
        cluster: wire.cluster.into(),
    }
}

fn endpoint(wire: v1::EndpointOf) -> Result<EndpointOf, DecodeError> {
    Ok(EndpointOf {
        service: service_key(required("service", wire.service)?).at("service")?,
        ports: by_port("ports", wire.ports, port)?,
        ready: wire.ready,
    })
}

fn protocol(wire: i32) -> Result<Protocol, Problem> {
    Ok(match known("Protocol", wire)? {
        v1::Protocol::Unknown => Protocol::Unknown,
        v1::Protocol::Http => Protocol::Http,
        v1::Protocol::Http2 => Protocol::Http2,
        v1::Protocol::Grpc => Protocol::Grpc,
        v1::Protocol::Tcp => Protocol::Tcp,
        v1::Protocol::Tls => Protocol::Tls,
    })
}

fn modes(wire: v1::MtlsModes) -> Result<MtlsModes, DecodeError> {
    Ok(MtlsModes {
        default: mode(wire.default).at("default")?,
        ports: by_port("ports", wire.ports, mode)?,
        from: wire.from,
    })
}

fn mode(wire: i32) -> Result<MtlsMode, Problem> {
    Ok(match known("MtlsMode", wire)? {
        v1::MtlsMode::Permissive => MtlsMode::Permissive,
        v1::MtlsMode::Strict => MtlsMode::Strict,
        v1::MtlsMode::Disable => MtlsMode::Disable,
    })
}

fn exclusions(wire: v1::Exclusions) -> Result<Exclusions, DecodeError> {
    Ok(Exclusions {
        outbound_ports: list("outbound_ports", wire.outbound_ports, port)?,
        outbound_cidrs: list("outbound_cidrs", wire.outbound_cidrs, network)?,
        inbound_ports: list("inbound_ports", wire.inbound_ports, port)?,
    })
}

pub(super) fn service(wire: v1::Service) -> Result<Service, DecodeError> {
    Ok(Service {
        key: service_key(required("key", wire.key)?).at("key")?,
        name: text(wire.name).at("name")?,
        vips: list("vips", wire.vips, address)?,
        ports: list("ports", wire.ports, service_port)?,
    })
}

fn service_port(wire: v1::ServicePort) -> Result<ServicePort, DecodeError> {
    Ok(ServicePort {
        port: port(wire.port).at("port")?,
        name: wire.name,
        protocol: protocol(wire.protocol).at("protocol")?,
    })
}
