//! Arbitrary resources, as the compiler could make them.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use ipnet::IpNet;
use mesh_model::{
    authz::{Action, AuthzPolicy, Operation, Rule, Source},
    identity::{Identity, TrustDomain},
    mesh::{AccessLog, MeshSettings, OutboundPolicy, PathNormalization, SameNode},
    mtls::{MtlsMode, MtlsModes},
    name::{Hostname, Namespace, NodeName, ObjectKey, ServiceAccount, ServiceKey, SubsetName, WorkloadUid},
    resource::Resource,
    route::{
        Destination, HeaderEdits, HttpMatch, HttpRule, RetryOn, RetryPolicy, RouteSource, RouteTable,
        Visibility, WeightedDestination,
    },
    service::{Protocol, Service, ServicePort},
    text::{Glob, Pattern, StringMatch},
    traffic::{Balancer, DestinationPolicy, PortPolicy, Subset, TrafficPolicy},
    workload::{EndpointOf, Enrolment, Exclusions, Telemetry, Tunnel, Workload},
};
use proptest::{
    collection::{btree_map, btree_set, vec},
    option,
    prelude::*,
    sample::select,
};

pub(super) fn any_resource() -> impl Strategy<Value = Resource> {
    prop_oneof![
        mesh().prop_map(Resource::Mesh),
        workload().prop_map(Resource::Workload),
        service().prop_map(Resource::Service),
        policy().prop_map(Resource::Policy),
        routes().prop_map(Resource::Routes),
        destination().prop_map(Resource::Destination),
    ]
}

fn name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9.-]{0,12}"
}

fn namespace() -> impl Strategy<Value = Namespace> {
    name().prop_map(Namespace::new)
}

fn host() -> impl Strategy<Value = Hostname> {
    prop_oneof![
        name().prop_map(|text| Hostname::new(&text)),
        name().prop_map(|text| Hostname::new(&format!("*.{text}")))
    ]
}

fn object_key() -> impl Strategy<Value = ObjectKey> {
    (namespace(), name()).prop_map(|(namespace, name)| ObjectKey { namespace, name: name.into() })
}

fn service_key() -> impl Strategy<Value = ServiceKey> {
    (namespace(), host()).prop_map(|(namespace, host)| ServiceKey { namespace, host })
}

fn port() -> impl Strategy<Value = u16> {
    1..=u16::MAX
}

fn ports() -> impl Strategy<Value = Vec<u16>> {
    vec(port(), 0..3)
}

fn address() -> impl Strategy<Value = IpAddr> {
    any::<IpAddr>().prop_map(|ip| ip.to_canonical())
}

fn network() -> impl Strategy<Value = IpNet> {
    (any::<IpAddr>(), 0..=128_u8).prop_map(|(ip, length)| {
        let most = if ip.is_ipv4() { 32 } else { 128 };
        IpNet::new(ip, length.min(most)).expect("a network")
    })
}

fn labels() -> impl Strategy<Value = BTreeMap<Arc<str>, Arc<str>>> {
    btree_map(name(), ".{0,8}", 0..3)
        .prop_map(|labels| labels.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
}

fn text() -> impl Strategy<Value = Arc<str>> {
    ".{0,8}".prop_map(Arc::from)
}

fn duration() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_nanos)
}

fn mesh() -> impl Strategy<Value = MeshSettings> {
    let enums = (
        select(&[OutboundPolicy::AllowAny, OutboundPolicy::RegistryOnly]),
        select(&[
            PathNormalization::None,
            PathNormalization::Base,
            PathNormalization::MergeSlashes,
            PathNormalization::DecodeAndMergeSlashes,
        ]),
        select(&[SameNode::Auto, SameNode::Trust, SameNode::Encrypt]),
        select(&[AccessLog::Off, AccessLog::Text, AccessLog::Json]),
    );
    let namespaces = || btree_set(namespace(), 0..3);
    (name(), namespace(), enums, retry(), (namespaces(), namespaces(), any::<bool>())).prop_map(
        |(
            domain,
            root_namespace,
            (outbound_policy, path_normalization, same_node, access_log),
            default_retry,
            (enrolled_namespaces, excluded_namespaces, leaving),
        )| {
            MeshSettings {
                trust_domain: TrustDomain::new(domain),
                root_namespace,
                outbound_policy,
                path_normalization,
                same_node,
                default_retry,
                access_log,
                enrolled_namespaces,
                excluded_namespaces,
                leaving,
            }
        },
    )
}

fn identity() -> impl Strategy<Value = Identity> {
    (name(), namespace(), name()).prop_map(|(domain, namespace, account)| Identity {
        trust_domain: TrustDomain::new(domain),
        namespace,
        service_account: ServiceAccount::new(account),
    })
}

