//! Service -> addresses and ports.

use std::net::IpAddr;

use k8s_openapi::{
    api::core::v1::{Pod, Service, ServicePort as WrittenPort},
    apimachinery::pkg::util::intstr::IntOrString,
};
use mesh_model::service::{Protocol, ServicePort};

use super::{pod, value};
use crate::diagnostic::{Code, Findings};

/// A port of a service with what it means on a pod.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Port {
    pub(crate) port: ServicePort,
    target: IntOrString,
}

impl Port {
    /// The port of this pod, if it has one.
    pub(crate) fn target_on(&self, pod: &Pod) -> Option<u16> {
        match &self.target {
            IntOrString::Int(number) => u16::try_from(*number).ok(),
            IntOrString::String(name) => pod::named_port(pod, name),
        }
    }

    /// As written, for people.
    pub(crate) fn target_text(&self) -> String {
        match &self.target {
            IntOrString::Int(number) => number.to_string(),
            IntOrString::String(name) => name.clone(),
        }
    }
}

/// Checks addresses and ports.
pub(crate) fn check(service: &Service, findings: &mut Findings<'_>) {
    let spec = service.spec.clone().unwrap_or_default();
    let cluster_ips = spec.cluster_ip.iter().chain(spec.cluster_ips.iter().flatten());
    for text in
        cluster_ips.filter(|text| !text.is_empty() && *text != "None" && text.parse::<IpAddr>().is_err())
    {
        findings.add(Code::Invalid, "spec.clusterIPs", format!("{text:?} is not an IP address"));
    }
    for (number, port) in spec.ports.iter().flatten().enumerate() {
        if let Err(problem) = value::port(port.port.into()) {
            findings.add(Code::Invalid, format!("spec.ports[{number}].port"), problem);
        }
        if let Some(IntOrString::Int(target)) = &port.target_port
            && *target != 0
            && let Err(problem) = value::port((*target).into())
        {
            findings.add(Code::Invalid, format!("spec.ports[{number}].targetPort"), problem);
        }
        let name = port.name.clone().unwrap_or_default();
        if is_tcp(port) && !name.is_empty() && !name_is_known(&name) && app_protocol(port).is_none() {
            let message = format!(
                "{name:?} does not begin with a protocol (http, http2, grpc, tcp, tls, …) and there is no appProtocol: the port is sniffed"
            );
            findings.add(Code::PortName, format!("spec.ports[{number}].name"), message);
        }
    }
}

fn name_is_known(name: &str) -> bool {
    Protocol::from_port_name(name) != Protocol::Unknown
}

/// An appProtocol that says something to the mesh.
fn app_protocol(port: &WrittenPort) -> Option<Protocol> {
    let protocol = Protocol::from_app_protocol(port.app_protocol.as_deref()?);
    (protocol != Protocol::Unknown).then_some(protocol)
}

fn is_tcp(port: &WrittenPort) -> bool {
    port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
}

/// The TCP ports.
pub(crate) fn ports(service: &Service) -> Vec<Port> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten()).filter(|port| is_tcp(port));
    let read = ports.filter_map(|port| {
        let number = value::port(port.port.into()).ok()?;
        let name = port.name.clone().unwrap_or_default();
        let protocol = app_protocol(port).unwrap_or_else(|| Protocol::from_port_name(&name));
        let target = match &port.target_port {
            None | Some(IntOrString::Int(0)) => IntOrString::Int(number.into()),
            Some(target) => target.clone(),
        };
        Some(Port { port: ServicePort { port: number, name, protocol }, target })
    });
    read.collect()
}

/// The addresses that the cluster gave it. None: headless.
pub(crate) fn cluster_addresses(service: &Service) -> Vec<IpAddr> {
    let specs = service.spec.iter();
    distinct(specs.flat_map(|spec| spec.cluster_ip.iter().chain(spec.cluster_ips.iter().flatten())))
}

/// The addresses that whoever writes it says are its own.
pub(crate) fn external_addresses(service: &Service) -> Vec<IpAddr> {
    distinct(service.spec.iter().flat_map(|spec| spec.external_ips.iter().flatten()))
}

/// The addresses of its load balancers.
pub(crate) fn balancer_addresses(service: &Service) -> Vec<IpAddr> {
    let balancers = service.status.iter().flat_map(|status| &status.load_balancer);
    let ingress = balancers.flat_map(|balancer| balancer.ingress.iter().flatten());
    distinct(ingress.filter_map(|ingress| ingress.ip.as_ref()))
}

fn distinct<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for ip in texts.filter_map(|text| text.parse::<IpAddr>().ok()).map(|ip| ip.to_canonical()) {
        if !addresses.contains(&ip) {
            addresses.push(ip);
        }
    }
    addresses
}

/// Whether it is only a name for another name.
pub(crate) fn is_external_name(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("ExternalName"))
}
