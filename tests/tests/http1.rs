//! The corners of HTTP/1: what a caller and an application notice between them must be what they notice without a mesh.
//!
//! Both ends are scripts of bytes here, since a well-behaved library would hide the corners.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use mesh_tests::{Pod, World};

/// The port of the scripted application; its service calls it `http`.
const SCRIPTED: u16 = 8081;
/// Bytes.
const GIB: u64 = 1 << 30;
/// Patience of both ends.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `story` with a callee on the same node and one on another, through the service `b`: 80 is the echo application, 8081 a script.
fn both_nodes(name: &str, story: impl Fn(&World, &Pod, &Pod) -> Result<()>) {
    World::new(name).run(|world| {
        world.service("b").port("http", 80, 80).port("http-scripted", SCRIPTED, SCRIPTED).create()?;
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

/// An application that reads until `until`, writes `answer`, and says what it has read.
fn scripted(pod: &Pod, until: &'static str, answer: &'static str) -> Result<JoinHandle<Result<String>>> {
    let listener = pod.inside(|| TcpListener::bind(("0.0.0.0", SCRIPTED)))??;
    Ok(thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let read = read_until(&mut stream, until)?;
        stream.write_all(answer.as_bytes())?;
        // Whoever reads the answer ends the connection.
        let _ = stream.read(&mut [0; 64]);
        Ok(read)
    }))
}

fn read_until(stream: &mut TcpStream, until: &str) -> Result<String> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut read = Vec::new();
    let mut piece = [0; 4096];
    while !String::from_utf8_lossy(&read).contains(until) {
        let count = stream.read(&mut piece).with_context(|| {
            format!("no `{}` in `{}`", until.escape_debug(), String::from_utf8_lossy(&read))
        })?;
        anyhow::ensure!(count > 0, "the end came before `{}`", until.escape_debug());
        read.extend_from_slice(&piece[..count]);
    }
    Ok(String::from_utf8_lossy(&read).into_owned())
}

fn said(script: JoinHandle<Result<String>>) -> Result<String> {
    script.join().map_err(|_| anyhow::anyhow!("the script panicked"))?
}

#[test]
fn a_caller_that_expects_100_continue_hears_it_before_it_sends() {
    both_nodes("expect", |_, a, b| {
        let head = "send:POST /x HTTP/1.1\\r\\nhost: b\\r\\nexpect: 100-continue\\r\\ncontent-length: 5\\r\\nconnection: close\\r\\n\\r\\n";
        let talk =
            a.talk(&b.at(80), &[head, "until:100 Continue\\r\\n\\r\\n", "send:hello", "eof"])?.done()?;
        assert!(
            talk.received.contains("HTTP/1.1 200") && talk.received.contains("\"body_bytes\":5"),
            "{talk:?}"
        );
        Ok(())
    });
}

#[test]
fn a_refusal_instead_of_100_continue_reaches_the_caller() {
    both_nodes("expect-no", |_, a, b| {
        let refusal = "HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno";
        let script = scripted(b, "\r\n\r\n", refusal)?;
        let head =
            "send:POST /x HTTP/1.1\\r\\nhost: b\\r\\nexpect: 100-continue\\r\\ncontent-length: 5\\r\\n\\r\\n";
        let talk = a.talk(&b.at(SCRIPTED), &[head, "until:no"])?.done()?;
        assert!(talk.received.contains("HTTP/1.1 417"), "{talk:?}");
        said(script)?;
        Ok(())
    });
}

#[test]
fn an_early_hint_does_not_end_the_exchange() {
    both_nodes("hints", |_, a, b| {
        let answer = "HTTP/1.1 103 Early Hints\r\nlink: </s.css>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone";
        let script = scripted(b, "\r\n\r\n", answer)?;
        let head = "send:GET /x HTTP/1.1\\r\\nhost: b\\r\\nconnection: close\\r\\n\\r\\n";
        let talk = a.talk(&b.at(SCRIPTED), &[head, "until:done"])?.done()?;
        assert!(talk.received.contains("HTTP/1.1 200"), "{talk:?}");
        said(script)?;
        Ok(())
    });
}

#[test]
fn trailers_pass_both_ways() {
    both_nodes("trailers", |_, a, b| {
        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n4\r\nbody\r\n0\r\nx-sum: 42\r\n\r\n";
        let script = scripted(b, "x-part: 7\r\n\r\n", answer)?;
        let request = "send:POST /x HTTP/1.1\\r\\nhost: b\\r\\nte: trailers\\r\\ntrailer: x-part\\r\\ntransfer-encoding: chunked\\r\\n\\r\\n3\\r\\nabc\\r\\n0\\r\\nx-part: 7\\r\\n\\r\\n";
        let talk = a.talk(&b.at(SCRIPTED), &[request, "until:x-sum: 42\\r\\n\\r\\n"])?.done()?;
        assert!(talk.received.starts_with("HTTP/1.1 200"), "{talk:?}");
        let read = said(script)?;
        assert!(read.contains("abc"), "{read}");
        Ok(())
    });
}

