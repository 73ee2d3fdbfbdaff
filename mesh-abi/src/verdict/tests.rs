//! The verdicts over arbitrary flows: what must hold whatever a pod does.

extern crate std;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::{VOUCH_TTL_NS, own};

const POD: u64 = 7;
const IP4: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
const IP6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3);

/// Maps as plain values.
#[derive(Clone, Debug, Default)]
struct Facts {
    pods: Vec<(u64, PodEntry)>,
    own: bool,
    ports: HashSet<(u16, u16)>,
    cidrs: Vec<Addr>,
    vouch: Option<(Tuple, Vouch)>,
    silent: bool,
}

impl Lookup for Facts {
    fn pod(&self, cookie: u64) -> Option<&PodEntry> {
        self.pods.iter().find(|(each, _)| *each == cookie).map(|(_, pod)| pod)
    }

    fn is_own(&self) -> bool {
        self.own
    }

    fn port_excluded(&self, _cookie: u64, port: u16, what: u16) -> bool {
        self.ports.contains(&(port, what))
    }

    fn cidr_excluded(&self, _cookie: u64, addr: &Addr) -> bool {
        self.cidrs.contains(addr)
    }

    fn listens(&self, _index: u32) -> bool {
        !self.silent
    }

    fn vouch(&self, tuple: &Tuple) -> Option<&Vouch> {
        self.vouch.as_ref().filter(|(key, _)| key == tuple).map(|(_, vouch)| vouch)
    }
}

fn address(ip: IpAddr) -> Addr {
    let words = |octets: [u8; 16]| {
        let word =
            |at: usize| u32::from_ne_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]]);
        Addr::v6([word(0), word(4), word(8), word(12)])
    };
    match ip {
        IpAddr::V4(ip) => words(ip.to_ipv6_mapped().octets()),
        IpAddr::V6(ip) => words(ip.octets()),
    }
}

fn pod() -> PodEntry {
    PodEntry {
        ip4: address(IP4.into()),
        ip6: address(IP6.into()),
        outbound4: 40_001,
        outbound6: 40_002,
        plain4: 40_003,
        plain6: 40_004,
        hbone4: 40_005,
        hbone6: 40_006,
        flags: flag::ROUTE4 | flag::ROUTE6,
        slot: 3,
        ifindex: 2,
        ..PodEntry::default()
    }
}

fn enrolled() -> Facts {
    Facts { pods: std::vec![(POD, pod())], ..Facts::default() }
}

