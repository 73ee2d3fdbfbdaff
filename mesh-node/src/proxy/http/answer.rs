//! Answers that the proxy gives itself, in Istio's words.

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use mesh_model::{authz::Denied, decide::Refusal};

use super::body::ToCaller;
use crate::{telemetry::ResponseFlags, upstream::DialError};

/// An answer of our own.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body, as text.
    pub body: Bytes,
    /// What goes into metrics and logs.
    pub flags: ResponseFlags,
    /// RESPONSE_CODE_DETAILS.
    pub details: Cow<'static, str>,
    /// UPSTREAM_TRANSPORT_FAILURE_REASON.
    pub failure: Option<String>,
    /// The connection is not to be used again.
    pub close: bool,
}

/// Body and details when an upstream does not take a connection.
const CONNECT_FAILURE: (&str, &str) = (
    "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure",
    "upstream_reset_before_response_started{remote_connection_failure}",
);

fn answer(status: StatusCode, body: &'static str, flags: ResponseFlags, details: &'static str) -> Answer {
    Answer {
        status,
        body: Bytes::from_static(body.as_bytes()),
        flags,
        details: Cow::Borrowed(details),
        failure: None,
        close: false,
    }
}

impl Answer {
    /// Why a connection or a request goes nowhere.
    pub fn to(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::NoRoute => answer(StatusCode::NOT_FOUND, "", ResponseFlags::NO_ROUTE, "route_not_found"),
            Refusal::NoCluster(_) => {
                answer(StatusCode::SERVICE_UNAVAILABLE, "", ResponseFlags::NO_CLUSTER, "cluster_not_found")
            }
            Refusal::InvalidBackend(_) => {
                answer(StatusCode::INTERNAL_SERVER_ERROR, "", ResponseFlags::NO_CLUSTER, "invalid_backend")
            }
            Refusal::NoEndpoint(_) => answer(
                StatusCode::SERVICE_UNAVAILABLE,
                "no healthy upstream",
                ResponseFlags::NO_HEALTHY_UPSTREAM,
                "no_healthy_upstream",
            ),
            Refusal::UnknownDestination(_) | Refusal::NoSuchPort(_) | Refusal::ContestedAddress(_) => {
                answer(StatusCode::BAD_GATEWAY, "", ResponseFlags::NONE, "direct_response")
            }
        }
    }

    /// A policy said no.
    pub fn denied(denied: &Denied) -> Self {
        let mut denial = answer(StatusCode::FORBIDDEN, "RBAC: access denied", ResponseFlags::NONE, "");
        denial.details = Cow::Owned(denied.detail());
        denial
    }

    /// The policy of another node said no to the connection.
    pub fn denied_by_peer() -> Self {
        answer(
            StatusCode::FORBIDDEN,
            "RBAC: access denied",
            ResponseFlags::NONE,
            "rbac_access_denied_matched_policy[none]",
        )
    }

    /// No endpoint could be reached.
    pub fn unreachable(error: &DialError) -> Self {
        let (reason, details) = match error {
            DialError::TooSlow { .. } => (
                "upstream connect error or disconnect/reset before headers. reset reason: connection timeout",
                "upstream_reset_before_response_started{connection_timeout}",
            ),
            _ => CONNECT_FAILURE,
        };
        let mut unreachable = answer(
            StatusCode::SERVICE_UNAVAILABLE,
            reason,
            ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
            details,
        );
        unreachable.failure = Some(error.to_string());
        unreachable
    }

    /// The application behind the other side of a tunnel could not be reached.
    pub fn application_unreachable() -> Self {
        let (reason, details) = CONNECT_FAILURE;
        let flags = ResponseFlags::UPSTREAM_CONNECTION_FAILURE;
        let mut unreachable = answer(StatusCode::SERVICE_UNAVAILABLE, reason, flags, details);
        unreachable.failure = Some("the application does not accept connections".to_owned());
        unreachable
    }

    /// The upstream went away before it answered.
    pub fn terminated(error: &str) -> Self {
        let mut terminated = answer(
            StatusCode::SERVICE_UNAVAILABLE,
            "upstream connect error or disconnect/reset before headers. reset reason: connection termination",
            ResponseFlags::UPSTREAM_TERMINATION,
            "upstream_reset_before_response_started{connection_termination}",
        );
        terminated.failure = Some(error.to_owned());
        terminated
    }

    /// The upstream answered with something that is not HTTP.
    pub fn protocol_error(error: &str) -> Self {
        let mut broken = answer(
            StatusCode::BAD_GATEWAY,
            "upstream connect error or disconnect/reset before headers. reset reason: protocol error",
            ResponseFlags::UPSTREAM_PROTOCOL_ERROR,
            "upstream_reset_before_response_started{protocol_error}",
        );
        broken.failure = Some(error.to_owned());
        broken
    }

    /// The request's time was up.
    pub fn timed_out() -> Self {
        answer(
            StatusCode::GATEWAY_TIMEOUT,
            "upstream request timeout",
            ResponseFlags::UPSTREAM_TIMEOUT,
            "response_timeout",
        )
    }

    /// The last try's time was up.
    pub fn try_timed_out() -> Self {
        answer(
            StatusCode::GATEWAY_TIMEOUT,
            "upstream request timeout",
            ResponseFlags::UPSTREAM_TIMEOUT,
            "upstream_per_try_timeout",
        )
    }

    /// The caller's request cannot be understood in one way only.
    pub fn bad_request(details: &'static str) -> Self {
        let mut bad = answer(StatusCode::BAD_REQUEST, "", ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR, details);
        bad.close = true;
        bad
    }

    /// More headers than the limit allows.
    pub fn head_too_large() -> Self {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        let details = "http1.headers_too_large";
        let mut large = answer(status, "", ResponseFlags::DOWNSTREAM_PROTOCOL_ERROR, details);
        large.close = true;
        large
    }

    /// The snapshot does not know the workload any more.
    pub fn unknown_workload() -> Self {
        answer(StatusCode::SERVICE_UNAVAILABLE, "", ResponseFlags::NO_CLUSTER, "workload_not_found")
    }

    /// The answer as a response.
    pub fn response(&self) -> Response<ToCaller> {
        let mut response = Response::new(ToCaller::Whole(self.body.clone()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if !self.body.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// The answer as bytes, for a connection on which no HTTP server runs; it is closed after it.
    pub fn raw(&self) -> Bytes {
        let head = format!(
            "HTTP/1.1 {} {}\r\ncontent-length: {}\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n",
            self.status.as_u16(),
            self.status.canonical_reason().unwrap_or_default(),
            self.body.len()
        );
        [head.as_bytes(), &self.body].concat().into()
    }
}
