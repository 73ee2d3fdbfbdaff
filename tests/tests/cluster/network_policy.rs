//! NetworkPolicy beside the mesh: found before enrolment, and enforced on real ports between pods of one node.
//!
//! The enforcement is nftables rules of the same meaning on the host side of the pod's link.

use anyhow::{Result, ensure};
use mesh_tests::cluster::{App, Cluster};

/// Port 80 from anywhere, and nothing else.
const ONLY_80: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: only-80 }
spec:
  podSelector: { matchLabels: { app: server } }
  policyTypes: [Ingress]
  ingress: [{ ports: [{ protocol: TCP, port: 80 }] }]
";

/// The rule that the finding asks for.
const WITH_15008: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: only-80 }
spec:
  podSelector: { matchLabels: { app: server } }
  policyTypes: [Ingress]
  ingress: [{ ports: [{ protocol: TCP, port: 80 }, { protocol: TCP, port: 15008 }] }]
";

#[test]
fn a_policy_that_would_cut_the_tunnel_is_found_before_enrolment() -> Result<()> {
    let cluster = Cluster::with_mesh()?;
    let space = cluster.space("np-find")?;
    let server = space.deploy(&App::echo("server").node(1))?;
    // Findings are about who is cut off: there must be somebody.
    space.deploy(&App::echo("caller").node(2))?;
    let (code, clean, _) = cluster.meshctl(&["check", "-n", space.name()])?;
    ensure!(!clean.contains("only-80"), "nothing is wrong yet ({code}): {clean}");
    space.configure(ONLY_80)?;
    let (code, found, stderr) = cluster.meshctl(&["check", "-n", space.name()])?;
    ensure!(code == 79 && found.contains("only-80") && found.contains("15008"), "{code}: {found}{stderr}");
    let (code, said, stderr) = cluster.meshctl(&["enroll", "ns", space.name()])?;
    ensure!(format!("{said}{stderr}").contains("only-80"), "enroll warns ({code}): {said}{stderr}");
    space.enroll()?;
    cluster.eventually("a condition says so", mesh_tests::cluster::ROLLOUT, |_| {
        Ok(space.condition(&server)?.filter(|found| found.2.contains("only-80")))
    })?;
    space.configure(WITH_15008)?;
    let (_, found, _) = cluster.meshctl(&["check", "-n", space.name()])?;
    ensure!(found.contains("only-80"), "its port limit is void now, and that is said: {found}");
    Ok(())
}

#[test]
fn between_pods_of_one_node_real_ports_stay_and_between_nodes_15008_counts() -> Result<()> {
    let cluster = Cluster::with_mesh()?;
    let space = cluster.space("np-enforce")?;
    space.enroll()?;
    let server = space.deploy(&App::echo("server").node(1))?;
    let near = space.deploy(&App::echo("near").node(1))?;
    let far = space.deploy(&App::echo("far").node(2))?;
    // A policy cuts no established flow, and a tunnel is one: who has none yet meets the rules.
    let late = space.deploy(&App::echo("late").node(2))?;
    for pod in [&server, &near, &far, &late] {
        space.await_condition(pod, "True")?;
    }
    cluster.settle()?;
    let echo = |from: &mesh_tests::cluster::ClusterPod| from.talk(&server.at(9000), &["send:x\n", "read:2"]);
    ensure!(
        echo(&near)?.error.is_none() && echo(&far)?.error.is_none(),
        "before the policy both reach port 9000"
    );
    let policy = cluster.enforce(1, server.ip(), &[80])?;
    assert_eq!(
        near.get(&format!("http://{}/", server.at(80)))?.status(),
        200,
        "same node: its real port is allowed"
    );
    ensure!(echo(&near)?.error.is_some(), "same node: another port is not, mesh or no mesh");
    let outcome = late.call(&format!("http://{}/", server.at(80))).timeout(15.0).outcome()?;
    ensure!(
        outcome.answer().map_or(true, |answer| answer.status() == 503),
        "other node: everything comes by 15008, which is not allowed"
    );
    drop(policy);
    let policy = cluster.enforce(1, server.ip(), &[80, 15008])?;
    cluster.eventually("with 15008 allowed the other node is back", mesh_tests::cluster::ROLLOUT, |_| {
        Ok((late.get(&format!("http://{}/", server.at(80)))?.status() == 200).then_some(()))
    })?;
    ensure!(echo(&near)?.error.is_some(), "same node: real ports still count");
    drop(policy);
    Ok(())
}
