//! The process's settings: flags and environment, checked.
//!
//! Invariant: no default lives anywhere else; what the mesh does comes from the source, never from here.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use clap::{Parser, ValueEnum};
use mesh_model::{identity::TrustDomain, name::Namespace};

/// Tulle's controller: reads what people wrote, tells the nodes, signs their certificates.
#[derive(Parser, Clone, Debug)]
#[command(name = "mesh-controller", version)]
pub struct Config {
    /// Where the configuration comes from: `dir:PATH`, a directory of YAML files, or `kubernetes`
    #[arg(long, env = "MESH_SOURCE")]
    pub source: Source,
    /// State directory: CA key, tokens, what is published; with `dir:PATH`, and only then
    #[arg(long, env = "MESH_STATE")]
    pub state: Option<PathBuf>,
    /// The namespace that the mesh itself runs in; with `kubernetes`, where the state is kept, too
    #[arg(long, env = "MESH_OWN_NAMESPACE", value_parser = namespace, required_if_eq("source", "kubernetes"))]
    pub own_namespace: Option<Namespace>,
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
    /// Whether Istio's enrolment labels count (`istio.io/dataplane-mode`, `istio-injection`, `sidecar.istio.io/inject`); by default
    /// they do with `dir:PATH`, and do not with `kubernetes`, where Istio may be at work
    #[arg(long, env = "MESH_COMPAT_ISTIO_LABELS", action = clap::ArgAction::Set)]
    pub compat_istio_labels: Option<bool>,
}

impl Config {
    /// Whether Istio's enrolment labels count.
    pub fn istio_labels(&self) -> bool {
        self.compat_istio_labels.unwrap_or(self.source != Source::Kubernetes)
    }
}

/// Where the configuration comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A directory of YAML files.
    Directory(PathBuf),
    /// The API server of the cluster that we run in, else the one that KUBECONFIG names.
    Kubernetes,
}

/// The text names no source.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the form is dir:PATH or kubernetes")]
pub struct NotASource;

impl FromStr for Source {
    type Err = NotASource;

    fn from_str(text: &str) -> Result<Self, NotASource> {
        match text.strip_prefix("dir:") {
            Some(path) if !path.is_empty() => Ok(Self::Directory(PathBuf::from(path))),
            None if text == "kubernetes" => Ok(Self::Kubernetes),
            _ => Err(NotASource),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "dir:{}", path.display()),
            Self::Kubernetes => f.write_str("kubernetes"),
        }
    }
}

/// How a log line looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

fn namespace(text: &str) -> Result<Namespace, String> {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if text.is_empty() || text.len() > 63 || !text.bytes().all(legal) {
        return Err("a namespace has lower-case letters, digits and '-'".to_owned());
    }
    Ok(Namespace::new(text))
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
        assert_eq!(config.source, Source::Directory("samples/shop".into()));
        assert!(!config.istio_labels());
        assert!(Config::try_parse_from(["mesh-controller", "--source=samples", "--state=/tmp"]).is_err());
    }

    #[test]
    fn on_a_cluster_the_own_namespace_is_needed_and_istio_s_labels_are_left_to_istio() {
        let kubernetes = ["mesh-controller", "--source=kubernetes"];
        assert!(Config::try_parse_from(kubernetes).is_err());
        let config =
            Config::try_parse_from([kubernetes.as_slice(), &["--own-namespace=tulle-system"]].concat());
        let config = config.unwrap();
        assert_eq!(config.own_namespace, Some(Namespace::new("tulle-system")));
        assert!(!config.istio_labels());
        for wrong in ["", "Tulle", "a.b"] {
            assert!(namespace(wrong).is_err(), "{wrong:?}");
        }
    }
}
