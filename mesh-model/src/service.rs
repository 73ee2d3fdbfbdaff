//! A service: its addresses and ports. Its endpoints are on the workloads; [`crate::snapshot::Snapshot`] joins them.

use std::net::IpAddr;

use crate::name::ServiceKey;

/// What a port speaks, as declared by `appProtocol`, then by the port's name prefix.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, PartialOrd, Ord)]
pub enum Protocol {
    /// Not declared: sniffed without ever delaying.
    #[default]
    Unknown,
    /// HTTP/1.x.
    Http,
    /// HTTP/2 prior knowledge.
    Http2,
    /// gRPC.
    Grpc,
    /// Opaque bytes.
    Tcp,
    /// TLS from the application: opaque, SNI may be read.
    Tls,
}

impl Protocol {
    /// Reads an `appProtocol`, e.g. `http`, `kubernetes.io/h2c`, `grpc`, `tcp`, `https`. Unknown texts are `Unknown`.
    pub fn from_app_protocol(text: &str) -> Self {
        let lower = text.to_ascii_lowercase();
        match lower.as_str() {
            "http" | "kubernetes.io/ws" => Self::Http,
            "http2" | "h2c" | "kubernetes.io/h2c" => Self::Http2,
            "grpc" | "grpc-web" => Self::Grpc,
            "https" | "tls" | "kubernetes.io/wss" => Self::Tls,
            "tcp" | "mysql" | "mongo" | "redis" => Self::Tcp,
            _ => Self::Unknown,
        }
    }

    /// Whether requests on such a port are routed one by one: HTTP/1, and what is sniffed to be it. The rest is opaque.
    pub fn is_routed_http(self) -> bool {
        matches!(self, Self::Http | Self::Unknown)
    }

    /// Reads a port's name: the part before the first dash, e.g. `http-web`.
    pub fn from_port_name(name: &str) -> Self {
        Self::from_app_protocol(name.split('-').next().unwrap_or(name))
    }
}

/// One port of a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServicePort {
    /// The service's port number.
    pub port: u16,
    /// Its name, empty if it has none.
    pub name: String,
    /// What it speaks.
    pub protocol: Protocol,
}

/// A service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Service {
    /// Namespace and host.
    pub key: ServiceKey,
    /// The short name, for `destination_service_name`.
    pub name: String,
    /// ClusterIPs, external and load-balancer IPs, canonical. Empty: headless.
    pub vips: Vec<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}

impl Service {
    /// The port with this number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|port| port.port == number)
    }
}
