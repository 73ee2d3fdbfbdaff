//! Process settings: arguments and environment in, one value out. What the mesh wants comes through snapshots instead.

mod limits;
mod quantity;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use mesh_model::name::{Namespace, NodeName};

use crate::capture::KubeletConfig;

pub use limits::Limits;

/// The per-node agent and proxy of Tulle.
#[derive(Parser, Debug)]
#[command(name = "mesh-node", version)]
pub struct Arguments {
    /// What to do; `run` if nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The settings of `run`.
    #[command(flatten)]
    pub run: RunArguments,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Capture and serve until told to stop (the default).
    Run(Box<RunArguments>),
    /// Say whether this machine can run the agent, hook by hook.
    Check(CheckArguments),
    /// Mount bpffs where it is not yet, for all to see. For an init container, where the node's own start did not do it.
    MountBpffs(MountBpffsArguments),
    /// Take the hooks of agents off the kernel: traffic is plaintext again. Needs no controller.
    Detach(DetachArguments),
    /// Be the CNI plugin: what a container runtime calls, with `CNI_*` in the environment and the configuration at the input.
    Cni,
}

/// How `check` prints.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Arguments of `check`.
#[derive(Args, Debug)]
pub struct CheckArguments {
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    /// Where bpffs is, or shall be mounted.
    #[arg(long, env = "TULLE_BPFFS", default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
    /// The cgroup of all pods; the root of cgroup v2 if not given.
    #[arg(long, env = "TULLE_CGROUP")]
    pub cgroup: Option<PathBuf>,
}

/// Arguments of `mount-bpffs`.
#[derive(Args, Debug)]
pub struct MountBpffsArguments {
    /// Where bpffs shall be mounted.
    #[arg(long, env = "TULLE_BPFFS", default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
}

/// Arguments of `detach`.
#[derive(Args, Debug)]
pub struct DetachArguments {
    /// Every agent's hooks.
    #[arg(long, conflicts_with = "instance", required_unless_present = "instance")]
    pub all: bool,
    /// The hooks of one agent, by its instance name.
    #[arg(long)]
    pub instance: Option<String>,
    /// Where bpffs is mounted.
    #[arg(long, env = "TULLE_BPFFS", default_value = "/sys/fs/bpf")]
    pub bpffs: PathBuf,
}

