//! Calls out of a pod, and their results.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::ChildStdin;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use crate::process::Process;
use crate::seat::Seat;

/// How long a client may take beyond what it was told.
const PATIENCE: Duration = Duration::from_secs(30);

/// A failed call.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
pub struct Failure {
    /// `refused`, `reset`, `timeout`, `closed`, `unreachable`, `no_local_port`, `protocol`, `other`.
    pub kind: String,
    /// The words of the system.
    pub message: String,
    /// `connect`, `send`, `read`.
    pub step: String,
}

/// An HTTP answer.
#[derive(Debug, Clone, Deserialize)]
pub struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Value,
    /// How long it took.
    pub millis: f64,
    /// The client's own end of the connection.
    pub local: String,
    /// What getpeername() told the client.
    pub peer: String,
}

impl Answer {
    /// Its status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// A header, by its lower-case name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The body: parsed JSON, or a string.
    pub fn body(&self) -> &Value {
        &self.body
    }

    /// A string of the body by JSON pointer; `/remote_ip` is the address in `/remote`. Empty if there is none.
    pub fn text(&self, pointer: &str) -> &str {
        if pointer == "/remote_ip" {
            let remote = self.text("/remote");
            let ip = remote.rsplit_once(':').map_or(remote, |(ip, _)| ip);
            return ip.trim_start_matches('[').trim_end_matches(']');
        }
        self.body.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// A request header as the server saw it.
    pub fn seen(&self, header: &str) -> Option<&str> {
        self.body.get("headers")?.get(header)?.as_str()
    }
}

/// What became of one call.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// An answer.
    Answer(Answer),
    /// None.
    Failure(Failure),
}

impl Outcome {
    pub(crate) fn parse(line: &str) -> Result<Self> {
        let mut value: Value = serde_json::from_str(line)?;
        match value.get_mut("error").map(Value::take) {
            Some(error) => Ok(Self::Failure(serde_json::from_value(error)?)),
            None => Ok(Self::Answer(serde_json::from_value(value)?)),
        }
    }

    /// The answer, or an error that says how the call failed.
    pub fn answer(self) -> Result<Answer> {
        match self {
            Self::Answer(answer) => Ok(answer),
            Self::Failure(failure) => bail!("{} at {}: {}", failure.kind, failure.step, failure.message),
        }
    }

    /// How it failed, or an error that shows the answer.
    pub fn failure(self) -> Result<Failure> {
        match self {
            Self::Failure(failure) => Ok(failure),
            Self::Answer(answer) => bail!("expected a failure, got {answer:?}"),
        }
    }
}

/// An HTTP call to be shaped.
#[derive(Debug)]
pub struct Call {
    seat: Arc<dyn Seat>,
    arguments: Vec<String>,
    count: u32,
    timeout: f64,
}

impl Call {
    pub(crate) fn new(seat: Arc<dyn Seat>, url: &str) -> Self {
        Self { seat, arguments: vec!["get".to_owned(), url.to_owned()], count: 1, timeout: 10.0 }
    }

