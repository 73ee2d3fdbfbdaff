//! The hooks on a real kernel: every rule of capture, seen from applications' sockets. Needs root.
//!
//! `cargo test -p mesh-node --test kernel`. Without root these tests fail; a person may say `MESH_WORLD=skip`.

#[path = "kernel/world.rs"]
mod world;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use mesh_abi::Counter;
use mesh_node::bpf::{Hooks, MapSizes, OwnKind, VouchOutcome};
use mesh_node::sys;
use socket2::Domain;
use world::{PATIENCE, World, accept, accept_within, mapped};

/// Somewhere that no pod is.
const FAR4: &str = "192.0.2.7:80";
const FAR6: &str = "[2001:db8::7]:80";

fn far(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What the proxy does with a captured connection; gives where it wanted to go.
fn origin(hooks: &Hooks, cookie: u64, stream: &TcpStream) -> Option<SocketAddr> {
    let origin = hooks.take_origin(cookie, stream.peer_addr().unwrap(), stream.local_addr().unwrap());
    origin.map(|origin| origin.dst)
}

#[test]
fn a_captured_client_sees_its_destination_and_the_proxy_learns_it_once() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let pod = world.pod();
    let (captured, listeners) = pod.enroll(&hooks);
    let v6 = listeners.outbound6.as_ref().unwrap();
    for (to, listener, ip) in [(FAR4, &listeners.outbound4, pod.at4(0).ip()), (FAR6, v6, pod.at6(0).ip())] {
        let client = pod.connect(far(to)).unwrap();
        let (proxy, peer) = accept(listener);
        assert_eq!(peer.ip(), ip, "the source is the pod's own address");
        assert_eq!(client.local_addr().unwrap().ip(), ip);
        assert_eq!(client.peer_addr().unwrap(), far(to));
        assert_eq!(origin(&hooks, captured.cookie(), &proxy), Some(far(to)));
        assert_eq!(origin(&hooks, captured.cookie(), &proxy), None, "answers once");
    }
    assert_eq!(hooks.counters().of(Counter::Captured), 2);
    assert_eq!(hooks.counters().0["origin_miss"], 2);
}

#[test]
fn an_ipv6_socket_that_dials_ipv4_is_captured_as_ipv4() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let pod = world.pod_with(false);
    let (captured, listeners) = pod.enroll(&hooks);
    let client = pod.connect(mapped(far(FAR4))).unwrap();
    let (proxy, peer) = accept(&listeners.outbound4);
    assert_eq!(peer.ip(), pod.at4(0).ip());
    assert_eq!(client.peer_addr().unwrap(), mapped(far(FAR4)));
    assert_eq!(origin(&hooks, captured.cookie(), &proxy), Some(far(FAR4)));
}

#[test]
fn a_source_the_application_bound_is_kept() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let pod = world.pod();
    let (captured, listeners) = pod.enroll(&hooks);
    let socket = pod.socket(Domain::IPV4);
    socket.bind(&pod.at4(5555).into()).unwrap();
    socket.connect(&far(FAR4).into()).unwrap();
    let (proxy, peer) = accept(&listeners.outbound4);
    assert_eq!(peer, pod.at4(5555));
    assert_eq!(origin(&hooks, captured.cookie(), &proxy), Some(far(FAR4)));
    // Only a port: the kernel takes no second bind, and the tuple is all that matters.
    let socket = pod.socket(Domain::IPV4);
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 5556)).into()).unwrap();
    socket.connect(&far(FAR4).into()).unwrap();
    let (proxy, peer) = accept(&listeners.outbound4);
    assert_eq!(peer.port(), 5556);
    assert_eq!(origin(&hooks, captured.cookie(), &proxy), Some(far(FAR4)));
}

#[test]
fn a_client_that_sends_and_closes_at_once_loses_nothing() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let pod = world.pod();
    let (captured, listeners) = pod.enroll(&hooks);
    let mut client = pod.connect(far(FAR4)).unwrap();
    client.write_all(b"fire and forget").unwrap();
    drop(client);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(hooks.sweep().origins, 0);
    let (mut proxy, _) = accept(&listeners.outbound4);
    assert_eq!(origin(&hooks, captured.cookie(), &proxy), Some(far(FAR4)));
    let mut said = String::new();
    proxy.read_to_string(&mut said).unwrap();
    assert_eq!(said, "fire and forget");
}

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
    let refused = pod.dial(&hooks, pod.at4(8082), lo4, OwnKind::LastStep { client: c4 }).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    let clients = aya::maps::MapData::from_pin(world.map_pin("CLIENTS")).unwrap();
    let clients = aya::maps::Map::HashMap(clients);
    let clients: aya::maps::HashMap<_, mesh_abi::TupleKey, mesh_abi::Client> = clients.try_into().unwrap();
    assert_eq!(clients.keys().count(), 0);
}

