//! `grpc.health.v1.Health/Check`, for the kubelet's gRPC probes: HTTP/2 with prior knowledge, one message, one trailer.
//!
//! Source: the gRPC health checking protocol and gRPC over HTTP/2. The answer never changes: whoever can hear it, it serves.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::StreamBody;
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

const CHECK: &str = "/grpc.health.v1.Health/Check";
/// A frame of two bytes, not compressed: field 1 (status) = 1 (SERVING).
const SERVING: &[u8] = &[0, 0, 0, 0, 2, 0x08, 0x01];

/// Serves every connection of `listener`.
pub async fn serve(listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(async move {
                let served = http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service_fn(answer));
                if let Err(error) = served.await {
                    eprintln!("mesh-app: health: {error}");
                }
            })),
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

type Frames = futures::stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>;

async fn answer(request: Request<Incoming>) -> Result<Response<StreamBody<Frames>>, Infallible> {
    // 12: UNIMPLEMENTED.
    let (message, status) = match request.uri().path() {
        CHECK => (Some(SERVING), HeaderValue::from_static("0")),
        _ => (None, HeaderValue::from_static("12")),
    };
    let trailers = HeaderMap::from_iter([(hyper::header::HeaderName::from_static("grpc-status"), status)]);
    let message = message.map(|bytes| Ok(Frame::data(Bytes::from_static(bytes))));
    let frames: Vec<_> = message.into_iter().chain([Ok(Frame::trailers(trailers))]).collect();
    let mut response = Response::new(StreamBody::new(futures::stream::iter(frames)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    Ok(response)
}
