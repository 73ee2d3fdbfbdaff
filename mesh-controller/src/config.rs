//! The process's settings: flags and environment, checked.
//!
//! Invariant: no default lives anywhere else; what the mesh does comes from the source, never from here.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Parser, ValueEnum};
use mesh_model::identity::TrustDomain;

/// Tulle's controller: reads what people wrote, tells the nodes, signs their certificates.
#[derive(Parser, Clone, Debug)]
#[command(name = "mesh-controller", version)]
pub struct Config {
    /// Where the configuration comes from: `dir:PATH`, a directory of YAML files
    #[arg(long, env = "MESH_SOURCE", value_parser = source)]
    pub source: PathBuf,
    /// State directory: CA key, tokens, what is published
    #[arg(long, env = "MESH_STATE")]
    pub state: PathBuf,
    /// Address for nodes and meshctl (TLS)
    #[arg(long, env = "MESH_LISTEN", default_value = "0.0.0.0:15012")]
    pub listen: SocketAddr,
    /// Address for metrics and health (plaintext)
    #[arg(long, alias = "admin-addr", env = "MESH_ADMIN", default_value = "127.0.0.1:15014")]
    pub admin: SocketAddr,
    /// Trust domain of every identity
    #[arg(long, env = "MESH_TRUST_DOMAIN", default_value = "cluster.local", value_parser = trust_domain)]
    pub trust_domain: TrustDomain,
    /// How long certificates of workloads and nodes are valid: `90s`, `30m`, `24h`, `7d`
    #[arg(long, env = "MESH_SVID_TTL", default_value = "24h", value_parser = svid_ttl)]
    pub svid_ttl: Duration,
    /// Log filter, as in RUST_LOG
    #[arg(long, env = "MESH_LOG", default_value = "info")]
    pub log: String,
    /// Log format
    #[arg(long, env = "MESH_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Whether Istio's enrolment labels count (`istio.io/dataplane-mode`, `istio-injection`, `sidecar.istio.io/inject`)
    #[arg(long, env = "MESH_COMPAT_ISTIO_LABELS", default_value_t = true, action = clap::ArgAction::Set)]
    pub compat_istio_labels: bool,
}

/// How a log line looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

fn source(text: &str) -> Result<PathBuf, String> {
    match text.strip_prefix("dir:") {
        Some(path) if !path.is_empty() => Ok(PathBuf::from(path)),
        _ => Err("the form is dir:PATH".to_owned()),
    }
}

fn trust_domain(text: &str) -> Result<TrustDomain, String> {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    // SPIFFE-ID §2.1.
    if text.is_empty() || text.len() > 255 || !text.bytes().all(legal) {
        return Err("a trust domain has lower-case letters, digits, '.', '-' and '_'".to_owned());
    }
    Ok(TrustDomain::new(text))
}

fn svid_ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    // Shorter ones cannot be renewed in time; longer ones outlive their purpose.
    if !(Duration::from_secs(10)..=Duration::from_secs(90 * 24 * 3600)).contains(&ttl) {
        return Err("between 10s and 90d".to_owned());
    }
    Ok(ttl)
}

fn duration(text: &str) -> Result<Duration, String> {
    let malformed = || format!("{text:?} is not a duration such as 90s, 30m, 24h, 7d");
    let (number, seconds) = match text.char_indices().last() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        Some((at, 'd')) => (&text[..at], 24 * 3600),
        _ => return Err(malformed()),
    };
    let number: u64 = number.parse().map_err(|_| malformed())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_bounds() {
        assert_eq!(svid_ttl("24h"), Ok(Duration::from_secs(24 * 3600)));
        assert_eq!(svid_ttl("10s"), Ok(Duration::from_secs(10)));
        for wrong in
            ["", "24", "h", "1s", "1000d", "-1h", "1 h", "99999999999999999999h", "18446744073709551615d"]
        {
            assert!(svid_ttl(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn trust_domains_are_lower_case_names() {
        assert!(trust_domain("cluster.local").is_ok());
        for wrong in ["", "Cluster", "a/b", "a b", "ü"] {
            assert!(trust_domain(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_flags_of_the_manual_parse() {
        let config = Config::try_parse_from([
            "mesh-controller",
            "--source=dir:samples/shop",
            "--state=/tmp/state",
            "--compat-istio-labels",
            "false",
        ])
        .unwrap();
        assert_eq!(config.source, PathBuf::from("samples/shop"));
        assert!(!config.compat_istio_labels);
        assert!(Config::try_parse_from(["mesh-controller", "--source=samples", "--state=/tmp"]).is_err());
    }
}
