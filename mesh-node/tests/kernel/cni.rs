//! The CNI plugin against its server, over the real socket, with real network namespaces and hooks.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mesh_model::mesh::MeshSettings;
use mesh_model::workload::{Enrolment, Workload};
use mesh_node::cni::plugin;
use serde_json::Value;

use crate::agent::{Agent, previous_result, shop, workload};
use crate::world::{Pod, World, accept};

/// A pod outside the mesh with a server, to which the pods of a test call.
struct Server {
    listener: TcpListener,
    at: SocketAddr,
}

impl Server {
    fn new(world: &mut World) -> Server {
        let pod = world.pod();
        Server { listener: pod.listen((Ipv4Addr::UNSPECIFIED, 80)), at: pod.at4(80) }
    }

    /// Whether what the server sees of a call is the proxy's own socket instead of the application's.
    fn sees_proxy_of(&self, pod: &Pod) -> bool {
        let application = pod.connect(self.at).unwrap();
        let (_stream, peer) = accept(&self.listener);
        peer != application.local_addr().unwrap()
    }
}

fn message(answer: &plugin::Answer) -> String {
    assert!(!answer.is_success, "{answer:?}");
    let value: Value = serde_json::from_str(&answer.output).unwrap();
    value["msg"].as_str().unwrap().to_owned()
}

/// The plugin that is installed is this test's whole binary: a busy disk takes its time for it.
const INSTALLED_WITHIN: Duration = Duration::from_secs(30);

fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + INSTALLED_WITHIN;
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn add_returns_once_the_pod_is_captured_and_del_once_it_is_not() {
    let Some(mut world) = World::new() else { return };
    let (pod, server) = (world.pod(), Server::new(&mut world));
    let agent = Agent::start(&world);
    let known = workload("u1", Enrolment::Yes);
    agent.told(shop(), vec![known.clone()]);
    assert!(!server.sees_proxy_of(&pod));

    let added = agent.plugin("ADD", "shop", "u1", &pod);
    assert!(added.is_success && server.sees_proxy_of(&pod), "{added:?}");
    assert_eq!(added.output, previous_result(&pod), "the result passes unchanged");
    let first = agent.captured("u1").unwrap();
    let asked = agent.rooms.certificates.statuses();
    assert_eq!(asked.len(), 1, "its certificate was asked for: {asked:?}");

    // Again, and with the addresses that the controller learns later: nothing changes.
    assert!(agent.plugin("ADD", "shop", "u1", &pod).is_success);
    assert!(agent.plugin("CHECK", "shop", "u1", &pod).is_success);
    let ips = vec![IpAddr::from(pod.ip6), IpAddr::from(pod.ip4)];
    agent.told(shop(), vec![Workload { ips, ..known }]);
    let report = || agent.rooms.reporter.latest();
    eventually("the capture is reported", || report().len() == 1 && report()[0].uid == "u1");
    assert!(Arc::ptr_eq(&first, &agent.captured("u1").unwrap()));

    assert!(agent.plugin("DEL", "shop", "u1", &pod).is_success);
    assert!(agent.captured("u1").is_none() && first.is_gone() && !server.sees_proxy_of(&pod));
    assert_eq!(world.pods_pinned(), 0);
    assert!(agent.plugin("DEL", "shop", "u1", &pod).is_success, "a deletion may come twice");
}

#[test]
fn a_new_sandbox_of_a_pod_replaces_the_old_and_the_olds_late_deletion_is_not_its_own() {
    let Some(mut world) = World::new() else { return };
    let (old, new, server) = (world.pod(), world.pod(), Server::new(&mut world));
    let agent = Agent::start(&world);
    agent.told(shop(), vec![workload("u1", Enrolment::Yes)]);
    assert!(agent.plugin("ADD", "shop", "u1", &old).is_success);
    assert!(agent.plugin("ADD", "shop", "u1", &new).is_success);
    assert!(server.sees_proxy_of(&new) && !server.sees_proxy_of(&old));
    assert!(agent.plugin("DEL", "shop", "u1", &old).is_success);
    assert!(agent.plugin_in("DEL", "shop", "u1", "/nowhere", &old).is_success);
    assert!(server.sees_proxy_of(&new));
    assert_eq!(agent.captured("u1").unwrap().netns(), &new.net.netns);
}

