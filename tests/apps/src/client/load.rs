//! HTTP load: at a rate (open loop, latency from the moment a request was due) or as fast as it goes.
//!
//! Invariant: every request begun is counted once, as a status or as a kind of failure; a load that is told to stop
//! finishes the requests under way first, so no failure is of its own making.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::{Method, Uri};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{Instant as Due, sleep_until, timeout};

use super::get::Shape;
use super::{Failure, Kind, Target, end_of_stdin, print, within};
use crate::histogram::Histogram;

/// Messages of failures that are kept, to say more than a count.
const MOST_EXAMPLES: usize = 5;

/// How much of what.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// `http://name:port/path`
    url: Uri,
    #[command(flatten)]
    target: Target,
    /// The method
    #[arg(short = 'X', long, default_value = "GET")]
    method: Method,
    /// `name: value`
    #[arg(short = 'H', long = "header")]
    headers: Vec<String>,
    /// The body
    #[arg(short, long, default_value = "")]
    body: String,
    /// Requests per second over all connections; 0: as fast as it goes
    #[arg(short, long, default_value_t = 0)]
    rps: u32,
    /// Connections at once
    #[arg(short, long, default_value_t = 4)]
    connections: u32,
    /// Seconds; 0: until stdin ends
    #[arg(short, long, default_value_t = 0.0)]
    duration: f64,
    /// Seconds at the start whose results are not counted
    #[arg(long, default_value_t = 0.0)]
    warm_up: f64,
    /// A new connection for each request, closed by this client
    #[arg(long)]
    new_connections: bool,
    /// Counts answers by this JSON pointer into the body, e.g. `/version`
    #[arg(long)]
    count_by: Option<String>,
    /// Prints the counts so far this often, in seconds; 0: never
    #[arg(long, default_value_t = 0.0)]
    progress: f64,
}

/// What happened.
#[derive(Default)]
struct Counts {
    requests: u64,
    statuses: BTreeMap<u16, u64>,
    failures: BTreeMap<Kind, u64>,
    examples: Vec<String>,
    values: BTreeMap<String, u64>,
    latency: Histogram,
    longest_gap: Duration,
}

impl Counts {
    fn merge(&mut self, other: Self) {
        self.requests += other.requests;
        other
            .statuses
            .into_iter()
            .for_each(|(status, count)| *self.statuses.entry(status).or_default() += count);
        other.failures.into_iter().for_each(|(kind, count)| *self.failures.entry(kind).or_default() += count);
        other.values.into_iter().for_each(|(value, count)| *self.values.entry(value).or_default() += count);
        self.examples.extend(other.examples);
        self.examples.truncate(MOST_EXAMPLES);
        self.latency.merge(&other.latency);
        self.longest_gap = self.longest_gap.max(other.longest_gap);
    }

    fn fail(&mut self, failure: &Failure) {
        *self.failures.entry(failure.kind).or_default() += 1;
        if self.examples.len() < MOST_EXAMPLES {
            self.examples.push(format!("{}: {}", failure.step, failure.message));
        }
    }

    fn report(&self, elapsed: Duration) -> Value {
        let good: u64 =
            self.statuses.iter().filter(|(status, _)| (200..400).contains(*status)).map(|(_, n)| n).sum();
        json!({
            "requests": self.requests,
            "ok": good,
            "failed": self.requests - good,
            "statuses": self.statuses,
            "failures": self.failures,
            "examples": self.examples,
            "values": self.values,
            "seconds": elapsed.as_secs_f64(),
            "rps": self.requests as f64 / elapsed.as_secs_f64().max(1e-9),
            "latency_us": {
                "p50": self.latency.quantile(0.5),
                "p90": self.latency.quantile(0.9),
                "p99": self.latency.quantile(0.99),
                "p999": self.latency.quantile(0.999),
                "max": self.latency.largest(),
            },
        })
    }
}

/// What the workers share.
struct Plan {
    options: Options,
    shape: Shape,
    addresses: Vec<SocketAddr>,
    begun: Instant,
    stop: AtomicBool,
    /// Requests handed out so far: the n-th is due n/rps seconds after the start.
    tickets: AtomicU64,
    done: AtomicU64,
    good: AtomicU64,
}

#[derive(Serialize)]
struct Progress {
    done: u64,
    good: u64,
    seconds: f64,
}

