//! Answers that the proxy gives itself, in Istio's words.

use bytes::Bytes;
use http::StatusCode;
use mesh_model::decide::Refusal;

use crate::telemetry::ResponseFlags;

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
    pub details: String,
}

impl Answer {
    /// Why a connection or a request goes nowhere.
    pub fn to(refusal: &Refusal) -> Self {
        let answer = |status, body: &'static str, flags, details: &str| Self {
            status,
            body: Bytes::from_static(body.as_bytes()),
            flags,
            details: details.to_owned(),
        };
        match refusal {
            Refusal::NoRoute => answer(StatusCode::NOT_FOUND, "", ResponseFlags::NO_ROUTE, "route_not_found"),
            Refusal::NoCluster(_) => {
                answer(StatusCode::SERVICE_UNAVAILABLE, "", ResponseFlags::NO_CLUSTER, "cluster_not_found")
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
