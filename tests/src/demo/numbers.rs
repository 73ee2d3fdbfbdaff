//! Step 6: a real load, as its client and as both nodes measure it.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::edges;
use super::screen::Screen;
use super::shop::{PAGE, Shop};

const DURATION: Duration = Duration::from_secs(2);
const CONNECTIONS: u32 = 8;

/// Every identity of the shop begins with this.
const COMMON: &str = "spiffe://cluster.local/ns/shop/sa/";

/// Tells it.
pub fn show(shop: &Shop, screen: &Screen) -> Result<()> {
    let before = edges::read(&shop.world)?;
    let report = shop.pod("load")?.load(PAGE).connections(CONNECTIONS).run(DURATION)?;
    ensure!(report.failed == 0, "the load failed: {report:?}");
    let millis =
        |quantile: &str| report.latency_us.get(quantile).map_or(0.0, |micros| *micros as f64 / 1000.0);
    screen.fact(
        "pages",
        &format!(
            "{:.0}/s on {CONNECTIONS} connections for {:.0} s; p50 {:.1} ms, p99 {:.1} ms; {} requests, 0 failed",
            report.rps,
            report.seconds,
            millis("p50"),
            millis("p99"),
            report.requests
        ),
    );
    let calls = edges::since(&before, edges::read(&shop.world)?);
    let mut rows = Vec::new();
    for (edge, count) in &calls {
        let from = shop.node_of(&edge.source).map_or_else(|| "?".to_owned(), |node| format!("node-{node}"));
        let over = match edge.security.as_str() {
            "mutual_tls" => "mTLS",
            "none" if edge.caller.starts_with(COMMON) => "same node, vouched",
            other => other,
        };
        rows.push(vec![
            format!("{} > {}", edge.source, edge.destination),
            format!("{from} > node-{}", edge.node),
            format!("{} > {}", short(&edge.caller), short(&edge.callee)),
            over.to_owned(),
            format!("{:.0}", count.requests / report.seconds),
            format!("{:.1}", count.millis / count.requests),
        ]);
    }
    ensure!(rows.len() >= 4, "the nodes saw only {} kinds of calls", rows.len());
    ensure!(
        calls.keys().all(|edge| edge.caller.starts_with(COMMON)),
        "somebody called without an identity: {calls:?}"
    );
    screen.table(&["hop", "nodes", "identities", "over", "per s", "mean ms"], &rows);
    screen.line(&format!(
        "     identities begin with {COMMON}; hops as the /metrics of node-1 and node-2 count them"
    ));
    Ok(())
}

fn short(identity: &str) -> &str {
    identity.strip_prefix(COMMON).unwrap_or(identity)
}
