//! Order, bounds and ends of what is gathered.

use std::future::poll_fn;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

use super::*;

#[tokio::test]
async fn small_writes_wait_for_the_end_of_the_turn_and_keep_their_order() {
    let (mut far, near) = duplex(1 << 20);
    let (cork, mut corked) = cork(near);
    corked.write_all(b"one ").await.unwrap();
    corked.flush().await.unwrap();
    let mut chunk = [0; 64];
    let nothing = tokio::time::timeout(std::time::Duration::from_millis(20), far.read(&mut chunk)).await;
    assert!(nothing.is_err(), "it left before the turn was over");
    corked.write_all(&[b'x'; DIRECT]).await.unwrap();
    corked.write_all(b" two").await.unwrap();
    poll_fn(|cx| cork.poll_uncork(cx)).await.unwrap();
    let mut all = vec![0; 4 + DIRECT + 4];
    far.read_exact(&mut all).await.unwrap();
    assert!(all.starts_with(b"one x") && all.ends_with(b"x two"));
}

#[tokio::test]
async fn what_waits_is_bounded_and_a_full_socket_holds_the_writer() {
    let (mut far, near) = duplex(1024);
    let (cork, mut corked) = cork(near);
    let mut accepted = 0;
    poll_fn(|cx| {
        while let Poll::Ready(written) = Pin::new(&mut corked).poll_write(cx, &[7; 1000]) {
            accepted += written.unwrap();
        }
        Poll::Ready(())
    })
    .await;
    assert!(accepted <= GATHERED + 1024, "{accepted}");
    let drain = async {
        poll_fn(|cx| cork.poll_uncork(cx)).await.unwrap();
        corked.shutdown().await.unwrap();
        drop((cork, corked));
    };
    let mut all = Vec::new();
    let (_, read) = tokio::join!(drain, far.read_to_end(&mut all));
    assert_eq!(read.unwrap(), accepted);
}

#[tokio::test]
async fn shutdown_sends_what_still_waits() {
    let (mut far, near) = duplex(1024);
    let (_cork, mut corked) = cork(near);
    corked.write_all(b"bye").await.unwrap();
    corked.shutdown().await.unwrap();
    let mut all = [0; 3];
    far.read_exact(&mut all).await.unwrap();
    assert_eq!(&all, b"bye");
}
