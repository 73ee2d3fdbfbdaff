//! The command line: every verb, flag and example. No behaviour.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::print::Output;

/// See into a Tulle mesh: who is in it, what was pushed, where a request goes and who may make it.
#[derive(Parser, Debug)]
#[command(
    name = "meshctl",
    version,
    after_help = "Examples:
  meshctl install
  meshctl status
  meshctl --state /run/tulle/state status      # without a cluster
  meshctl config workloads --node node-1
  meshctl route check --from pod/productpage.shop --to http://reviews:9080/ -H 'end-user: jason'
  meshctl authz check --from sa/productpage.shop --to pod/reviews-v1.shop --port 9080 --path /reviews

Exit codes: 0 good, 1 error, 2 the answer is negative, 64 usage, 65 bad input, 69 unreachable,
77 forbidden, 79 findings, 124 time-out, 130 interrupted."
)]
pub struct Cli {
    /// For every command.
    #[command(flatten)]
    pub globals: Globals,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Args, Debug)]
pub struct Globals {
    /// The cluster's kubeconfig; else KUBECONFIG, ~/.kube/config, or the pod's own account.
    #[arg(long, global = true)]
    pub kubeconfig: Option<PathBuf>,
    /// Which context of the kubeconfig.
    #[arg(long, global = true)]
    pub context: Option<String>,
    /// Where the mesh is installed in the cluster.
    #[arg(long, global = true, env = "TULLE_NAMESPACE", default_value = "tulle-system")]
    pub mesh_namespace: String,
    /// Without a cluster: the controller's address [default: https://127.0.0.1:15012].
    #[arg(long, global = true, env = "TULLE_CONTROLLER")]
    pub controller: Option<String>,
    /// Without a cluster: the controller's state directory, with root.crt and admin.token.
    #[arg(long, global = true, env = "TULLE_STATE")]
    pub state: Option<PathBuf>,
    /// Without a cluster: the mesh's root certificate (PEM).
    #[arg(long, global = true, env = "TULLE_ROOT_CERT")]
    pub root_cert: Option<PathBuf>,
    /// Without a cluster: a file with the token that the controller accepts.
    #[arg(long, global = true, env = "TULLE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Give up after this long, e.g. 500ms, 30s, 2m [default: 30s; 5m for install, uninstall, enroll and unenroll].
    #[arg(long, global = true, value_parser = duration)]
    pub timeout: Option<Duration>,
}

/// How long a question may take.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a change of the cluster may take: images are pulled, pods start.
const CHANGE: Duration = Duration::from_secs(300);

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Install the mesh in a cluster: CRDs, the controller, an agent on every node. Captures nothing yet.
    Install(InstallArgs),
    /// Take the mesh out of a cluster; pods get their plain network back first.
    Uninstall(UninstallArgs),
    /// Is the cluster fit for the mesh, and is the mesh as it should be?
    #[command(visible_alias = "verify-install")]
    Check(CheckArgs),
    /// Put a namespace or a pod into the mesh: sets the label tulle.dev/mesh and waits until the pods are captured. Nothing restarts.
    Enroll(EnrollArgs),
    /// Take a namespace or a pod out of the mesh. Nothing restarts.
    Unenroll(EnrollArgs),
    /// Nodes, what they have acknowledged, their workloads, and what is wrong with the configuration.
    #[command(visible_aliases = ["proxy-status", "ps"])]
    Status(StatusArgs),
    /// Versions of meshctl, the controller and the nodes.
    Version(VersionArgs),
    /// What the controller compiled, or what one node holds.
    #[command(visible_alias = "proxy-config")]
    Config(ConfigArgs),
    /// Where would a request go?
    Route(RouteArgs),
    /// Would a request be allowed?
    Authz(AuthzArgs),
}

impl Globals {
    /// A little less than the command's deadline, so that what is still awaited can be said.
    pub fn patience(&self) -> Duration {
        self.timeout.unwrap_or(ANSWER).saturating_sub(Duration::from_millis(500))
    }
}

impl Cli {
    /// When to give up: as said, or what suits the command.
    pub fn timeout(&self) -> Duration {
        self.globals.timeout.unwrap_or(match self.command {
            Command::Install(_) | Command::Uninstall(_) | Command::Enroll(_) | Command::Unenroll(_) => CHANGE,
            _ => ANSWER,
        })
    }
}

/// `install`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  meshctl install
  meshctl install -y --set image.registry=registry.example/tulle --set node.failOpen=true
  meshctl install --dry-run -o yaml | kubectl apply -f -

