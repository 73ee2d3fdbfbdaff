//! A CONNECT stream as a byte stream, over a real HTTP/2 connection.

use std::future::poll_fn;

use http::{Method, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

/// Both ends of one CONNECT stream over a connection in memory, with windows small enough to be felt.
async fn pair() -> (TunnelStream, TunnelStream) {
    let (client_side, server_side) = duplex(1 << 16);
    let (accepted, dialled) = tokio::join!(
        async {
            let mut connection = h2::server::Builder::new()
                .initial_window_size(4096)
                .handshake::<_, Bytes>(server_side)
                .await
                .unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            let send = respond.send_response(Response::new(()), false).unwrap();
            tokio::spawn(async move { while connection.accept().await.is_some() {} });
            TunnelStream::new(send, request.into_body(), None)
        },
        async {
            let builder =
                h2::client::Builder::new().initial_window_size(4096).handshake::<_, Bytes>(client_side);
            let (send, connection) = builder.await.unwrap();
            tokio::spawn(connection);
            let request = Request::builder().method(Method::CONNECT).uri("10.0.0.1:80").body(()).unwrap();
            let (response, send) = send.ready().await.unwrap().send_request(request, false).unwrap();
            TunnelStream::new(send, response.await.unwrap().into_body(), None)
        }
    );
    (dialled, accepted)
}

#[tokio::test]
async fn bytes_far_beyond_the_window_arrive_and_half_close_is_end_stream() {
    let (client, mut server) = pair().await;
    let sent: Vec<u8> = (0..300_000_u32).map(|at| (at % 253) as u8).collect();
    let (mut read, mut write) = tokio::io::split(client);
    let echo = async {
        let mut seen = Vec::new();
        server.read_to_end(&mut seen).await.unwrap();
        server.write_all(&seen).await.unwrap();
        server.shutdown().await.unwrap();
    };
    let caller = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
        let mut back = Vec::new();
        read.read_to_end(&mut back).await.unwrap();
        back
    };
    let ((), back) = tokio::join!(echo, caller);
    assert_eq!(back, sent);
}

#[tokio::test]
async fn what_does_not_fit_the_window_waits_and_is_not_buffered() {
    let (mut client, mut server) = pair().await;
    let mut data = Bytes::from(vec![7; 10_000]);
    let mut sent = 0;
    poll_fn(|cx| {
        while let Poll::Ready(written) = client.poll_send(cx, &mut data) {
            sent += written.unwrap();
        }
        Poll::Ready(())
    })
    .await;
    assert_eq!(sent, 4096);
    assert_eq!(data.len(), 10_000 - 4096);
    let mut first = vec![0; 4096];
    server.read_exact(&mut first).await.unwrap();
    let more = poll_fn(|cx| client.poll_send(cx, &mut data)).await.unwrap();
    assert!(more > 0);
}

#[tokio::test]
async fn a_dropped_stream_is_a_reset_for_the_other_side() {
    let (client, mut server) = pair().await;
    drop(client);
    let error = server.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_is_seen_by_a_side_that_has_read_everything() {
    let (mut client, mut server) = pair().await;
    server.shutdown().await.unwrap();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    server.reset();
    drop(server);
    let error = poll_fn(|cx| client.poll_reset(cx)).await;
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_lease_is_given_back_with_its_stream() {
    let streams = Arc::new(AtomicUsize::new(0));
    let lease = StreamLease::take(&streams);
    assert_eq!(streams.load(Ordering::Relaxed), 1);
    drop(lease);
    assert_eq!(streams.load(Ordering::Relaxed), 0);
}
