//! Captured arrivals: any port goes to the proxy, the application sees the real client, exclusions and probes pass.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use mesh_abi::Counter;
use mesh_node::bpf::OwnKind;
use mesh_node::sys;

use crate::world::{FAR4, FAR6, PATIENCE, World, accept, accept_within, far, mapped, vouches};

#[test]
fn an_application_sees_the_real_client_behind_the_last_step() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let pod = world.pod();
    let (_captured, _listeners) = pod.enroll(&hooks);
    let lo4 = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let lo6 = Some(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)));
    let (c4, c6) = (far("198.51.100.9:40000"), far("[2001:db8::9]:40001"));

    let app = pod.listen((Ipv4Addr::UNSPECIFIED, 8080));
    let dial = pod.dial(&hooks, pod.at4(8080), lo4, OwnKind::LastStep { client: c4 }).unwrap();
    let (stream, peer) = accept(&app);
    assert_eq!(peer, c4, "accept() shows the real client");
    assert_eq!(stream.peer_addr().unwrap(), c4, "getpeername() too");
    drop(dial);

    let dual = pod.listen((Ipv6Addr::UNSPECIFIED, 8081));
    let _dial = pod.dial(&hooks, pod.at4(8081), lo4, OwnKind::LastStep { client: c4 }).unwrap();
    assert_eq!(accept(&dual).1, mapped(c4), "a dual-stack listener shows it mapped");
    let _dial = pod.dial(&hooks, pod.at6(8081), lo6, OwnKind::LastStep { client: c6 }).unwrap();
    assert_eq!(accept(&dual).1, c6);

    // Who comes without a word of ours is who it is.
    let plain = pod.connect(pod.at4(8080)).unwrap();
    assert_eq!(accept(&app).1, plain.local_addr().unwrap());
    // Nobody listens: refused, and nothing is left behind.
    for (to, from) in [(pod.at4(8082), lo4), (pod.at6(8082), lo6)] {
        let refused = pod.dial(&hooks, to, from, OwnKind::LastStep { client: c4 }).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{to}");
    }
    let clients = aya::maps::MapData::from_pin(world.map_pin("CLIENTS")).unwrap();
    let clients = aya::maps::Map::HashMap(clients);
    let clients: aya::maps::HashMap<_, mesh_abi::TupleKey, mesh_abi::Client> = clients.try_into().unwrap();
    assert_eq!(clients.keys().count(), 0);
}

#[test]
fn an_application_starts_again_while_the_proxy_holds_a_connection_to_its_port() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let (pod, caller) = (world.pod(), world.pod());
    let (_captured, listeners) = pod.enroll(&hooks);
    let _held = caller.connect(pod.at4(8080)).unwrap();
    let (accepted, _) = accept(&listeners.plain4);
    assert_eq!(accepted.local_addr().unwrap(), pod.at4(8080));
    drop(pod.listen((Ipv4Addr::UNSPECIFIED, 8080)));
}

#[test]
fn what_arrives_at_any_port_goes_to_the_proxy() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let (pod, caller) = (world.pod(), world.pod());
    let app = pod.listen((Ipv4Addr::UNSPECIFIED, 8080));
    let (_captured, listeners) = pod.enroll(&hooks);
    let plain6 = listeners.plain6.as_ref().unwrap();
    let hbone6 = listeners.hbone6.as_ref().unwrap();
    for (to, listener) in [
        (pod.at4(8080), &listeners.plain4),
        (pod.at4(9), &listeners.plain4),
        (pod.at4(15008), &listeners.hbone4),
        (pod.at6(8080), plain6),
        (pod.at6(15008), hbone6),
    ] {
        let client = caller.connect(to).unwrap();
        let (stream, peer) = accept(listener);
        assert_eq!(peer, client.local_addr().unwrap(), "no NAT");
        assert_eq!(stream.local_addr().unwrap(), to, "getsockname is the original destination");
    }
    assert!(accept_within(&app, Duration::from_millis(20)).is_none());
}

