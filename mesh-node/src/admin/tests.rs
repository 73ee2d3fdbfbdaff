//! What is answered, over a real socket.

use std::time::{Duration, Instant};

use mesh_model::{mesh::MeshSettings, resource::Resource, snapshot::Snapshot};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream as Client,
    sync::watch,
};

use super::*;
use crate::{
    clock::Clock,
    cni::Trouble,
    feed::Link,
    identity::testing::{Behaviour, TestCa, identity, store},
    phase::{self, PhaseControl, Stage},
    state::{self, Writer},
};

struct Bench {
    addr: SocketAddr,
    phase: PhaseControl,
    writer: Writer,
    link: watch::Sender<Link>,
    cni_trouble: Trouble,
}

fn bench() -> Bench {
    let clock = Clock::system();
    let ca = TestCa::new(&clock, Duration::from_secs(3600));
    ca.behave(Behaviour::Refusing);
    let certificates = store(&ca, &clock);
    certificates.want([identity("web")].into());
    let (phase_control, phase) = phase::new();
    let (writer, state) = state::new();
    let link = watch::Sender::new(Link { connected: false, since: Instant::now(), last_error: None });
    let cni_trouble = Trouble::default();
    let health = Health {
        phase,
        state,
        link: link.subscribe(),
        certificates,
        cni_trouble: cni_trouble.clone(),
        heartbeat: Heartbeat::new(),
    };
    let limits =
        Limits { admin_connections: 2, admin_request: Duration::from_millis(300), ..Limits::default() };
    let telemetry = Telemetry::new(&limits, io::sink()).unwrap();
    telemetry.counter("mesh_things", "Things").inc();
    let addr = start("127.0.0.1:0".parse().unwrap(), telemetry, health, &limits).unwrap();
    Bench { addr, phase: phase_control, writer, link, cni_trouble }
}

async fn ask(addr: SocketAddr, request: &str) -> String {
    let mut stream = Client::connect(addr).await.unwrap();
    stream.write_all(format!("{request} HTTP/1.1\r\nHost: node\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn ready_when_it_serves_a_complete_snapshot_and_the_reasons_until_then() {
    let bench = bench();
    let answer = ask(bench.addr, "GET /readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\"ready\":false"), "{answer}");
    assert!(answer.contains("\"the agent is starting\""), "{answer}");
    assert!(answer.contains("no complete snapshot has arrived"), "{answer}");

    bench.phase.advance(Stage::Serving);
    let snapshot = Snapshot::default().next(vec![Resource::Mesh(MeshSettings::default())], &[]);
    bench.writer.publish(snapshot, true);
    bench.link.send_modify(|link| link.last_error = Some("Connection refused".to_owned()));
    tokio::time::sleep(Duration::from_millis(100)).await;
    let answer = ask(bench.addr, "GET /readyz").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("the controller has been out of reach for 0 s: Connection refused"), "{answer}");
    assert!(answer.contains("no certificate for spiffe://cluster.local/ns/shop/sa/web: "), "{answer}");
    assert!(answer.contains("\"generation\":1"), "{answer}");

    bench.cni_trouble.set(Some("/opt/cni/bin: Read-only file system".to_owned()));
    let answer = ask(bench.addr, "GET /readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Read-only file system"), "{answer}");
    bench.cni_trouble.set(None);
    assert!(ask(bench.addr, "GET /readyz").await.starts_with("HTTP/1.1 200 "));

    bench.phase.advance(Stage::Draining);
    assert!(ask(bench.addr, "GET /readyz").await.contains("the agent is draining"));
}

#[tokio::test]
async fn metrics_and_health_and_nothing_else() {
    let bench = bench();
    let answer = ask(bench.addr, "GET /metrics").await;
    assert!(answer.contains("content-type: application/openmetrics-text; version=1.0.0"), "{answer}");
    assert!(answer.contains("mesh_things_total 1") && answer.ends_with("# EOF\n"), "{answer}");
    assert!(ask(bench.addr, "GET /healthz").await.ends_with("ok\n"));
    assert!(ask(bench.addr, "GET /config_dump").await.starts_with("HTTP/1.1 404 "));
    assert!(ask(bench.addr, "POST /metrics").await.starts_with("HTTP/1.1 405 "));
}

#[tokio::test]
async fn silent_callers_do_not_keep_others_out() {
    let bench = bench();
    let _silent = [Client::connect(bench.addr).await.unwrap(), Client::connect(bench.addr).await.unwrap()];
    let answer = tokio::time::timeout(Duration::from_secs(5), ask(bench.addr, "GET /healthz")).await;
    assert!(answer.unwrap().ends_with("ok\n"));
}
