//! Pod -> the ports that the kubelet dials: of probes and lifecycle hooks.
//!
//! Only these may be reached past the proxy, so a port is here because the pod's own spec names it, and for no other reason.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::core::v1::{Container, HTTPGetAction, Pod, TCPSocketAction},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::value;

/// The ports, sorted, each once.
pub(crate) fn ports(pod: &Pod) -> Vec<u16> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    // An init container is probed only if it goes on beside the others.
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    let ports: BTreeSet<u16> = spec.containers.iter().chain(sidecars).flat_map(of_container).collect();
    ports.into_iter().collect()
}

fn of_container(container: &Container) -> Vec<u16> {
    let probes = [&container.liveness_probe, &container.readiness_probe, &container.startup_probe];
    let hooks = container.lifecycle.iter().flat_map(|hooks| [&hooks.post_start, &hooks.pre_stop]);
    let mut named = Vec::new();
    for probe in probes.into_iter().flatten() {
        named.extend(dialled(probe.http_get.as_ref(), probe.tcp_socket.as_ref()));
        named.extend(probe.grpc.iter().map(|grpc| IntOrString::Int(grpc.port)));
    }
    for hook in hooks.flatten() {
        named.extend(dialled(hook.http_get.as_ref(), hook.tcp_socket.as_ref()));
    }
    named.iter().filter_map(|port| number(port, container)).collect()
}

/// Whoever names a host means that one, which may be anybody.
fn dialled(http: Option<&HTTPGetAction>, tcp: Option<&TCPSocketAction>) -> Vec<IntOrString> {
    let is_the_pod = |host: Option<&String>| host.is_none_or(String::is_empty);
    let http = http.filter(|get| is_the_pod(get.host.as_ref())).map(|get| get.port.clone());
    let tcp = tcp.filter(|socket| is_the_pod(socket.host.as_ref())).map(|socket| socket.port.clone());
    http.into_iter().chain(tcp).collect()
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