The values are those of the Helm chart helm/tulle; the objects are those of `helm install`. Pods are captured once their namespace is
enrolled: `meshctl enroll ns NAME`. Exit code 124 if not everything is ready in time.")]
pub struct InstallArgs {
    /// A set of values.
    #[arg(long, value_enum, default_value_t = Profile::Default)]
    pub profile: Profile,
    /// Sets values of the chart, `key.key=value[,…]`; may be repeated, the last counts.
    #[arg(long = "set", value_name = "VALUES")]
    pub set: Vec<String>,
    /// A YAML file of values; may be repeated, the last counts.
    #[arg(short = 'f', long = "values")]
    pub values: Vec<PathBuf>,
    /// Change nothing: list the objects, or print them with -o yaml or json.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// Wait until everything is ready.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub wait: bool,
}

/// Sets of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Profile {
    /// The chart's own values.
    Default,
}

/// `uninstall`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  meshctl uninstall
  meshctl uninstall -y --purge

Enrolled pods go on without a restart, in plaintext: each node takes its hooks off before its agent is deleted. Exit code 124 if a node
does not do so in time; nothing is deleted then.")]
pub struct UninstallArgs {
    /// Delete the CustomResourceDefinitions that meshctl installed, with every route and policy, and the mesh's namespace.
    #[arg(long)]
    pub purge: bool,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
    /// Delete even if nodes do not answer: pods that they had captured have no network until `mesh-node detach --all` runs there.
    #[arg(long)]
    pub force: bool,
    /// Only the leaving, without deleting anything: for the chart's pre-delete hook.
    #[arg(long, hide = true)]
    pub hook: bool,
}

/// `check`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  meshctl check --pre              # before the installation: permissions, nodes, definitions
  meshctl check
  meshctl check -n shop -o json    # and what stands in the way of the namespace's enrolment

Exit code 79 if something is not as it should be; warnings alone are no reason.")]
pub struct CheckArgs {
    /// Only what can be looked at before the installation.
    #[arg(long)]
    pub pre: bool,
    /// Also what would be wrong in this namespace if it were enrolled (NetworkPolicies, refused pods).
    #[arg(short, long)]
    pub namespace: Option<String>,
}

/// `enroll` and `unenroll`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  meshctl enroll ns shop
  meshctl enroll ns shop --dry-run     # what would be captured, and what would be wrong
  meshctl unenroll pod web-0 -n shop

Exit code 2 if a pod is not as asked for when the time is up.")]
pub struct EnrollArgs {
    /// What.
    #[command(flatten)]
    pub target: Target,
    /// Change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Enroll although there are errors.
    #[arg(long)]
    pub force: bool,
    /// Wait until the nodes report it.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub wait: bool,
}

/// A namespace or a pod.
#[derive(Args, Debug)]
pub struct Target {
    /// A namespace or a pod.
    #[arg(value_enum)]
    pub kind: TargetKind,
    /// Its name.
    pub name: String,
    /// The pod's namespace.
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
}

/// What can carry the label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TargetKind {
    /// All pods of a namespace, also those to come.
    #[value(name = "ns", alias = "namespace")]
    Namespace,
    /// One pod, as long as it lives.
    Pod,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind {
            TargetKind::Namespace => write!(f, "namespace {}", self.name),
            TargetKind::Pod => write!(f, "pod {}/{}", self.namespace, self.name),
        }
    }
}

/// `status`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  meshctl status
  meshctl status --wait -o json      # returns when every node has applied what is written now

Exit code 2 if a node is behind, refused something or cannot capture a workload, or if the configuration has errors.")]
pub struct StatusArgs {
    /// Read the source again and wait until every connected node has applied it.
    #[arg(long)]
    pub wait: bool,
    /// Only this node.
    #[arg(long)]
    pub node: Option<String>,
}

/// `version`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  meshctl version
  meshctl version --client")]
pub struct VersionArgs {
    /// Only meshctl's own version: asks nobody.
    #[arg(long)]
    pub client: bool,
}

/// `config`.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  meshctl config workloads
  meshctl config routes --node node-1 -o yaml
  meshctl config certs --node node-2

Without --node the controller answers (what was compiled); with it the node does (what is in force there).")]
pub struct ConfigArgs {
    /// Which part.
    #[arg(value_enum)]
    pub what: ConfigKind,
    /// Ask this node.
    #[arg(long)]
    pub node: Option<String>,
    /// Only this namespace.
    #[arg(short, long)]
    pub namespace: Option<String>,
}

/// Parts of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConfigKind {
    /// Pods, their identity, tunnel and capture.
    Workloads,
    /// Services and their endpoints.
    Services,
    /// HTTP routes (HTTPRoute, VirtualService).
    Routes,
    /// Authorization policies and what they select.
    Policies,
    /// DestinationRules.
    Destinations,
    /// A node's certificates (needs --node).
    Certs,
    /// A node's open connections (needs --node).
    Connections,
    /// Everything, as the controller sends it.
    All,
}

