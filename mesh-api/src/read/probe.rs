//! Pod -> the ports that the kubelet dials: of probes and lifecycle hooks.
//!
//! Only these may be reached past the proxy, so a port is here because the pod's own spec names it, and for no other reason. Whoever
//! names another host makes the kubelet call there, where it may be let in as if the probe were that pod's: such hosts are found here
//! too.

use std::{collections::BTreeSet, net::IpAddr};

use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, Pod, TCPSocketAction},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{pod, value};

/// What the kubelet dials.
struct Dialled<'a> {
    container: &'a Container,
    /// None: the pod. Otherwise as written, which may be anybody.
    host: Option<&'a str>,
    port: IntOrString,
}

/// The ports, sorted, each once.
pub(crate) fn ports(pod: &Pod) -> Vec<u16> {
    let own = dialled(pod).filter(|dialled| dialled.host.is_none());
    let ports: BTreeSet<u16> = own.filter_map(|own| number(&own.port, own.container)).collect();
    ports.into_iter().collect()
}

/// The hosts that are not the pod itself, sorted, each once.
pub(crate) fn other_hosts(pod: &Pod) -> Vec<&str> {
    let own = pod::addresses(pod);
    let is_own = |host: &str| match host.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(ip) => own.contains(&ip) || (pod::is_host_network(pod) && ip.is_loopback()),
        Err(_) => pod::is_host_network(pod) && host == "localhost",
    };
    let others: BTreeSet<&str> =
        dialled(pod).filter_map(|dialled| dialled.host).filter(|host| !is_own(host)).collect();
    others.into_iter().collect()
}

fn dialled(pod: &Pod) -> impl Iterator<Item = Dialled<'_>> {
    pod.spec.iter().flat_map(|spec| {
        // An init container is probed only if it goes on beside the others.
        let sidecars = spec.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
        spec.containers.iter().chain(sidecars).flat_map(of_container)
    })
}

fn of_container(container: &Container) -> Vec<Dialled<'_>> {
    let probes = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
    let hooks = container.lifecycle.iter().flat_map(|hooks| [&hooks.post_start, &hooks.pre_stop]);
    let mut all = Vec::new();
    for probe in probes.into_iter().flatten() {
        all.extend(actions(container, probe.http_get.as_ref(), probe.tcp_socket.as_ref()));
        let grpc = probe.grpc.iter().map(|grpc| IntOrString::Int(grpc.port));
        all.extend(grpc.map(|port| Dialled { container, host: None, port }));
    }
    for hook in hooks.flatten() {
        all.extend(actions(container, hook.http_get.as_ref(), hook.tcp_socket.as_ref()));
    }
    all
}

fn actions<'a>(
    container: &'a Container,
    http: Option<&'a HTTPGetAction>,
    tcp: Option<&'a TCPSocketAction>,
) -> impl Iterator<Item = Dialled<'a>> {
    let http = http.map(|get| (&get.host, &get.port));
    let tcp = tcp.map(|socket| (&socket.host, &socket.port));
    http.into_iter().chain(tcp).map(move |(host, port)| Dialled {
        container,
        host: host.as_deref().filter(|host| !host.is_empty()),
        port: port.clone(),
    })
}

/// As the kubelet reads it: a name is one of the container's own ports, or else a number after all.
fn number(port: &IntOrString, container: &Container) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => i64::from(*number),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            match ports.find(|port| port.name.as_deref() == Some(name)) {
                Some(port) => port.container_port.into(),
                None => name.parse().ok()?,
            }
        }
    };
    value::port(number).ok()
}