#[test]
fn what_stays_inside_the_pod_is_untouched() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let pod = world.pod();
    let (_captured, listeners) = pod.enroll(&hooks);
    let on_loopback = pod.listen((Ipv4Addr::LOCALHOST, 8080));
    let everywhere = pod.listen((Ipv6Addr::UNSPECIFIED, 8081));
    for (to, listener) in [
        (far("127.0.0.1:8080"), &on_loopback),
        (far("127.0.0.1:8081"), &everywhere),
        (far("[::1]:8081"), &everywhere),
        (far("0.0.0.0:8081"), &everywhere),
        (far("[::]:8081"), &everywhere),
        (pod.at4(8081), &everywhere),
        (pod.at6(8081), &everywhere),
        (mapped(pod.at4(8081)), &everywhere),
    ] {
        let client = pod.connect(to).unwrap_or_else(|error| panic!("{to}: {error}"));
        let (_, peer) = accept(listener);
        assert_eq!(peer.port(), client.local_addr().unwrap().port(), "{to}");
    }
    // UDP passes the same hook.
    let socket = pod.net.netns.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))).unwrap().unwrap();
    socket.connect(far(FAR4)).unwrap();
    assert_eq!(socket.peer_addr().unwrap(), far(FAR4));
    assert!(accept_within(&listeners.outbound4, Duration::from_millis(20)).is_none());
    assert_eq!(hooks.counters().of(Counter::Captured), 0);
    assert_eq!(hooks.counters().of(Counter::InboundCaptured), 0);
}

#[test]
fn ipv6_without_a_route_fails_as_ever_so_that_the_client_tries_ipv4() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let pod = world.pod_with(false);
    let (_captured, _listeners) = pod.enroll(&hooks);
    let error = pod.connect(far(FAR6)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NetworkUnreachable);
}

#[test]
fn applications_cannot_call_the_proxys_listeners() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let pod = world.pod();
    let (_captured, listeners) = pod.enroll(&hooks);
    let port = |listener: &std::net::TcpListener| listener.local_addr().unwrap().port();
    for listener in [&listeners.outbound4, &listeners.plain4, &listeners.hbone4] {
        let at = |ip: &str| far(&format!("{ip}:{}", port(listener)));
        for to in [at("127.0.0.1"), at("0.0.0.0"), at("[::ffff:127.0.0.1]")] {
            assert_eq!(pod.connect(to).unwrap_err().kind(), ErrorKind::PermissionDenied, "{to}");
        }
        // By the pod's own address there is nobody (the listeners are on loopback only), or it is refused as well.
        let to = pod.at4(port(listener));
        let refused = pod.connect(to).unwrap_err().kind();
        assert!(matches!(refused, ErrorKind::ConnectionRefused | ErrorKind::PermissionDenied), "{to}");
    }
    for listener in [&listeners.outbound6, &listeners.plain6, &listeners.hbone6].into_iter().flatten() {
        let at = |ip: &str| far(&format!("{ip}:{}", port(listener)));
        for to in [at("[::1]"), at("[::]")] {
            assert_eq!(pod.connect(to).unwrap_err().kind(), ErrorKind::PermissionDenied, "{to}");
        }
    }
    assert_eq!(hooks.counters().of(Counter::OwnPortRefused), 3 * 3 + 3 * 2 + 1);
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
fn a_vouched_dial_reaches_the_application_and_opens_nothing_else() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let (source, dest) = (world.pod(), world.pod());
    let app = dest.listen((Ipv6Addr::UNSPECIFIED, 8080));
    let (_captured, _listeners) = source.enroll(&hooks);
    let (dest_pod, dest_listeners) = dest.enroll(&hooks);
    let vouch = OwnKind::Vouch { dest_cookie: dest_pod.cookie() };
    let plain6 = dest_listeners.plain6.as_ref().unwrap();

    for (to, from, listener) in
        [(dest.at4(8080), source.at4(0), &dest_listeners.plain4), (dest.at6(8080), source.at6(0), plain6)]
    {
        let dial = source.dial(&hooks, to, Some(from), vouch).unwrap();
        let (_stream, peer) = accept(&app);
        let name = dial.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(peer, mapped(name), "the source address is real");
        assert_eq!(hooks.vouch_outcome(&dial), VouchOutcome::Honoured);

        // The neighbour port of the same source was not vouched for.
        let plain = source.dial(&hooks, to, Some(from), OwnKind::Plain).unwrap();
        assert_eq!(accept(listener).1, plain.local_addr().unwrap().as_socket().unwrap());
        assert_eq!(hooks.vouch_outcome(&plain), VouchOutcome::Missed);

        // A replay of the tuple after the vouch is used up goes to the proxy.
        dial.set_linger(Some(Duration::ZERO)).unwrap();
        drop((dial, _stream));
        let replay = source.dial(&hooks, to, Some(name), OwnKind::Plain).unwrap();
        assert_eq!(accept(listener).1, name);
        drop(replay);
    }
    let counters = hooks.counters();
    assert_eq!(counters.of(Counter::VouchPublished), 2);
    assert_eq!(counters.of(Counter::VouchHonoured), 2);
    assert_eq!(counters.of(Counter::VouchMissed), 0);
    assert_eq!(vouches(&world).keys().count(), 0, "consumed");
    assert!(accept_within(&app, Duration::from_millis(20)).is_none());
}

