//! Lines, byte by byte.

use std::{
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use super::*;
use crate::telemetry::tests::{connection, request};

#[test]
fn a_request_in_istios_default_format_and_then_our_fields() {
    let line = request_line(Format::Text, &connection(), &request());
    assert_eq!(
        line,
        "[2026-11-21T13:14:00.250Z] \"GET /reviews/0?x=1 HTTP/1.1\" 200 - via_upstream - \"-\" 3 420 12 11 \"-\" \
         \"curl/8.5\" \"5e8b\" \"reviews:9080\" \"10.0.2.5:9080\" outbound|9080|v1|reviews.shop.svc.cluster.local \
         10.0.1.3:40000 10.96.0.7:9080 10.0.1.3:53211 - http[0] reporter=source source=shop/productpage-x \
         destination=shop/reviews-v1-y\n"
    );
}

#[test]
fn a_denied_connection() {
    let mut connection = connection();
    connection.cluster = Some("inbound|9080||".into());
    connection.route = None;
    connection.upstream = None;
    connection.upstream_local = None;
    connection.source = None;
    connection.started = UNIX_EPOCH + Duration::from_millis(1_795_266_840_250);
    let end = TcpEnd {
        sent: 0,
        received: 0,
        flags: ResponseFlags::DENIED,
        error: Some("rbac_access_denied_matched_policy[ns[shop]-policy[deny all]-rule[0]]"),
        duration: Duration::from_millis(1),
    };
    assert_eq!(
        connection_line(Format::Text, &connection, &end),
        "[2026-11-21T13:14:00.250Z] \"- - -\" 0 DENY - \
         rbac_access_denied_matched_policy[ns[shop]-policy[deny_all]-rule[0]] \"-\" 0 0 1 - \"-\" \"-\" \"-\" \"-\" \
         \"-\" inbound|9080|| - 10.96.0.7:9080 10.0.1.3:53211 - - reporter=source source=- \
         destination=shop/reviews-v1-y\n"
    );
}

#[test]
fn what_kept_the_upstream_from_being_reached_is_its_failure() {
    let end = TcpEnd {
        sent: 0,
        received: 5,
        flags: ResponseFlags::UPSTREAM_CONNECTION_FAILURE.with(ResponseFlags::TLS_FAILURE),
        error: Some("the peer's certificate expired 3 s ago"),
        duration: Duration::from_millis(1),
    };
    let line = connection_line(Format::Text, &connection(), &end);
    assert!(
        line.contains(" 0 UF,TLS_FAILURE - - \"the peer's certificate expired 3 s ago\" 5 0 1 - "),
        "{line}"
    );
}

#[test]
fn a_user_cannot_forge_a_field_or_a_line() {
    let mut request = request();
    request.path = "/a\" 200 -\n[2026-01-01T00:00:00.000Z] \"GET /";
    request.user_agent = Some("x\\\"\u{1b}[2J\u{2028}\r");
    request.details = Some("a b");
    let line = request_line(Format::Text, &connection(), &request);
    assert_eq!(line.matches('\n').count(), 1, "{line}");
    assert!(
        line.contains("\"GET /a\\\" 200 -\\x0a[2026-01-01T00:00:00.000Z] \\\"GET / HTTP/1.1\""),
        "{line}"
    );
    assert!(line.contains("\"x\\\\\\\"\\x1b[2J\\u{2028}\\x0d\""), "{line}");
    assert!(line.contains(" a_b "), "{line}");

    let json = request_line(Format::Json, &connection(), &request);
    assert_eq!(json.matches('\n').count(), 1);
    let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(parsed["path"], request.path);
}

#[test]
fn a_long_text_is_cut() {
    let path = format!("/{}", "x".repeat(100_000));
    let mut request = request();
    request.path = &path;
    let line = request_line(Format::Text, &connection(), &request);
    assert!(line.len() < 3000 && line.contains("xxx... HTTP/1.1"));
}

#[test]
fn the_json_object_has_istios_keys_and_ours() {
    let json = request_line(Format::Json, &connection(), &request());
    let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
    let expected = serde_json::json!({
        "start_time": "2026-11-21T13:14:00.250Z", "route_name": "http[0]", "method": "GET", "path": "/reviews/0?x=1",
        "protocol": "HTTP/1.1", "response_code": 200, "response_flags": "-", "response_code_details": "via_upstream",
        "connection_termination_details": null, "bytes_received": 3, "bytes_sent": 420, "duration": 12,
        "upstream_service_time": 11, "x_forwarded_for": null, "user_agent": "curl/8.5", "request_id": "5e8b",
        "authority": "reviews:9080", "upstream_host": "10.0.2.5:9080",
        "upstream_cluster": "outbound|9080|v1|reviews.shop.svc.cluster.local", "upstream_local_address": "10.0.1.3:40000",
        "downstream_local_address": "10.96.0.7:9080", "downstream_remote_address": "10.0.1.3:53211",
        "requested_server_name": null, "upstream_transport_failure_reason": null, "reporter": "source",
        "source": "shop/productpage-x", "destination": "shop/reviews-v1-y"
    });
    assert_eq!(parsed, expected);
}

#[test]
fn a_writer_that_does_not_read_makes_nobody_wait() {
    /// Blocks for ever, as a full pipe does.
    struct Stuck(std::sync::mpsc::Receiver<()>);
    impl std::io::Write for Stuck {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            self.0.recv().ok();
            Ok(0)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            self.0.recv().ok();
            Ok(())
        }
    }
    let (_never, stuck) = std::sync::mpsc::channel();
    let dropped = Arc::new(crate::telemetry::Counter::default());
    let sink = Sink::start(Stuck(stuck), 8, (*dropped).clone()).unwrap();
    let line = "x".repeat(100_000);
    for _ in 0..1000 {
        sink.write(line.clone());
    }
    assert!(dropped.get() >= 1000 - 8 - 2, "{}", dropped.get());
}
