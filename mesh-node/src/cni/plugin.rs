//! The plugin `tulle-cni`: what the container runtime runs for each pod, in the form that the CNI specification (0.3.1 to 1.1.0) asks.
//!
//! Invariants: it passes the result of the plugins before through unchanged; it ends within [`REACH`] if the agent is away, and within `REACH` +
//! [`ANSWER`] always; DEL always succeeds (what the agent still holds it finds out by itself). Standard output holds the result
//! and nothing else; what people may read goes to standard error.

mod input;
mod result;

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::AsFd,
    path::Path,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use mesh_model::name::Namespace;

pub use input::Environment;
use input::{Configuration, Pod};
use result::{Failure, code};

use super::{
    Judgement, Standing,
    message::{Order, REPLY_BYTES, REQUEST_BYTES, Reply, Request},
};
use crate::sys;

/// How long an agent that does not answer is tried to be reached.
pub const REACH: Duration = Duration::from_secs(5);

/// How long an agent that was reached may take; more than its own limits for everything that it waits for.
pub const ANSWER: Duration = Duration::from_secs(30);

/// The same for a deletion, which must not hold up the runtime.
const REACH_DELETING: Duration = Duration::from_millis(500);

/// Between two attempts to reach the agent.
const PAUSE: Duration = Duration::from_millis(50);

/// The largest configuration, in bytes: a result of many plugins is some KiB.
const INPUT_BYTES: u64 = 1 << 20;

/// What the runtime is answered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// For standard output.
    pub output: String,
    /// Whether the operation succeeded.
    pub is_success: bool,
}

