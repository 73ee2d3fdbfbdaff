//! Who called whom, as the destination sides of both nodes counted it.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::{Sample, World};

/// One caller and one callee.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Edge {
    /// The calling workload.
    pub source: String,
    /// The called workload.
    pub destination: String,
    /// `spiffe://…`, or `unknown` for plaintext.
    pub caller: String,
    /// `spiffe://…`.
    pub callee: String,
    /// `mutual_tls` or `none`.
    pub security: String,
    /// The node that took the call, from 1.
    pub node: u8,
}

/// How often, and how long all of them took together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Count {
    /// Requests.
    pub requests: f64,
    /// Milliseconds.
    pub millis: f64,
}

/// Everything that was counted so far.
pub fn read(world: &World) -> Result<BTreeMap<Edge, Count>> {
    let mut edges: BTreeMap<Edge, Count> = BTreeMap::new();
    for node in [1, 2] {
        let metrics = world.metrics(node)?;
        let reported = [("reporter", "destination")];
        for sample in metrics.samples("istio_requests_total", &reported) {
            edges.entry(edge(sample, node)).or_default().requests += sample.value;
        }
        for sample in metrics.samples("istio_request_duration_milliseconds_sum", &reported) {
            edges.entry(edge(sample, node)).or_default().millis += sample.value;
        }
    }
    Ok(edges)
}

/// What came on top of `before`.
pub fn since(before: &BTreeMap<Edge, Count>, after: BTreeMap<Edge, Count>) -> BTreeMap<Edge, Count> {
    let grown = after.into_iter().map(|(edge, count)| {
        let old = before.get(&edge).copied().unwrap_or_default();
        (edge, Count { requests: count.requests - old.requests, millis: count.millis - old.millis })
    });
    grown.filter(|(_, count)| count.requests > 0.0).collect()
}

fn edge(sample: &Sample, node: u8) -> Edge {
    let label = |name: &str| sample.labels.get(name).cloned().unwrap_or_default();
    Edge {
        source: label("source_workload"),
        destination: label("destination_workload"),
        caller: label("source_principal"),
        callee: label("destination_principal"),
        security: label("connection_security_policy"),
        node,
    }
}
