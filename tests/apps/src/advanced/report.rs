//! What the server says of a request, line by line.

use std::{fmt::Write, net::SocketAddr};

use http::HeaderMap;

/// A request as the server saw it.
pub struct Seen<'a> {
    /// Empty for gRPC.
    pub method: &'a str,
    /// Path and query.
    pub url: &'a str,
    /// `Host` or `:authority`.
    pub host: &'a str,
    /// `HTTP/1.1`.
    pub protocol: &'static str,
    /// What TLS agreed on; empty without.
    pub alpn: &'a str,
    /// The port that was called.
    pub port: u16,
    /// Who called.
    pub remote: Option<SocketAddr>,
    /// All headers.
    pub headers: &'a HeaderMap,
}

/// The pod's name.
pub fn hostname() -> String {
    let of_kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    std::env::var("HOSTNAME").unwrap_or_else(|_| of_kernel()).trim().to_owned()
}

impl Seen<'_> {
    /// The lines. The reader takes the first line of each name, so those that a caller could forge with a header come last.
    pub fn lines(&self, hostname: &str) -> String {
        let ip = self.remote.map(|remote| remote.ip().to_canonical().to_string()).unwrap_or_default();
        let mut text = format!(
            "ServiceVersion=\nServicePort={}\nHost={}\nURL={}\nCluster=\nMethod={}\nProto={}\nAlpn={}\nIP={ip}\nHostname={hostname}\n",
            self.port, self.host, self.url, self.method, self.protocol, self.alpn
        );
        for (name, value) in self.headers {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "RequestHeader={name}:{}", String::from_utf8_lossy(value.as_bytes()));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_cannot_pass_for_a_field() {
        let mut headers = HeaderMap::new();
        headers.insert("x-set", http::HeaderValue::from_static("Hostname=forged"));
        headers.append("x-set", http::HeaderValue::from_static("second"));
        let seen = Seen {
            method: "GET",
            url: "/a?b",
            host: "echo",
            protocol: "HTTP/1.1",
            alpn: "",
            port: 8080,
            remote: Some(([10, 0, 0, 1], 7).into()),
            headers: &headers,
        };
        let text = seen.lines("echo-v1-abc");
        let first = |name: &str| text.lines().find_map(|line| line.split_once(name).map(|(_, value)| value));
        assert_eq!(first("Hostname="), Some("echo-v1-abc"));
        assert_eq!(
            (first("URL="), first("IP="), first("Method=")),
            (Some("/a?b"), Some("10.0.0.1"), Some("GET"))
        );
        assert!(
            text.ends_with("RequestHeader=x-set:Hostname=forged\nRequestHeader=x-set:second\n"),
            "{text}"
        );
    }
}
