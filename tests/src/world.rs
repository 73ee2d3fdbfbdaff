//! A world: nodes, pods, services, configuration, and the mesh that runs them.

mod host;
mod leftover;
mod manifest;
mod mesh;
mod pod;
mod service;
mod state;
mod topology;

use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub use self::host::HostProcess;
pub use self::leftover::traces;
pub use self::mesh::{ControlLink, Mesh, Settled, bearer};
pub use self::pod::{Pod, PodBuilder};
pub use self::service::{Host, ServiceBuilder};
use self::state::State;
use crate::check::eventually;
use crate::ending::leave_to_the_signal;
use crate::packets::Capture;
use crate::repo;

/// Set to `skip` by a person, a world that cannot run here is skipped, loudly.
const SKIP_VARIABLE: &str = "MESH_WORLD";

/// What a world is to be.
#[derive(Debug, Clone)]
pub struct Builder {
    name: String,
    nodes: u8,
    mesh: Option<Mesh>,
    bridges: bool,
}

impl Builder {
    /// How many nodes, from 1 to 9; 2 unless told.
    pub fn nodes(mut self, nodes: u8) -> Self {
        self.nodes = nodes.clamp(1, 9);
        self
    }

    /// No controller and no agents: plain networking.
    pub fn without_mesh(mut self) -> Self {
        self.mesh = None;
        self
    }

    /// Settings of the mesh's processes.
    pub fn mesh(mut self, mesh: Mesh) -> Self {
        self.mesh = Some(mesh);
        self
    }

    /// The pods of a node share a bridge, instead of each having a routed link of its own.
    pub fn bridge(mut self) -> Self {
        self.bridges = true;
        self
    }

    /// Starts it. Fails, saying why, where it cannot run.
    pub fn start(self) -> Result<World> {
        if !nix::unistd::geteuid().is_root() {
            bail!("a world needs root: it makes network namespaces and loads eBPF programs");
        }
        leftover::remove();
        let state = State::create(&self.name, self.bridges)?;
        let world = World { state };
        topology::build(&world.state, self.nodes)?;
        for number in 1..=self.nodes {
            world.state.write_config(&format!("node-{number}"), &manifest::node(number))?;
        }
        if let Some(mesh) = self.mesh {
            mesh.start(&world.state)?;
        }
        Ok(world)
    }

    /// Starts it, runs `story` in it, and removes it. Fails the calling test, with the ends of all logs, when the world
    /// cannot start, the story returns an error or panics.
    pub fn run(self, story: impl FnOnce(&World) -> Result<()>) {
        let name = self.name.clone();
        let world = match self.start() {
            Ok(world) => world,
            Err(error) if may_skip() => {
                // Written past the capture of libtest, which hides what a test prints that did not fail.
                let line =
                    format!("\n*** SKIPPED, NOT PASSED: world {name} cannot run here: {error:#} ***\n");
                let _ = writeln!(std::io::stderr(), "{line}");
                return;
            }
            Err(error) => panic!("world {name} cannot start (MESH_WORLD=skip skips it): {error:?}"),
        };
        let told = catch_unwind(AssertUnwindSafe(|| story(&world)));
        if !matches!(told, Ok(Ok(()))) {
            eprintln!("{}", world.state.logs(60));
            match world.state.keep_logs() {
                Ok(folder) => eprintln!("all of the logs: {}", folder.display()),
                Err(error) => eprintln!("the logs could not be kept: {error:#}"),
            }
            if std::env::var_os("MESH_WORLD_KEEP").is_some() {
                eprintln!("world {} is kept: end it with Ctrl-C", world.state.name());
                std::thread::sleep(Duration::from_secs(3600));
            }
        }
        drop(world);
        match told {
            Ok(Ok(())) => {}
            Ok(Err(error)) => panic!("world {name}: {error:?}"),
            Err(panic) => resume_unwind(panic),
        }
    }
}

/// Whether a person allowed worlds to be skipped, and this machine (rather than the mesh) is the reason for it.
fn may_skip() -> bool {
    let allowed = std::env::var(SKIP_VARIABLE).is_ok_and(|value| value == "skip");
    allowed && (!nix::unistd::geteuid().is_root() || !kernel_is_able())
}

/// What the agent itself says of this kernel.
fn kernel_is_able() -> bool {
    let check = repo::binary("mesh-node").map(|node| Command::new(node).arg("check").output());
    matches!(check, Ok(Ok(output)) if output.status.success())
}

