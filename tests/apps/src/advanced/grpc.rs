//! The echo service of Istio's test server, `proto.EchoTestService/Echo`, both ends.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::uri::PathAndQuery;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Status,
    body::Body,
    codegen::{BoxFuture, Service},
    metadata::MetadataMap,
    server::{NamedService, UnaryService},
    transport::{Endpoint, Server},
};
use tonic_prost::ProstCodec;

use crate::report::Seen;

const METHOD: &str = "/proto.EchoTestService/Echo";

/// Request and response: both are one text.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Said {
    /// The text.
    #[prost(string, tag = "1")]
    pub message: String,
}

type Codec = ProstCodec<Said, Said>;

#[derive(Clone)]
struct Echo {
    port: u16,
    hostname: Arc<str>,
}

impl NamedService for Echo {
    const NAME: &'static str = "proto.EchoTestService";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let authority = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let method = Method { echo: self.clone(), authority };
        Box::pin(async move {
            if request.uri().path() != METHOD {
                return Ok(Status::unimplemented("there is only Echo").into_http());
            }
            Ok(tonic::server::Grpc::new(Codec::default()).unary(method, request).await)
        })
    }
}

struct Method {
    echo: Echo,
    authority: String,
}

impl UnaryService<Said> for Method {
    type Response = Said;
    type Future = std::future::Ready<Result<tonic::Response<Said>, Status>>;

    fn call(&mut self, request: tonic::Request<Said>) -> Self::Future {
        let remote = request.remote_addr();
        let headers = request.into_parts().0.into_headers();
        let seen = Seen {
            method: "",
            url: METHOD,
            host: &self.authority,
            protocol: "HTTP/2.0",
            alpn: "",
            port: self.echo.port,
            remote,
            headers: &headers,
        };
        let message = seen.lines(&self.echo.hostname);
        std::future::ready(Ok(tonic::Response::new(Said { message })))
    }
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, port: u16, hostname: Arc<str>) {
    let incoming = TcpListenerStream::new(listener);
    let served = Server::builder().add_service(Echo { port, hostname }).serve_with_incoming(incoming).await;
    if let Err(error) = served {
        eprintln!("echo-advanced: gRPC on port {port}: {error}");
    }
}

/// The client's end of one connection.
pub struct Caller(tonic::client::Grpc<tonic::transport::Channel>);

impl Caller {
    /// Connects.
    pub async fn connect(authority: &str, patience: Duration) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("http://{authority}"))?;
        let channel = endpoint.connect_timeout(patience).timeout(patience).connect().await?;
        Ok(Self(tonic::client::Grpc::new(channel)))
    }

    /// Calls Echo with these headers.
    pub async fn call(&mut self, headers: MetadataMap) -> Result<tonic::Response<Said>, Status> {
        self.0.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let mut request = tonic::Request::new(Said { message: "hello".to_owned() });
        *request.metadata_mut() = headers;
        self.0.unary(request, PathAndQuery::from_static(METHOD), Codec::default()).await
    }
}
