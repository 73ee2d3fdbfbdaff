//! The text that Prometheus reads, line by line.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::{Arc, mpsc},
    time::{Duration, UNIX_EPOCH},
};

use mesh_model::{
    addr::ClientAddr,
    identity::Identity,
    mtls::MtlsModes,
    name::{Hostname, Namespace, NodeName, ServiceKey, WorkloadUid},
    resource::Resource,
    service::Service,
    workload::{self, Enrolment, Exclusions, Tunnel, Workload},
};

use super::*;

pub(super) fn workload(pod: &str, name: &str, version: &str) -> Workload {
    Workload {
        uid: WorkloadUid::new(format!("uid-{pod}")),
        name: pod.into(),
        namespace: Namespace::new("shop"),
        identity: identity(name),
        node: NodeName::new("n1"),
        ips: vec![],
        contested_ips: Vec::new(),
        labels: BTreeMap::new(),
        telemetry: workload::Telemetry {
            workload_name: format!("{name}-{version}").into(),
            workload_type: "deployment".into(),
            app: name.into(),
            version: version.into(),
            canonical_service: name.into(),
            canonical_revision: version.into(),
            cluster: "Kubernetes".into(),
        },
        tunnel: Tunnel::Hbone,
        enrolment: Enrolment::Yes,
        endpoints: vec![],
        protocols: BTreeMap::new(),
        mtls: MtlsModes::default(),
        policies: vec![],
        exclusions: Exclusions::default(),
        netns: None,
        probe_ports: Vec::new(),
    }
}

fn identity(name: &str) -> Identity {
    Identity::parse(&format!("spiffe://cluster.local/ns/shop/sa/{name}")).unwrap()
}

/// productpage calls reviews v1, as its own side sees it.
pub(super) fn connection() -> ConnectionRecord {
    ConnectionRecord {
        reporter: Reporter::Source,
        source: Some(Arc::new(workload("productpage-x", "productpage", "v1"))),
        source_identity: Some(identity("productpage")),
        destination: Some(Arc::new(workload("reviews-v1-y", "reviews", "v1"))),
        destination_identity: Some(identity("reviews")),
        service: Some(Arc::new(Service {
            key: ServiceKey {
                namespace: Namespace::new("shop"),
                host: Hostname::new("reviews.shop.svc.cluster.local"),
            },
            name: "reviews".to_owned(),
            vips: vec![],
            ports: vec![],
        })),
        protocol: RequestProtocol::Http,
        security: Security::MutualTls,
        client: ClientAddr::new("10.0.1.3:53211".parse().unwrap()),
        local: "10.96.0.7:9080".parse().unwrap(),
        upstream: Some("10.0.2.5:9080".parse().unwrap()),
        upstream_local: Some("10.0.1.3:40000".parse().unwrap()),
        cluster: Some("outbound|9080|v1|reviews.shop.svc.cluster.local".into()),
        server_name: None,
        route: None,
        started: UNIX_EPOCH + Duration::from_millis(1_795_266_840_250),
    }
}

pub(super) fn request() -> RequestRecord<'static> {
    RequestRecord {
        method: "GET",
        path: "/reviews/0?x=1",
        version: "HTTP/1.1",
        authority: Some("reviews:9080"),
        user_agent: Some("curl/8.5"),
        request_id: Some("5e8b"),
        forwarded_for: None,
        status: 200,
        grpc_status: None,
        flags: ResponseFlags::NONE,
        details: Some("via_upstream"),
        termination: None,
        upstream_failure: None,
        route: Some("http[0]"),
        bytes_received: 3,
        bytes_sent: 420,
        started: UNIX_EPOCH + Duration::from_millis(1_795_266_840_250),
        duration: Duration::from_micros(12_500),
        upstream_service_time: Some(Duration::from_millis(11)),
    }
}

fn telemetry() -> Telemetry {
    Telemetry::new(&Limits::default(), std::io::sink()).unwrap()
}

fn lines_with<'a>(text: &'a str, start: &str) -> Vec<&'a str> {
    text.lines().filter(|line| line.starts_with(start)).collect()
}

const PARTIES: &str = "source_workload=\"productpage-v1\",source_workload_namespace=\"shop\",\
    source_principal=\"spiffe://cluster.local/ns/shop/sa/productpage\",source_app=\"productpage\",source_version=\"v1\",\
    source_cluster=\"Kubernetes\",source_canonical_service=\"productpage\",source_canonical_revision=\"v1\",\
    destination_workload=\"reviews-v1\",destination_workload_namespace=\"shop\",\
    destination_principal=\"spiffe://cluster.local/ns/shop/sa/reviews\",destination_app=\"reviews\",\
    destination_version=\"v1\",destination_cluster=\"Kubernetes\",destination_canonical_service=\"reviews\",\
    destination_canonical_revision=\"v1\",destination_service=\"reviews.shop.svc.cluster.local\",\
    destination_service_name=\"reviews\",destination_service_namespace=\"shop\"";

