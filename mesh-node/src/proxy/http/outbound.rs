//! The source's side of HTTP: each request is routed, tried, and tried again.

use std::{net::SocketAddr, rc::Rc, time::SystemTime};

use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header::HOST};
use hyper::body::Incoming;
use mesh_model::{
    decide::{self, Refusal},
    route::{HeaderEdits, RetryPolicy},
    snapshot::Snapshot,
};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::{
    answer::Answer,
    body::{Replayable, ToCaller, ToUpstream},
    exchange::{Report, Running},
    forward::{self, Got, Try, TryError},
    headers::{self, ATTEMPT_COUNT, SERVICE_TIME, Target},
    pool::Home,
    retry::{self, Came},
    server::Shared,
    upgrade,
};
use crate::{
    conns::Registered,
    proxy::{
        outbound::{Endpoints, Meant},
        outcome,
    },
    telemetry::{RequestProtocol, ResponseFlags},
    upstream::{Caller, Transport, pick::Outstanding},
    worker::Worker,
};

/// What all requests of one captured connection share.
pub struct Connection {
    /// Whose worker.
    pub worker: Rc<Worker>,
    /// Who calls.
    pub caller: Caller,
    /// What the connection is for.
    pub meant: Meant,
    /// What was dialled.
    pub dialled: SocketAddr,
    /// Its entry in the registry.
    pub registered: Rc<Registered>,
    /// Shared with the server.
    pub shared: Rc<Shared>,
}

/// Where a request goes and what holds for it.
struct Planned {
    endpoints: Endpoints,
    deadline: Option<Instant>,
    retry: RetryPolicy,
    response_edits: [HeaderEdits; 2],
}

/// One request from its head to its response's headers.
struct Exchange<'a> {
    connection: &'a Connection,
    snapshot: &'a Snapshot,
    caller: Caller,
    target: Target,
    parts: http::request::Parts,
    upgrade: bool,
    body: Replayable,
    planned: Planned,
}

/// A response to be passed on.
struct Passing {
    got: Got,
    outstanding: Outstanding,
}

/// Serves one request.
pub async fn handle(connection: &Connection, mut request: Request<Incoming>) -> Response<ToCaller> {
    let worker = &connection.worker;
    let caller_upgrade = hyper::upgrade::on(&mut request);
    let (mut parts, incoming) = request.into_parts();
    let mut report = Report::new(worker.rooms.telemetry.clone(), &parts);
    let snapshot = worker.rooms.state.snapshot();
    let mut caller = connection.caller.clone();
    if let Some(workload) = snapshot.workload(&caller.pod.uid) {
        caller.workload = workload.clone();
    }
    let service = match &connection.meant {
        Meant::Service(service, _) => Some(service),
        Meant::Pod(_, service) => service.as_ref().map(|(service, _)| service),
    };
    report.sides.push(outcome::outbound_record(
        &caller,
        connection.dialled,
        service,
        None,
        RequestProtocol::Http,
        SystemTime::now(),
    ));

    let most = worker.limits().header_bytes;
    let target = match Target::read(&parts, snapshot.mesh().path_normalization, most) {
        Ok(target) => target,
        Err(answer) => return answered(report, &answer),
    };
    let upgrade = headers::take_off_hop(&mut parts.headers);
    headers::prepare_request(&mut parts.headers, &target);
    report.named(&parts.headers);

    let planned = match plan(connection, &snapshot, &caller, &target, &mut parts, &mut report) {
        Ok(planned) => planned,
        Err(refusal) => return answered(report, &Answer::to(&refusal)),
    };
    let keep = if planned.retry.attempts > 0 { worker.limits().retry_body_bytes } else { 0 };
    let body = Replayable::new(incoming, keep, &worker.buffers);
    report.receives(body.received());
    let exchange =
        Exchange { connection, snapshot: &snapshot, caller, target, parts, upgrade, body, planned };
    match exchange.run(&mut report).await {
        Ok(passing) => exchange.pass_on(passing, report, caller_upgrade),
        Err(answer) => {
            connection.registered.request_over();
            answered(report, &answer)
        }
    }
}

fn answered(mut report: Report, answer: &Answer) -> Response<ToCaller> {
    report.answered(answer);
    answer.response()
}

