//! What a node asks of its machine: the check, old connections, bridges.

use std::io::{ErrorKind, Read, Write};
use std::net::Ipv6Addr;

use mesh_node::sys;
use socket2::Domain;

use crate::world::{FAR4, World, accept, far};

#[test]
fn check_finds_this_kernel_fit_and_names_our_hooks() {
    let Some(world) = World::new() else { return };
    let hooks = world.hooks();
    let report = mesh_node::check::run(&world.config);
    assert!(report.is_good(), "{report}");
    for hook in [
        "sockops",
        "cgroup/connect4",
        "cgroup/connect6",
        "cgroup/getpeername4",
        "cgroup/getpeername6",
        "sk_lookup",
    ] {
        assert!(report.findings.iter().any(|finding| finding.name == format!("hook {hook}")), "{report}");
    }
    assert!(report.findings.iter().any(|finding| finding.name == "our hooks"), "{report}");
    println!("{report}");
    drop(hooks);
}

#[test]
fn check_names_the_capability_that_is_missing() {
    let Some(_world) = World::new() else { return };
    let check = |capabilities: &str| {
        let output = std::process::Command::new("setpriv")
            .args([
                "--bounding-set",
                &format!("-all,{capabilities}"),
                env!("CARGO_BIN_EXE_mesh-node"),
                "check",
            ])
            .output()
            .expect("setpriv (util-linux)");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = check("+sys_admin,+net_admin,+sys_ptrace");
    assert_eq!(code, Some(0), "{text}");
    let (code, text) = check("+sys_admin,+net_admin");
    assert_eq!(code, Some(79), "{text}");
    assert!(text.contains("MISSING  capability SYS_PTRACE"), "{text}");
    assert!(!text.contains("capability NET_ADMIN"), "{text}");
}

#[test]
fn old_connections_are_found_and_ended_by_name() {
    let Some(mut world) = World::new() else { return };
    let (pod, other) = (world.pod(), world.pod());
    let app = other.listen((Ipv6Addr::UNSPECIFIED, 80));
    let old: Vec<_> =
        [other.at4(80), other.at6(80)].map(|to| (pod.connect(to).unwrap(), accept(&app).0)).into();
    // Half-open: nobody answers for this neighbour.
    let half = pod.socket(Domain::IPV4);
    half.set_nonblocking(true).unwrap();
    let _ = half.connect(&far(FAR4).into());
    let found = sys::connections(&pod.net.netns).unwrap();
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(found.iter().filter(|connection| connection.established).count(), 2);
    let first = found.iter().find(|connection| connection.remote == other.at4(80)).unwrap();
    let ended =
        sys::destroy_established(&pod.net.netns, |connection| connection.cookie == first.cookie).unwrap();
    assert_eq!(ended, 1);
    let mut byte = [0];
    let mut ours = &old[0].0;
    assert_eq!(ours.read(&mut byte).unwrap_err().kind(), ErrorKind::ConnectionAborted);
    assert_eq!((&old[0].1).read(&mut byte).unwrap_err().kind(), ErrorKind::ConnectionReset);
    (&old[1].1).write_all(b"x").unwrap();
    assert_eq!((&old[1].0).read(&mut byte).unwrap(), 1);
    assert_eq!(sys::destroy_established(&pod.net.netns, |connection| !connection.is_loopback()).unwrap(), 2);
    assert_eq!(sys::connections(&pod.net.netns).unwrap(), []);
}

#[test]
fn the_hosts_end_of_a_veth_tells_its_bridge() {
    let Some(mut world) = World::new() else { return };
    let pod = world.pod();
    let peers = world.in_router(|| sys::bridge_master(&pod.net.netns)).unwrap();
    assert_eq!(peers, [sys::VethPeer { name: "v1".into(), bridge: None }]);
    world.run_in_router("ip link add br0 type bridge");
    world.run_in_router("ip link set v1 master br0");
    let peers = world.in_router(|| sys::bridge_master(&pod.net.netns)).unwrap();
    assert_eq!(peers, [sys::VethPeer { name: "v1".into(), bridge: Some("br0".into()) }]);
}

#[test]
fn enrolment_tells_which_connections_are_older() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let (pod, other) = (world.pod(), world.pod());
    let (web, app) = (other.listen((Ipv6Addr::UNSPECIFIED, 80)), pod.listen((Ipv6Addr::UNSPECIFIED, 8080)));
    let outward = (pod.connect(other.at4(80)).unwrap(), accept(&web));
    let inward = (other.connect(pod.at6(8080)).unwrap(), accept(&app));
    let inside = (pod.connect(far("127.0.0.1:8080")).unwrap(), accept(&app));
    let (captured, _listeners) = pod.enroll(&hooks);
    let named: Vec<_> = sys::connections(&pod.net.netns)
        .unwrap()
        .into_iter()
        .filter(|connection| captured.older().contains(&connection.cookie))
        .map(|connection| connection.remote)
        .collect();
    assert_eq!(captured.older().len(), 2);
    assert!(named.contains(&other.at4(80)) && named.contains(&inward.0.local_addr().unwrap()), "{named:?}");
    // They go on as if nothing had happened.
    (&inward.0).write_all(b"x").unwrap();
    assert_eq!((&inward.1.0).read(&mut [0]).unwrap(), 1);
    drop((outward, inside));
}