fn vouches(world: &World) -> aya::maps::HashMap<aya::maps::MapData, mesh_abi::Tuple, mesh_abi::Vouch> {
    let data = aya::maps::MapData::from_pin(world.map_pin("VOUCHES")).unwrap();
    aya::maps::Map::HashMap(data).try_into().unwrap()
}

#[test]
fn a_vouch_for_another_pod_or_from_another_address_or_too_old_opens_nothing() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let (source, dest, third) = (world.pod(), world.pod(), world.pod());
    let app = dest.listen((Ipv4Addr::UNSPECIFIED, 8080));
    let (source_pod, _listeners) = source.enroll(&hooks);
    let (dest_pod, listeners) = dest.enroll(&hooks);
    let (third_pod, _third_listeners) = third.enroll(&hooks);
    let from = Some(source.at4(0));

    let wrong = OwnKind::Vouch { dest_cookie: third_pod.cookie() };
    let dial = source.dial(&hooks, dest.at4(8080), from, wrong).unwrap();
    accept(&listeners.plain4);
    assert_eq!(hooks.vouch_outcome(&dial), VouchOutcome::Missed);
    assert_eq!(hooks.counters().of(Counter::VouchRefused), 1);
    assert_eq!(hooks.counters().of(Counter::VouchMissed), 1);

    // A second address of the source pod is not the pod's name.
    world::run_in(&source.net.netns, "ip addr add 169.254.1.77/32 dev eth0");
    let spoofed = Some(far("169.254.1.77:0"));
    let right = OwnKind::Vouch { dest_cookie: dest_pod.cookie() };
    let socket = sys::dial_socket(&source.net.netns, dest.at4(8080), spoofed, &Default::default()).unwrap();
    hooks.mark_own(&socket, right).unwrap();
    let _ = socket.connect_timeout(&dest.at4(8080).into(), Duration::from_millis(100));
    assert_eq!(hooks.counters().of(Counter::VouchForeignSource), 1);

    // Too old: as if the proxy had stopped between its word and its SYN.
    let name = source.at4(45_678);
    let old = mesh_abi::Vouch {
        dest_cookie: dest_pod.cookie(),
        source_cookie: source_pod.cookie(),
        at_ns: sys::monotonic_ns() - mesh_abi::VOUCH_TTL_NS - 1,
        kind: mesh_abi::own::VOUCH,
        ..Default::default()
    };
    let mut map = vouches(&world);
    map.insert(mesh_abi::Tuple::between(name, dest.at4(8080)), old, 0).unwrap();
    map.insert(mesh_abi::Tuple::between(name, dest.at4(8081)), old, 0).unwrap();
    let _dial = source.dial(&hooks, dest.at4(8080), Some(name), OwnKind::Plain).unwrap();
    assert_eq!(accept(&listeners.plain4).1, name);
    assert_eq!(hooks.counters().of(Counter::VouchRefused), 2);
    // Established by other means, the tuple needs its vouch no longer; the one nobody ever used is swept.
    assert_eq!(hooks.sweep().vouches, 1);
    assert!(accept_within(&app, Duration::from_millis(20)).is_none());
}