/// Routes the request and applies what the route says of its headers.
fn plan(
    connection: &Connection,
    snapshot: &Snapshot,
    caller: &Caller,
    target: &Target,
    parts: &mut http::request::Parts,
    report: &mut Report,
) -> Result<Planned, Refusal> {
    let head = target.head(parts.method.as_str(), &parts.headers);
    let draw = rand::random::<f64>();
    let source = &caller.workload;
    let routed = match &connection.meant {
        Meant::Service(service, port) => {
            // The service as it is now: it may have changed since the connection was accepted.
            let service = snapshot.service_by_key(&service.key).unwrap_or(service);
            decide::request(snapshot, source, service, *port, &head, draw)?
        }
        Meant::Pod(pod, Some((service, port))) => {
            decide::request_at(snapshot, source, service, *port, pod, &head, draw)?
        }
        Meant::Pod(pod, None) => {
            return Ok(Planned {
                endpoints: Endpoints::of_pod(pod, None),
                deadline: None,
                retry: snapshot.mesh().default_retry.clone(),
                response_edits: Default::default(),
            });
        }
    };
    let mut response_edits: [HeaderEdits; 2] = Default::default();
    if let Some((_, rule)) = &routed.rule {
        let of_destination = rule.destinations.get(routed.destination);
        let edits =
            [Some(&rule.request_headers), of_destination.map(|destination| &destination.request_headers)];
        for edits in edits.into_iter().flatten() {
            headers::edit(&mut parts.headers, edits);
            if let Some(host) =
                headers::authority_edit(edits).and_then(|host| HeaderValue::try_from(host).ok())
            {
                parts.headers.insert(HOST, host);
            }
        }
        response_edits = [
            rule.response_headers.clone(),
            of_destination.map(|destination| destination.response_headers.clone()).unwrap_or_default(),
        ];
        report.rule = Some(rule.clone());
    }
    let deadline = routed.timeout.map(|timeout| Instant::from_std(report.began()) + timeout);
    let endpoints = Endpoints::from(routed.target.in_family_of(snapshot, connection.dialled.ip()));
    for side in &mut report.sides {
        side.cluster = endpoints.cluster();
        side.service.clone_from(&endpoints.service);
    }
    Ok(Planned { endpoints, deadline, retry: routed.retry, response_edits })
}

