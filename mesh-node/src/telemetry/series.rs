//! The series of Istio's standard metrics, by label set.
//!
//! Invariants: at most `metric_series` label sets of each kind; a series whose workload has been gone for the retention time is
//! forgotten. The table's lock is taken at the first use of a label set by a thread, at scrapes and at sweeps, never per request.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use mesh_model::snapshot::Snapshot;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder},
    metrics::MetricType,
};

use super::{
    histogram::{Histogram, Reading},
    labels::{Label, Labels, Names},
    own::Counter,
};

/// Of one label set of requests.
#[derive(Debug, Default)]
pub(super) struct HttpSeries {
    pub(super) requests: Counter,
    /// Observed in microseconds.
    pub(super) duration: Histogram<1000>,
    pub(super) request_bytes: Histogram<1>,
    pub(super) response_bytes: Histogram<1>,
}

/// Of one label set of connections.
#[derive(Debug, Default)]
pub(super) struct TcpSeries {
    pub(super) opened: Counter,
    pub(super) closed: Counter,
    /// From the upstream to the caller.
    pub(super) sent: Counter,
    /// From the caller to the upstream.
    pub(super) received: Counter,
}

/// All standard metrics of this process.
#[derive(Debug)]
pub(super) struct Standard {
    /// Unlike its address, never used twice in a process: caches are keyed by it.
    pub(super) id: u64,
    /// Grows when series are forgotten: caches made before are stale.
    epoch: AtomicU64,
    http: Table<HttpSeries>,
    tcp: Table<TcpSeries>,
}

#[derive(Debug)]
struct Table<S> {
    limit: usize,
    refused: Counter,
    entries: Mutex<HashMap<Labels, Entry<S>>>,
    /// Takes what does not fit; not exposed.
    overflow: Arc<S>,
}

#[derive(Debug)]
struct Entry<S> {
    series: Arc<S>,
    gone_since: Option<Instant>,
}

impl Standard {
    pub(super) fn new(limit: usize, refused: Counter) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        Self {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            epoch: AtomicU64::new(0),
            http: Table::new(limit, refused.clone()),
            tcp: Table::new(limit, refused),
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Relaxed)
    }

    pub(super) fn http(&self, labels: Labels) -> Arc<HttpSeries> {
        self.http.get(labels)
    }

    pub(super) fn tcp(&self, labels: Labels) -> Arc<TcpSeries> {
        self.tcp.get(labels)
    }

    /// Forgets series whose workloads have been gone for `retention`.
    pub(super) fn sweep(&self, snapshot: &Snapshot, now: Instant, retention: Duration) {
        let live: HashSet<Names> = snapshot.workloads().map(|workload| Names::of(workload)).collect();
        let forgotten = self.http.sweep(&live, now, retention) + self.tcp.sweep(&live, now, retention);
        if forgotten > 0 {
            self.epoch.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl<S: Default> Table<S> {
    fn new(limit: usize, refused: Counter) -> Self {
        Self { limit, refused, entries: Mutex::default(), overflow: Arc::default() }
    }

    fn get(&self, labels: Labels) -> Arc<S> {
        let mut entries = self.lock();
        if let Some(entry) = entries.get(&labels) {
            return entry.series.clone();
        }
        if entries.len() >= self.limit {
            self.refused.inc();
            return self.overflow.clone();
        }
        entries
            .entry(labels)
            .or_insert_with(|| Entry { series: Arc::default(), gone_since: None })
            .series
            .clone()
    }

    fn sweep(&self, live: &HashSet<Names>, now: Instant, retention: Duration) -> usize {
        let mut entries = self.lock();
        let before = entries.len();
        entries.retain(|labels, entry| {
            if labels.parties().all(|names| live.contains(names)) {
                entry.gone_since = None;
                return true;
            }
            now.saturating_duration_since(*entry.gone_since.get_or_insert(now)) < retention
        });
        before - entries.len()
    }

    /// Labels and series, so that nothing is held while the text is made.
    fn all(&self, with_status: bool) -> Vec<(Vec<Label>, Arc<S>)> {
        let entries = self.lock();
        let mut all: Vec<_> =
            entries.iter().map(|(labels, entry)| (labels.pairs(with_status), entry.series.clone())).collect();
        drop(entries);
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Labels, Entry<S>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Standard {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let http = self.http.all(true);
        counters(&mut encoder, "istio_requests", "Requests", &http, |series| &series.requests)?;
        let duration = "Duration of requests";
        histograms(&mut encoder, "istio_request_duration_milliseconds", duration, &http, |s| {
            s.duration.read()
        })?;
        let body = "Size of request bodies";
        histograms(&mut encoder, "istio_request_bytes", body, &http, |series| series.request_bytes.read())?;
        let body = "Size of response bodies";
        histograms(&mut encoder, "istio_response_bytes", body, &http, |series| series.response_bytes.read())?;

        let tcp = self.tcp.all(false);
        let opened = "TCP connections opened";
        counters(&mut encoder, "istio_tcp_connections_opened", opened, &tcp, |series| &series.opened)?;
        let closed = "TCP connections closed";
        counters(&mut encoder, "istio_tcp_connections_closed", closed, &tcp, |series| &series.closed)?;
        let sent = "Bytes sent to the caller over TCP connections";
        counters(&mut encoder, "istio_tcp_sent_bytes", sent, &tcp, |series| &series.sent)?;
        let received = "Bytes received from the caller over TCP connections";
        counters(&mut encoder, "istio_tcp_received_bytes", received, &tcp, |series| &series.received)
    }
}

fn counters<S>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    all: &[(Vec<Label>, Arc<S>)],
    counter: impl Fn(&S) -> &Counter,
) -> fmt::Result {
    let mut metric: MetricEncoder<'_> = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    // A label set of openings need not have closings: nothing is shown for what never happened.
    let counts = all.iter().map(|(labels, series)| (labels, counter(series).get()));
    for (labels, count) in counts.filter(|(_, count)| *count > 0) {
        metric.encode_family(labels)?.encode_counter::<[Label; 0], _, u64>(&count, None)?;
    }
    Ok(())
}

fn histograms<S>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    all: &[(Vec<Label>, Arc<S>)],
    histogram: impl Fn(&S) -> Reading,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (labels, series) in all {
        let Reading { sum, count, buckets } = histogram(series);
        metric.encode_family(labels)?.encode_histogram::<[Label; 0]>(sum, count, &buckets, None)?;
    }
    Ok(())
}
