//! What runs in a pod of a test: the echo application, or any part of `mesh-app`, as a Deployment with its own service account.

use serde_json::{Value, json};

/// The image of `mesh-app`.
const IMAGE: &str = "docker.io/tulle/mesh-app:0.1.0";

/// How the kubelet looks whether the application lives.
#[derive(Clone, Debug)]
pub enum Probe {
    /// GET of a path.
    Http(u16),
    /// A connection.
    Tcp(u16),
    /// grpc.health.v1.
    Grpc(u16),
    /// A command in the container.
    Exec(Vec<String>),
}

/// A Deployment of one container, its ServiceAccount and its Service.
#[derive(Clone, Debug)]
pub struct App {
    pub(super) name: String,
    node: Option<u8>,
    labels: Value,
    environment: Vec<(String, String)>,
    readiness: Option<Probe>,
    liveness: Option<Probe>,
    init: Option<Vec<String>>,
}

impl App {
    /// The echo application: HTTP on 80, TCP on 9000 to 9004.
    pub fn echo(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            node: None,
            labels: json!({ "app": name, "version": "v1" }),
            environment: Vec::new(),
            readiness: None,
            liveness: None,
            init: None,
        }
    }

    /// Its node, 1 or 2; the scheduler's choice unless told.
    pub fn node(mut self, number: u8) -> Self {
        self.node = Some(number);
        self
    }

    /// A label of its pods.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels[name] = json!(value);
        self
    }

    /// Something for its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// How the kubelet learns that it takes calls.
    pub fn readiness(mut self, probe: Probe) -> Self {
        self.readiness = Some(probe);
        self
    }

    /// How the kubelet learns that it lives; it is restarted if it does not.
    pub fn liveness(mut self, probe: Probe) -> Self {
        self.liveness = Some(probe);
        self
    }

    /// `mesh-app` with these arguments, before the application starts; it must succeed.
    pub fn init(mut self, arguments: &[&str]) -> Self {
        self.init = Some(arguments.iter().map(|argument| (*argument).to_owned()).collect());
        self
    }

    /// The objects, as YAML (JSON is YAML) documents of a List.
    pub(super) fn manifest(&self, namespace: &str) -> String {
        let metadata = json!({ "name": self.name, "namespace": namespace });
        let ports = [("http", 80), ("tcp-echo", 9000), ("tcp-banner", 9001), ("tcp-sum", 9002)];
        let service_ports: Vec<Value> =
            ports.iter().map(|(name, port)| json!({ "name": name, "port": port })).collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": [
            { "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata },
            { "apiVersion": "v1", "kind": "Service", "metadata": metadata,
              "spec": { "selector": { "app": self.labels["app"] }, "ports": service_ports } },
            { "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
              "spec": { "replicas": 1, "selector": { "matchLabels": { "app": self.labels["app"], "version": self.labels["version"] } },
                        "template": { "metadata": { "labels": self.labels }, "spec": self.pod() } } },
        ] });
        list.to_string()
    }

    fn pod(&self) -> Value {
        let mut environment = vec![
            json!({ "name": "POD_NAME", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } }),
            json!({ "name": "NODE_NAME", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } }),
        ];
        environment
            .extend(self.environment.iter().map(|(name, value)| json!({ "name": name, "value": value })));
        let container = |name: &str, arguments: Value| json!({ "name": name, "image": IMAGE, "imagePullPolicy": "Never", "args": arguments, "env": environment });
        let mut app = container("app", json!(["serve"]));
        if let Some(probe) = &self.readiness {
            app["readinessProbe"] = probe.manifest();
        }
        if let Some(probe) = &self.liveness {
            app["livenessProbe"] = probe.manifest();
        }
        let init: Vec<Value> =
            self.init.iter().map(|arguments| container("init", json!(arguments))).collect();
        let node =
            self.node.map(|number| json!({ "kubernetes.io/hostname": super::NodeName::of(number).as_str() }));
        json!({
            "serviceAccountName": self.name,
            "terminationGracePeriodSeconds": 1,
            "nodeSelector": node,
            "initContainers": init,
            "containers": [app],
        })
    }
}

impl Probe {
    fn manifest(&self) -> Value {
        let mut probe = match self {
            Self::Http(port) => json!({ "httpGet": { "path": "/healthz", "port": port } }),
            Self::Tcp(port) => json!({ "tcpSocket": { "port": port } }),
            Self::Grpc(port) => json!({ "grpc": { "port": port } }),
            Self::Exec(command) => json!({ "exec": { "command": command } }),
        };
        for (name, value) in [("periodSeconds", 1), ("timeoutSeconds", 2), ("failureThreshold", 3)] {
            probe[name] = json!(value);
        }
        probe
    }
}
