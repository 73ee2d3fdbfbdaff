//! Builds each room once, in order, and owns start and stop.
//!
//! Order of start: descriptors, kernel hooks (adopted: what is captured waits for us), metrics and health, workers, certificates,
//! capture, the control stream last; so nothing arrives before who handles it. Order of a stop: no new connections, open ones may
//! end by themselves, then the rest. The kernel state stays (fail closed) unless `--detach-on-exit` says otherwise.

mod command;
mod log;
mod metrics;

use std::{
    ffi::OsString,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Parser;
use mesh_proto::v1::Connection;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::{
    admin::{self, Health, Heartbeat},
    bpf::{self, Claim, Hooks, HooksConfig},
    capture::{self, Announced, KubeletMissing},
    clock::Clock,
    cni,
    config::{Arguments, Command, Config},
    conns::ConnectionView,
    feed::{Controller, Feed, Link, Reporter},
    identity::{self, Certificates, RemoteSigner},
    inspect::{self, Inspected},
    phase::{self, Phase, PhaseControl, Stage},
    state::{self, State, Writer},
    sys,
    telemetry::Telemetry,
    worker::{self, Workers},
};

/// Threads of everything that is not bytes: stream, certificates, capture, inspection.
const CONTROL_THREADS: usize = 2;
/// How long the end waits for connections that are cut to be counted and logged.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Wrong arguments (sysexits.h).
const USAGE: u8 = 64;

/// What the data path is given: everything that is built once. Cheap to clone.
#[derive(Clone)]
pub struct Rooms {
    /// The process settings; `config.limits` bounds everything.
    pub config: Arc<Config>,
    /// The snapshot.
    pub state: State,
    /// Certificates of local workloads.
    pub certificates: Certificates,
    /// Metrics and access log.
    pub telemetry: Telemetry,
    /// The kernel side.
    pub hooks: Arc<Hooks>,
    /// Start and stop.
    pub phase: Phase,
    /// Where captured workloads are reported.
    pub reporter: Reporter,
    /// Pods that the CNI plugin handed over.
    pub announced: Announced,
    /// Whether nobody is known to be the kubelet.
    pub kubelet_missing: KubeletMissing,
    /// What is wrong with the CNI plugin's installation.
    pub cni_trouble: cni::Trouble,
}

/// The whole program: arguments of the process in, exit code out. Under the plugin's name it is the CNI plugin.
pub fn main() -> ExitCode {
    let is_plugin = |name: OsString| Path::new(&name).file_name().is_some_and(|name| name == cni::ENTRY_TYPE);
    if std::env::args_os().next().is_some_and(is_plugin) {
        return cni::plugin::main();
    }
    dispatch(std::env::args_os())
}

fn dispatch(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nobody is left to tell when even that cannot be printed.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    let done = match arguments.command {
        Some(Command::Check(check)) => command::check(&check),
        Some(Command::MountBpffs(mount)) => command::mount_bpffs(&mount),
        Some(Command::Detach(detach)) => command::detach(&detach),
        Some(Command::Cni) => return cni::plugin::main(),
        Some(Command::Run(run)) => run.into_config().map_err(Into::into).and_then(run_node),
        None => arguments.run.into_config().map_err(Into::into).and_then(run_node),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(io::stderr(), "mesh-node: {error:#}");
            let is_usage = error.downcast_ref::<crate::config::ConfigError>().is_some();
            if is_usage { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
        }
    }
}

/// Everything that runs until the process stops.
struct Running {
    config: Arc<Config>,
    state: State,
    telemetry: Telemetry,
    phase: PhaseControl,
    control: Runtime,
    /// Held to the end: no other agent of our name before.
    claim: Claim,
}

fn run_node(config: Config) -> anyhow::Result<ExitCode> {
    let _log = log::start(&config.log)?;
    let running = start(config)?;
    running.wait_and_stop()
}

fn start(config: Config) -> anyhow::Result<Running> {
    let config = Arc::new(config);
    let files = sys::raise_nofile().context("raising the limit of open files")?;
    if let Err(error) = sys::open_sysctls() {
        tracing::warn!(%error, "/proc/sys is read-only and stays so: pods cannot be captured");
    }
    let (claim, hooks) = open_hooks(&config)?;
    let control = Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()?;
    let _inside = control.enter();

    let (phase_control, phase) = phase::new();
    let (writer, state) = state::new();
    let telemetry = Telemetry::new(&config.limits, io::stdout()).context("starting the access log")?;
    let reporter = Reporter::new();
    let clock = Clock::system();
    let controller = Controller::new(
        config.controller.clone(),
        config.root_cert.clone(),
        config.token_file.clone(),
        config.limits.clone(),
    );
    let certificates = certificates(&config, &controller, &clock, &telemetry);
    let announced = Announced::default();
    let rooms = Rooms {
        config: config.clone(),
        state,
        certificates,
        telemetry,
        hooks,
        phase,
        reporter,
        announced,
        kubelet_missing: KubeletMissing::default(),
        cni_trouble: cni::Trouble::default(),
    };
    metrics::register(&rooms);

    let link = serve_health(&rooms)?;
    let workers = worker::start(&rooms).context("starting the workers")?;
    let inspection = bind_inspection(&control, &config)?;
    let inspect_address =
        inspect::address(inspection.as_ref().and_then(|listener| listener.local_addr().ok()));
    if let Some(listener) = inspection {
        let inspected = inspected(&rooms, &workers, clock);
        control.spawn(async move {
            if let Err(error) = inspect::run(listener, inspected).await {
                tracing::error!(%error, "the inspection API ended");
            }
        });
    }
    let telemetry = rooms.telemetry.clone();
    let (follower, followed) = (telemetry.clone(), rooms.state.clone());
    control.spawn(async move { follower.follow(&followed).await });
    control.spawn(capture::follow_kubelet(rooms.clone()));
    if let Some(paths) = &config.cni {
        cni::start(&rooms, &workers, paths).context("starting the CNI plugin's server")?;
    }
    control.spawn(capture::run(rooms.clone(), workers));
    spawn_feed(&control, &rooms, writer, controller, inspect_address, link);

    phase_control.advance(Stage::Serving);
    tracing::info!(
        node = %config.node,
        version = env!("CARGO_PKG_VERSION"),
        controller = %config.controller,
        admin = %config.admin_addr,
        open_files = files,
        "serving"
    );
    drop(_inside);
    Ok(Running { config, state: rooms.state, telemetry, phase: phase_control, control, claim })
}

fn open_hooks(config: &Config) -> anyhow::Result<(Claim, Arc<Hooks>)> {
    let hooks = HooksConfig {
        bpffs: config.bpffs.clone(),
        cgroup: config.cgroup.clone(),
        ..HooksConfig::new(config.instance.clone())
    };
    let claim = Claim::take(&hooks)?;
    Ok((claim, Arc::new(Hooks::open(&hooks).context("opening the kernel hooks")?)))
}

fn certificates(
    config: &Config,
    controller: &Controller,
    clock: &Clock,
    telemetry: &Telemetry,
) -> Certificates {
    Certificates::new(identity::Settings {
        signer: Arc::new(RemoteSigner::new(controller.clone())),
        clock: clock.clone(),
        limits: config.limits.clone(),
        issued: telemetry.counter("mesh_certificates_issued", "Certificates that came and were good"),
        failed: telemetry
            .counter("mesh_certificate_failures", "Requests for a certificate that brought none"),
    })
}

/// Health and metrics answer from the first moment on. Gives where the control stream's state is to be told.
fn serve_health(rooms: &Rooms) -> anyhow::Result<watch::Sender<Link>> {
    let link = watch::Sender::new(Link { connected: false, since: Instant::now(), last_error: None });
    let heartbeat = Heartbeat::new();
    tokio::spawn(heartbeat.clone().run());
    let health = Health {
        phase: rooms.phase.clone(),
        state: rooms.state.clone(),
        link: link.subscribe(),
        certificates: rooms.certificates.clone(),
        cni_trouble: rooms.cni_trouble.clone(),
        heartbeat,
    };
    let addr = rooms.config.admin_addr;
    admin::start(addr, rooms.telemetry.clone(), health, &rooms.config.limits)
        .with_context(|| format!("serving metrics and health at {addr}"))?;
    Ok(link)
}

fn bind_inspection(control: &Runtime, config: &Config) -> anyhow::Result<Option<TcpListener>> {
    let Some(addr) = config.inspect_addr else { return Ok(None) };
    let bound = control.block_on(TcpListener::bind(addr));
    Ok(Some(bound.with_context(|| format!("serving the inspection API at {addr}"))?))
}

fn inspected(rooms: &Rooms, workers: &Workers, clock: Clock) -> Inspected {
    let workers = workers.clone();
    Inspected {
        node: rooms.config.node.clone(),
        state: rooms.state.clone(),
        certificates: rooms.certificates.clone(),
        reporter: rooms.reporter.clone(),
        connections: Arc::new(move || {
            let workers = workers.clone();
            Box::pin(async move { workers.connections().await.iter().map(connection).collect() })
        }),
        clock,
        phase: rooms.phase.clone(),
        limits: rooms.config.limits.clone(),
    }
}

fn connection(view: &ConnectionView) -> Connection {
    let text = |value: Option<String>| value.unwrap_or_default();
    Connection {
        direction: match view.direction {
            crate::conns::Direction::Outbound => "outbound".to_owned(),
            crate::conns::Direction::Inbound => "inbound".to_owned(),
        },
        workload: view.workload.to_string(),
        peer_identity: text(view.peer.as_ref().map(ToString::to_string)),
        client: view.client.to_string(),
        destination: text(view.destination.map(|addr| addr.to_string())),
        protocol: view.protocol.to_owned(),
        age_ms: u64::try_from(view.age.as_millis()).unwrap_or(u64::MAX),
        bytes_sent: view.sent,
        bytes_received: view.received,
    }
}

fn spawn_feed(
    control: &Runtime,
    rooms: &Rooms,
    writer: Writer,
    controller: Controller,
    inspect_address: String,
    link: watch::Sender<Link>,
) {
    let feed = Feed {
        node: rooms.config.node.clone(),
        inspect_address,
        controller,
        writer,
        reporter: rooms.reporter.clone(),
        limits: rooms.config.limits.clone(),
    };
    let telemetry = rooms.telemetry.clone();
    control.spawn(async move { feed.run(&telemetry, link).await });
}

impl Running {
    /// Waits for SIGTERM or SIGINT, then stops in order; a second signal ends the process at once.
    fn wait_and_stop(self) -> anyhow::Result<ExitCode> {
        let Self { config, state, telemetry, phase, control, claim: _claim } = self;
        let code = control.block_on(async {
            let mut signals = Signals::listen()?;
            let name = signals.next().await;
            tracing::info!(signal = name, drain = ?config.limits.drain, "stopping");
            let stop = async {
                // A mesh that is being uninstalled leaves plaintext, not refusals.
                if config.detach_on_exit || state.snapshot().mesh().leaving {
                    detach(&config).await;
                }
                phase.advance(Stage::Draining);
                if !phase.drained(config.limits.drain).await {
                    tracing::warn!("connections were still open at the end of the drain; they are cut");
                }
            };
            let code = tokio::select! {
                () = stop => ExitCode::SUCCESS,
                second = signals.next() => {
                    tracing::warn!(signal = second, "a second signal: connections are cut");
                    ExitCode::from(130)
                }
            };
            phase.advance(Stage::Stopped);
            // Whoever is cut now still says so in the access log.
            phase.drained(LAST_WORDS).await;
            anyhow::Ok(code)
        })?;
        telemetry.flush(LAST_WORDS);
        control.shutdown_background();
        tracing::info!("stopped");
        Ok(code)
    }
}

/// Gives plaintext back before the drain: what is opened from now on does not meet us any more.
async fn detach(config: &Config) {
    let (bpffs, instance) = (config.bpffs.clone(), config.instance.clone());
    let detached = tokio::task::spawn_blocking(move || bpf::detach_all(&bpffs, Some(&instance))).await;
    match detached {
        Ok(Ok(detached)) => tracing::info!(links = detached.links, "the hooks are off the kernel"),
        Ok(Err(error)) => tracing::error!(%error, "the hooks could not be taken off; run `mesh-node detach`"),
        Err(error) => tracing::error!(%error, "taking the hooks off"),
    }
}

/// The signals that ask for a stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