#[test]
fn a_request_has_every_label_of_istio() {
    let telemetry = telemetry();
    telemetry.request(&connection(), &request());
    telemetry.request(&connection(), &request());
    let text = telemetry.text().unwrap();
    let expected = format!(
        "istio_requests_total{{reporter=\"source\",{PARTIES},request_protocol=\"http\",response_code=\"200\",\
         grpc_response_status=\"unknown\",response_flags=\"-\",connection_security_policy=\"unknown\"}} 2"
    );
    assert_eq!(lines_with(&text, "istio_requests_total"), [expected]);
}

#[test]
fn the_destination_says_how_it_came() {
    let telemetry = telemetry();
    let mut record = connection();
    record.reporter = Reporter::Destination;
    telemetry.request(&record, &request());
    record.security = Security::None;
    telemetry.request(&record, &request());
    let text = telemetry.text().unwrap();
    for policy in ["mutual_tls", "none"] {
        let end = format!("connection_security_policy=\"{policy}\"}} 1");
        let found: Vec<_> = lines_with(&text, "istio_requests_total{reporter=\"destination\"");
        assert!(found.iter().any(|line| line.ends_with(&end)), "{text}");
    }
}

#[test]
fn what_is_not_known_says_so() {
    let telemetry = telemetry();
    let mut record = connection();
    record.source = None;
    record.source_identity = None;
    record.destination = None;
    record.destination_identity = None;
    record.service = None;
    record.cluster = Some("PassthroughCluster".into());
    let mut failed = request();
    failed.status = 503;
    failed.flags = ResponseFlags::UPSTREAM_CONNECTION_FAILURE.with(ResponseFlags::RETRY_LIMIT);
    telemetry.request(&record, &failed);
    let text = telemetry.text().unwrap();
    let line = lines_with(&text, "istio_requests_total")[0];
    assert_eq!(line.matches("=\"unknown\"").count(), 20, "{line}");
    assert!(line.contains("destination_service_name=\"PassthroughCluster\""), "{line}");
    assert!(line.contains("response_code=\"503\"") && line.contains("response_flags=\"UF,URX\""), "{line}");
}

#[test]
fn durations_and_sizes_fall_into_envoys_buckets() {
    let telemetry = telemetry();
    telemetry.request(&connection(), &request());
    let text = telemetry.text().unwrap();
    let count = |metric: &str, bound: &str| -> u64 {
        let end = format!("le=\"{bound}\"");
        let line =
            lines_with(&text, &format!("{metric}_bucket")).into_iter().find(|line| line.contains(&end));
        line.unwrap_or_else(|| panic!("{metric} {bound} in\n{text}"))
            .rsplit(' ')
            .next()
            .unwrap()
            .parse()
            .unwrap()
    };
    let duration = "istio_request_duration_milliseconds";
    assert_eq!((count(duration, "10.0"), count(duration, "25.0"), count(duration, "+Inf")), (0, 1, 1));
    assert_eq!((count("istio_request_bytes", "1.0"), count("istio_request_bytes", "5.0")), (0, 1));
    assert_eq!(count("istio_response_bytes", "500.0"), 1);
    assert!(lines_with(&text, "istio_request_duration_milliseconds_sum")[0].ends_with(" 12.5"), "{text}");
    assert_eq!(lines_with(&text, "istio_request_duration_milliseconds_bucket").len(), 20);
}

#[test]
fn a_connection_counts_its_bytes_as_istio_does() {
    let telemetry = telemetry();
    let mut record = connection();
    record.protocol = RequestProtocol::Tcp;
    let mut outcome = telemetry.tcp_opened(record);
    outcome.progress(100, 10);
    let text = telemetry.text().unwrap();
    assert!(lines_with(&text, "istio_tcp_sent_bytes_total")[0].ends_with(" 100"), "{text}");
    assert!(lines_with(&text, "istio_tcp_connections_closed_total").is_empty());
    outcome.finish(1000, 20, ResponseFlags::NONE, None);
    let text = telemetry.text().unwrap();
    for (metric, value) in [
        ("istio_tcp_connections_opened_total", 1),
        ("istio_tcp_connections_closed_total", 1),
        ("istio_tcp_sent_bytes_total", 1000),
        ("istio_tcp_received_bytes_total", 20),
    ] {
        let expected = format!(
            "{metric}{{reporter=\"source\",{PARTIES},request_protocol=\"tcp\",response_flags=\"-\",\
             connection_security_policy=\"unknown\"}} {value}"
        );
        assert_eq!(lines_with(&text, metric), [expected]);
    }
}

