//! The destination's side of HTTP: each request is asked about, and told who calls.
//!
//! Invariant: the path that is asked about is the path that is forwarded; what a caller says of its own identity is never passed on.

use std::{cell::RefCell, rc::Rc};

use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use mesh_model::{
    authz::{Permit, authorize},
    snapshot::Snapshot,
};
use tokio::net::TcpStream;

use super::{
    answer::Answer,
    body::{Replayable, ToCaller},
    exchange::{Report, Running},
    forward::{self, handshake},
    headers::{self, Target},
    pool::{Facts, Home, Pooled},
    server::Shared,
    upgrade,
};
use crate::{
    conns::Registered,
    proxy::inbound::Inbound,
    telemetry::RequestProtocol,
    upstream::{Admitted, DialError, Transport, dial},
    worker::Worker,
};

/// What all requests of one connection share.
pub struct Connection {
    /// Whose worker.
    pub worker: Rc<Worker>,
    /// Who calls whom.
    pub inbound: Inbound,
    /// The application's connection that was made before the caller was let in.
    pub first: RefCell<Option<TcpStream>>,
    /// The connection to the application between two requests: its peer is the caller, so it serves this caller only.
    pub app: Rc<RefCell<Option<Pooled>>>,
    /// Shared with the server.
    pub shared: Rc<Shared>,
}

/// Why there is no response.
enum NoResponse {
    Unreachable(DialError),
    Broke(hyper::Error),
}

/// Serves one request.
pub async fn handle(connection: &Connection, mut request: Request<Incoming>) -> Response<ToCaller> {
    let (worker, inbound) = (&connection.worker, &connection.inbound);
    let caller_upgrade = hyper::upgrade::on(&mut request);
    let (mut parts, incoming) = request.into_parts();
    let mut report = Report::new(worker.rooms.telemetry.clone(), &parts);
    let snapshot = worker.rooms.state.snapshot();
    report.sides.push(inbound.record(&snapshot, RequestProtocol::Http));

    let most = worker.limits().header_bytes;
    let target = match Target::read(&parts, snapshot.mesh().path_normalization, most) {
        Ok(target) => target,
        Err(answer) => return answered(report, &answer),
    };
    let permit = match ask(connection, &snapshot, &target, &parts) {
        Ok(permit) => permit,
        Err(answer) => {
            inbound.registered.request_over();
            return answered(report, &answer);
        }
    };
    let upgrade = headers::take_off_hop(&mut parts.headers);
    headers::prepare_request(&mut parts.headers, &target);
    headers::name_caller(&mut parts.headers, &inbound.workload.identity, inbound.peer.identity.as_ref());
    report.named(&parts.headers);
    let body = Replayable::new(incoming, worker.limits().retry_body_bytes, &worker.buffers);
    report.receives(body.received());

    let began = std::time::Instant::now();
    let longest = worker.limits().http_idle;
    let sent = tokio::time::timeout(longest, send(connection, &permit, &target, &parts, &body)).await;
    let (response, pooled) = match sent {
        Ok(Ok(got)) => got,
        Ok(Err(NoResponse::Unreachable(error))) => {
            return failed(connection, report, &Answer::unreachable(&error), headers::FAILED_CONNECT);
        }
        Ok(Err(NoResponse::Broke(error))) if forward::is_protocol_error(&error) => {
            return answered(report, &Answer::protocol_error(&error.to_string()));
        }
        Ok(Err(NoResponse::Broke(error))) => {
            let answer = Answer::terminated(&error.to_string());
            return failed(connection, report, &answer, headers::FAILED_RESET);
        }
        Err(_elapsed) => return answered(report, &Answer::timed_out()),
    };
    body.forget();
    report.service_time = Some(began.elapsed());
    pass_on(connection, report, response, pooled, upgrade.then_some(caller_upgrade))
}

fn answered(mut report: Report, answer: &Answer) -> Response<ToCaller> {
    report.answered(answer);
    answer.response()
}

/// An answer in place of the application's; the source's side of a tunnel is told, because only it can try elsewhere.
fn failed(connection: &Connection, report: Report, answer: &Answer, how: HeaderValue) -> Response<ToCaller> {
    let mut response = answered(report, answer);
    // Nobody has an identity who did not come through a tunnel.
    if connection.inbound.peer.identity.is_some() {
        response.headers_mut().insert(headers::FAILED, how);
    }
    response
}

