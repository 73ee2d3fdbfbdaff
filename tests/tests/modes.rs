//! Settings that change how traffic is carried: same-node encryption, bridges, exclusions, labels of other meshes, and
//! the way out in an emergency.

use anyhow::{Context, Result};
use mesh_tests::{Capture, Packet, Pod, World};

const HBONE: u16 = 15008;

/// What is heard in the caller's own namespace (beside `lo`) while it calls `callee` with a marker.
fn heard(caller: &Pod, callee: &Pod) -> Result<Vec<Packet>> {
    let capture = Capture::start(&caller.netns())?;
    let answer =
        caller.call(&format!("http://{}/", callee.at(80))).header("x-marker", "same-node-marker").send()?;
    assert_eq!((answer.status(), answer.text("/remote_ip")), (200, caller.ip4().to_string().as_str()));
    let packets = capture.stop()?;
    Ok(packets
        .into_iter()
        .filter(|packet| !packet.source.ip().is_loopback() && !packet.destination.ip().is_loopback())
        .collect())
}

/// Packets between the two pods, rather than inside one of them.
fn between<'a>(packets: &'a [Packet], one: &Pod, other: &Pod) -> Vec<&'a Packet> {
    let ends = |packet: &Packet| [packet.source.ip(), packet.destination.ip()];
    let both = |packet: &&Packet| {
        ends(packet).contains(&one.ip4().into()) && ends(packet).contains(&other.ip4().into())
    };
    packets.iter().filter(both).collect()
}

#[test]
fn same_node_is_vouched_plaintext_where_pods_are_routed() {
    World::new("vouched").nodes(1).run(|world| {
        let (a, b) = (world.pod("a").spawn()?, world.pod("b").spawn()?);
        world.settle()?;
        let packets = heard(&a, &b)?;
        let packets = between(&packets, &a, &b);
        assert!(packets.iter().any(|packet| packet.contains(b"same-node-marker") && packet.has_port(80)));
        assert!(!packets.iter().any(|packet| packet.has_port(HBONE)));
        Ok(())
    });
}

#[test]
fn same_node_is_encrypted_when_told() {
    World::new("encrypt").nodes(1).run(|world| {
        world.write_file("mesh", MESH_ENCRYPT)?;
        let (a, b) = (world.pod("a").spawn()?, world.pod("b").spawn()?);
        world.settle()?;
        let packets = heard(&a, &b)?;
        let packets = between(&packets, &a, &b);
        assert!(packets.iter().any(|packet| packet.has_port(HBONE) && packet.chooses_tls13()));
        assert!(!packets.iter().any(|packet| packet.contains(b"same-node-marker")));
        Ok(())
    });
}

const MESH_ENCRYPT: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    tulle:
      sameNode: encrypt
";

#[test]
fn same_node_is_encrypted_on_a_shared_bridge() {
    World::new("bridged").nodes(1).bridge().run(|world| {
        let (a, b) = (world.pod("a").spawn()?, world.pod("b").spawn()?);
        world.settle()?;
        let packets = heard(&a, &b)?;
        let packets = between(&packets, &a, &b);
        assert!(packets.iter().any(|packet| packet.has_port(HBONE) && packet.chooses_tls13()));
        assert!(
            !packets.iter().any(|packet| packet.contains(b"same-node-marker")),
            "a neighbour could read this"
        );
        Ok(())
    });
}

#[test]
fn excluded_ports_and_ranges_are_left_alone() {
    World::new("excluded").run(|world| {
        let plain =
            world.pod("plain").node(1).annotation("tulle.dev/exclude-outbound-ports", "80").spawn()?;
        let range = world
            .pod("range")
            .node(1)
            .annotation("tulle.dev/exclude-outbound-cidrs", "10.244.2.0/24")
            .spawn()?;
        let open = world.pod("open").node(2).annotation("tulle.dev/exclude-inbound-ports", "80").spawn()?;
        world.settle()?;
        for caller in [&plain, &range] {
            let capture = world.capture()?;
            let answer =
                caller.call(&format!("http://{}/", open.at(80))).header("x-marker", "left-alone").send()?;
            assert_eq!(
                (answer.status(), answer.text("/remote_ip")),
                (200, caller.ip4().to_string().as_str())
            );
            assert!(capture.stop()?.iter().any(|packet| packet.contains(b"left-alone")), "{}", caller.name());
        }
        // What is not excluded is carried as ever.
        let capture = world.capture()?;
        plain.talk(&open.at(9000), &["send:not-left-alone", "until:alone"])?.done()?;
        let packets = capture.stop()?;
        assert!(
            !packets.iter().any(|packet| packet.contains(b"not-left-alone"))
                && packets.iter().any(|packet| packet.has_port(HBONE))
        );
        Ok(())
    });
}

#[test]
fn the_labels_of_istio_count_in_the_directory_source() {
    World::new("istio-labels").run(|world| {
        let cases = [
            ("ambient", "istio.io/dataplane-mode: ambient", true),
            ("injected", "istio-injection: enabled", true),
            ("none", "istio.io/dataplane-mode: none", false),
            ("unlabelled", "team: blue", false),
        ];
        let callee = world.pod("callee").node(2).spawn()?;
        for (namespace, label, _) in cases {
            world.enrol(namespace, false)?;
            world.write_file(
                &format!("namespace-{namespace}"),
                &format!(
                    "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}, labels: {{{label}}}}}\n"
                ),
            )?;
            world.pod(namespace).namespace(namespace).node(1).spawn()?;
        }
        world.settle()?;
        for (namespace, label, meshed) in cases {
            let caller = world.find(namespace).context("no such pod")?;
            let capture = world.capture()?;
            let call = caller.call(&format!("http://{}/", callee.at(80))).header("x-marker", "labelled-how");
            assert_eq!(call.send()?.status(), 200, "{label}");
            let plaintext = capture.stop()?.iter().any(|packet| packet.contains(b"labelled-how"));
            assert_eq!(plaintext, !meshed, "{label}");
        }
        Ok(())
    });
}

#[test]
fn detach_gives_plaintext_back_without_agent_or_controller() {
    World::new("detach").run(|world| {
        let a = world.pod("a").node(1).spawn()?;
        let b = world.pod("b").node(2).spawn()?;
        world.settle()?;
        world.kill_controller();
        world.kill_agent(1);
        world.kill_agent(2);
        let url = format!("http://{}/", b.at(80));
        assert!(a.call(&url).timeout(2.0).fail().is_ok(), "without agents, nothing passes");
        for node in [1, 2] {
            let instance = format!("tl-{}-node-{node}", world.name());
            let detach = std::process::Command::new(mesh_tests::binary("mesh-node")?)
                .args(["detach", "--instance", &instance])
                .output()?;
            assert!(detach.status.success(), "{detach:?}");
        }
        let answer = a.get(&url)?;
        assert_eq!((answer.status(), answer.text("/remote_ip")), (200, a.ip4().to_string().as_str()));
        Ok(())
    });
}
