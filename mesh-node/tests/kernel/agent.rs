//! An agent without a controller: real hooks, workers, reconciler, CNI server and keeper; the test writes the snapshot.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use mesh_model::identity::{Identity, TrustDomain};
use mesh_model::mesh::MeshSettings;
use mesh_model::name::WorkloadUid;
use mesh_model::resource::Resource;
use mesh_model::workload::{Enrolment, Workload};
use mesh_node::app::Rooms;
use mesh_node::capture::{self, Announced, LocalPod};
use mesh_node::clock::Clock;
use mesh_node::cni;
use mesh_node::cni::plugin::{self, Answer, Environment};
use mesh_node::config::Arguments;
use mesh_node::feed::{Controller, Reporter};
use mesh_node::identity::{Certificates, RemoteSigner, Settings};
use mesh_node::phase::{self, PhaseControl, Stage};
use mesh_node::state::{self, Writer};
use mesh_node::telemetry::Telemetry;
use mesh_node::worker::{self, Workers};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::world::{Pod, World};

pub const NODE: &str = "n1";

/// The agent of a world.
pub struct Agent {
    pub folder: TempDir,
    pub rooms: Rooms,
    runtime: Runtime,
    writer: Writer,
    workers: Workers,
    phase: PhaseControl,
}

impl Agent {
    pub fn start(world: &World) -> Agent {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let arguments = [
            ["--node-name", NODE],
            ["--controller", "https://127.0.0.1:1"],
            ["--root-cert", "/dev/null"],
            ["--token-file", "/dev/null"],
            ["--own-namespace", "tulle-system"],
            ["--workers", "1"],
            ["--cni-conf-dir", &at("net.d")],
            ["--cni-bin-dir", &at("bin")],
            ["--run-dir", &at("run")],
            ["--state-dir", &at("state")],
            ["--limit", "cni_unknown_wait=500ms,cni_certificate_wait=100ms,cni_capture_wait=5s"],
        ];
        std::fs::create_dir(at("net.d")).unwrap();
        let arguments =
            Arguments::parse_from(["mesh-node"].into_iter().chain(arguments.into_iter().flatten()));
        let config = Arc::new(arguments.run.into_config().unwrap());
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let inside = runtime.enter();
        let (control, phase) = phase::new();
        let (writer, state) = state::new();
        let telemetry = Telemetry::new(&config.limits, std::io::sink()).unwrap();
        let controller = Controller::new(
            config.controller.clone(),
            config.root_cert.clone(),
            config.token_file.clone(),
            config.limits.clone(),
        );
        let certificates = Certificates::new(Settings {
            signer: Arc::new(RemoteSigner::new(controller)),
            clock: Clock::system(),
            limits: config.limits.clone(),
            issued: telemetry.counter("issued", ""),
            failed: telemetry.counter("failed", ""),
        });
        let rooms = Rooms {
            config: config.clone(),
            state,
            certificates,
            telemetry,
            hooks: Arc::new(world.hooks()),
            phase,
            reporter: Reporter::new(),
            announced: Announced::default(),
            kubelet_missing: capture::KubeletMissing::default(),
            cni_trouble: cni::Trouble::default(),
        };
        let workers = worker::start(&rooms).unwrap();
        cni::start(&rooms, &workers, config.cni.as_ref().unwrap()).unwrap();
        runtime.spawn(capture::run(rooms.clone(), workers.clone()));
        control.advance(Stage::Serving);
        drop(inside);
        Agent { folder, rooms, runtime, writer, workers, phase: control }
    }

    /// The controller says: these namespaces are enrolled, these pods are there.
    pub fn told(&self, settings: MeshSettings, workloads: Vec<Workload>) {
        let resources = workloads.into_iter().map(Resource::Workload);
        let resources = resources.chain([Resource::Mesh(settings)]).collect();
        let before = self.rooms.state.snapshot();
        let gone: Vec<_> = before.workloads().map(|it| Resource::Workload((**it).clone()).key()).collect();
        self.writer.publish(before.next(Vec::new(), &gone).next(resources, &[]), true);
    }

    /// The pod as the data path sees it.
    pub fn captured(&self, uid: &str) -> Option<Arc<LocalPod>> {
        self.workers.pods().find(&uid.into())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The container runtime calls the plugin for this pod, in its own sandbox.
    pub fn plugin(&self, command: &str, namespace: &str, uid: &str, pod: &Pod) -> Answer {
        self.plugin_in(command, namespace, uid, &format!("/run/netns/{}", pod.net.uid), pod)
    }

    /// The same with a given path of the network namespace, which also names the sandbox.
    pub fn plugin_in(&self, command: &str, namespace: &str, uid: &str, netns: &str, pod: &Pod) -> Answer {
        let environment = Environment {
            command: command.into(),
            container_id: format!("sandbox-{netns}"),
            netns: Some(netns.into()),
            args: format!("K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=p;K8S_POD_UID={uid}"),
        };
        plugin::run(&environment, self.configuration(pod).as_bytes())
    }

    pub fn configuration(&self, pod: &Pod) -> String {
        format!(
            r#"{{"cniVersion": "1.0.0", "name": "n", "type": "tulle-cni", "ownNamespace": "tulle-system",
                "socket": {:?}, "state": {:?}, "prevResult": {}}}"#,
            self.path("run/cni.sock"),
            self.path("state/enrolment.json"),
            previous_result(pod)
        )
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.phase.advance(Stage::Draining);
        self.runtime.block_on(self.phase.drained(Duration::from_secs(5)));
        self.phase.advance(Stage::Stopped);
    }
}

/// What the plugins before ours say of a pod.
pub fn previous_result(pod: &Pod) -> String {
    format!(
        r#"{{"cniVersion": "1.0.0", "ips": [{{"address": "{}/24"}}, {{"address": "{}/64"}}], "mtu": 1500.0}}"#,
        pod.ip4, pod.ip6
    )
}

/// A pod of namespace `shop` as the controller first tells of it: without addresses.
pub fn workload(uid: &str, enrolment: Enrolment) -> Workload {
    Workload {
        uid: WorkloadUid::from(uid),
        name: "p".into(),
        namespace: "shop".into(),
        identity: Identity {
            trust_domain: TrustDomain::default(),
            namespace: "shop".into(),
            service_account: "p".into(),
        },
        node: NODE.into(),
        ips: Vec::new(),
        contested_ips: Vec::new(),
        labels: Default::default(),
        telemetry: Default::default(),
        tunnel: Default::default(),
        enrolment,
        endpoints: Vec::new(),
        protocols: Default::default(),
        mtls: Default::default(),
        policies: Vec::new(),
        exclusions: Default::default(),
        probe_ports: Vec::new(),
        netns: None,
    }
}

/// Settings that enrol namespace `shop`.
pub fn shop() -> MeshSettings {
    MeshSettings { enrolled_namespaces: ["shop".into()].into(), ..MeshSettings::default() }
}