    /// A header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.arguments.extend(["-H".to_owned(), format!("{name}: {value}")]);
        self
    }

    /// The method.
    pub fn method(mut self, method: &str) -> Self {
        self.arguments.extend(["-X".to_owned(), method.to_owned()]);
        self
    }

    /// A body.
    pub fn body(mut self, body: &str) -> Self {
        self.arguments.extend(["--body".to_owned(), body.to_owned()]);
        self
    }

    /// Any option of `mesh-app get`.
    pub fn option(mut self, option: &str) -> Self {
        self.arguments.push(option.to_owned());
        self
    }

    /// Only addresses of this family, `v4` or `v6`.
    pub fn family(mut self, family: &str) -> Self {
        self.arguments.extend(["--family".to_owned(), family.to_owned()]);
        self
    }

    /// Seconds for one call.
    pub fn timeout(mut self, seconds: f64) -> Self {
        self.timeout = seconds;
        self
    }

    /// How often.
    pub fn times(mut self, count: u32) -> Self {
        self.count = count;
        self
    }

    /// All on one connection.
    pub fn keep_alive(self) -> Self {
        self.option("--keep-alive")
    }

    /// Makes the call and wants an answer.
    pub fn send(self) -> Result<Answer> {
        let shown = self.arguments.join(" ");
        self.outcome()?.answer().with_context(|| shown)
    }

    /// Makes the call and wants a failure.
    pub fn fail(self) -> Result<Failure> {
        let shown = self.arguments.join(" ");
        self.outcome()?.failure().with_context(|| shown)
    }

    /// Makes the call.
    pub fn outcome(self) -> Result<Outcome> {
        self.outcomes()?.pop().context("no result")
    }

    /// Makes all calls and wants answers.
    pub fn answers(self) -> Result<Vec<Answer>> {
        self.outcomes()?.into_iter().map(Outcome::answer).collect()
    }

    /// Makes all calls.
    pub fn outcomes(mut self) -> Result<Vec<Outcome>> {
        self.arguments.extend(["--timeout".to_owned(), self.timeout.to_string()]);
        self.arguments.extend(["--count".to_owned(), self.count.to_string()]);
        let arguments: Vec<&str> = self.arguments.iter().map(String::as_str).collect();
        let bound = Duration::from_secs_f64(self.timeout * f64::from(self.count)) + PATIENCE;
        self.seat.client_lines(&arguments, bound)
    }
}

/// What became of a scripted TCP connection.
#[derive(Debug, Clone, Deserialize)]
pub struct Talk {
    /// Everything that was read.
    pub received: String,
    /// How many bytes that was.
    pub received_bytes: usize,
    /// How many steps succeeded.
    pub steps: usize,
    /// What failed.
    pub error: Option<Failure>,
    /// The other side closed in order.
    pub eof: bool,
    /// Until connect() returned.
    pub connect_millis: f64,
    /// The whole script.
    pub millis: f64,
    /// What getpeername() said.
    pub peer: Option<String>,
}

impl Talk {
    /// Fails unless every step succeeded.
    pub fn done(self) -> Result<Self> {
        match &self.error {
            Some(failure) => {
                bail!("step {} failed: {failure:?}; read so far: {:?}", self.steps + 1, self.received)
            }
            None => Ok(self),
        }
    }

    /// The kind of the failure; empty if there was none.
    pub fn failed(&self) -> &str {
        self.error.as_ref().map_or("", |failure| &failure.kind)
    }
}

/// What a load counted. Every request begun is in it once.
#[derive(Debug, Clone, Deserialize)]
pub struct LoadReport {
    /// All of them.
    pub requests: u64,
    /// Answered 200 to 399.
    pub ok: u64,
    /// All others.
    pub failed: u64,
    /// By status.
    pub statuses: BTreeMap<String, u64>,
    /// Without an answer, by kind of failure.
    pub failures: BTreeMap<String, u64>,
    /// Words of a few failures.
    pub examples: Vec<String>,
    /// By value of the pointer that was asked for.
    pub values: BTreeMap<String, u64>,
    /// How long it ran.
    pub seconds: f64,
    /// Requests per second.
    pub rps: f64,
    /// Microseconds: `p50`, `p90`, `p99`, `p999`, `max`.
    pub latency_us: BTreeMap<String, u64>,
}

/// A load: shaped, then started.
#[derive(Debug)]
pub struct Load {
    seat: Arc<dyn Seat>,
    arguments: Vec<String>,
}

impl Load {
    pub(crate) fn new(seat: Arc<dyn Seat>, url: &str) -> Self {
        Self { seat, arguments: vec!["load".to_owned(), url.to_owned()] }
    }

    /// Requests per second; as fast as it goes unless told.
    pub fn rps(self, rps: u32) -> Self {
        self.with("--rps", &rps.to_string())
    }

    /// Connections at once; 4 unless told.
    pub fn connections(self, count: u32) -> Self {
        self.with("--connections", &count.to_string())
    }

    /// A header.
    pub fn header(self, name: &str, value: &str) -> Self {
        self.with("--header", &format!("{name}: {value}"))
    }

    /// Counts answers by a JSON pointer into their bodies.
    pub fn count_by(self, pointer: &str) -> Self {
        self.with("--count-by", pointer)
    }

    /// A new connection for each request, closed by the client.
    pub fn new_connections(mut self) -> Self {
        self.arguments.push("--new-connections".to_owned());
        self
    }