#[test]
fn a_vouched_dial_to_where_nobody_looks_is_missed() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let (source, dest) = (world.pod(), world.pod());
    let app = dest.listen((Ipv4Addr::UNSPECIFIED, 8080));
    let (_captured, _listeners) = source.enroll(&hooks);
    let vouch = OwnKind::Vouch { dest_cookie: dest.net.netns.cookie() };
    let dial = source.dial(&hooks, dest.at4(8080), Some(source.at4(0)), vouch).unwrap();
    accept(&app);
    assert_eq!(hooks.vouch_outcome(&dial), VouchOutcome::Missed);
    assert_eq!(vouches(&world).keys().count(), 0);
    // Refused by the destination: nothing is left either.
    let refused = source.dial(&hooks, dest.at4(1), Some(source.at4(0)), vouch).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(vouches(&world).keys().count(), 0);
}

#[test]
fn full_maps_refuse_and_say_so() {
    let Some(mut world) = World::new() else { return };
    world.config.sizes = MapSizes { pods: 1, origins: 1, clients: 1, vouches: 1, ports: 1, cidrs: 1 };
    let hooks = world.hooks();
    let (mut pod, second) = (world.pod(), world.pod());
    let (captured, listeners) = pod.enroll(&hooks);
    let _kept: Vec<_> = (0..2).map(|_| pod.connect(far(FAR4)).unwrap()).collect();
    let known =
        (0..2).filter(|_| origin(&hooks, captured.cookie(), &accept(&listeners.outbound4).0).is_some());
    assert_eq!(known.count(), 1);
    assert_eq!(hooks.counters().of(Counter::OriginsFull), 1);

    let more = sys::pod_listeners(&second.net.netns).unwrap();
    let error = hooks.enroll(&second.net, &more).unwrap_err();
    assert!(error.to_string().contains("PODS is full (1"), "{error}");
    // And nothing of the second pod is captured by halves.
    assert_eq!(world.pods_pinned(), 1);
    pod.net.exclusions.inbound_ports = vec![1, 2];
    let error = hooks.enroll(&pod.net, &listeners).unwrap_err();
    assert!(error.to_string().contains("PORTS is full (1"), "{error}");
}

#[test]
fn a_killed_agent_leaves_refusals_and_the_next_one_adopts() {
    let Some(mut world) = World::new() else { return };
    let (pod, caller) = (world.pod(), world.pod());
    let app = pod.listen((Ipv4Addr::UNSPECIFIED, 8080));
    let hooks = world.hooks();
    let (captured, listeners) = pod.enroll(&hooks);
    let cookie = captured.cookie();
    drop((hooks, captured, listeners));
    for (from, to) in
        [(&pod, far(FAR4)), (&pod, far(FAR6)), (&caller, pod.at4(8080)), (&caller, pod.at6(15008))]
    {
        // A process that a neighbouring test is just spawning may hold copies of the listeners for a moment.
        let until = Instant::now() + PATIENCE;
        let refused = loop {
            match from.connect(to) {
                Err(error) if error.kind() != ErrorKind::ConnectionReset => break error,
                _ => assert!(Instant::now() < until, "{to} is served by nobody, and not refused"),
            }
        };
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{to}");
    }
    let hooks = world.hooks();
    let adopted = hooks.adopted();
    assert_eq!(adopted.iter().map(|pod| pod.cookie).collect::<Vec<_>>(), [cookie]);
    assert_eq!(adopted[0].ips, [pod.at4(0).ip(), pod.at6(0).ip()]);
    let (captured, listeners) = pod.enroll(&hooks);
    assert!(hooks.adopted().is_empty());
    let _client = pod.connect(far(FAR4)).unwrap();
    assert_eq!(origin(&hooks, cookie, &accept(&listeners.outbound4).0), Some(far(FAR4)));
    let _client = caller.connect(pod.at4(8080)).unwrap();
    accept(&listeners.plain4);

    // A successor that no longer wants the pod gives it back.
    drop((hooks, captured, listeners));
    let hooks = world.hooks();
    hooks.forget(cookie, Some(&pod.net.netns)).unwrap();
    let _client = caller.connect(pod.at4(8080)).unwrap();
    accept(&app);
    assert_eq!(world.pods_pinned(), 0);
}

