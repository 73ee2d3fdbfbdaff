//! The kubelet's probes under STRICT, and somebody who pretends to be the kubelet.

use std::time::Duration;

use anyhow::{Result, ensure};
use mesh_tests::cluster::{App, Cluster, Part, Probe};

use super::STRICT;

#[test]
fn probes_of_every_kind_pass_under_strict() -> Result<()> {
    let cluster = Cluster::with_mesh()?;
    let space = cluster.space("probes")?;
    space.enroll()?;
    space.configure(STRICT)?;
    let exec =
        ["/usr/bin/mesh-app", "get", "--fail", "http://127.0.0.1:80/healthz"].map(str::to_owned).to_vec();
    let apps = [
        App::echo("http").node(1).readiness(Probe::Http(80)).liveness(Probe::Http(80)),
        App::echo("tcp").node(2).readiness(Probe::Tcp(9000)).liveness(Probe::Tcp(9000)),
        App::echo("grpc")
            .node(1)
            .env("HEALTH_PORT", "9443")
            .readiness(Probe::Grpc(9443))
            .liveness(Probe::Grpc(9443)),
        App::echo("exec").node(2).readiness(Probe::Exec(exec.clone())).liveness(Probe::Exec(exec)),
    ];
    let pods = apps.iter().map(|app| space.deploy(app)).collect::<Result<Vec<_>>>()?;
    for pod in &pods {
        space.await_condition(pod, "True")?;
    }
    // Three failures in a row restart a container: by then each was probed a dozen times.
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(12) {
        for pod in &pods {
            ensure!(pod.restarts()? == 0, "{} was restarted: its liveness probe fails", pod.pod_name());
        }
    }
    Ok(())
}

#[test]
fn another_process_of_the_node_that_pretends_is_refused() -> Result<()> {
    let cluster = Cluster::with_mesh()?;
    let space = cluster.space("pretend")?;
    space.enroll()?;
    space.configure(STRICT)?;
    let pod = space.deploy(&App::echo("probed").node(1).readiness(Probe::Http(80)))?;
    space.await_condition(&pod, "True")?;
    for name in ["kubelet", "curl"] {
        let host = cluster.impostor(1, name)?;
        for port in [80, 9000] {
            let outcome = host.talk(&pod.at(port), &["send:GET / HTTP/1.0\r\n\r\n", "read:1"])?;
            ensure!(
                outcome.error.is_some() && outcome.received.is_empty(),
                "{name} got in at {port}: {outcome:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_restarted_kubelet_is_known_again() -> Result<()> {
    let cluster = Cluster::with_mesh()?;
    let space = cluster.space("kubelet")?;
    space.enroll()?;
    space.configure(STRICT)?;
    let probed =
        space.deploy(&App::echo("probed").node(1).readiness(Probe::Http(80)).liveness(Probe::Http(80)))?;
    // A kubelet that begins calls whoever has a readiness probe not ready until it has probed, and his Service is empty for that
    // moment, mesh or no mesh. So the load goes to one that has none.
    let server = space.deploy(&App::echo("server").node(1).liveness(Probe::Http(80)))?;
    let client = space.deploy(&App::echo("client").node(2))?;
    space.await_condition(&server, "True")?;
    space.await_condition(&client, "True")?;
    let load = client.load(&space.url("server", "/")).rps(50).new_connections().start()?;
    cluster.kill(&Part::Kubelet(1))?;
    load.await_good(100)?;
    cluster.repair()?;
    load.await_good(500)?;
    let report = load.stop()?;
    assert_eq!(report.failed, 0, "{report:?}");
    for pod in [&probed, &server] {
        assert_eq!(pod.restarts()?, 0, "the new kubelet's probes of {} pass", pod.pod_name());
    }
    space.kubectl(&["wait", "--for=condition=Ready", "--timeout=30s", "pod", probed.pod_name()]).map(drop)
}