#[test]
fn http_1_0_is_answered_and_closed_unless_it_asks_to_stay() {
    both_nodes("http10", |_, a, b| {
        let talk = a.talk(&b.at(80), &["send:GET /x HTTP/1.0\\r\\nhost: b\\r\\n\\r\\n", "eof"])?.done()?;
        assert!(
            talk.received.starts_with("HTTP/1.0 200") || talk.received.starts_with("HTTP/1.1 200"),
            "{talk:?}"
        );
        assert!(!talk.received.to_lowercase().contains("transfer-encoding"), "1.0 knows no chunks: {talk:?}");
        let request = "send:GET /x HTTP/1.0\\r\\nhost: b\\r\\nconnection: keep-alive\\r\\n\\r\\n";
        let talk = a.talk(
            &b.at(80),
            &[request, "until:\"path\":\"/x\"", "wait:100", request, "until:\"path\":\"/x\""],
        )?;
        talk.done()?;
        // An application that answers in 1.0, without a length: the end is the end of the connection.
        let script = scripted_and_closed(b, "HTTP/1.0 200 OK\r\n\r\nto the end")?;
        let talk = a
            .talk(
                &b.at(SCRIPTED),
                &["send:GET /x HTTP/1.1\\r\\nhost: b\\r\\nconnection: close\\r\\n\\r\\n", "eof"],
            )?
            .done()?;
        assert!(talk.received.contains("to the end"), "{talk:?}");
        said(script)?;
        Ok(())
    });
}

fn scripted_and_closed(pod: &Pod, answer: &'static str) -> Result<JoinHandle<Result<String>>> {
    let listener = pod.inside(|| TcpListener::bind(("0.0.0.0", SCRIPTED)))??;
    Ok(thread::spawn(move || {
        let (mut stream, _) = listener.accept()?;
        let read = read_until(&mut stream, "\r\n\r\n")?;
        stream.write_all(answer.as_bytes())?;
        Ok(read)
    }))
}

#[test]
fn a_head_over_the_limit_is_431_and_one_below_it_passes() {
    both_nodes("head-size", |_, a, b| {
        let request = |bytes: usize| {
            format!(
                "send:GET /x HTTP/1.1\\r\\nhost: b\\r\\nx-large: {}\\r\\nconnection: close\\r\\n\\r\\n",
                "x".repeat(bytes)
            )
        };
        let talk = a.talk(&b.at(80), &[&request(48 << 10), "eof"])?.done()?;
        assert!(
            talk.received.starts_with("HTTP/1.1 200"),
            "{}",
            &talk.received[..talk.received.len().min(300)]
        );
        let talk = a.talk(&b.at(80), &[&request(80 << 10), "until:\\r\\n\\r\\n"])?;
        assert!(talk.received.starts_with("HTTP/1.1 431"), "{talk:?}");
        assert_eq!(a.get(&format!("http://{}/", b.at(80)))?.status(), 200);
        Ok(())
    });
}

#[test]
fn an_answers_head_over_the_limit_is_an_answer_of_ours() {
    both_nodes("answer-head", |_, a, b| {
        let listener = b.inside(|| TcpListener::bind(("0.0.0.0", SCRIPTED)))??;
        let script = thread::spawn(move || -> Result<String> {
            let (mut stream, _) = listener.accept()?;
            let read = read_until(&mut stream, "\r\n\r\n")?;
            let head =
                format!("HTTP/1.1 200 OK\r\nx-large: {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(400 << 10));
            // The reader may give up in the middle.
            let _ = stream.write_all(head.as_bytes());
            Ok(read)
        });
        let answer = a.get(&format!("http://{}/x", b.at(SCRIPTED)))?;
        assert!(matches!(answer.status(), 502 | 503), "{answer:?}");
        said(script)?;
        Ok(())
    });
}

#[test]
fn a_gib_each_way_takes_no_memory() {
    both_nodes("gib", |world, a, b| {
        let resident = |node: u8| -> Result<u64> {
            let pid = world.pid(&format!("node-{node}")).context("no agent")?;
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
            let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("no VmHWM")?;
            Ok(line.split_whitespace().nth(1).context("no number")?.parse::<u64>()? << 10)
        };
        a.get(&format!("http://{}/", b.at(80)))?;
        let before = [resident(1)?, resident(2)?];
        let listener = b.inside(|| TcpListener::bind(("0.0.0.0", SCRIPTED)))??;
        let script = thread::spawn(move || -> Result<String> {
            let (mut stream, _) = listener.accept()?;
            let read = read_until(&mut stream, "\r\n\r\n")?;
            send(&mut stream, &format!("HTTP/1.1 200 OK\r\ncontent-length: {GIB}\r\n\r\n"), GIB)?;
            Ok(read)
        });
        let down = a.inside(|| {
            transfer(&b.at(SCRIPTED), "GET /x HTTP/1.1\r\nhost: b\r\nconnection: close\r\n\r\n", 0)
        })??;
        assert!(down >= GIB, "{down} bytes came down");
        said(script)?;
        let head =
            format!("POST /x HTTP/1.1\r\nhost: b\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", GIB);
        let up = a.inside(|| transfer(&b.at(80), &head, GIB))??;
        assert!(up > 0, "no answer to a GiB");
        for (node, before) in [(1, before[0]), (2, before[1])] {
            let grown = resident(node)?.saturating_sub(before) >> 20;
            assert!(grown < 48, "the agent of node {node} grew by {grown} MiB");
        }
        Ok(())
    });
}

/// Sends a head and `body` bytes, reads to the end, and counts what was read.
fn transfer(to: &str, head: &str, body: u64) -> Result<u64> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    send(&mut stream, head, body)?;
    Ok(std::io::copy(&mut stream, &mut std::io::sink())?)
}

fn send(stream: &mut TcpStream, head: &str, body: u64) -> Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(head.as_bytes())?;
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..body >> 20 {
        stream.write_all(&piece)?;
    }
    Ok(())
}