#[test]
fn a_new_agent_takes_over_from_a_live_one_without_a_refusal() {
    let Some(mut world) = World::new() else { return };
    let pod = world.pod();
    let old = world.hooks();
    let (_old_pod, old_listeners) = pod.enroll(&old);
    let waiting = pod.connect(far(FAR4)).unwrap();
    let new = world.hooks();
    let (captured, new_listeners) = pod.enroll(&new);
    let _client = pod.connect(far(FAR6)).unwrap();
    assert_eq!(
        origin(&new, captured.cookie(), &accept(new_listeners.outbound6.as_ref().unwrap()).0),
        Some(far(FAR6))
    );
    // What had connected before the swap is still the old one's to serve.
    assert_eq!(origin(&old, captured.cookie(), &accept(&old_listeners.outbound4).0), Some(far(FAR4)));
    drop(waiting);
}

#[test]
fn fail_open_is_a_choice_of_the_pod() {
    let Some(mut world) = World::new() else { return };
    let (mut pod, caller) = (world.pod(), world.pod());
    let app = pod.listen((Ipv4Addr::UNSPECIFIED, 8080));
    pod.net.fail_open = true;
    let hooks = world.hooks();
    let (captured, listeners) = pod.enroll(&hooks);
    drop((captured, listeners, hooks));
    // A process that a neighbouring test is just spawning may hold copies of the listeners for a moment.
    let served = (0..100).any(|_| {
        let _client = caller.connect(pod.at4(8080));
        accept_within(&app, Duration::from_millis(30)).is_some()
    });
    assert!(served);
}

#[test]
fn a_pod_that_is_gone_is_forgotten() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let pod = world.pod();
    let name = pod.net.uid.clone();
    let (captured, listeners) = pod.enroll(&hooks);
    drop((hooks, captured, listeners, pod));
    assert_eq!(world.pods_pinned(), 1);
    std::process::Command::new("ip").args(["netns", "del", &name]).status().unwrap();
    // The kernel tears a netns down in its own time.
    let until = Instant::now() + PATIENCE;
    while world.pods_pinned() > 0 && Instant::now() < until {
        let hooks = world.hooks();
        assert!(hooks.adopted().len() <= 1);
        drop(hooks);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(world.pods_pinned(), 0);
}

#[test]
fn two_agents_on_one_kernel_do_not_see_each_others_pods() {
    let Some(mut one) = World::new() else { return };
    let mut two = one.another();
    let (hooks1, hooks2) = (one.hooks(), two.hooks());
    let (pod1, pod2) = (one.pod(), two.pod());
    let (captured1, listeners1) = pod1.enroll(&hooks1);
    let (captured2, listeners2) = pod2.enroll(&hooks2);
    let (_c1, _c2) = (pod1.connect(far(FAR4)).unwrap(), pod2.connect(far(FAR4)).unwrap());
    let (stream1, stream2) = (accept(&listeners1.outbound4).0, accept(&listeners2.outbound4).0);
    assert_eq!(origin(&hooks2, captured1.cookie(), &stream1), None);
    assert_eq!(origin(&hooks1, captured1.cookie(), &stream1), Some(far(FAR4)));
    assert_eq!(origin(&hooks2, captured2.cookie(), &stream2), Some(far(FAR4)));
    assert!(hooks1.adopted().is_empty());
    hooks1.unenroll(&captured1).unwrap();
    let _client = pod2.connect(far(FAR4)).unwrap();
    accept(&listeners2.outbound4);
    assert_eq!(hooks1.counters().of(Counter::Captured), 1);
    assert_eq!(hooks2.counters().of(Counter::Captured), 2);
}

#[test]
fn un_enrolment_gives_everything_back() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let (pod, other) = (world.pod(), world.pod());
    let app = pod.listen((Ipv4Addr::UNSPECIFIED, 8080));
    let web = other.listen((Ipv4Addr::UNSPECIFIED, 80));
    let reuse = || {
        pod.net.netns.enter(|| std::fs::read_to_string("/proc/sys/net/ipv4/tcp_tw_reuse")).unwrap().unwrap()
    };
    let before = reuse();
    let (captured, listeners) = pod.enroll(&hooks);
    let (again, _) = (hooks.enroll(&pod.net, &listeners).unwrap(), ());
    assert_eq!(reuse().trim(), "1");
    hooks.unenroll(&again).unwrap();
    hooks.unenroll(&captured).unwrap();
    assert_eq!(reuse(), before);
    let _client = other.connect(pod.at4(8080)).unwrap();
    accept(&app);
    let client = pod.connect(other.at4(80)).unwrap();
    assert_eq!(accept(&web).1, client.local_addr().unwrap());
    assert_eq!(world.pods_pinned(), 0);
}

