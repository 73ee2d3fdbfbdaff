//! One try of one request at one endpoint: permission, a connection, the request, the response's headers.

use std::{io, rc::Rc, time::Duration};

use http::{Method, Request, Response};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use mesh_model::{authz::Denied, decide::Candidate, request::RequestHead, snapshot::Snapshot};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::spawn_local,
};

use super::{
    body::ToUpstream,
    pool::{Facts, Key, Pooled},
};
use crate::{
    config::Limits,
    conns::Registered,
    upstream::{Caller, Connected, DialError, Transport, dial, hbone},
    worker::Worker,
};

/// Why a try came back without a response.
#[derive(Debug)]
pub enum TryError {
    /// The destination's side said no, here on this node.
    Denied(Denied),
    /// The endpoint was not reached.
    Dial(DialError),
    /// The connection broke before the response's headers.
    Broke(hyper::Error),
}

/// A response's headers, and the connection on which its body is still to come.
pub struct Got {
    /// The response.
    pub response: Response<Incoming>,
    /// The connection.
    pub pooled: Pooled,
    /// Where the connection goes afterwards.
    pub key: Key,
}

/// What a try needs.
pub struct Try<'a> {
    /// Whose worker.
    pub worker: &'a Rc<Worker>,
    /// The picture it is decided on.
    pub snapshot: &'a Snapshot,
    /// Who calls.
    pub caller: &'a Caller,
    /// The caller's connection.
    pub registered: &'a Registered,
    /// The endpoint.
    pub candidate: &'a Candidate,
    /// Of the request, as matched.
    pub head: &'a RequestHead<'a>,
    /// TCP connect.
    pub connect_timeout: Option<Duration>,
    /// Whether the request may be sent twice when a re-used connection broke: nothing of its body is lost, and its method is
    /// idempotent (RFC 9110 §9.2.2).
    pub may_repeat: &'a dyn Fn() -> bool,
}

impl Try<'_> {
    /// Runs it. `make` gives the request; told whether it goes straight to the application, past no other side.
    pub async fn run(&self, make: impl Fn(bool) -> Request<ToUpstream>) -> Result<Got, TryError> {
        let form = dial::Form::Http(self.head);
        let route = dial::route(self.worker, self.snapshot, self.caller, self.candidate, form);
        let to = self.candidate.addr.get();
        let transport = match &route {
            dial::Route::Vouch(_) => Transport::Vouched,
            dial::Route::Tunnel => Transport::Tunnel,
            dial::Route::Plaintext => Transport::Plaintext,
        };
        let permit = match &route {
            dial::Route::Vouch(_) => {
                let permit =
                    dial::permit(self.snapshot, self.caller, &self.candidate.workload, to.port(), form)
                        .map_err(TryError::Denied)?;
                self.registered
                    .allowed(&permit, &self.worker.rooms.state, self.snapshot)
                    .map_err(TryError::Denied)?;
                Some(permit)
            }
            _ => None,
        };
        let key = Key::new(&self.caller.pod, &self.candidate.workload.uid, to, transport);
        let mut reuse = true;
        loop {
            let idle = if reuse { self.worker.http.take(&key) } else { None };
            let reused = idle.is_some();
            let mut pooled = match (idle, &route, &permit) {
                (Some(idle), ..) => idle,
                (None, dial::Route::Vouch(pod), Some(permit)) => {
                    let dialled = dial::vouched_or_tunnel(
                        self.worker,
                        self.snapshot,
                        self.caller,
                        self.candidate,
                        pod,
                        permit.clone(),
                        self.connect_timeout,
                    );
                    self.opened(dialled.await).await?
                }
                (None, dial::Route::Plaintext, _) => {
                    let dialled = dial::plaintext(self.worker, self.caller, to, self.connect_timeout);
                    self.opened(dialled.await).await?
                }
                (None, ..) => {
                    let dialled = hbone::connect(
                        self.worker,
                        self.snapshot,
                        self.caller,
                        self.candidate,
                        self.connect_timeout,
                    );
                    self.opened(dialled.await).await?
                }
            };
            pooled.requests += 1;
            let straight = pooled.facts.transport == Transport::Vouched;
            match pooled.sender.try_send_request(make(straight)).await {
                Ok(response) => return Ok(Got { response, pooled, key }),
                Err(mut failed) => {
                    let unsent = failed.take_message().is_some();
                    if reused && (unsent || (self.may_repeat)()) {
                        reuse = false;
                        continue;
                    }
                    return Err(TryError::Broke(failed.into_error()));
                }
            }
        }
    }

    async fn opened(&self, dialled: Result<Connected, DialError>) -> Result<Pooled, TryError> {
        let Connected { stream, admitted, transport, upstream, local, peer } =
            dialled.map_err(TryError::Dial)?;
        let facts = Facts { admitted, transport, upstream, local, peer };
        handshake(stream, facts, self.worker.limits()).await.map_err(TryError::Broke)
    }
}

/// Speaks HTTP/1.1 over a connection; it is driven by a task of its own, which ends with it.
pub async fn handshake<T>(stream: T, facts: Facts, limits: &Limits) -> hyper::Result<Pooled>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::Builder::new()
        .max_headers(limits.header_count)
        .max_buf_size(limits.header_bytes.max(MIN_BUFFER))
        .handshake::<_, ToUpstream>(TokioIo::new(stream))
        .await?;
    spawn_local(async move {
        // Whoever waits for a response on it hears the error; an idle one just ends.
        let _ended = connection.with_upgrades().await;
    });
    Ok(Pooled { sender, facts: Rc::new(facts), requests: 0 })
}

/// The least that hyper takes.
pub const MIN_BUFFER: usize = 8192;

/// Whether sending it twice is sending it once (RFC 9110 §9.2.2).
pub fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// Whether the upstream broke the protocol, rather than the connection.
pub fn is_protocol_error(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error);
    let io = source.is_some_and(|source| source.is::<io::Error>());
    error.is_parse() && !io
}
