//! What the first bytes of a connection are taken for.

use std::convert::Infallible;

use tokio::{
    io::{AsyncWriteExt, duplex},
    net::{TcpListener, TcpStream},
};

use super::*;

async fn upstream() -> (UpstreamStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    (UpstreamStream::Tcp(dialled), accepted)
}

fn itself(stream: &mut UpstreamStream) -> &mut UpstreamStream {
    stream
}

#[tokio::test]
async fn a_server_that_speaks_first_is_opaque_and_nothing_of_the_client_is_lost() {
    let (mut client, mut side) = duplex(64);
    let (stream, mut server) = upstream().await;
    client.write_all(b"G").await.unwrap();
    server.write_all(b"220 hello").await.unwrap();
    let dial = async { Ok::<_, Infallible>(stream) };
    match race(&mut side, dial, itself, 512).await {
        Sniffed::Opaque(prefix, Ok(_)) => assert_eq!(&prefix[..], b"G"),
        _ => panic!("expected opaque"),
    }
}

#[tokio::test]
async fn a_client_that_speaks_http_first_is_http_even_in_pieces() {
    let (mut client, mut side) = duplex(64);
    let (stream, _server) = upstream().await;
    let dial = async { Ok::<_, Infallible>(stream) };
    let (seen, ()) = tokio::join!(race(&mut side, dial, itself, 512), async {
        for piece in [&b"GE"[..], b"T ", b"/x HTTP/1.1\r\n"] {
            client.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
    });
    match seen {
        Sniffed::Http(prefix, _) => assert!(prefix.starts_with(b"GET /")),
        Sniffed::Opaque(..) => panic!("expected HTTP"),
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_refused_dial_a_silent_client_is_given_up_within_a_second() {
    let (_client, mut side) = duplex(64);
    let begun = tokio::time::Instant::now();
    let dial = async { Err::<UpstreamStream, _>("refused") };
    assert!(matches!(race(&mut side, dial, itself, 512).await, Sniffed::Opaque(_, Err("refused"))));
    assert!(begun.elapsed() <= FIRST_USE);
}

#[tokio::test(start_paused = true)]
async fn after_a_refused_dial_a_client_that_speaks_http_is_owed_an_answer() {
    let (mut client, mut side) = duplex(64);
    let dial = async { Err::<UpstreamStream, _>("refused") };
    let (seen, ()) = tokio::join!(race(&mut side, dial, itself, 512), async {
        tokio::time::sleep(FIRST_USE / 2).await;
        client.write_all(b"GET /x HTTP/1.1\r\n").await.unwrap();
    });
    assert!(matches!(seen, Sniffed::Http(_, Some(Err("refused")))));
}

#[tokio::test(start_paused = true)]
async fn half_a_method_does_not_hold_a_connection_up() {
    let (mut client, mut side) = duplex(64);
    client.write_all(b"POS").await.unwrap();
    let mut prefix = BytesMut::new();
    assert_eq!(judge(&mut side, &mut prefix, 512).await, First::Opaque);
    assert_eq!(&prefix[..], b"POS");
}
