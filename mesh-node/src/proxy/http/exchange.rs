//! One request and its response: what is said of it at the end, and what is given back then.
//!
//! Invariant: a request is reported exactly once per reporting side, also when the caller goes away in the middle.

use std::{
    borrow::Cow,
    cell::Cell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header};
use mesh_model::route::HttpRule;

use super::{
    answer::Answer,
    headers::REQUEST_ID,
    pool::{Home, Pooled},
};
use crate::{
    conns::Registered,
    telemetry::{ConnectionRecord, RequestRecord, ResponseFlags, Telemetry},
    upstream::pick::Outstanding,
};

/// What is known of a request from its first moment, for its record.
pub struct Report {
    telemetry: Telemetry,
    /// One per reporting side.
    pub sides: Vec<ConnectionRecord>,
    /// The rule that decided, for its name.
    pub rule: Option<Arc<HttpRule>>,
    /// Until the upstream's headers.
    pub service_time: Option<Duration>,
    method: Method,
    uri: Uri,
    version: Version,
    authority: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    request_id: Option<HeaderValue>,
    forwarded_for: Option<HeaderValue>,
    received: Rc<Cell<u64>>,
    sent: u64,
    status: u16,
    grpc_status: Option<u16>,
    flags: ResponseFlags,
    details: Cow<'static, str>,
    failure: Option<String>,
    complete: bool,
    started: SystemTime,
    began: Instant,
}

impl Report {
    /// Begins with the request as the caller sent it.
    pub fn new(telemetry: Telemetry, parts: &http::request::Parts) -> Self {
        let header = |name: HeaderName| parts.headers.get(name).cloned();
        Self {
            telemetry,
            sides: Vec::with_capacity(2),
            rule: None,
            service_time: None,
            method: parts.method.clone(),
            uri: parts.uri.clone(),
            version: parts.version,
            authority: header(header::HOST),
            user_agent: header(header::USER_AGENT),
            request_id: header(REQUEST_ID),
            forwarded_for: header(HeaderName::from_static("x-forwarded-for")),
            received: Rc::default(),
            sent: 0,
            status: 0,
            grpc_status: None,
            flags: ResponseFlags::NONE,
            details: Cow::Borrowed("downstream_remote_disconnect"),
            failure: None,
            complete: false,
            started: SystemTime::now(),
            began: Instant::now(),
        }
    }

    /// The id that the request got, if it had none.
    pub fn named(&mut self, headers: &HeaderMap) {
        if self.request_id.is_none() {
            self.request_id = headers.get(REQUEST_ID).cloned();
        }
    }

    /// Where the bytes of the request's body are counted.
    pub fn receives(&mut self, received: &Rc<Cell<u64>>) {
        self.received = received.clone();
    }

    /// When the request came.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Adds a flag.
    pub fn flag(&mut self, flags: ResponseFlags) {
        self.flags = self.flags.with(flags);
    }

    /// The proxy answers itself.
    pub fn answered(&mut self, answer: &Answer) {
        self.status = answer.status.as_u16();
        self.flag(answer.flags);
        self.details.clone_from(&answer.details);
        self.failure.clone_from(&answer.failure);
        self.sent = answer.body.len() as u64;
        self.complete = true;
    }

    /// The upstream's headers are here.
    pub fn responded(&mut self, status: StatusCode, headers: &HeaderMap) {
        self.status = status.as_u16();
        self.details = Cow::Borrowed("via_upstream");
        self.grpc_status = headers.get("grpc-status").and_then(|value| value.to_str().ok()?.parse().ok());
    }

    /// Nothing more will come.
    pub fn complete(&mut self) {
        self.complete = true;
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if !self.complete {
            self.flags = self.flags.with(ResponseFlags::DOWNSTREAM_TERMINATION);
        }
        let record = RequestRecord {
            method: self.method.as_str(),
            path: self.uri.path_and_query().map_or("", |path| path.as_str()),
            version: if self.version == Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" },
            authority: text(&self.authority),
            user_agent: text(&self.user_agent),
            request_id: text(&self.request_id),
            forwarded_for: text(&self.forwarded_for),
            status: self.status,
            grpc_status: self.grpc_status,
            flags: self.flags,
            details: Some(&self.details),
            termination: None,
            upstream_failure: self.failure.as_deref(),
            route: self.rule.as_ref().map(|rule| rule.name.as_str()),
            bytes_received: self.received.get(),
            bytes_sent: self.sent,
            started: self.started,
            duration: self.began.elapsed(),
            upstream_service_time: self.service_time,
        };
        for side in &self.sides {
            self.telemetry.request(side, &record);
        }
    }
}

/// A header's value, if it is text.
fn text(value: &Option<HeaderValue>) -> Option<&str> {
    value.as_ref()?.to_str().ok()
}

/// A response on its way to the caller, and all that is bound to it.
pub struct Running {
    report: Report,
    registered: Rc<Registered>,
    home: Home,
    pooled: Option<Pooled>,
    passed: Cell<u64>,
    _outstanding: Option<Outstanding>,
}

impl Running {
    /// The response's headers are here, its body is to come. At its end the connection goes `home`.
    pub fn new(
        report: Report,
        registered: Rc<Registered>,
        home: Home,
        pooled: Pooled,
        outstanding: Option<Outstanding>,
    ) -> Self {
        Self {
            report,
            registered,
            home,
            pooled: Some(pooled),
            passed: Cell::new(0),
            _outstanding: outstanding,
        }
    }

    /// So many bytes were passed on.
    pub fn sent(&self, bytes: usize) {
        self.passed.set(self.passed.get() + bytes as u64);
        let sent = &self.registered.traffic().sent;
        sent.set(sent.get() + bytes as u64);
    }

    /// The body is through.
    pub fn over(mut self) {
        self.report.complete();
        if let Some(pooled) = self.pooled.take() {
            self.home.take_back(pooled);
        }
    }

    /// The request's time was up before the body's end.
    pub fn timed_out(mut self) {
        self.report.flag(ResponseFlags::UPSTREAM_TIMEOUT);
        self.report.details = Cow::Borrowed("response_timeout");
        self.report.complete();
    }

    /// The upstream went away before the body's end.
    pub fn upstream_broke(mut self, error: &hyper::Error) {
        self.report.flag(ResponseFlags::UPSTREAM_TERMINATION);
        self.report.details = Cow::Borrowed("upstream_reset_after_response_started{connection_termination}");
        self.report.failure = Some(error.to_string());
        self.report.complete();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let traffic = self.registered.traffic();
        self.report.sent = self.passed.get();
        traffic.received.set(traffic.received.get() + self.report.received.get());
        self.registered.request_over();
    }
}