/// May this request pass?
fn ask(
    connection: &Connection,
    snapshot: &Snapshot,
    target: &Target,
    parts: &http::request::Parts,
) -> Result<Permit, Answer> {
    let inbound = &connection.inbound;
    let Some(workload) = snapshot.workload(&inbound.workload.uid) else {
        return Err(Answer::unknown_workload());
    };
    let head = target.head(parts.method.as_str(), &parts.headers);
    let permit = authorize(snapshot, workload, &inbound.peer, Some(&head)).map_err(|denied| {
        tracing::debug!(%denied, workload = %workload.uid, "a request was denied");
        Answer::denied(&denied)
    })?;
    inbound
        .registered
        .allowed(&permit, &connection.worker.rooms.state, snapshot)
        .map_err(|denied| Answer::denied(&denied))?;
    Ok(permit)
}

/// Sends the request to the application; once more on a new connection if a re-used one was over.
async fn send(
    connection: &Connection,
    permit: &Permit,
    target: &Target,
    parts: &http::request::Parts,
    body: &Replayable,
) -> Result<(Response<Incoming>, Pooled), NoResponse> {
    let mut reuse = true;
    loop {
        let idle = connection.app.borrow_mut().take().filter(|idle| reuse && idle.sender.is_ready());
        let reused = idle.is_some();
        let mut pooled = match idle {
            Some(idle) => idle,
            None => open(connection, permit).await?,
        };
        pooled.requests += 1;
        let mut request = Request::new(body.next_try());
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = target.uri.clone();
        request.headers_mut().clone_from(&parts.headers);
        match pooled.sender.try_send_request(request).await {
            Ok(response) => return Ok((response, pooled)),
            Err(mut failed) => {
                let unsent = failed.take_message().is_some();
                let repeatable = forward::is_idempotent(&parts.method) && body.can_be_sent_again();
                if reused && (unsent || repeatable) {
                    reuse = false;
                    continue;
                }
                return Err(NoResponse::Broke(failed.into_error()));
            }
        }
    }
}

/// A connection to the application: the one that was made to let the caller in, or a new one.
async fn open(connection: &Connection, permit: &Permit) -> Result<Pooled, NoResponse> {
    let (worker, inbound) = (&connection.worker, &connection.inbound);
    let first = connection.first.borrow_mut().take();
    let stream = match first {
        Some(first) => first,
        None => dial::last_step(worker, &inbound.pod, inbound.to, inbound.client)
            .await
            .map_err(NoResponse::Unreachable)?,
    };
    let facts = Facts {
        admitted: Admitted::ByPermit(permit.clone()),
        transport: Transport::Plaintext,
        upstream: inbound.to,
        local: stream.local_addr().ok(),
        peer: None,
    };
    handshake(stream, facts, worker.limits()).await.map_err(NoResponse::Broke)
}

fn pass_on(
    connection: &Connection,
    mut report: Report,
    mut response: Response<Incoming>,
    pooled: Pooled,
    caller_upgrade: Option<hyper::upgrade::OnUpgrade>,
) -> Response<ToCaller> {
    let upstream_upgrade = hyper::upgrade::on(&mut response);
    let (mut parts, incoming) = response.into_parts();
    report.responded(parts.status, &parts.headers);
    for side in &mut report.sides {
        side.upstream_local = pooled.facts.local;
    }
    headers::take_off_hop(&mut parts.headers);
    parts.headers.remove(headers::FAILED);
    let registered: Rc<Registered> = connection.inbound.registered.clone();
    if parts.status == StatusCode::SWITCHING_PROTOCOLS {
        let Some(caller_upgrade) = caller_upgrade else {
            return answered(report, &Answer::protocol_error("an upgrade that nobody asked for"));
        };
        let sides = (caller_upgrade, upstream_upgrade);
        let facts = pooled.facts.clone();
        connection.shared.upgrade_to(upgrade::switch(
            connection.worker.clone(),
            registered,
            facts,
            sides,
            report,
        ));
        return Response::from_parts(parts, ToCaller::Whole(bytes::Bytes::new()));
    }
    let home = Home::Caller(connection.app.clone());
    let running = Running::new(report, registered, home, pooled, None);
    Response::from_parts(parts, ToCaller::passed(incoming, running, None))
}