#[test]
fn exclusions_go_their_own_way_and_can_be_changed() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let (mut pod, other) = (world.pod(), world.pod());
    let app = pod.listen((Ipv4Addr::UNSPECIFIED, 9090));
    let (web, excluded) =
        (other.listen((Ipv4Addr::UNSPECIFIED, 80)), other.listen((Ipv4Addr::UNSPECIFIED, 81)));
    pod.net.exclusions.inbound_ports = vec![9090];
    pod.net.exclusions.outbound_ports = vec![81];
    let (captured, listeners) = pod.enroll(&hooks);
    let _client = other.connect(pod.at4(9090)).unwrap();
    accept(&app);
    let _client = pod.connect(other.at4(81)).unwrap();
    accept(&excluded);
    let _client = pod.connect(other.at4(80)).unwrap();
    accept(&listeners.outbound4);

    // Another word about the same pod: what was excluded no longer is, and a prefix now is.
    pod.net.exclusions.outbound_ports = vec![];
    pod.net.exclusions.outbound_cidrs = vec![format!("{}/30", other.ip4).parse().unwrap()];
    hooks.enroll(&pod.net, &listeners).unwrap();
    let _client = pod.connect(other.at4(80)).unwrap();
    accept(&web);
    pod.net.exclusions.outbound_cidrs = vec![];
    hooks.enroll(&pod.net, &listeners).unwrap();
    let _client = pod.connect(other.at4(81)).unwrap();
    accept(&listeners.outbound4);
    hooks.unenroll(&captured).unwrap();
}

#[test]
fn a_probe_of_the_kubelet_reaches_the_ports_that_probes_name() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let mut pod = world.pod();
    let (probed, other) =
        (pod.listen((Ipv6Addr::UNSPECIFIED, 8080)), pod.listen((Ipv6Addr::UNSPECIFIED, 8081)));
    let (_captured, listeners) = pod.enroll(&hooks);
    let from_node = |to: SocketAddr| world.in_router(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap();
    pod.net.probed_ports = vec![8080];
    hooks.enroll(&pod.net, &listeners).unwrap();
    let _anybody = from_node(pod.at4(8080));
    accept(&listeners.plain4);
    // This process now is the kubelet.
    hooks.set_probers(&[sys::Process::of(std::process::id()).unwrap()]).unwrap();
    hooks.sweep();
    let _probe = from_node(pod.at4(8080));
    accept(&probed);
    let _probe = from_node(pod.at6(8080));
    accept(&probed);
    let _nobody_named_it = from_node(pod.at4(8081));
    accept(&listeners.plain4);
    let _nor_the_tunnels_door = from_node(pod.at4(15008));
    accept(&listeners.hbone4);
    assert_eq!(hooks.counters().of(Counter::ProbeUnnamed), 2);
    // Inside a pod it is nobody special.
    let _inside = pod.connect(far(FAR4)).unwrap();
    accept(&listeners.outbound4);
    assert_eq!(hooks.counters().of(Counter::ProbeAdmitted), 2);
    // Another word about the pod: its probes name another port now.
    pod.net.probed_ports = vec![8081];
    hooks.enroll(&pod.net, &listeners).unwrap();
    let _probe = from_node(pod.at6(8081));
    accept(&other);
    let _no_longer_named = from_node(pod.at6(8080));
    accept(listeners.plain6.as_ref().unwrap());
    pod.net.probed_ports = vec![8080];
    hooks.enroll(&pod.net, &listeners).unwrap();
    let _probe = from_node(pod.at4(8080));
    accept(&probed);
    hooks.set_probers(&[]).unwrap();
    let _anybody = from_node(pod.at4(8080));
    accept(&listeners.plain4);
    assert!(accept_within(&other, Duration::from_millis(20)).is_none());
    assert_eq!(vouches(&world).keys().count(), 0);
}

#[test]
fn both_ends_of_a_last_step_are_gone_when_both_have_closed() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let pod = world.pod();
    let (_captured, listeners) = pod.enroll(&hooks);
    let app = pod.listen((Ipv6Addr::UNSPECIFIED, 8080));
    let client = far("198.51.100.9:40000");
    for (to, from) in [(pod.at4(8080), far("127.0.0.1:0")), (pod.at6(8080), far("[::1]:0"))] {
        for app_first in [true, false] {
            let dial = pod.dial(&hooks, to, Some(from), OwnKind::LastStep { client }).unwrap();
            let (stream, _) = accept(&app);
            if app_first { drop((stream, dial)) } else { drop((dial, stream)) }
        }
    }
    // The same for captured clients.
    for (to, listener) in [(FAR4, &listeners.outbound4), (FAR6, listeners.outbound6.as_ref().unwrap())] {
        for client_first in [true, false] {
            let client = pod.connect(far(to)).unwrap();
            let (proxy, _) = accept(listener);
            if client_first { drop((client, proxy)) } else { drop((proxy, client)) }
        }
    }
    // One whose last FIN is not answered would stay for minutes, and hold its port.
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(sys::connections(&pod.net.netns).unwrap(), []);
}
