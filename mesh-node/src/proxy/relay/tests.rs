//! Half-close, back-pressure, deadlines and resets of the relay, over pipes.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex},
    net::{TcpListener, TcpStream},
};

use super::{ends::Plain, *};

fn bounds() -> Bounds {
    Bounds {
        idle: Duration::from_secs(60),
        half_closed: Duration::from_secs(5),
        buffer: 1024,
        growth: Buffers::new(1 << 20),
    }
}

async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialled = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    (dialled, accepted)
}

#[tokio::test]
async fn bytes_arrive_in_order_through_narrow_pipes_and_half_close_is_kept() {
    let (mut client, client_side) = duplex(7);
    let (mut server, server_side) = duplex(5);
    let traffic = Traffic::default();
    let (mut down, mut up) = (Plain(client_side), Plain(server_side));
    let sent: Vec<u8> = (0..100_000_u32).map(|at| (at % 251) as u8).collect();
    let request = sent.clone();
    let app = async {
        let mut seen = Vec::new();
        server.read_to_end(&mut seen).await.unwrap();
        server.write_all(b"answered after the half-close").await.unwrap();
        server.shutdown().await.unwrap();
        seen
    };
    let caller = async {
        let (mut read, mut write) = tokio::io::split(&mut client);
        write.write_all(&request).await.unwrap();
        write.shutdown().await.unwrap();
        let mut answer = Vec::new();
        read.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let (ended, seen, answer) =
        tokio::join!(relay(&Admitted::OutsideMesh, &mut down, &mut up, &traffic, bounds()), app, caller);
    assert_eq!(ended, Ended::Closed);
    assert_eq!(seen, sent);
    assert_eq!(answer, b"answered after the half-close");
    assert_eq!((traffic.received.get(), traffic.sent.get()), (100_000, 29));
}

#[tokio::test]
async fn a_reset_of_the_caller_reaches_the_upstream_as_a_reset() {
    let (client, mut down) = tcp_pair().await;
    let (mut up, mut server) = tcp_pair().await;
    let traffic = Traffic::default();
    ends::reset_on_close(&client);
    drop(client);
    let ended = relay(&Admitted::OutsideMesh, &mut down, &mut up, &traffic, bounds()).await;
    assert_eq!(ended, Ended::CallerReset);
    drop(up);
    let error = server.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn what_the_upstream_said_before_it_reset_still_reaches_the_caller() {
    let (mut client, mut down) = tcp_pair().await;
    let (mut up, mut server) = tcp_pair().await;
    let traffic = Traffic::default();
    let bounds = Bounds { half_closed: Duration::from_millis(200), ..bounds() };
    client.write_all(&[1; 64]).await.unwrap();
    server.write_all(b"refused: bye").await.unwrap();
    // Closed with unread bytes, so the kernel sends RST after the data.
    server.readable().await.unwrap_or_default();
    drop(server);
    let reader = async {
        let mut seen = Vec::new();
        // The end may be a reset: what counts is what came before.
        let mut chunk = [0; 64];
        while let Ok(read @ 1..) = client.read(&mut chunk).await {
            seen.extend_from_slice(&chunk[..read]);
        }
        seen
    };
    let (ended, seen) = tokio::join!(
        async {
            let ended = relay(&Admitted::OutsideMesh, &mut down, &mut up, &traffic, bounds).await;
            drop(down);
            ended
        },
        reader
    );
    assert_ne!(ended, Ended::Idle);
    assert_eq!(seen, b"refused: bye");
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_connection_and_sooner_when_it_is_half_closed() {
    let (_client, client_side) = duplex(64);
    let (_server, server_side) = duplex(64);
    let (mut down, mut up) = (Plain(client_side), Plain(server_side));
    let traffic = Traffic::default();
    let start = Instant::now();
    assert_eq!(relay(&Admitted::OutsideMesh, &mut down, &mut up, &traffic, bounds()).await, Ended::Idle);
    assert_eq!(start.elapsed().as_secs(), 60);

    let (mut client, client_side) = duplex(64);
    let mut down = Plain(client_side);
    client.shutdown().await.unwrap();
    let start = Instant::now();
    assert_eq!(
        relay(&Admitted::OutsideMesh, &mut down, &mut up, &traffic, bounds()).await,
        Ended::HalfClosedIdle
    );
    assert_eq!(start.elapsed().as_secs(), 5);
}
