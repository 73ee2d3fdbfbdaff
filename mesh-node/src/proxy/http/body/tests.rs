//! A request's body that has to be sent again.

use std::{convert::Infallible, future::poll_fn};

use http::Response;
use http_body_util::{BodyExt, Empty};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, duplex};

use super::*;

/// Gives the body of one request with these chunks to `story`.
async fn with_body<F: Future<Output = ()>>(chunks: &[&str], story: impl Fn(Incoming) -> F) {
    let (mut client, server) = duplex(1 << 16);
    let mut request =
        String::from("POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n");
    for chunk in chunks {
        request.push_str(&format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    }
    request.push_str("0\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let service = service_fn(|request: http::Request<Incoming>| {
        let done = story(request.into_body());
        async move {
            done.await;
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    http1::Builder::new().serve_connection(TokioIo::new(server), service).await.unwrap();
}

async fn next(body: &mut ToUpstream) -> Option<Result<Bytes, BodyError>> {
    let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
    Some(frame.map(|frame| frame.into_data().unwrap_or_default()))
}

#[tokio::test]
async fn a_second_try_sends_the_whole_and_the_first_takes_nothing_away() {
    with_body(&["one ", "two ", "three"], |incoming| async {
        let body = Replayable::new(incoming, 1024, &Buffers::new(1 << 20));
        let mut first = body.next_try();
        let taken = next(&mut first).await.unwrap().unwrap().to_vec();
        assert!(body.can_be_sent_again());
        let second = body.next_try();
        assert!(next(&mut first).await.unwrap().is_err(), "a try that was given up still reads");
        let whole = second.collect().await.unwrap().to_bytes();
        assert_eq!(whole, "one two three");
        assert!(whole.starts_with(&taken));
        assert_eq!(body.next_try().collect().await.unwrap().to_bytes(), "one two three");
        assert_eq!(body.received().get(), 13);
    })
    .await;
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_sent_once() {
    with_body(&["0123456789", "0123456789"], |incoming| async {
        let body = Replayable::new(incoming, 15, &Buffers::new(1 << 20));
        assert_eq!(body.next_try().collect().await.unwrap().to_bytes().len(), 20);
        assert!(!body.can_be_sent_again());
    })
    .await;
}

#[tokio::test]
async fn without_room_in_the_process_nothing_is_kept() {
    with_body(&["0123456789"], |incoming| async {
        let buffers = Buffers::new(4);
        let body = Replayable::new(incoming, 1024, &buffers);
        assert_eq!(body.next_try().collect().await.unwrap().to_bytes().len(), 10);
        assert!(!body.can_be_sent_again());
        assert!(buffers.share().resize(4), "what was not kept is not counted");
    })
    .await;
}

#[tokio::test]
async fn an_empty_body_is_sent_as_such() {
    with_body(&[], |incoming| async {
        let body = Replayable::new(incoming, 0, &Buffers::new(0));
        let empty = body.next_try().collect().await.unwrap().to_bytes();
        assert!(empty.is_empty());
    })
    .await;
}