/// `route`.
#[derive(Args, Debug)]
pub struct RouteArgs {
    /// `check`.
    #[command(subcommand)]
    pub verb: RouteVerb,
}

/// Verbs of `route`.
#[derive(Subcommand, Debug)]
pub enum RouteVerb {
    /// The rule, the shares and the endpoints of one request, and why.
    #[command(after_help = "Examples:
  meshctl route check --from pod/productpage-v1.shop --to http://reviews:9080/reviews/0
  meshctl route check --from pod/productpage-v1.shop --to http://reviews:9080/ -H 'end-user: jason' -o json
  meshctl route check -f samples/shop -f samples/shop-routing.yaml --from pod/productpage-v1.shop --to http://reviews:9080/

Exit code 2 if the request would get an error from the proxy (404, 503).")]
    Check(RouteCheck),
}

/// `route check`.
#[derive(Args, Debug)]
pub struct RouteCheck {
    /// Who calls: pod/NAME.NAMESPACE.
    #[arg(long)]
    pub from: String,
    /// The URL it calls; a short host name is in the caller's namespace.
    #[arg(long)]
    pub to: String,
    /// The method.
    #[arg(long, default_value = "GET")]
    pub method: String,
    /// A request header, `name: value`; may be repeated.
    #[arg(short = 'H', long = "header")]
    pub headers: Vec<String>,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub files: Files,
}

/// `authz`.
#[derive(Args, Debug)]
pub struct AuthzArgs {
    /// `check`.
    #[command(subcommand)]
    pub verb: AuthzVerb,
}

/// Verbs of `authz`.
#[derive(Subcommand, Debug)]
pub enum AuthzVerb {
    /// The verdict, the policy and rule that made it, and every rule that was tried.
    #[command(after_help = "Examples:
  meshctl authz check --from sa/productpage.shop --to pod/reviews-v1.shop --port 9080 --method GET --path /reviews/0
  meshctl authz check --from plaintext --to pod/reviews-v1.shop --port 9080
  meshctl authz check -f samples/shop -f samples/shop-authz.yaml --from sa/ratings.shop --to pod/reviews-v1.shop --port 9080 --path /

Without --path and --method the connection alone is judged, as on an opaque TCP port. Exit code 2 if denied.")]
    Check(AuthzCheck),
}

/// `authz check`.
#[derive(Args, Debug)]
pub struct AuthzCheck {
    /// Who calls: sa/NAME.NAMESPACE, pod/NAME.NAMESPACE, or `plaintext` (no identity).
    #[arg(long)]
    pub from: String,
    /// Who is called: pod/NAME.NAMESPACE.
    #[arg(long)]
    pub to: String,
    /// The pod's own port.
    #[arg(long)]
    pub port: u16,
    /// The caller's address; that of its pod if one is named.
    #[arg(long)]
    pub ip: Option<std::net::IpAddr>,
    /// The method of an HTTP request.
    #[arg(long)]
    pub method: Option<String>,
    /// The path of an HTTP request.
    #[arg(long)]
    pub path: Option<String>,
    /// The Host of an HTTP request.
    #[arg(long)]
    pub host: Option<String>,
    /// A request header, `name: value`; may be repeated.
    #[arg(short = 'H', long = "header")]
    pub headers: Vec<String>,
    /// Where the configuration comes from.
    #[command(flatten)]
    pub files: Files,
}

/// Offline configuration.
#[derive(Args, Debug)]
pub struct Files {
    /// Read the configuration from these YAML files or directories instead of the controller.
    #[arg(short = 'f', long = "filename")]
    pub files: Vec<PathBuf>,
}

/// Reads `500ms`, `30s`, `2m`, `1h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| format!("{text:?} is not a duration such as 30s"))?;
    let millis = match unit {
        "ms" => Some(number),
        "s" | "" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => return Err(format!("{unit:?} is not a unit of time: use ms, s, m or h")),
    };
    millis.map(Duration::from_millis).ok_or_else(|| format!("{text:?} is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_visible_verb_has_examples() {
        fn walk(command: &clap::Command) {
            for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
                if sub.has_subcommands() {
                    walk(sub);
                } else if sub.get_name() != "help" {
                    let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
                    assert!(help.contains("Examples:"), "{} has no examples", sub.get_name());
                }
            }
        }
        walk(&Cli::command());
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert!(duration("5 parsecs").is_err());
        assert!(duration("99999999999999999h").is_err());
        assert!(duration("").is_err());
    }
}
