//! Step 3: a running namespace joins, and the link between the nodes goes dark.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::edges;
use super::screen::Screen;
use super::shop::{PAGE, Shop};
use super::wire;
use crate::{LoadReport, RunningLoad};

/// Requests per second: on new connections, and on connections that are older than the enrolment.
const RATES: (u32, u32) = (100, 50);

/// So many more good answers are awaited before and after the change.
const SOME: u64 = 50;

/// Tells it.
pub fn show(shop: &Shop, screen: &Screen) -> Result<()> {
    let ((), before) = wire::tap(&shop.world, || look(shop, 3))?;
    screen.fact("link before", &wire::readable_request(&before)?);
    let (lost, during) = wire::tap(&shop.world, || join(shop, screen))?;
    screen.good(&lost);
    let hellos = wire::handshakes(&during)?;
    let ((), after) = wire::tap(&shop.world, || look(shop, 10))?;
    screen.fact("link after", &wire::sealed(&after)?);
    screen.good(&format!(
        "{} segments between the nodes for the same pages: TLS 1.3 ({hellos} handshakes), none can be read",
        after.len()
    ));
    identities(shop, screen)
}

/// Pages that carry something worth reading.
fn look(shop: &Shop, pages: u32) -> Result<()> {
    (0..pages).try_for_each(|_| shop.page(&[wire::SECRET]).map(drop))
}

/// Enrols under load; gives a sentence about the load.
fn join(shop: &Shop, screen: &Screen) -> Result<String> {
    let load = shop.pod("load")?;
    let fresh = load.load(PAGE).rps(RATES.0).new_connections().count_by("/reviews/app").start()?;
    let kept = load.load(PAGE).rps(RATES.1).count_by("/details/app").start()?;
    let both = [&fresh, &kept];
    both.iter().try_for_each(|load| load.await_good(SOME))?;
    let taken = shop.enrol()?;
    both.iter().try_for_each(|load| load.await_good(SOME))?;
    let captured = captured(shop)?;
    let wanted = shop.pods_in("shop");
    ensure!(captured == wanted, "{captured} of {wanted} pods are captured");
    screen.fact(
        "label",
        &format!(
            "tulle.dev/mesh: disabled -> enabled; {captured} running pods captured, none restarted, {} ms",
            taken.as_millis()
        ),
    );
    let (fresh, kept) = (whole(fresh, "reviews")?, whole(kept, "details")?);
    Ok(format!(
        "{} pages while it happened ({} on new connections, {} on older ones): 0 failed",
        fresh.requests + kept.requests,
        fresh.requests,
        kept.requests
    ))
}

/// Stops a load that has lost nothing: each page was answered, and each had the part that was counted.
fn whole(load: RunningLoad, part: &str) -> Result<LoadReport> {
    let report = load.stop()?;
    let parts = report.values.get(part).copied().unwrap_or_default();
    ensure!(
        report.failed == 0 && parts == report.requests,
        "{} requests, not all with {part}: {report:?}",
        report.requests
    );
    Ok(report)
}

fn captured(shop: &Shop) -> Result<usize> {
    let status = shop.world.meshctl_json(&["status"])?;
    let nodes = status.pointer("/data/nodes").and_then(Value::as_array).context("no nodes in the status")?;
    let workloads = nodes.iter().filter_map(|node| node.get("workloads")?.as_array()).flatten();
    Ok(workloads.filter(|workload| workload["state"] == "captured").count())
}

/// Both identities of every tunnelled call, each backed by a certificate on its node.
fn identities(shop: &Shop, screen: &Screen) -> Result<()> {
    let certificates = [certificates(shop, 1)?, certificates(shop, 2)?];
    let holds = |node: u8, identity: &str| certificates[usize::from(node) - 1].contains(identity);
    // Versions of one application have one identity.
    let mut calls: BTreeMap<[String; 2], f64> = BTreeMap::new();
    for (edge, count) in edges::read(&shop.world)? {
        let Some(from) = shop.node_of(&edge.source).filter(|_| edge.security == "mutual_tls") else {
            continue;
        };
        ensure!(holds(from, &edge.caller), "node-{from} has no certificate for {}", edge.caller);
        ensure!(holds(edge.node, &edge.callee), "node-{} has no certificate for {}", edge.node, edge.callee);
        let ends = [(edge.caller, from), (edge.callee, edge.node)];
        let ends = ends.map(|(identity, node)| format!("{identity} on node-{node}"));
        *calls.entry(ends).or_default() += count.requests;
    }
    ensure!(!calls.is_empty(), "no node reports a call over mutual TLS");
    let row =
        |([caller, callee], requests): ([String; 2], f64)| vec![caller, callee, format!("{requests:.0}")];
    let rows: Vec<_> = calls.into_iter().map(row).collect();
    screen.table(&["certificate of the caller", "certificate of the callee", "requests"], &rows);
    Ok(())
}

/// The identities that a node holds certificates for.
fn certificates(shop: &Shop, node: u8) -> Result<BTreeSet<String>> {
    let answer = shop.world.meshctl_json(&["config", "certs", "--node", &format!("node-{node}")])?;
    let rows = answer.pointer("/data/certificates").and_then(Value::as_array);
    let rows = rows.with_context(|| format!("no certificates in {answer}"))?;
    Ok(rows.iter().filter_map(|row| Some(row.get("identity")?.as_str()?.to_owned())).collect())
}