fn any_ip() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|ip| IpAddr::V4(ip.into())),
        any::<u128>().prop_map(|ip| IpAddr::V6(ip.into())),
        any::<u32>().prop_map(|ip| IpAddr::V6(Ipv4Addr::from(ip).to_ipv6_mapped())),
        any::<[u8; 3]>().prop_map(|[a, b, c]| IpAddr::V4(Ipv4Addr::new(127, a, b, c))),
        any::<u16>().prop_map(|low| IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, low))),
        Just(IpAddr::V4(IP4)),
        Just(IpAddr::V6(IP6)),
        Just(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        Just(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        Just(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
    ]
}

/// Ports, among them those of our listeners.
fn any_port() -> impl Strategy<Value = u16> {
    prop_oneof![any::<u16>(), 40_000_u16..40_008, Just(HBONE_PORT)]
}

prop_compose! {
    fn any_flow()(dst in any_ip(), port in any_port(), source_bound: bool, port_bound: bool, socket6: bool,
                  ifindex in 0_u32..4) -> Flow {
        Flow { cookie: POD, protocol: TCP, socket6: socket6 || dst.is_ipv6(), dst: address(dst), port, source_bound, port_bound, ifindex }
    }
}

prop_compose! {
    fn any_arrival()(client in any_ip(), server in any_ip(), client_port: u16, server_port in any_port(),
                     ifindex in 0_u32..4, now_ns in VOUCH_TTL_NS..) -> Arrival {
        let tuple = Tuple { client: address(client), server: address(server), client_port, server_port };
        Arrival { cookie: POD, protocol: TCP, ifindex, tuple, now_ns }
    }
}

/// Does this leave the pod, as std sees it?
fn leaves(dst: &Addr) -> bool {
    let mut octets = [0; 16];
    for (bytes, word) in octets.chunks_exact_mut(4).zip(dst.words()) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    match Ipv6Addr::from(octets).to_canonical() {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_unspecified() && ip != IP4,
        IpAddr::V6(ip) => {
            !ip.is_loopback() && !ip.is_unspecified() && !ip.is_unicast_link_local() && ip != IP6
        }
    }
}

proptest! {
    #[test]
    fn addresses_are_classified_as_std_does(ip in any_ip()) {
        let (addr, canonical) = (address(ip), ip.to_canonical());
        prop_assert_eq!(addr.is_v4(), canonical.is_ipv4());
        prop_assert_eq!(addr.is_loopback(), canonical.is_loopback());
        prop_assert_eq!(addr.is_unspecified(), canonical.is_unspecified());
        let link_local = matches!(canonical, IpAddr::V6(ip) if ip.is_unicast_link_local());
        prop_assert_eq!(addr.is_v6_link_local(), link_local);
        prop_assert!(addr.same(&address(canonical)));
    }

    #[test]
    fn what_leaves_an_enrolled_pod_is_captured(flow in any_flow()) {
        let verdict = connect(&enrolled(), &flow);
        let wanted = leaves(&flow.dst) && flow.ifindex != LOOPBACK_IFINDEX;
        prop_assert_eq!(matches!(verdict, Connect::Capture(_)), wanted, "{:?}", verdict);
    }

    #[test]
    fn a_capture_stays_in_the_pod_and_in_the_family(flow in any_flow()) {
        let Connect::Capture(capture) = connect(&enrolled(), &flow) else { return Ok(()) };
        let (pod, v4) = (pod(), flow.dst.is_v4());
        prop_assert_eq!(capture.to.is_v4(), v4);
        prop_assert_eq!(capture.port, if v4 { pod.outbound4 } else { pod.outbound6 });
        let own = if v4 { pod.ip4 } else { pod.ip6 };
        let on_device = flow.ifindex == pod.ifindex;
        prop_assert_eq!(capture.to, if v4 && !on_device { Addr::LOCALHOST4 } else { own });
        prop_assert_eq!(capture.release, flow.ifindex != 0 && !on_device);
        let bound = flow.source_bound || flow.port_bound;
        prop_assert_eq!(capture.source, if bound { Addr::NONE } else { own });
    }

    #[test]
    fn the_socket_family_does_not_change_the_verdict_of_ipv4(flow in any_flow()) {
        let other = Flow { socket6: !flow.socket6, ..flow };
        prop_assert_eq!(connect(&enrolled(), &flow), connect(&enrolled(), &other));
    }

    #[test]
    fn others_are_left_alone(flow in any_flow(), protocol in any::<u32>()) {
        let elsewhere = Flow { cookie: POD + 1, ..flow };
        prop_assert_eq!(connect(&enrolled(), &elsewhere), Connect::Pass(Pass::NotEnrolled));
        let own = Facts { own: true, ..enrolled() };
        prop_assert_eq!(connect(&own, &flow), Connect::Pass(Pass::Own));
        prop_assume!(protocol != TCP && protocol != MPTCP);
        prop_assert_eq!(connect(&enrolled(), &Flow { protocol, ..flow }), Connect::Pass(Pass::Protocol));
    }

    #[test]
    fn our_listeners_are_refused_wherever_they_could_be_reached(port in 40_001_u16..=40_006) {
        let at = |ip: IpAddr| connect(&enrolled(), &Flow {
            cookie: POD, protocol: TCP, socket6: true, dst: address(ip), port, source_bound: false, port_bound: false, ifindex: 0,
        });
        // Odd ports are the IPv4 listeners.
        let v4 = port % 2 == 1;
        let refused = Connect::Refuse(Refuse::OwnPort);
        prop_assert_eq!(at(Ipv4Addr::LOCALHOST.into()) == refused, v4);
        prop_assert_eq!(at(Ipv4Addr::UNSPECIFIED.into()) == refused, v4);
        prop_assert_eq!(at(Ipv6Addr::LOCALHOST.into()) == refused, !v4);
        prop_assert_eq!(at(Ipv6Addr::UNSPECIFIED.into()), refused);
        prop_assert_eq!(at(Ipv4Addr::new(127, 0, 0, 2).into()), Connect::Pass(Pass::Loopback));
    }

    #[test]
    fn an_exclusion_passes_and_only_with_its_flag(flow in any_flow(), by_port: bool) {
        prop_assume!(leaves(&flow.dst) && flow.ifindex != LOOPBACK_IFINDEX);
        let mut facts = enrolled();
        if by_port {
            facts.ports.insert((flow.port, port::OUTBOUND));
        } else {
            facts.cidrs.push(flow.dst);
        }
        prop_assert!(matches!(connect(&facts, &flow), Connect::Capture(_)), "the flag says whether to look");
        facts.pods[0].1.flags |= if by_port { flag::PORTS } else { flag::CIDRS };
        prop_assert_eq!(connect(&facts, &flow), Connect::Pass(Pass::Excluded));
    }

    #[test]
    fn without_a_listener_it_fails_closed_unless_the_pod_chose_otherwise(flow in any_flow(), open: bool) {
        prop_assume!(leaves(&flow.dst) && flow.ifindex != LOOPBACK_IFINDEX);
        let mut facts = enrolled();
        let entry = &mut facts.pods[0].1;
        (entry.outbound4, entry.outbound6) = (0, 0);
        entry.flags |= if open { flag::FAIL_OPEN } else { 0 };
        let wanted = if open { Connect::Pass(Pass::FailOpen) } else { Connect::Refuse(Refuse::NoListener) };
        prop_assert_eq!(connect(&facts, &flow), wanted);
    }

    #[test]
    fn whether_the_agent_lives_matters_only_to_a_pod_that_fails_open(flow in any_flow(), open: bool) {
        prop_assume!(leaves(&flow.dst) && flow.ifindex != LOOPBACK_IFINDEX);
        let mut facts = Facts { silent: true, ..enrolled() };
        facts.pods[0].1.flags |= if open { flag::FAIL_OPEN } else { 0 };
        prop_assert_eq!(connect(&facts, &flow) == Connect::Pass(Pass::FailOpen), open);
        facts.silent = false;
        prop_assert!(matches!(connect(&facts, &flow), Connect::Capture(_)));
    }

    #[test]
    fn a_family_without_a_route_is_left_to_fail_by_itself(flow in any_flow()) {
        prop_assume!(leaves(&flow.dst) && flow.ifindex != LOOPBACK_IFINDEX);
        let mut facts = enrolled();
        facts.pods[0].1.flags = if flow.dst.is_v4() { flag::ROUTE6 } else { flag::ROUTE4 };
        prop_assert_eq!(connect(&facts, &flow), Connect::Pass(Pass::NoRoute));
    }

    #[test]
    fn what_arrives_goes_to_the_proxy_and_what_stays_inside_does_not(arrival in any_arrival()) {
        let verdict = accept(&enrolled(), &arrival);
        let Tuple { client, server, server_port, .. } = arrival.tuple;
        let (pod, v4) = (pod(), server.is_v4());
        let outbound = server == pod.ip4 && server_port == pod.outbound4 || server == pod.ip6 && server_port == pod.outbound6;
        let inside = arrival.ifindex == LOOPBACK_IFINDEX || client.is_loopback() || client == pod.ip4 || client == pod.ip6;
        let which = match (outbound, server_port == HBONE_PORT) {
            (true, _) => kind::OUTBOUND4,
            (false, true) => kind::HBONE4,
            (false, false) => kind::PLAIN4,
        };
        let assigned = Accept::Assign { index: 3 * kind::COUNT + which + u32::from(!v4), fail_open: false };
        if outbound || !inside {
            prop_assert_eq!(verdict, assigned);
        } else {
            prop_assert!(matches!(verdict, Accept::Pass(Pass::Loopback | Pass::Self_)), "{:?}", verdict);
        }
    }

    #[test]
    fn a_vouch_opens_its_own_pod_for_its_own_tuple_and_time(
        arrival in any_arrival(), dest in POD - 1..=POD + 1, age in 0..2 * VOUCH_TTL_NS, same: bool, honoured in 0_u32..2,
    ) {
        let at_ns = arrival.now_ns.saturating_sub(age);
        let vouch = Vouch { dest_cookie: dest, at_ns, honoured, kind: own::VOUCH, ..Vouch::default() };
        let mut tuple = arrival.tuple;
        tuple.client_port = tuple.client_port.wrapping_add(u16::from(!same));
        let facts = Facts { vouch: Some((tuple, vouch)), ..enrolled() };
        let without = accept(&enrolled(), &arrival);
        let opens = same && dest == POD && arrival.now_ns - at_ns < VOUCH_TTL_NS
            && matches!(without, Accept::Assign { index, .. } if index % kind::COUNT < kind::OUTBOUND4);
        let verdict = accept(&facts, &arrival);
        prop_assert_eq!(verdict, if opens { Accept::Pass(Pass::Vouched) } else { without });
    }

    #[test]
    fn hbone_cannot_be_excluded_and_other_ports_can(arrival in any_arrival()) {
        prop_assume!(matches!(accept(&enrolled(), &arrival), Accept::Assign { index, .. } if index % kind::COUNT < kind::OUTBOUND4));
        let mut facts = enrolled();
        facts.pods[0].1.flags |= flag::PORTS;
        facts.ports.insert((arrival.tuple.server_port, port::INBOUND));
        let passed = accept(&facts, &arrival) == Accept::Pass(Pass::Excluded);
        prop_assert_eq!(passed, arrival.tuple.server_port != HBONE_PORT);
    }

    #[test]
    fn a_probe_opens_only_what_the_pods_probes_name(arrival in any_arrival(), named: bool, age in 0..2 * VOUCH_TTL_NS) {
        let without = accept(&enrolled(), &arrival);
        prop_assume!(matches!(without, Accept::Assign { index, .. } if index % kind::COUNT < kind::OUTBOUND4));
        let vouch = Vouch { kind: own::PROBE, at_ns: arrival.now_ns.saturating_sub(age), ..Vouch::default() };
        let fresh = arrival.now_ns - vouch.at_ns < VOUCH_TTL_NS;
        let mut facts = Facts { vouch: Some((arrival.tuple, vouch)), ..enrolled() };
        facts.pods[0].1.flags |= flag::PORTS;
        if named {
            facts.ports.insert((arrival.tuple.server_port, port::PROBED));
        }
        let passes = named && fresh && arrival.tuple.server_port != HBONE_PORT;
        prop_assert_eq!(accept(&facts, &arrival), if passes { Accept::Pass(Pass::Probe) } else { without });
        // Without a word of a prober, a probed port is like any other.
        prop_assert_eq!(accept(&Facts { vouch: None, ..facts }, &arrival), without);
    }
}