/// Arguments of `run`, all of them also as `TULLE_*` in the environment.
#[derive(Args, Debug, Clone)]
pub struct RunArguments {
    /// The name of this node, as the controller's source knows it.
    #[arg(long, env = "TULLE_NODE_NAME")]
    node_name: Option<String>,
    /// The controller: `https://IP:PORT`.
    #[arg(long, env = "TULLE_CONTROLLER")]
    controller: Option<http::Uri>,
    /// PEM file with the roots that the controller's certificate chains to.
    #[arg(long, env = "TULLE_ROOT_CERT")]
    root_cert: Option<PathBuf>,
    /// File with this node's token; read again at each connect.
    #[arg(long, env = "TULLE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Where `/metrics`, `/healthz` and `/readyz` are served.
    #[arg(long, env = "TULLE_ADMIN_ADDR", default_value = "127.0.0.1:15020")]
    admin_addr: SocketAddr,
    /// Where the inspection API is served; none if not given.
    #[arg(long, env = "TULLE_INSPECT_ADDR")]
    inspect_addr: Option<SocketAddr>,
    /// Names this agent among several on one kernel; the node's name if not given.
    #[arg(long, env = "TULLE_INSTANCE")]
    instance: Option<String>,
    /// The namespace in which the mesh itself runs: its pods are never captured and never wait for us.
    #[arg(long, env = "TULLE_OWN_NAMESPACE")]
    own_namespace: Option<String>,
    /// Where the container runtime reads its CNI configuration. If given, new pods are captured before anything runs in them: the
    /// plugin `tulle-cni` is installed and chained last.
    #[arg(long, env = "TULLE_CNI_CONF_DIR")]
    cni_conf_dir: Option<PathBuf>,
    /// Where the container runtime looks for CNI plugins.
    #[arg(long, env = "TULLE_CNI_BIN_DIR", default_value = "/opt/cni/bin")]
    cni_bin_dir: PathBuf,
    /// Where the socket for the CNI plugin is made; the same path on the host, where the plugin runs.
    #[arg(long, env = "TULLE_RUN_DIR", default_value = "/run/tulle")]
    run_dir: PathBuf,
    /// What outlives the agent: which namespaces are enrolled; the same path on the host, where the plugin runs.
    #[arg(long, env = "TULLE_STATE_DIR", default_value = "/var/lib/tulle")]
    state_dir: PathBuf,
    /// Where bpffs is, or shall be mounted.
    #[arg(long, env = "TULLE_BPFFS", default_value = "/sys/fs/bpf")]
    bpffs: PathBuf,
    /// The cgroup of all pods; the root of cgroup v2 if not given. (A node that is itself a container has only a part of it.)
    #[arg(long, env = "TULLE_CGROUP")]
    cgroup: Option<PathBuf>,
    /// What the kubelet's process is called; with commas, several (`k3s-server,k3s-agent`).
    #[arg(long, env = "TULLE_KUBELET_NAME", value_delimiter = ',', default_value = "kubelet")]
    kubelet_name: Vec<String>,
    /// The port of the kubelet's API: whoever listens on it, and is the kubelet otherwise too, may probe strict pods. 0: nobody.
    #[arg(long, env = "TULLE_KUBELET_PORT", default_value_t = 10250)]
    kubelet_port: u16,
    /// Worker threads; one per core if not given.
    #[arg(long, env = "TULLE_WORKERS")]
    workers: Option<usize>,
    /// Without a live agent, traffic of enrolled pods goes on in plaintext instead of being refused.
    #[arg(long, env = "TULLE_FAIL_OPEN")]
    fail_open: bool,
    /// Take the hooks off the kernel on a regular stop: traffic is plaintext then, not refused.
    #[arg(long, env = "TULLE_DETACH_ON_EXIT")]
    detach_on_exit: bool,
    /// Overrides one limit, `name=value` (`tls_handshake=5s`, `header_bytes=32KiB`); may be repeated.
    #[arg(long = "limit", env = "TULLE_LIMITS", value_delimiter = ',')]
    limits: Vec<String>,
    /// What is logged, as `tracing` filters.
    #[arg(long, env = "TULLE_LOG", default_value = "info")]
    log: String,
    /// Log as JSON, one object per line.
    #[arg(long, env = "TULLE_LOG_JSON")]
    log_json: bool,
}

/// Everything `run` needs to know before it meets a controller.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's name.
    pub node: NodeName,
    /// The controller: scheme `https`, host and port.
    pub controller: http::Uri,
    /// PEM file with the roots that the controller's certificate chains to.
    pub root_cert: PathBuf,
    /// File with this node's token.
    pub token_file: PathBuf,
    /// Metrics and health.
    pub admin_addr: SocketAddr,
    /// The inspection API, if it is served.
    pub inspect_addr: Option<SocketAddr>,
    /// The name in the pins' path.
    pub instance: String,
    /// The namespace in which the mesh itself runs.
    pub own_namespace: Option<Namespace>,
    /// The CNI plugin's places; None: new pods are captured like running ones.
    pub cni: Option<CniPaths>,
    /// Where bpffs is, or shall be mounted.
    pub bpffs: PathBuf,
    /// The cgroup of all pods; None: the root of cgroup v2.
    pub cgroup: Option<PathBuf>,
    /// How the kubelet is recognised.
    pub kubelet: KubeletConfig,
    /// Worker threads; None: one per core.
    pub workers: Option<usize>,
    /// Plaintext instead of refusal while no agent runs.
    pub fail_open: bool,
    /// Detach on a regular stop.
    pub detach_on_exit: bool,
    /// Time-outs and bounds.
    pub limits: Limits,
    /// What is logged.
    pub log: LogConfig,
}

