//! Captured connects: what an application and the proxy see, and what is left alone.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use mesh_abi::Counter;
use socket2::Domain;

use crate::world::{self, FAR4, FAR6, PATIENCE, World, accept, accept_within, far, mapped, origin};

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
    let origin = hooks.take_origin(captured.cookie(), peer, proxy.local_addr().unwrap()).unwrap();
    assert_eq!((origin.dst, origin.client), (far(FAR4), pod.at4(5556)));
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
