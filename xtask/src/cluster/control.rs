//! The control plane: etcd, the API server, the controllers, the scheduler. They run in the machine's own network namespace.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::daemon::Daemon;
use super::kubectl::Kubectl;
use super::layout::{self, API_PORT, CONTROL, PODS, SERVICES};
use super::pki;
use crate::kube::Tools;
use crate::repo::Repo;
use crate::step;

/// Only this machine reaches it, and it does not keep the ports that etcd has by default from others.
const ETCD: &str = "http://127.0.0.1:23790";
const ETCD_PEERS: &str = "http://127.0.0.1:23800";
/// From start to ready is 3 s on two idle cores.
const PATIENCE: Duration = Duration::from_secs(60);

/// The components, in the order in which they are started.
pub fn daemons(repo: &Repo, tools: &Tools) -> [Daemon; 4] {
    let daemon = |program: &str| Daemon::new(repo, tools.bin(program), None);
    [
        daemon("etcd").flags([
            ("data-dir", text(&layout::data("etcd"))),
            ("listen-client-urls", ETCD.into()),
            ("advertise-client-urls", ETCD.into()),
            ("listen-peer-urls", ETCD_PEERS.into()),
            ("initial-advertise-peer-urls", ETCD_PEERS.into()),
            ("initial-cluster", format!("default={ETCD_PEERS}")),
            // What is lost with the machine's power is a test cluster.
            ("unsafe-no-fsync", "true".into()),
            ("log-level", "warn".into()),
        ]),
        daemon("kube-apiserver").flags(api_server()),
        daemon("kube-controller-manager").flags(controller_manager()),
        daemon("kube-scheduler").flags(
            [("bind-address", "127.0.0.1".to_owned()), ("leader-elect", "false".into())]
                .into_iter()
                .chain(kubeconfig_flags("scheduler")),
        ),
    ]
}

fn api_server() -> Vec<(&'static str, String)> {
    let mut flags = vec![
        ("etcd-servers", ETCD.to_owned()),
        ("bind-address", CONTROL.into()),
        ("advertise-address", CONTROL.into()),
        ("secure-port", API_PORT.to_string()),
        ("service-cluster-ip-range", SERVICES.into()),
        ("authorization-mode", "Node,RBAC".into()),
        ("enable-admission-plugins", "NodeRestriction".into()),
        ("allow-privileged", "true".into()),
        ("kubelet-preferred-address-types", "InternalIP".into()),
        ("service-account-issuer", format!("https://kubernetes.default.svc.{}", layout::DOMAIN)),
        ("profiling", "false".into()),
    ];
    let files = [
        ("client-ca-file", "ca.crt"),
        ("tls-cert-file", "apiserver.crt"),
        ("tls-private-key-file", "apiserver.key"),
        ("kubelet-certificate-authority", "ca.crt"),
        ("kubelet-client-certificate", "apiserver-kubelet.crt"),
        ("kubelet-client-key", "apiserver-kubelet.key"),
        ("service-account-key-file", "tokens.pub"),
        ("service-account-signing-key-file", "tokens.key"),
    ];
    flags.extend(files.map(|(flag, file)| (flag, text(&layout::pki().join(file)))));
    flags
}

fn controller_manager() -> Vec<(&'static str, String)> {
    let mut flags = vec![
        ("bind-address", "127.0.0.1".to_owned()),
        ("leader-elect", "false".into()),
        ("use-service-account-credentials", "true".into()),
        ("cluster-cidr", PODS.into()),
        // Which pods' addresses a node has is fixed in its CNI configuration.
        ("allocate-node-cidrs", "false".into()),
        // With the 50 s that it is otherwise, nodes are called NotReady when an API server that was away for a minute is back, until
        // they have answered, and every Service is empty for that time. Tests that take it away ask what the mesh does.
        ("node-monitor-grace-period", "3m".into()),
    ];
    let files = [
        ("root-ca-file", "ca.crt"),
        ("service-account-private-key-file", "tokens.key"),
        ("cluster-signing-cert-file", "ca.crt"),
        ("cluster-signing-key-file", "ca.key"),
    ];
    flags.extend(files.map(|(flag, file)| (flag, text(&layout::pki().join(file)))));
    flags.extend(kubeconfig_flags("controller-manager"));
    flags
}

/// The same kubeconfig says how to reach the API server and whom to ask about those who ask us.
fn kubeconfig_flags(user: &str) -> impl Iterator<Item = (&'static str, String)> + use<> {
    let file = text(&layout::run(&format!("{user}.kubeconfig")));
    ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
        .into_iter()
        .map(move |flag| (flag, file.clone()))
}

/// Starts what does not run and waits until the API server is ready.
pub fn ensure(repo: &Repo, tools: &Tools, kubectl: &Kubectl) -> Result<()> {
    write_kubeconfigs()?;
    let [etcd, api, controllers, scheduler] = daemons(repo, tools);
    etcd.ensure()?;
    api.ensure()?;
    step::wait("the API server", PATIENCE, || {
        etcd.keep()?;
        api.until(|| kubectl.output(&["get", "--raw=/readyz"]).map(drop))
    })?;
    controllers.ensure()?;
    scheduler.ensure()?;
    Ok(())
}

fn write_kubeconfigs() -> Result<()> {
    write_kubeconfig(&layout::kubeconfig(), &layout::pki(), "admin")?;
    for user in ["controller-manager", "scheduler"] {
        write_kubeconfig(&layout::run(&format!("{user}.kubeconfig")), &layout::pki(), user)?;
    }
    Ok(())
}

/// Writes a kubeconfig for `user`, whose certificate its reader finds in `pki`. It holds names of files, no secrets.
pub fn write_kubeconfig(path: &Path, pki: &Path, user: &str) -> Result<()> {
    let document = kubeconfig(pki, user);
    let json = serde_json::to_vec_pretty(&document).context("a kubeconfig cannot be written")?;
    fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
}

fn kubeconfig(pki: &Path, user: &str) -> serde_json::Value {
    let file = |name: String| text(&pki.join(name));
    serde_json::json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "tulle",
        "clusters": [{ "name": "tulle", "cluster": {
            "server": layout::api_url(),
            "certificate-authority": file(format!("{}.crt", pki::AUTHORITY)),
        }}],
        "users": [{ "name": user, "user": {
            "client-certificate": file(format!("{user}.crt")),
            "client-key": file(format!("{user}.key")),
        }}],
        "contexts": [{ "name": "tulle", "context": { "cluster": "tulle", "user": user } }],
    })
}

/// Every path here is ours and plain ASCII.
fn text(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_certificate_that_is_named_is_made() {
        let made: Vec<String> = pki::identities().into_iter().map(|identity| identity.file).collect();
        let known = |file: &str| {
            let (name, _) = file.rsplit_once('.').unwrap();
            [pki::AUTHORITY, pki::TOKENS].contains(&name) || made.iter().any(|file| file == name)
        };
        let pki = text(&layout::pki());
        let flags = [api_server(), controller_manager()].concat();
        let files: Vec<&str> =
            flags.iter().filter_map(|(_, value)| value.strip_prefix(&format!("{pki}/"))).collect();
        assert_eq!(files.len(), 12);
        assert!(files.iter().all(|file| known(file)), "{files:?}");
    }

    #[test]
    fn a_kubeconfig_names_the_files_of_its_user() {
        let config = kubeconfig(Path::new("/pki"), "admin");
        assert_eq!(config["users"][0]["user"]["client-key"], "/pki/admin.key");
        assert_eq!(config["clusters"][0]["cluster"]["server"], "https://172.31.0.1:6443");
    }
}