/// What the CNI part reads and writes on its node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CniPaths {
    /// The container runtime's CNI configuration.
    pub conf_dir: PathBuf,
    /// Its plugins.
    pub bin_dir: PathBuf,
    /// Our socket; the same path for the agent and for the plugin.
    pub run_dir: PathBuf,
    /// The file of enrolled namespaces; the same path for the agent and for the plugin.
    pub state_dir: PathBuf,
}

/// The process log; the access log is the mesh's setting.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `tracing` filters.
    pub filter: String,
    /// JSON instead of text.
    pub json: bool,
}

/// Why the arguments are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A required setting is missing.
    #[error("{flag} (or {variable}) is required")]
    Missing {
        /// The argument.
        flag: &'static str,
        /// The environment variable.
        variable: &'static str,
    },
    /// The controller's address is not of the right form.
    #[error("--controller: {0} is not of the form https://HOST:PORT")]
    Controller(String),
    /// The instance's name would leave its folder.
    #[error(
        "--instance: {0:?} may hold only letters, digits, '.', '_' and '-', and must start with a letter or digit"
    )]
    Instance(String),
    /// A limit is unknown or its value is not readable.
    #[error("--limit {argument}: {reason}")]
    Limit {
        /// As given.
        argument: String,
        /// What is wrong.
        reason: String,
    },
    /// A number is out of its range.
    #[error("--workers must be between 1 and 1024")]
    Workers,
}

impl RunArguments {
    /// Checks the settings and makes one value of them.
    pub fn into_config(self) -> Result<Config, ConfigError> {
        let node = required(self.node_name, "--node-name", "TULLE_NODE_NAME")?;
        let controller = required(self.controller, "--controller", "TULLE_CONTROLLER")?;
        if controller.scheme_str() != Some("https")
            || controller.host().is_none()
            || controller.port_u16().is_none()
        {
            return Err(ConfigError::Controller(controller.to_string()));
        }
        let instance = self.instance.unwrap_or_else(|| node.clone());
        if !is_file_name(&instance) {
            return Err(ConfigError::Instance(instance));
        }
        if self.workers.is_some_and(|workers| !(1..=1024).contains(&workers)) {
            return Err(ConfigError::Workers);
        }
        let mut limits = Limits::default();
        for argument in &self.limits {
            limits
                .set(argument)
                .map_err(|reason| ConfigError::Limit { argument: argument.clone(), reason })?;
        }
        let (bin_dir, run_dir, state_dir) = (self.cni_bin_dir, self.run_dir, self.state_dir);
        let cni = self.cni_conf_dir.map(|conf_dir| CniPaths { conf_dir, bin_dir, run_dir, state_dir });
        Ok(Config {
            node: NodeName::new(node),
            controller,
            root_cert: required(self.root_cert, "--root-cert", "TULLE_ROOT_CERT")?,
            token_file: required(self.token_file, "--token-file", "TULLE_TOKEN_FILE")?,
            admin_addr: self.admin_addr,
            inspect_addr: self.inspect_addr,
            instance,
            own_namespace: self.own_namespace.map(Namespace::new),
            cni,
            bpffs: self.bpffs,
            cgroup: self.cgroup,
            kubelet: KubeletConfig { names: self.kubelet_name, port: self.kubelet_port },
            workers: self.workers,
            fail_open: self.fail_open,
            detach_on_exit: self.detach_on_exit,
            limits,
            log: LogConfig { filter: self.log, json: self.log_json },
        })
    }
}

fn required<T>(value: Option<T>, flag: &'static str, variable: &'static str) -> Result<T, ConfigError> {
    value.ok_or(ConfigError::Missing { flag, variable })
}

/// The name becomes a folder of bpffs, which takes no dots; a DNS name's dots are replaced there, not here.
fn is_file_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.chars().all(|each| each.is_ascii_alphanumeric() || matches!(each, '-' | '_' | '.'))
}

#[cfg(test)]
mod tests;
