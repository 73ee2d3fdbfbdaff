//! HTTP/1.1 through the mesh as without it, and what is not HTTP.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use mesh_tests::{Pod, World};
use rustls::pki_types::{PrivateKeyDer, ServerName};

/// Runs `story` for a callee on the same node and one on another, through the service `b`.
fn both_nodes(name: &str, story: impl Fn(&World, &Pod, &Pod) -> Result<()>) {
    World::new(name).run(|world| {
        world.service("b").create()?;
        let a = world.pod("a").node(1).spawn()?;
        for node in [1, 2] {
            let b = world.pod(&format!("b{node}")).label("app", "b").node(node).spawn()?;
            world.settle()?;
            story(world, &a, &b)?;
            b.remove()?;
        }
        Ok(())
    });
}

#[test]
fn keep_alive_chunks_bodies_and_heads() {
    both_nodes("http1", |_, a, b| {
        let url = |path: &str| format!("http://{}{path}", b.at(80));
        let answers = a.call(&url("/x")).times(20).keep_alive().answers()?;
        assert!(
            answers.iter().all(|answer| answer.status() == 200 && answer.local == answers[0].local),
            "{answers:?}"
        );
        assert_eq!(a.get(&url("/chunked/4"))?.body().as_str(), Some("chunk\nchunk\nchunk\nchunk\n"));
        let body = "x".repeat(300_000);
        let answer = a.call(&url("/post")).method("POST").body(&body[..100_000]).send()?;
        assert_eq!((answer.status(), answer.body()["body_bytes"].as_u64()), (200, Some(100_000)));
        let head = a
            .talk(
                &b.at(80),
                &["send:HEAD /bytes/100 HTTP/1.1\\r\\nhost: b\\r\\nconnection: close\\r\\n\\r\\n", "eof"],
            )?
            .done()?;
        assert!(head.received.starts_with("HTTP/1.1 200") && head.received.ends_with("\r\n\r\n"), "{head:?}");
        assert_eq!(a.get(&url("/bytes/1000000"))?.status(), 200);
        let chunked = "send:POST /c HTTP/1.1\\r\\nhost: b\\r\\ntransfer-encoding: chunked\\r\\nconnection: close\\r\\n\\r\\n5\\r\\nhello\\r\\n0\\r\\n\\r\\n";
        assert!(a.talk(&b.at(80), &[chunked, "eof"])?.received.contains("\"body_bytes\":5"));
        for status in [204, 304, 404, 500, 503] {
            assert_eq!(a.get(&url(&format!("/status/{status}")))?.status(), status);
        }
        let pipelined = "send:GET /1 HTTP/1.1\\r\\nhost: b\\r\\n\\r\\nGET /2 HTTP/1.1\\r\\nhost: b\\r\\nconnection: close\\r\\n\\r\\n";
        let talk = a.talk(&b.at(80), &[pipelined, "eof"])?;
        assert!(
            talk.received.contains("\"path\":\"/1\"") && talk.received.contains("\"path\":\"/2\""),
            "{talk:?}"
        );
        Ok(())
    });
}

#[test]
fn an_upgrade_is_passed() {
    both_nodes("upgrade", |_, a, b| {
        for authority in ["b.shop:80".to_owned(), b.at(80)] {
            let request = "send:GET /upgrade HTTP/1.1\\r\\nhost: b\\r\\nconnection: upgrade\\r\\nupgrade: websocket\\r\\n\\r\\n";
            let talk = a.talk(
                &authority,
                &[request, "until:\\r\\n\\r\\n", "send:ping", "until:ping", "send:more", "until:more"],
            )?;
            let talk = talk.done()?;
            assert!(talk.received.starts_with("HTTP/1.1 101"), "{talk:?}");
        }
        Ok(())
    });
}

#[test]
fn an_http_answer_of_an_application_that_hangs_up_is_503() {
    both_nodes("hang-up", |_, a, b| {
        let answer = a.get(&format!("http://{}/reset", b.at(80)))?;
        assert_eq!(answer.status(), 503, "{answer:?}");
        assert_eq!(a.get(&format!("http://{}/", b.at(80)))?.status(), 200);
        Ok(())
    });
}

#[test]
fn a_port_named_tcp_is_not_read_as_http() {
    World::new("opaque").run(|world| {
        world.service("b").port("tcp", 80, 80).create()?;
        let a = world.pod("a").node(1).spawn()?;
        let b = world.pod("b").node(2).spawn()?;
        world.settle()?;
        // No HTTP parser would let this through; the application's own says 400.
        let talk = a.talk("b.shop:80", &["send:not http at all\\r\\n\\r\\n", "eof"])?;
        assert!(talk.received.starts_with("HTTP/1.1 400"), "{talk:?}");
        assert_eq!(a.get("http://b.shop/")?.text("/pod"), b.name());
        let labels = [("destination_workload", "b"), ("reporter", "destination")];
        let metrics = world.metrics(2)?;
        assert_eq!(metrics.sum("istio_requests_total", &labels), 0.0);
        assert!(metrics.sum("istio_tcp_connections_opened_total", &labels) >= 2.0);
        Ok(())
    });
}

#[test]
fn http2_with_prior_knowledge_passes_as_opaque() {
    both_nodes("h2c", |_, a, b| {
        // The echo port answers the preface as it came: nobody on the way took it for HTTP/1.1.
        let preface = "PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n";
        let talk = a.talk(&b.at(9000), &[&format!("send:{preface}"), "read:24"])?.done()?;
        assert_eq!(talk.received, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        Ok(())
    });
}

#[test]
fn the_applications_own_tls_passes_through() {
    both_nodes("own-tls", |_, a, b| {
        let made = rcgen::generate_simple_self_signed(vec!["b.shop".to_owned()])?;
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)?;
        let listener = b.inside(|| TcpListener::bind("0.0.0.0:8443"))??;
        let serving = thread::spawn(move || -> Result<()> {
            let (stream, _) = listener.accept()?;
            let mut tls = rustls::StreamOwned::new(rustls::ServerConnection::new(Arc::new(server))?, stream);
            let mut line = [0; 5];
            tls.read_exact(&mut line)?;
            tls.write_all(&line)?;
            Ok(())
        });
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone())?;
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let to = b.at(8443);
        let stream = a.inside(|| TcpStream::connect(&to))??;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let connection = rustls::ClientConnection::new(Arc::new(client), ServerName::try_from("b.shop")?)?;
        let mut tls = rustls::StreamOwned::new(connection, stream);
        tls.write_all(b"hello")?;
        let mut line = [0; 5];
        tls.read_exact(&mut line).context("no echo through TLS")?;
        assert_eq!(&line, b"hello");
        let shown = tls.conn.peer_certificates().and_then(|chain| chain.first()).context("no certificate")?;
        assert_eq!(shown, &certificate, "somebody on the way ended the TLS");
        serving.join().map_err(|_| anyhow::anyhow!("the server panicked"))?
    });
}