#[test]
fn break_glass_gives_plaintext_back_while_the_agent_runs() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let (pod, other) = (world.pod(), world.pod());
    let web = other.listen((Ipv4Addr::UNSPECIFIED, 80));
    let (_captured, _listeners) = pod.enroll(&hooks);
    let detached = mesh_node::bpf::detach_all(&world.config.bpffs, Some(&world.config.instance)).unwrap();
    assert_eq!((detached.instances.len(), detached.links), (1, 6));
    let _client = pod.connect(other.at4(80)).unwrap();
    accept(&web);
}

#[test]
fn damaged_pins_are_replaced_and_another_size_makes_new_maps() {
    let Some(mut world) = World::new() else { return };
    let pod = world.pod();
    let hooks = world.hooks();
    let (_captured, _listeners) = pod.enroll(&hooks);
    drop(hooks);
    std::fs::remove_file(world.map_pin("VOUCHES")).unwrap();
    let hooks = world.hooks();
    assert!(hooks.adopted().is_empty());
    let (captured, listeners) = pod.enroll(&hooks);
    assert_eq!(hooks.retire_previous().unwrap(), 6, "five hooks and one pod's");
    let _client = pod.connect(far(FAR4)).unwrap();
    assert_eq!(origin(&hooks, captured.cookie(), &accept(&listeners.outbound4).0), Some(far(FAR4)));

    drop(hooks);
    world.config.sizes.origins = 7;
    let hooks = world.hooks();
    let (captured, listeners) = pod.enroll(&hooks);
    // Both sets of hooks are in force: the new one's pods are captured all the same.
    assert_eq!(hooks.retire_previous().unwrap(), 6);
    let _client = pod.connect(far(FAR4)).unwrap();
    assert_eq!(origin(&hooks, captured.cookie(), &accept(&listeners.outbound4).0), Some(far(FAR4)));
}

#[test]
fn a_netns_that_is_not_the_pods_or_forwards_is_refused() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let (pod, other) = (world.pod(), world.pod());
    let listeners = sys::pod_listeners(&pod.net.netns).unwrap();
    let mut wrong = pod.net.clone();
    (wrong.ip4, wrong.ip6) = (Some(other.ip4), None);
    assert!(hooks.enroll(&wrong, &listeners).unwrap_err().to_string().contains("none of which is the pod's"));
    wrong.netns = sys::Netns::current().unwrap();
    assert!(hooks.enroll(&wrong, &listeners).unwrap_err().to_string().contains("host's own"));
    assert!(sys::Netns::open("/proc/self/ns/mnt").is_err());
    assert!(sys::Netns::open("/dev/null").is_err());
    world::run_in(&pod.net.netns, "sysctl -qw net.ipv4.ip_forward=1");
    hooks.enroll(&pod.net, &listeners).unwrap();
    world::run_in(&pod.net.netns, "ip link add docker0 type bridge");
    assert!(hooks.enroll(&pod.net, &listeners).unwrap_err().to_string().contains("bridge docker0"));
    assert_eq!(world.pods_pinned(), 1, "what was captured before stays captured");
}

