//! Vouched dials: they reach the application, and open nothing else.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use mesh_abi::Counter;
use mesh_node::bpf::{OwnKind, VouchOutcome};
use mesh_node::sys;

use crate::world::{self, World, accept, accept_within, far, mapped, vouches};

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