/// The whole plugin: environment and standard input of the process in, standard output and exit code out.
pub fn main() -> ExitCode {
    let answer = run(&Environment::of_process(), io::stdin().lock());
    let mut out = io::stdout().lock();
    let written = out.write_all(answer.output.as_bytes()).and_then(|()| out.flush());
    if written.is_ok() && answer.is_success { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// One call of the plugin.
pub fn run(environment: &Environment, input: impl Read) -> Answer {
    let mut text = String::new();
    let read = input.take(INPUT_BYTES).read_to_string(&mut text);
    let done = read.map_err(|error| Failure::new(code::IO, format!("reading the configuration: {error}")));
    match done.and_then(|_| execute(environment, &text)) {
        Ok(output) => Answer { output, is_success: true },
        Err(failure) => {
            note(&failure.message);
            Answer { output: failure.to_json(&input::version_of(&text)), is_success: false }
        }
    }
}

fn execute(environment: &Environment, text: &str) -> Result<String, Failure> {
    match environment.command.as_str() {
        "VERSION" => Ok(result::versions(&input::version_of(text))),
        "ADD" => add(environment, &Configuration::read(text)?),
        "DEL" => del(environment, &Configuration::read(text)?),
        "CHECK" => check(environment, &Configuration::read(text)?),
        // A node whose agent is away must stay a node: pods that are not in the mesh start there. And the agent finds out
        // by itself which pods are gone.
        "STATUS" | "GC" => Ok(String::new()),
        other => Err(Failure::new(code::ENVIRONMENT, format!("CNI_COMMAND {other:?} is not known"))),
    }
}

/// Returns when the pod's traffic is captured, or when it is none of the mesh's business.
fn add(environment: &Environment, configuration: &Configuration) -> Result<String, Failure> {
    let result = configuration.previous_result()?.to_owned();
    if let Some(pod) = Pod::of(environment)? {
        let ips = configuration.addresses()?;
        let request = request(Order::Add, &pod, environment, ips);
        must_be_captured(environment, configuration, &pod, &request)?;
    }
    Ok(result)
}

/// The same question without doing anything.
fn check(environment: &Environment, configuration: &Configuration) -> Result<String, Failure> {
    if let Some(pod) = Pod::of(environment)? {
        let request = request(Order::Check, &pod, environment, configuration.addresses()?);
        must_be_captured(environment, configuration, &pod, &request)?;
    }
    Ok(String::new())
}

/// Tells the agent; whatever happens, the pod is deleted.
fn del(environment: &Environment, configuration: &Configuration) -> Result<String, Failure> {
    if let Ok(Some(pod)) = Pod::of(environment) {
        let request = request(Order::Del, &pod, environment, Vec::new());
        let netns = environment.netns.as_deref().and_then(|path| File::open(path).ok());
        if let Err(error) = ask(&configuration.socket, &request, netns.as_ref(), REACH_DELETING) {
            note(&format!("pod {pod}: the deletion is not heard: {error}"));
        }
    }
    Ok(String::new())
}

fn request(order: Order, pod: &Pod, environment: &Environment, ips: Vec<std::net::IpAddr>) -> Request {
    Request {
        order,
        uid: pod.uid.clone().unwrap_or_default(),
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        sandbox: environment.container_id.clone(),
        ips,
    }
}

/// Asks the agent and, where that does not answer, the file of enrolled namespaces.
fn must_be_captured(
    environment: &Environment,
    configuration: &Configuration,
    pod: &Pod,
    request: &Request,
) -> Result<(), Failure> {
    if judge(configuration, pod) == Judgement::Exempt {
        return Ok(());
    }
    let reason = if pod.uid.is_none() {
        "the container runtime does not say its UID (K8S_POD_UID in CNI_ARGS)".to_owned()
    } else {
        let path = environment.netns.as_deref().unwrap_or_default();
        let netns = File::open(path).map_err(|error| {
            Failure::new(code::ENVIRONMENT, format!("CNI_NETNS {path:?} cannot be opened: {error}"))
        })?;
        match ask(&configuration.socket, request, Some(&netns), REACH) {
            Ok(Reply::Captured | Reply::NotEnrolled | Reply::Done) => return Ok(()),
            Ok(Reply::Refused(reason)) => return Err(refused(pod, &reason)),
            Err(error) => format!("mesh-node on this node does not answer: {error}"),
        }
    };
    match judge(configuration, pod) {
        Judgement::Exempt => Ok(()),
        Judgement::Other => {
            note(&format!("pod {pod} starts uncaptured: {reason}"));
            Ok(())
        }
        Judgement::Enrolled => Err(refused(pod, &reason)),
    }
}

fn refused(pod: &Pod, reason: &str) -> Failure {
    Failure::new(code::NOT_CAPTURED, format!("tulle: pod {pod} is in the mesh and is not captured: {reason}"))
}

fn judge(configuration: &Configuration, pod: &Pod) -> Judgement {
    let standing = Standing::read(&configuration.state).unwrap_or_else(|error| {
        note(&format!("{}: {error}: every namespace counts as enrolled", configuration.state.display()));
        Standing::unknown()
    });
    let own = configuration.own_namespace.as_deref().map(Namespace::from);
    standing.judge(own.as_ref(), &Namespace::from(pod.namespace.as_str()))
}

/// One request to the agent. For at most `reach` it is tried again where nobody listens or the agent goes away in between.
fn ask(socket: &Path, request: &Request, netns: Option<&File>, reach: Duration) -> io::Result<Reply> {
    let bytes = serde_json::to_vec(request)?;
    if bytes.len() > REQUEST_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the request is too long"));
    }
    let until = Instant::now() + reach;
    loop {
        let error = match ask_once(socket, &bytes, netns) {
            Err(error) if is_away(&error) => error,
            done => return done,
        };
        if Instant::now() + PAUSE > until {
            return Err(io::Error::new(error.kind(), format!("{}: {error}", socket.display())));
        }
        thread::sleep(PAUSE);
    }
}

fn ask_once(socket: &Path, request: &[u8], netns: Option<&File>) -> io::Result<Reply> {
    let stream = sys::connect_packets(socket, ANSWER)?;
    sys::send_packet(&stream, request, netns.map(AsFd::as_fd))?;
    let reply = sys::receive_packet(&stream, REPLY_BYTES).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {ANSWER:?}"))
        }
        _ => error,
    })?;
    if reply.bytes.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(&reply.bytes)?)
}

/// Nobody listens, or whoever listened has gone: a restart of the agent.
fn is_away(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
    matches!(error.kind(), NotFound | ConnectionRefused | ConnectionReset | BrokenPipe | UnexpectedEof)
}

/// For people; nobody is left to tell when even that cannot be written.
fn note(text: &str) {
    let _ = writeln!(io::stderr(), "tulle-cni: {text}");
}

#[cfg(test)]
mod tests;