fn telemetry() -> impl Strategy<Value = Telemetry> {
    [text(), text(), text(), text(), text(), text(), text()].prop_map(
        |[workload_name, workload_type, app, version, canonical_service, canonical_revision, cluster]| {
            Telemetry {
                workload_name,
                workload_type,
                app,
                version,
                canonical_service,
                canonical_revision,
                cluster,
            }
        },
    )
}

fn endpoint() -> impl Strategy<Value = EndpointOf> {
    (service_key(), btree_map(port(), port(), 0..3), any::<bool>())
        .prop_map(|(service, ports, ready)| EndpointOf { service, ports, ready })
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(&[
        Protocol::Unknown,
        Protocol::Http,
        Protocol::Http2,
        Protocol::Grpc,
        Protocol::Tcp,
        Protocol::Tls,
    ])
}

fn modes() -> impl Strategy<Value = MtlsModes> {
    let mode = || select(&[MtlsMode::Permissive, MtlsMode::Strict, MtlsMode::Disable]);
    (mode(), btree_map(port(), mode(), 0..3), ".{0,8}").prop_map(|(default, ports, from)| MtlsModes {
        default,
        ports,
        from,
    })
}

fn exclusions() -> impl Strategy<Value = Exclusions> {
    (ports(), vec(network(), 0..3), ports()).prop_map(|(outbound_ports, outbound_cidrs, inbound_ports)| {
        Exclusions { outbound_ports, outbound_cidrs, inbound_ports }
    })
}

fn workload() -> impl Strategy<Value = Workload> {
    let who = (name(), name(), namespace(), identity(), name(), vec(address(), 0..3), labels(), telemetry());
    let how = (
        select(&[Tunnel::None, Tunnel::Hbone]),
        select(&[Enrolment::No, Enrolment::Yes]),
        vec(endpoint(), 0..3),
        btree_map(port(), protocol(), 0..3),
        modes(),
        vec(object_key(), 0..3),
        exclusions(),
        (option::of(name()), ports(), vec(address(), 0..2)),
    );
    (who, how).prop_map(
        |(
            (uid, name, namespace, identity, node, ips, labels, telemetry),
            (tunnel, enrolment, endpoints, protocols, mtls, policies, exclusions, private),
        )| {
            let (netns, probe_ports, contested_ips) = private;
            Workload {
                uid: WorkloadUid::new(uid),
                name: name.into(),
                namespace,
                identity,
                node: NodeName::new(node),
                ips,
                contested_ips,
                labels,
                telemetry,
                tunnel,
                enrolment,
                endpoints,
                protocols,
                mtls,
                policies,
                exclusions,
                netns: netns.map(Into::into),
                probe_ports,
            }
        },
    )
}

fn service() -> impl Strategy<Value = Service> {
    let service_port = (port(), ".{0,8}", protocol()).prop_map(|(port, name, protocol)| ServicePort {
        port,
        name,
        protocol,
    });
    (service_key(), name(), vec(address(), 0..3), vec(service_port, 0..3))
        .prop_map(|(key, name, vips, ports)| Service { key, name, vips, ports })
}

fn globs() -> impl Strategy<Value = Vec<Glob>> {
    vec("[*a-z/]{1,6}".prop_map(|text: String| Glob::parse(&text)), 0..3)
}

fn policy() -> impl Strategy<Value = AuthzPolicy> {
    let nets = || vec(network(), 0..2);
    let source = (globs(), globs(), globs(), globs(), nets(), nets()).prop_map(
        |(principals, not_principals, namespaces, not_namespaces, ip_blocks, not_ip_blocks)| Source {
            principals,
            not_principals,
            namespaces,
            not_namespaces,
            ip_blocks,
            not_ip_blocks,
        },
    );
    let operation = (globs(), globs(), ports(), ports(), globs(), globs(), globs(), globs()).prop_map(
        |(hosts, not_hosts, ports, not_ports, methods, not_methods, paths, not_paths)| Operation {
            hosts,
            not_hosts,
            ports,
            not_ports,
            methods,
            not_methods,
            paths,
            not_paths,
        },
    );
    let rule = (vec(source, 0..2), vec(operation, 0..2), any::<bool>())
        .prop_map(|(from, to, unsupported)| Rule { from, to, unsupported });
    (object_key(), select(&[Action::Allow, Action::Deny]), vec(rule, 0..3))
        .prop_map(|(key, action, rules)| AuthzPolicy { key, action, rules })
}

fn visibility() -> impl Strategy<Value = Visibility> {
    prop_oneof![Just(Visibility::All), vec(namespace(), 0..3).prop_map(Visibility::Namespaces)]
}

fn string_match() -> impl Strategy<Value = StringMatch> {
    prop_oneof![
        ".{0,8}".prop_map(StringMatch::Exact),
        ".{0,8}".prop_map(StringMatch::Prefix),
        "[a-z.]{0,4}[*+?]?"
            .prop_filter_map("a pattern", |text| Pattern::new(&text).ok().map(StringMatch::Regex)),
        Just(StringMatch::Present),
    ]
}