/// A writer whose lines the test reads.
struct Lines(mpsc::Sender<Vec<u8>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.send(bytes.to_vec()).ok();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_cancelled_connection_is_counted_and_logged_once() {
    let (lines, written) = mpsc::channel();
    let telemetry = Telemetry::new(&Limits::default(), Lines(lines)).unwrap();
    let mut record = connection();
    record.protocol = RequestProtocol::Tcp;
    drop(telemetry.tcp_opened(record));
    let line = String::from_utf8(written.recv_timeout(Duration::from_secs(5)).unwrap()).unwrap();
    assert!(line.contains("\"- - -\" 0 LR - cancelled \"-\" 0 0 "), "{line}");
    let text = telemetry.text().unwrap();
    let closed = lines_with(&text, "istio_tcp_connections_closed_total");
    assert!(closed[0].contains("response_flags=\"LR\"") && closed[0].ends_with(" 1"), "{text}");
    assert!(written.try_recv().is_err());
}

#[test]
fn no_line_when_the_log_is_off() {
    let (lines, written) = mpsc::channel();
    let telemetry = Telemetry::new(&Limits::default(), Lines(lines)).unwrap();
    telemetry.set_access_log(AccessLog::Off);
    telemetry.request(&connection(), &request());
    telemetry.set_access_log(AccessLog::Json);
    telemetry.request(&connection(), &request());
    let line = String::from_utf8(written.recv_timeout(Duration::from_secs(5)).unwrap()).unwrap();
    assert!(line.starts_with("{\"start_time\""), "{line}");
}

#[test]
fn series_end_with_their_workload() {
    let telemetry = telemetry();
    let standard = &telemetry.shared.standard;
    telemetry.request(&connection(), &request());
    let productpage = Resource::Workload(workload("productpage-x", "productpage", "v1"));
    let both = Snapshot::default()
        .next(vec![productpage, Resource::Workload(workload("reviews-v1-z", "reviews", "v1"))], &[]);
    let gone = both.next(vec![], &[Resource::Workload(workload("reviews-v1-z", "reviews", "v1")).key()]);
    let (start, minute) = (Instant::now(), Duration::from_secs(60));
    let count = || lines_with(&telemetry.text().unwrap(), "istio_requests_total").len();

    standard.sweep(&both, start, minute);
    standard.sweep(&gone, start, minute);
    standard.sweep(&gone, start + minute / 2, minute);
    assert_eq!(count(), 1, "a pod of the same Deployment lived, and the last values are kept for a while");
    standard.sweep(&gone, start + minute, minute);
    assert_eq!(count(), 0);
    telemetry.request(&connection(), &request());
    assert_eq!(count(), 1, "no thread writes to a forgotten series");
}

#[test]
fn too_many_label_sets_are_refused_and_counted() {
    let limits = Limits { metric_series: 2, ..Limits::default() };
    let telemetry = Telemetry::new(&limits, std::io::sink()).unwrap();
    for status in [200, 201, 202, 203] {
        telemetry.request(&connection(), &RequestRecord { status, ..request() });
    }
    let text = telemetry.text().unwrap();
    assert_eq!(lines_with(&text, "istio_requests_total").len(), 2);
    assert_eq!(lines_with(&text, "mesh_metric_series_refused_total"), ["mesh_metric_series_refused_total 2"]);
}

#[test]
fn a_grpc_status_counts_for_grpc_only_and_is_bounded() {
    let telemetry = telemetry();
    let mut record = connection();
    for grpc_status in [Some(14), Some(14), None] {
        telemetry.request(&record, &RequestRecord { grpc_status, ..request() });
    }
    record.protocol = RequestProtocol::Grpc;
    for code in [14, 17, 40_000] {
        telemetry.request(&record, &RequestRecord { grpc_status: Some(code), ..request() });
    }
    let text = telemetry.text().unwrap();
    let mut found: Vec<_> = lines_with(&text, "istio_requests_total")
        .into_iter()
        .map(|line| &line[line.find("request_protocol").unwrap()..line.find(",response_flags").unwrap()])
        .collect();
    found.sort_unstable();
    let with = |protocol: &str, status: &str| {
        format!("request_protocol=\"{protocol}\",response_code=\"200\",grpc_response_status=\"{status}\"")
    };
    assert_eq!(found, [with("grpc", "14"), with("grpc", "17"), with("http", "unknown")]);
}

#[test]
fn a_label_cannot_break_the_exposition() {
    let telemetry = telemetry();
    let mut record = connection();
    let mut odd = workload("p", "p", "v");
    odd.telemetry.version = "a\"} 1\nx\\".into();
    record.source = Some(Arc::new(odd));
    telemetry.request(&record, &request());
    let text = telemetry.text().unwrap();
    assert!(text.contains("source_version=\"a\\\"} 1\\nx\\\\\""), "{text}");
}

#[test]
fn our_own_counters_are_one_per_name() {
    let telemetry = telemetry();
    telemetry.counter("mesh_things", "Things").inc();
    telemetry.counter("mesh_things", "Things").inc();
    telemetry.gauge("mesh_level", "Level").set(-3);
    let text = telemetry.text().unwrap();
    assert_eq!(lines_with(&text, "mesh_things_total"), ["mesh_things_total 2"]);
    assert_eq!(lines_with(&text, "mesh_level"), ["mesh_level -3"]);
    let build = format!("istio_build{{component=\"mesh-node\",tag=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    assert_eq!(lines_with(&text, "istio_build"), [build]);
}