#[test]
fn a_socket_bound_to_a_device_is_captured_and_keeps_working() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let pod = world.pod();
    let (captured, listeners) = pod.enroll(&hooks);
    let outbound6 = listeners.outbound6.as_ref().unwrap();
    world::run_in(&pod.net.netns, "ip link add other type veth peer name end");
    world::run_in(&pod.net.netns, "ip link set other up");
    world::run_in(&pod.net.netns, "ip link set end up");
    for (device, released) in [("eth0", 0), ("other", 2)] {
        for (to, domain, listener) in
            [(far(FAR4), Domain::IPV4, &listeners.outbound4), (far(FAR6), Domain::IPV6, outbound6)]
        {
            let socket = pod.socket(domain);
            socket.bind_device(Some(device.as_bytes())).unwrap();
            socket
                .connect_timeout(&to.into(), PATIENCE)
                .unwrap_or_else(|error| panic!("{device} {to}: {error}"));
            let (mut proxy, peer) = accept(listener);
            let origin = hooks.take_origin(captured.cookie(), peer, proxy.local_addr().unwrap()).unwrap();
            assert_eq!(origin.dst, to);
            assert!(origin.ifindex.is_some());
            let mut client: TcpStream = socket.into();
            assert_eq!(client.peer_addr().unwrap(), to);
            client.write_all(b"there").unwrap();
            proxy.write_all(b"back!").unwrap();
            let (mut there, mut back) = ([0; 5], [0; 5]);
            proxy.read_exact(&mut there).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.read_exact(&mut back).unwrap();
            assert_eq!((&there, &back), (b"there", b"back!"));
        }
        assert_eq!(hooks.counters().of(Counter::DeviceReleased), released);
    }
}

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
fn a_probe_of_the_kubelet_reaches_the_ports_that_probes_name() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let pod = world.pod();
    let (probed, other) =
        (pod.listen((Ipv6Addr::UNSPECIFIED, 8080)), pod.listen((Ipv6Addr::UNSPECIFIED, 8081)));
    let (captured, listeners) = pod.enroll(&hooks);
    let from_node = |to: SocketAddr| world.in_router(|| TcpStream::connect_timeout(&to, PATIENCE)).unwrap();
    hooks.set_probed_ports(&captured, &[8080]).unwrap();
    let _anybody = from_node(pod.at4(8080));
    accept(&listeners.plain4);
    // This process now is the kubelet.
    hooks.set_probers(&[std::process::id()]).unwrap();
    hooks.sweep();
    let _probe = from_node(pod.at4(8080));
    accept(&probed);
    let _probe = from_node(pod.at6(8080));
    accept(&probed);
    let _not_a_probe = from_node(pod.at4(8081));
    accept(&listeners.plain4);
    // Inside a pod it is nobody special.
    let _inside = pod.connect(far(FAR4)).unwrap();
    accept(&listeners.outbound4);
    assert_eq!(hooks.counters().of(Counter::ProbeAdmitted), 2);
    // Other exclusions do not touch probes; another pod's end does.
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
fn a_vouch_survives_syn_cookies() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let (source, dest) = (world.pod(), world.pod());
    let app = dest.listen((Ipv4Addr::UNSPECIFIED, 8080));
    world::run_in(&dest.net.netns, "sysctl -qw net.ipv4.tcp_syncookies=2");
    let (_captured, _listeners) = source.enroll(&hooks);
    let (dest_pod, _dest_listeners) = dest.enroll(&hooks);
    let vouch = OwnKind::Vouch { dest_cookie: dest_pod.cookie() };
    let dial = source.dial(&hooks, dest.at4(8080), Some(source.at4(0)), vouch).unwrap();
    assert_eq!(accept(&app).1, dial.local_addr().unwrap().as_socket().unwrap());
    assert_eq!(hooks.vouch_outcome(&dial), VouchOutcome::Honoured);
}

#[test]
fn fast_open_and_multipath_clients_are_captured_like_any() {
    let Some(mut world) = World::new() else { return };
    let hooks = world.hooks();
    let pod = world.pod();
    world::run_in(&pod.net.netns, "sysctl -qw net.ipv4.tcp_fastopen=3");
    let (captured, listeners) = pod.enroll(&hooks);
    let early = pod.socket(Domain::IPV4);
    early.send_to_with_flags(b"early", &far(FAR4).into(), libc::MSG_FASTOPEN).unwrap();
    let (mut proxy, _) = accept(&listeners.outbound4);
    assert_eq!(origin(&hooks, captured.cookie(), &proxy), Some(far(FAR4)));
    let mut said = [0; 5];
    proxy.read_exact(&mut said).unwrap();
    assert_eq!(&said, b"early");

    let multipath = pod.net.netns.enter(|| {
        socket2::Socket::new(
            Domain::IPV4,
            socket2::Type::STREAM,
            Some(socket2::Protocol::from(libc::IPPROTO_MPTCP)),
        )
    });
    // A kernel may be built without it.
    let Ok(multipath) = multipath.unwrap() else { return };
    multipath.connect(&far(FAR4).into()).unwrap();
    let (proxy, _) = accept(&listeners.outbound4);
    assert_eq!(origin(&hooks, captured.cookie(), &proxy), Some(far(FAR4)));
}