    /// An option of `mesh-app load` with its value.
    pub fn with(mut self, option: &str, value: &str) -> Self {
        self.arguments.extend([option.to_owned(), value.to_owned()]);
        self
    }

    /// Runs for so long.
    pub fn run(self, duration: Duration) -> Result<LoadReport> {
        let load = self.with("--duration", &duration.as_secs_f64().to_string());
        let arguments: Vec<&str> = load.arguments.iter().map(String::as_str).collect();
        load.seat.client_once(&arguments, duration + PATIENCE)
    }

    /// Starts it in the background; returns after the first requests were answered well.
    pub fn start(self) -> Result<RunningLoad> {
        let load = self.with("--progress", "0.1");
        let arguments: Vec<&str> = load.arguments.iter().map(String::as_str).collect();
        let mut process = load.seat.client(&arguments)?;
        let lines = lines_of(&mut process)?;
        let running = RunningLoad { stdin: process.take_stdin(), lines, process };
        running.await_good(1)?;
        Ok(running)
    }
}

/// A load in the background.
#[derive(Debug)]
pub struct RunningLoad {
    process: Process,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
struct Progress {
    done: u64,
    good: u64,
}

impl RunningLoad {
    /// Waits until `more` further requests were answered 200 to 399, however the others ended.
    pub fn await_good(&self, more: u64) -> Result<()> {
        // What the load said while nobody listened is not about now.
        while self.lines.try_recv().is_ok() {}
        let mut first: Option<Progress> = None;
        let begun = Instant::now();
        loop {
            let line = self.lines.recv_timeout(PATIENCE).context("the load says nothing")?;
            let Ok(progress) = serde_json::from_str::<Progress>(&line) else {
                bail!("the load ended: {line}")
            };
            let base = first.get_or_insert(progress);
            if progress.good >= base.good + more {
                return Ok(());
            }
            if begun.elapsed() > PATIENCE {
                bail!(
                    "of {} requests, {} were answered well",
                    progress.done - base.done,
                    progress.good - base.good
                );
            }
        }
    }

    /// Lets the requests under way finish and counts.
    pub fn stop(mut self) -> Result<LoadReport> {
        drop(self.stdin.take());
        loop {
            let line = self.lines.recv_timeout(PATIENCE).context("the load does not end")?;
            if serde_json::from_str::<Progress>(&line).is_err() {
                self.process.wait(PATIENCE)?;
                return serde_json::from_str(&line).with_context(|| format!("not a report: {line}"));
            }
        }
    }
}

/// A TCP connection that is kept busy.
#[derive(Debug)]
pub struct Hold {
    process: Process,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

/// How a held connection ended.
#[derive(Debug, Clone, Deserialize)]
pub struct HoldEnd {
    /// It broke, rather than being closed by us.
    pub broken: bool,
    /// How.
    pub error: Option<Failure>,
    /// How often it was of use.
    pub echoes: u64,
    /// Milliseconds since the epoch.
    pub ended_unix_millis: u64,
}

impl Hold {
    pub(crate) fn start(seat: &dyn Seat, authority: &str) -> Result<Self> {
        let mut process = seat.client(&["hold", authority])?;
        let lines = lines_of(&mut process)?;
        let line = lines.recv_timeout(PATIENCE).context("no first echo")?;
        if line != "open" {
            bail!("the connection to {authority} did not hold: {line}");
        }
        Ok(Self { stdin: process.take_stdin(), process, lines })
    }

    /// Waits for it to break.
    pub fn await_break(mut self, deadline: Duration) -> Result<HoldEnd> {
        let line = self.lines.recv_timeout(deadline).context("the connection lives on")?;
        self.process.wait(PATIENCE)?;
        serde_json::from_str(&line).with_context(|| format!("not an end: {line}"))
    }

    /// Closes it and says whether it had broken before.
    pub fn stop(mut self) -> Result<HoldEnd> {
        drop(self.stdin.take());
        self.await_break(PATIENCE)
    }
}

fn lines_of(process: &mut Process) -> Result<Receiver<String>> {
    let stdout = process.take_stdout().context("no stdout")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    Ok(lines)
}
