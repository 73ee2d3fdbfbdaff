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
  meshctl --state /run/tulle/state status
  meshctl config workloads --node node-1
  meshctl route check --from pod/productpage.shop --to http://reviews:9080/ -H 'end-user: jason'
  meshctl authz check --from sa/productpage.shop --to pod/reviews-v1.shop --port 9080 --path /reviews

Exit codes: 0 good, 1 error, 2 the answer is negative, 64 usage, 65 bad input, 69 unreachable,
77 forbidden, 124 time-out, 130 interrupted."
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
    /// The controller's address.
    #[arg(long, global = true, env = "TULLE_CONTROLLER", default_value = "https://127.0.0.1:15012")]
    pub controller: String,
    /// The controller's state directory: takes root.crt and admin.token from there.
    #[arg(long, global = true, env = "TULLE_STATE")]
    pub state: Option<PathBuf>,
    /// The mesh's root certificate (PEM).
    #[arg(long, global = true, env = "TULLE_ROOT_CERT")]
    pub root_cert: Option<PathBuf>,
    /// A file with the token that the controller accepts.
    #[arg(long, global = true, env = "TULLE_TOKEN_FILE")]
    pub token_file: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Give up after this long, e.g. 500ms, 30s, 2m.
    #[arg(long, global = true, value_parser = duration, default_value = "30s")]
    pub timeout: Duration,
}

/// The verbs.
#[derive(Subcommand, Debug)]
pub enum Command {
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
    /// HTTP routes (VirtualService).
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