/// A running world; dropping it removes everything it made.
#[derive(Debug)]
pub struct World {
    state: Arc<State>,
}

impl World {
    /// A world of this name (letters, digits and `-`); what it is called on the machine is unique to this run.
    #[expect(clippy::new_ret_no_self, reason = "the name a reader expects at the start of a story")]
    pub fn new(name: &str) -> Builder {
        Builder { name: name.to_owned(), nodes: 2, mesh: Some(Mesh::default()), bridges: false }
    }

    /// Its name on this machine, `tl-<name>-…` in namespaces and pins.
    pub fn name(&self) -> &str {
        self.state.name()
    }

    /// Where the controller reads its objects.
    pub fn config_folder(&self) -> PathBuf {
        self.state.config()
    }

    /// The folder of the world: `config`, `state` (the controller's), `logs`, `pids`.
    pub fn folder(&self) -> PathBuf {
        self.state.folder().to_path_buf()
    }

    /// A new pod, in namespace `shop` on node 1 unless told.
    pub fn pod(&self, name: &str) -> PodBuilder {
        PodBuilder::new(self.state.clone(), name)
    }

    /// A pod that was spawned under this name and has not been removed.
    pub fn find(&self, name: &str) -> Option<Pod> {
        self.state.owned().pods.get(name).cloned()
    }

    /// A new service `name.shop`; it selects pods with the label `app: name` unless told.
    pub fn service(&self, name: &str) -> ServiceBuilder {
        ServiceBuilder::new(self.state.clone(), name)
    }

    /// A name that clients and applications started from now on resolve to these addresses, tried in this order.
    pub fn name_host(&self, name: &str, addresses: Vec<std::net::IpAddr>) {
        let host = Host { name: name.to_owned(), addresses };
        self.state.owned().hosts.insert(host.name.clone(), host);
    }

    /// Puts a namespace into the mesh, or takes it out, by its label. Namespaces are in the mesh unless told.
    pub fn enrol(&self, namespace: &str, enrolled: bool) -> Result<()> {
        self.state.set_namespace(namespace, enrolled)
    }

    /// Writes the objects of a YAML text, each into a file of its own: applying an object again replaces it.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        for document in manifest::documents(yaml)? {
            self.state.write_config(&manifest::file_of(&document)?, &serde_yaml_ng::to_string(&document)?)?;
        }
        Ok(())
    }

    /// Writes a file of the configuration as it is, good or bad.
    pub fn write_file(&self, name: &str, text: &str) -> Result<()> {
        self.state.write_config(name, text)
    }

    /// Removes an object that `apply` wrote.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<()> {
        self.state.remove_config(&manifest::file_name(kind, namespace, name))
    }

    /// Waits until every node has acknowledged the present configuration and every enrolment is done.
    pub fn settle(&self) -> Result<Settled> {
        mesh::settle(&self.state)
    }

    /// The mesh's own certificate authority: certificate and key, PEM. For tests that play the attacker who has it.
    pub fn authority(&self) -> Result<(String, String)> {
        let read =
            |file: &str| fs::read_to_string(self.state.folder().join("state").join(file)).context("no CA");
        Ok((read("ca.crt")?, read("ca.key")?))
    }

    /// Captures what passes between the nodes.
    pub fn capture(&self) -> Result<Capture> {
        Capture::start(&self.state.netns_path("fabric"))
    }

    /// The netns file of `fabric`, `node-1`, or a pod.
    pub fn netns(&self, name: &str) -> PathBuf {
        self.state.netns_path(name)
    }

    /// The address of a node in the fabric.
    pub fn node_address(number: u8) -> std::net::Ipv4Addr {
        topology::node_address(number)
    }

    /// The last lines of all logs.
    pub fn logs(&self, lines: usize) -> String {
        self.state.logs(lines)
    }

    /// Waits for a line of a log that is `wanted`: logs are written behind the data path, never before its answer.
    pub fn await_line(&self, name: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        eventually("a line of the log", Duration::from_secs(5), || {
            self.log(name).lines().rev().find(|line| wanted(line)).map(str::to_owned)
        })
        .with_context(|| self.log(name))
    }

    /// Copies all logs to where they outlive the world, and says where.
    pub fn keep_logs(&self) -> Result<PathBuf> {
        self.state.keep_logs()
    }

    /// Everything that a log (`node-1`, `controller`, or a pod's name) says so far.
    pub fn log(&self, name: &str) -> String {
        let bytes = fs::read(self.state.log_file(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        leave_to_the_signal();
        self.state.teardown();
    }
}
