//! Parts of the mesh and of the cluster go away under load. Every request is counted.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mesh_tests::cluster::{App, Cluster, ClusterPod, NodeName, OWN_NAMESPACE, Part, ROLLOUT, Space};
use mesh_tests::{LoadReport, RunningLoad};
use nix::sys::signal::Signal;

use super::STRICT;

/// A caller on one node and a callee on the other, both in the mesh, STRICT, with two loads between them.
struct Traffic {
    space: Space,
    server: ClusterPod,
    client: ClusterPod,
    loads: Vec<RunningLoad>,
}

impl Traffic {
    fn start(cluster: &Cluster, name: &str) -> Result<Self> {
        let space = cluster.space(name)?;
        space.enroll()?;
        space.configure(STRICT)?;
        let server = space.deploy(&App::echo("server").node(2))?;
        let client = space.deploy(&App::echo("client").node(1))?;
        space.await_condition(&server, "True")?;
        space.await_condition(&client, "True")?;
        cluster.settle()?;
        let url = space.url("server", "/");
        let loads =
            vec![client.load(&url).rps(50).start()?, client.load(&url).rps(50).new_connections().start()?];
        Ok(Self { space, server, client, loads })
    }

    fn await_good(&self, more: u64) -> Result<()> {
        self.loads.iter().try_for_each(|load| load.await_good(more))
    }

    /// Ends both loads: kept connections first, then new ones.
    fn stop(self) -> Result<Vec<LoadReport>> {
        let reports = self.loads.into_iter().map(RunningLoad::stop).collect::<Result<Vec<_>>>()?;
        for pod in [&self.server, &self.client] {
            assert_eq!(pod.restarts()?, 0);
        }
        drop(self.space);
        Ok(reports)
    }
}

/// What may happen to a caller while its agent is away: it is refused, at once. Nothing hangs, nothing goes out in plaintext (the
/// callee is STRICT and would have to answer).
fn assert_failed_closed(report: &LoadReport, away: Duration) {
    let words = ["refused", "reset", "closed"];
    let legal = report.failures.keys().all(|kind| words.contains(&kind.as_str()));
    assert!(legal && report.statuses.keys().all(|status| status == "200" || status == "503"), "{report:?}");
    // 50 requests a second, for as long as the agent was away and a little.
    let most = (away.as_secs_f64() + 2.0) * 50.0;
    assert!((report.failed as f64) <= most, "{} failed in {away:?}: {report:?}", report.failed);
}

#[test]
fn an_agent_that_is_deleted_under_load_fails_closed_and_comes_back() -> Result<()> {
    let cluster = Cluster::with_mesh()?;
    let traffic = Traffic::start(&cluster, "agent")?;
    traffic.await_good(50)?;
    let agent = cluster.agent(&NodeName::of(1))?;
    let begun = Instant::now();
    cluster.kubectl(&["-n", OWN_NAMESPACE, "delete", "pod", &agent, "--wait=true"])?;
    cluster.await_mesh()?;
    traffic.await_good(50)?;
    let away = begun.elapsed();
    let reports = traffic.stop()?;
    for report in &reports {
        println!(
            "agent deleted: {} requests, {} failed, back after {away:?}",
            report.requests, report.failed
        );
        assert_failed_closed(report, away);
    }
    Ok(())
}

#[test]
fn a_deleted_controller_costs_no_request() -> Result<()> {
    let cluster = Cluster::with_mesh()?;
    let traffic = Traffic::start(&cluster, "controller")?;
    cluster.kubectl(&[
        "-n",
        OWN_NAMESPACE,
        "delete",
        "pod",
        "-l",
        "app.kubernetes.io/name=mesh-controller",
    ])?;
    traffic.await_good(100)?;
    cluster.await_mesh()?;
    cluster.settle()?;
    traffic.await_good(50)?;
    for report in traffic.stop()? {
        assert_eq!(report.failed, 0, "{report:?}");
    }
    Ok(())
}

#[test]
fn an_api_server_that_is_away_for_a_minute_costs_no_request() -> Result<()> {
    let cluster = Cluster::with_mesh()?;
    let traffic = Traffic::start(&cluster, "api")?;
    cluster.signal(&Part::ApiServer, Signal::SIGSTOP)?;
    let begun = Instant::now();
    let calls = (|| {
        while begun.elapsed() < Duration::from_secs(60) {
            traffic.await_good(100)?;
        }
        anyhow::Ok(())
    })();
    cluster.signal(&Part::ApiServer, Signal::SIGCONT)?;
    calls?;
    cluster.eventually("the API server answers", ROLLOUT, |cluster| {
        cluster.kubectl(&["get", "--raw", "/readyz"]).map(Some)
    })?;
    traffic.await_good(50)?;
    for report in traffic.stop()? {
        assert!(report.seconds >= 60.0 && report.failed == 0, "{report:?}");
    }
    // And the mesh follows again.
    let space = cluster.space("api-after")?;
    space.enroll()?;
    let pod = space.deploy(&App::echo("after"))?;
    space.await_condition(&pod, "True").context("after the outage")?;
    Ok(())
}

#[test]
fn a_rollout_of_agents_and_controller_fails_closed_node_by_node() -> Result<()> {
    let cluster = Cluster::with_mesh()?;
    let traffic = Traffic::start(&cluster, "rollout")?;
    let begun = Instant::now();
    cluster.kubectl(&["-n", OWN_NAMESPACE, "rollout", "restart", "deployment/mesh-controller"])?;
    cluster.kubectl(&["-n", OWN_NAMESPACE, "rollout", "restart", "daemonset/mesh-node"])?;
    cluster.await_mesh()?;
    traffic.await_good(50)?;
    let away = begun.elapsed();
    for report in traffic.stop()? {
        println!("rollout: {} requests, {} failed within {away:?}", report.requests, report.failed);
        assert_failed_closed(&report, away);
    }
    cluster.settle()
}
