//! What the runtime tells the plugin: `CNI_*` variables and the configuration.

use std::{fmt, net::IpAddr, path::PathBuf};

use ipnet::IpNet;
use serde::Deserialize;

use super::result::{Failure, SUPPORTED, code};
use crate::cni::json;

/// The variables of a call.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Environment {
    /// `CNI_COMMAND`.
    pub command: String,
    /// `CNI_CONTAINERID`: the sandbox.
    pub container_id: String,
    /// `CNI_NETNS`: where its network namespace is; may be missing at DEL.
    pub netns: Option<String>,
    /// `CNI_ARGS`: `KEY=VALUE;…`, where the kubelet's runtime names the pod.
    pub args: String,
}

impl Environment {
    /// The variables of this process.
    pub fn of_process() -> Self {
        let read = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            command: read("CNI_COMMAND").unwrap_or_default(),
            container_id: read("CNI_CONTAINERID").unwrap_or_default(),
            netns: read("CNI_NETNS"),
            args: read("CNI_ARGS").unwrap_or_default(),
        }
    }

    fn argument(&self, name: &str) -> Option<&str> {
        let pairs = self.args.split(';').filter_map(|pair| pair.split_once('='));
        pairs.filter(|(key, value)| *key == name && !value.is_empty()).map(|(_, value)| value).next_back()
    }
}

/// The pod that a sandbox is for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pod {
    /// Its UID, if the runtime tells it.
    pub uid: Option<String>,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Pod {
    /// The pod of this call; `None`: it is not Kubernetes that calls.
    pub fn of(environment: &Environment) -> Result<Option<Self>, Failure> {
        let argument = |name| environment.argument(name).map(str::to_owned);
        let uid = argument("K8S_POD_UID");
        match (argument("K8S_POD_NAMESPACE"), argument("K8S_POD_NAME")) {
            (Some(namespace), name) => Ok(Some(Self { uid, namespace, name: name.unwrap_or_default() })),
            (None, None) if uid.is_none() => Ok(None),
            _ => Err(Failure::new(code::ENVIRONMENT, "CNI_ARGS names a pod without K8S_POD_NAMESPACE")),
        }
    }
}

impl fmt::Display for Pod {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.namespace, self.name)
    }
}

/// Our entry of the list, as the runtime passes it on.
#[derive(Debug)]
pub struct Configuration {
    /// Where the agent listens.
    pub socket: PathBuf,
    /// The file of enrolled namespaces.
    pub state: PathBuf,
    /// The namespace in which the mesh itself runs.
    pub own_namespace: Option<String>,
    previous: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    socket: PathBuf,
    state: PathBuf,
    #[serde(default)]
    own_namespace: Option<String>,
}

/// As much of a result as we need.
#[derive(Deserialize)]
struct Previous {
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(default)]
    ips: Vec<Address>,
}

#[derive(Deserialize)]
struct Interface {
    #[serde(default)]
    sandbox: String,
}

#[derive(Deserialize)]
struct Address {
    address: IpNet,
    interface: Option<usize>,
}

impl Configuration {
    /// Reads the configuration that the runtime wrote to the input.
    pub fn read(text: &str) -> Result<Self, Failure> {
        let wrong =
            |error: &dyn fmt::Display| Failure::new(code::DECODE, format!("the configuration: {error}"));
        let written: Written = serde_json::from_str(text).map_err(|error| wrong(&error))?;
        let version = version_of(text);
        if !SUPPORTED.contains(&version.as_str()) {
            let message = format!("CNI version {version:?} is not one of {}", SUPPORTED.join(", "));
            return Err(Failure::new(code::VERSION, message));
        }
        let previous = json::member(text, "prevResult").map_err(|error| wrong(&error))?;
        let previous = previous.map(|at| text[at].to_owned()).filter(|text| text != "null");
        let Written { socket, state, own_namespace } = written;
        Ok(Self { socket, state, own_namespace, previous })
    }

    /// The result of the plugins before, as it was written.
    pub fn previous_result(&self) -> Result<&str, Failure> {
        self.previous.as_deref().ok_or_else(|| {
            let message =
                "there is no prevResult: tulle-cni is chained after the plugin that makes the network";
            Failure::new(code::CONFIGURATION, message)
        })
    }

    /// The pod's own addresses in it.
    pub fn addresses(&self) -> Result<Vec<IpAddr>, Failure> {
        let previous: Previous = serde_json::from_str(self.previous_result()?)
            .map_err(|error| Failure::new(code::DECODE, format!("prevResult: {error}")))?;
        let is_inside = |address: &Address| {
            let interface = address.interface.and_then(|index| previous.interfaces.get(index));
            interface.is_none_or(|interface| !interface.sandbox.is_empty())
        };
        let inside = previous.ips.iter().filter(|address| is_inside(address));
        Ok(inside.map(|address| address.address.addr().to_canonical()).collect())
    }
}

/// The version that the configuration asks for, for the answer's form; the oldest if it does not say.
pub fn version_of(text: &str) -> String {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Versioned {
        cni_version: String,
    }
    serde_json::from_str(text).map_or_else(|_| "0.3.1".to_owned(), |Versioned { cni_version }| cni_version)
}