fn string_matches() -> impl Strategy<Value = BTreeMap<String, StringMatch>> {
    btree_map("[a-z][a-z-]{0,8}", string_match(), 0..3)
}

fn edits() -> impl Strategy<Value = HeaderEdits> {
    let pairs = || vec(("[A-Za-z][A-Za-z-]{0,8}", "[ -~]{0,8}"), 0..2);
    (pairs(), pairs(), vec("[A-Za-z-]{1,8}", 0..2)).prop_map(|(set, add, remove)| HeaderEdits {
        set,
        add,
        remove,
    })
}

fn retry() -> impl Strategy<Value = RetryPolicy> {
    let on = (any::<[bool; 8]>(), vec(100..=999_u16, 0..3), vec(0..=16_u16, 0..3)).prop_map(
        |(flags, statuses, grpc)| {
            let [
                server_error,
                gateway_error,
                reset,
                reset_before_request,
                connect_failure,
                refused_stream,
                retriable_4xx,
                rate_limited,
            ] = flags;
            RetryOn {
                server_error,
                gateway_error,
                reset,
                reset_before_request,
                connect_failure,
                refused_stream,
                retriable_4xx,
                rate_limited,
                statuses,
                grpc,
            }
        },
    );
    (any::<u32>(), option::of(duration()), on, duration()).prop_map(
        |(attempts, per_try_timeout, on, backoff)| RetryPolicy { attempts, per_try_timeout, on, backoff },
    )
}

fn http_match() -> impl Strategy<Value = HttpMatch> {
    let one = || option::of(string_match());
    let path = (".{0,8}", one(), option::of(name()), any::<bool>(), one(), one(), one());
    let rest = (
        string_matches(),
        string_matches(),
        string_matches(),
        option::of(port()),
        btree_map(name(), ".{0,8}", 0..2),
        option::of(namespace()),
    );
    (path, rest).prop_map(
        |(
            (name, uri, path_segments, ignore_uri_case, scheme, method, authority),
            (headers, without_headers, query, port, source_labels, source_namespace),
        )| HttpMatch {
            name,
            uri,
            path_segments,
            ignore_uri_case,
            scheme,
            method,
            authority,
            headers,
            without_headers,
            query,
            port,
            source_labels,
            source_namespace,
        },
    )
}

fn weighted() -> impl Strategy<Value = WeightedDestination> {
    let invalid = option::of(".{0,8}");
    (host(), option::of(name()), option::of(port()), invalid, 1..=u32::MAX, edits(), edits()).prop_map(
        |(host, subset, port, invalid, weight, request_headers, response_headers)| WeightedDestination {
            destination: Destination { host, subset: subset.map(SubsetName::new), port },
            invalid,
            weight,
            request_headers,
            response_headers,
        },
    )
}

fn routes() -> impl Strategy<Value = RouteTable> {
    let rule = (
        ".{0,8}",
        vec(http_match(), 0..2),
        vec(weighted(), 1..3),
        option::of(duration()),
        retry(),
        edits(),
        edits(),
    )
        .prop_map(|(name, matches, destinations, timeout, retry, request_headers, response_headers)| {
            Arc::new(HttpRule {
                name,
                matches,
                destinations,
                timeout,
                retry,
                request_headers,
                response_headers,
            })
        });
    let source = option::of(port()).prop_map(|port| match port {
        None => RouteSource::VirtualService,
        Some(port) => RouteSource::Gateway { port },
    });
    (object_key(), source, vec(host(), 0..3), visibility(), ".{0,8}", vec(rule, 0..3)).prop_map(
        |(key, source, hosts, export_to, created, rules)| RouteTable {
            key,
            source,
            hosts,
            export_to,
            created,
            rules,
        },
    )
}

fn traffic_policy() -> impl Strategy<Value = TrafficPolicy> {
    let one = || {
        let balancer =
            select(&[Balancer::LeastRequest, Balancer::RoundRobin, Balancer::Random, Balancer::Passthrough]);
        (balancer, option::of(duration()), option::of(any::<u32>())).prop_map(
            |(balancer, connect_timeout, max_requests_per_connection)| PortPolicy {
                balancer,
                connect_timeout,
                max_requests_per_connection,
            },
        )
    };
    (one(), btree_map(port(), one(), 0..2)).prop_map(|(all, ports)| TrafficPolicy { all, ports })
}

fn destination() -> impl Strategy<Value = DestinationPolicy> {
    let subset = (labels(), traffic_policy()).prop_map(|(labels, policy)| Subset { labels, policy });
    (
        object_key(),
        host(),
        visibility(),
        traffic_policy(),
        btree_map(name().prop_map(SubsetName::new), subset, 0..3),
    )
        .prop_map(|(key, host, export_to, policy, subsets)| DestinationPolicy {
            key,
            host,
            export_to,
            policy,
            subsets,
        })
}