impl Exchange<'_> {
    /// Tries until there is a response to be passed on, or an answer of our own.
    async fn run(&self, report: &mut Report) -> Result<Passing, Answer> {
        let deadline = self.planned.deadline;
        let tries = self.tries(report);
        match deadline {
            None => tries.await,
            Some(deadline) => timeout_at(deadline, tries).await.unwrap_or_else(|_| Err(Answer::timed_out())),
        }
    }

    async fn tries(&self, report: &mut Report) -> Result<Passing, Answer> {
        let (worker, retry) = (&self.connection.worker, &self.planned.retry);
        let mut tried: Vec<SocketAddr> = Vec::new();
        let mut retries = 0;
        loop {
            let endpoints = &self.planned.endpoints;
            let picked =
                worker.load.pick(endpoints.policy.balancer, endpoints.group(), &endpoints.candidates, &tried);
            let Some(candidate) = picked else {
                return Err(Answer::to(&Refusal::NoEndpoint(String::new())));
            };
            let outstanding = worker.load.begin(candidate.addr.get());
            tried.push(candidate.addr.get());
            let attempt = Try {
                worker,
                snapshot: self.snapshot,
                caller: &self.caller,
                registered: &self.connection.registered,
                candidate,
                head: &self.target.head(self.parts.method.as_str(), &self.parts.headers),
                connect_timeout: endpoints.policy.connect_timeout,
                may_repeat: &|| forward::is_idempotent(&self.parts.method) && self.body.can_be_sent_again(),
            };
            for side in &mut report.sides {
                outcome::went_to(side, Some(candidate), None);
            }
            let began = Instant::now();
            let longest = retry.per_try_timeout.unwrap_or(worker.limits().http_idle);
            let run =
                attempt.run(|straight| self.request(straight, retries + 1, &candidate.workload.identity));
            let came = timeout_at(began + longest, run).await;
            let (answer, retriable) = match came {
                Ok(Ok(got)) if let Some((came, answer)) = failed_beyond(&got) => {
                    self.describe(report, candidate, &got);
                    (Some(answer), self.may_try_again(came))
                }
                Ok(Ok(got)) => {
                    let (status, headers) = (got.response.status(), got.response.headers());
                    let more = self.may_try_again(Came::Response(status, headers));
                    if !more || retries >= retry.attempts {
                        if more && retry.attempts > 0 {
                            report.flag(ResponseFlags::RETRY_LIMIT);
                        }
                        report.service_time = Some(began.elapsed());
                        self.describe(report, candidate, &got);
                        self.body.forget();
                        return Ok(Passing { got, outstanding });
                    }
                    (None, true)
                }
                Ok(Err(TryError::Denied(denied))) => {
                    let upstream = candidate.addr.get();
                    let record = report
                        .sides
                        .first()
                        .map(|side| outcome::mirrored(side, &candidate.workload, upstream));
                    report.sides.extend(record);
                    tracing::debug!(%denied, workload = %candidate.workload.uid, "a request was denied");
                    return Err(Answer::denied(&denied));
                }
                Ok(Err(TryError::Dial(crate::upstream::DialError::DeniedByPeer { .. }))) => {
                    return Err(Answer::denied_by_peer());
                }
                Ok(Err(TryError::Dial(error))) => {
                    let more = error.may_try_another() && self.may_try_again(Came::ConnectFailure);
                    (Some(Answer::unreachable(&error)), more)
                }
                Ok(Err(TryError::Broke(error))) if forward::is_protocol_error(&error) => {
                    (Some(Answer::protocol_error(&error.to_string())), false)
                }
                Ok(Err(TryError::Broke(error))) => {
                    (Some(Answer::terminated(&error.to_string())), self.may_try_again(Came::Reset))
                }
                Err(_elapsed) => (Some(Answer::try_timed_out()), self.may_try_again(Came::TryTimeout)),
            };
            if let Some(answer) = &answer {
                tracing::debug!(
                    to = %candidate.addr,
                    details = %answer.details,
                    failure = answer.failure.as_deref().unwrap_or_default(),
                    retries,
                    retriable,
                    "a try failed"
                );
            }
            if !retriable || retries >= retry.attempts {
                if retriable && retry.attempts > 0 {
                    report.flag(ResponseFlags::RETRY_LIMIT);
                }
                return Err(answer.unwrap_or_else(Answer::timed_out));
            }
            retries += 1;
            drop(outstanding);
            sleep(retry::pause(retry, retries, rand::random())).await;
        }
    }

    fn may_try_again(&self, came: Came<'_>) -> bool {
        self.body.can_be_sent_again() && retry::is_retriable(&self.planned.retry.on, came)
    }

    /// The request for one try.
    fn request(
        &self,
        straight: bool,
        attempt: u32,
        destination: &mesh_model::identity::Identity,
    ) -> Request<ToUpstream> {
        let mut request = Request::new(self.body.next_try());
        *request.method_mut() = self.parts.method.clone();
        *request.uri_mut() = self.target.uri.clone();
        let headers = request.headers_mut();
        headers.clone_from(&self.parts.headers);
        headers.insert(ATTEMPT_COUNT, HeaderValue::from(attempt));
        if straight {
            // No other side comes between us and the application: this is its side as well.
            headers::name_caller(headers, destination, Some(&self.caller.workload.identity));
        }
        request
    }

    /// What the records say of the endpoint that answered.
    fn describe(&self, report: &mut Report, candidate: &decide::Candidate, got: &Got) {
        let facts = &got.pooled.facts;
        for side in &mut report.sides {
            side.destination = Some(candidate.workload.clone());
            side.destination_identity.clone_from(&facts.peer);
            side.upstream = Some(facts.upstream);
            side.upstream_local = facts.local;
        }
        if facts.transport == Transport::Vouched {
            let record =
                report.sides.first().map(|side| outcome::mirrored(side, &candidate.workload, facts.upstream));
            report.sides.extend(record);
        }
        self.connection.registered.set_destination(
            facts.upstream,
            (facts.transport == Transport::Vouched).then(|| candidate.workload.uid.clone()),
        );
        self.connection.registered.set_peer(facts.peer.clone());
    }

    /// The response on its way back.
    fn pass_on(
        &self,
        passing: Passing,
        mut report: Report,
        caller_upgrade: hyper::upgrade::OnUpgrade,
    ) -> Response<ToCaller> {
        let worker = &self.connection.worker;
        let Passing { got: Got { mut response, pooled, key }, outstanding } = passing;
        let upstream_upgrade = hyper::upgrade::on(&mut response);
        let (mut parts, incoming) = response.into_parts();
        report.responded(parts.status, &parts.headers);
        dress(&mut parts.headers, &report, &self.planned.response_edits);
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            if !self.upgrade {
                return answered(report, &Answer::protocol_error("an upgrade that nobody asked for"));
            }
            let registered = self.connection.registered.clone();
            let sides = (caller_upgrade, upstream_upgrade);
            let relay = upgrade::switch(worker.clone(), registered, pooled.facts.clone(), sides, report);
            self.connection.shared.upgrade_to(relay);
            return Response::from_parts(parts, ToCaller::Whole(bytes::Bytes::new()));
        }
        let home = Home::Pool {
            worker: worker.clone(),
            key,
            pod: self.caller.pod.clone(),
            most_requests: self.planned.endpoints.policy.max_requests_per_connection,
        };
        let running =
            Running::new(report, self.connection.registered.clone(), home, pooled, Some(outstanding));
        let deadline = self.planned.deadline.map(|deadline| Box::pin(sleep_until(deadline)));
        Response::from_parts(parts, ToCaller::passed(incoming, running, deadline))
    }
}

/// What the other side of a tunnel says of an application that gave no answer: it concerns this try as if we had dialled.
fn failed_beyond(got: &Got) -> Option<(Came<'static>, Answer)> {
    let tunnelled = got.pooled.facts.transport == Transport::Tunnel;
    let how = got.response.headers().get(headers::FAILED).filter(|_| tunnelled)?;
    Some(if how == headers::FAILED_CONNECT {
        (Came::ConnectFailure, Answer::application_unreachable())
    } else {
        (Came::Reset, Answer::terminated("the application's connection broke"))
    })
}

/// The response's headers as the caller gets them.
fn dress(headers: &mut HeaderMap, report: &Report, edits: &[HeaderEdits]) {
    headers::take_off_hop(headers);
    headers.remove(headers::FAILED);
    if let Some(time) = report.service_time {
        headers.insert(SERVICE_TIME, HeaderValue::from(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)));
    }
    for edits in edits {
        headers::edit(headers, edits);
    }
}