/// Runs the load and prints its report.
pub async fn run(options: Options) -> Result<()> {
    ensure!(options.connections > 0, "--connections must be at least 1");
    let shape = Shape::new(&options.url, options.method.clone(), &options.headers, &options.body)?;
    let addresses = options.target.addresses(&shape.authority)?;
    let plan = Arc::new(Plan {
        shape,
        addresses,
        begun: Instant::now(),
        stop: AtomicBool::new(false),
        tickets: AtomicU64::new(0),
        done: AtomicU64::new(0),
        good: AtomicU64::new(0),
        options,
    });
    let workers: Vec<_> = (0..plan.options.connections).map(|_| tokio::spawn(worker(plan.clone()))).collect();
    if plan.options.progress > 0.0 {
        tokio::spawn(show(plan.clone()));
    }
    wait_for_the_end(&plan.options).await;
    plan.stop.store(true, Ordering::Relaxed);
    let measured = plan.begun.elapsed().saturating_sub(Duration::from_secs_f64(plan.options.warm_up));
    let mut counts = Counts::default();
    for worker in workers {
        counts.merge(worker.await?);
    }
    print(&counts.report(measured))
}

/// The duration, or the end of stdin: whoever holds the other end decides.
async fn wait_for_the_end(options: &Options) {
    if options.duration > 0.0 {
        return tokio::time::sleep(Duration::from_secs_f64(options.duration + options.warm_up)).await;
    }
    end_of_stdin().await;
}

async fn show(plan: Arc<Plan>) {
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(plan.options.progress));
    while !plan.stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let (done, good) = (plan.done.load(Ordering::Relaxed), plan.good.load(Ordering::Relaxed));
        if print(&Progress { done, good, seconds: plan.begun.elapsed().as_secs_f64() }).is_err() {
            return;
        }
    }
}

async fn worker(plan: Arc<Plan>) -> Counts {
    let mut counts = Counts::default();
    let mut kept = None;
    let warm = plan.begun + Duration::from_secs_f64(plan.options.warm_up);
    while !plan.stop.load(Ordering::Relaxed) {
        let due = next_due(&plan).await;
        if plan.stop.load(Ordering::Relaxed) {
            break;
        }
        let result = call(&plan, &mut kept).await;
        plan.done.fetch_add(1, Ordering::Relaxed);
        let good = matches!(&result, Ok((status, _)) if (200..400).contains(status));
        plan.good.fetch_add(u64::from(good), Ordering::Relaxed);
        // A load that cannot even connect would otherwise spin.
        if result.is_err() && plan.options.rps == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if due < warm {
            continue;
        }
        counts.requests += 1;
        match result {
            Ok((status, value)) => {
                counts.latency.record(due.elapsed().as_micros() as u64);
                *counts.statuses.entry(status).or_default() += 1;
                if let Some(value) = value {
                    *counts.values.entry(value).or_default() += 1;
                }
            }
            Err(failure) => counts.fail(&failure),
        }
    }
    counts
}

/// Waits until the next request is due and says when that was. A worker that had to wait counts from its waking: the
/// timer is a millisecond coarse, and that is not the server's latency. A worker that is late counts from the due moment.
async fn next_due(plan: &Plan) -> Instant {
    if plan.options.rps == 0 {
        return Instant::now();
    }
    let ticket = plan.tickets.fetch_add(1, Ordering::Relaxed);
    let due = plan.begun + Duration::from_secs_f64(ticket as f64 / f64::from(plan.options.rps));
    if due <= Instant::now() {
        return due;
    }
    sleep_until(Due::from_std(due)).await;
    Instant::now()
}

async fn call(
    plan: &Plan,
    kept: &mut Option<SendRequest<Full<Bytes>>>,
) -> Result<(u16, Option<String>), Failure> {
    let target = &plan.options.target;
    let mut sender = match kept.take() {
        Some(sender) if !sender.is_closed() => sender,
        _ => {
            let stream = within(target.patience(), "connect", target.connect(&plan.addresses)).await?;
            let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
            let (sender, connection) = within(target.patience(), "connect", handshake).await?;
            tokio::spawn(connection);
            sender
        }
    };
    within(target.patience(), "connect", sender.ready()).await?;
    let request = plan.shape.request().map_err(|error| Failure::of("send", &error))?;
    let response = within(target.patience(), "send", sender.send_request(request)).await?;
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let value = match &plan.options.count_by {
        None => {
            while let Some(frame) =
                timeout(target.patience(), body.frame()).await.map_err(|_| Failure::timeout("read"))?
            {
                frame.map_err(|error| Failure::of("read", &error))?;
            }
            None
        }
        Some(pointer) => {
            let bytes = within(target.patience(), "read", body.collect()).await?.to_bytes();
            let parsed: Value = serde_json::from_slice(&bytes).unwrap_or_default();
            parsed
                .pointer(pointer)
                .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        }
    };
    if !plan.options.new_connections {
        *kept = Some(sender);
    }
    Ok((status, value))
}