#[test]
fn a_pod_that_the_controller_tells_of_in_time_is_captured_and_one_it_never_does_is_judged() {
    let Some(mut world) = World::new() else { return };
    let (pod, server) = (world.pod(), Server::new(&mut world));
    let agent = Agent::start(&world);
    agent.told(shop(), Vec::new());
    thread::scope(|scope| {
        let added = scope.spawn(|| agent.plugin("ADD", "shop", "late", &pod));
        thread::sleep(Duration::from_millis(150));
        assert!(!added.is_finished());
        agent.told(shop(), vec![workload("late", Enrolment::Yes)]);
        assert!(added.join().unwrap().is_success && server.sees_proxy_of(&pod));
    });
    assert!(agent.plugin("DEL", "shop", "late", &pod).is_success);

    let refused = message(&agent.plugin("ADD", "shop", "never", &pod));
    assert!(refused.contains("pod shop/p is in the mesh") && refused.contains("has not told"), "{refused}");
    assert!(agent.plugin("ADD", "default", "never", &pod).is_success);
    for exempt in ["kube-system", "tulle-system"] {
        let began = Instant::now();
        assert!(agent.plugin("ADD", exempt, "never", &pod).is_success);
        assert!(began.elapsed() < Duration::from_millis(400), "{exempt} waited");
    }
    assert!(!server.sees_proxy_of(&pod));
}

#[test]
fn a_pod_that_is_known_and_not_enrolled_starts_at_once() {
    let Some(mut world) = World::new() else { return };
    let (pod, server) = (world.pod(), Server::new(&mut world));
    let agent = Agent::start(&world);
    agent.told(shop(), vec![workload("u1", Enrolment::No)]);
    let began = Instant::now();
    assert!(agent.plugin("ADD", "shop", "u1", &pod).is_success);
    assert!(began.elapsed() < Duration::from_millis(400) && !server.sees_proxy_of(&pod));
}

#[test]
fn a_namespace_that_is_not_the_pods_is_refused() {
    let Some(mut world) = World::new() else { return };
    let (pod, other) = (world.pod(), world.pod());
    let agent = Agent::start(&world);
    agent.told(shop(), vec![workload("u1", Enrolment::Yes)]);
    let own = message(&agent.plugin_in("ADD", "shop", "u1", "/proc/self/ns/net", &pod));
    assert!(own.contains("the host's own"), "{own}");
    let others = format!("/run/netns/{}", other.net.uid);
    let others = message(&agent.plugin_in("ADD", "shop", "u1", &others, &pod));
    assert!(others.contains("none of"), "{others}");
    let file = message(&agent.plugin_in("ADD", "shop", "u1", "/dev/null", &pod));
    assert!(file.contains("not a namespace file"), "{file}");
    assert!(agent.captured("u1").is_none());
}

#[test]
fn the_chain_is_kept_while_the_mesh_is_there_and_taken_off_when_it_leaves() {
    const LIST: &str =
        r#"{"name": "k8s", "cniVersion": "0.4.0", "plugins": [ {"type": "ptp", "mtu": 1.0} ]}"#;
    let Some(mut world) = World::new() else { return };
    let (pod, server) = (world.pod(), Server::new(&mut world));
    let agent = Agent::start(&world);
    let list = agent.path("net.d/10-k8s.conflist");
    fs::write(&list, LIST).unwrap();
    let is_chained = || fs::read_to_string(&list).unwrap().contains("tulle-cni");
    thread::sleep(Duration::from_millis(200));
    assert!(!is_chained(), "nothing is known of the mesh yet");

    agent.told(shop(), vec![workload("u1", Enrolment::Yes)]);
    eventually("the plugin is chained", is_chained);
    assert!(agent.path("bin/tulle-cni").exists() && agent.path("state/enrolment.json").exists());
    fs::write(&list, LIST).unwrap();
    eventually("the entry is put back", is_chained);
    assert!(agent.plugin("ADD", "shop", "u1", &pod).is_success);

    let leaving = MeshSettings { leaving: true, ..shop() };
    agent.told(leaving, vec![workload("u1", Enrolment::No)]);
    eventually("the plugin is not chained", || !is_chained());
    assert_eq!(fs::read_to_string(&list).unwrap(), LIST);
    eventually("nothing is captured", || !server.sees_proxy_of(&pod));
    assert!(agent.plugin("ADD", "shop", "new", &pod).is_success, "nobody waits for a mesh that leaves");
    eventually("the rest is removed", || {
        ["bin/tulle-cni", "state/enrolment.json"].iter().all(|name| !agent.path(name).exists())
    });

    // Whoever uninstalls may think better of it.
    agent.told(shop(), vec![workload("u1", Enrolment::Yes), workload("u2", Enrolment::Yes)]);
    eventually("the plugin is chained again", is_chained);
    assert!(agent.plugin("ADD", "shop", "u2", &world.pod()).is_success, "the agent still listens");
}
