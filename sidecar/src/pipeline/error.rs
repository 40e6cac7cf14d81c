//! Why the proxy answered instead of the upstream: one enum, and its total maps.
//!
//! Each variant has one HTTP status, one gRPC status, one response flag, one reason and one retry class. The matches
//! are exhaustive on purpose: a new variant does not compile until all are decided. The table in
//! `docs/request-path.md` is made from these functions by a test.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::StatusCode;

use crate::{
    connect,
    headers::framing::FramingError,
    model::{ClusterName, flag::ResponseFlag},
    relay::received::Broken,
    resilience::{circuit_breaker::Overflow, retry::Processed},
};

/// Why the proxy answered instead of the upstream.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The request is malformed or ambiguous.
    #[error("bad request: {0}")]
    BadRequest(String),
    /// The request's header block is beyond the limits.
    #[error("header block beyond the limits")]
    HeadersTooLarge,
    /// A feature of HTTP that this proxy does not carry.
    #[error("{0} is not supported")]
    Unsupported(&'static str),
    /// No cluster has this authority.
    #[error("no route for {authority}")]
    NoRoute {
        /// What was asked for, shortened.
        authority: String,
    },
    /// The caller may not call here any more, for the list of those who may has changed since it connected; or it proved
    /// nothing, and no exception permits what it asks for.
    #[error("this caller may not ask for this here")]
    NotAllowed,
    /// The cluster has no endpoints.
    #[error("no endpoint in cluster {cluster}")]
    NoEndpoint {
        /// That cluster.
        cluster: ClusterName,
    },
    /// A circuit breaker's cap is reached.
    #[error("{cap} in cluster {cluster}")]
    Overflow {
        /// That cluster.
        cluster: ClusterName,
        /// Which cap.
        cap: Overflow,
    },
    /// No connection to the endpoint could be had; it has not seen the request.
    #[error("connecting to {endpoint}")]
    Connect {
        /// That endpoint.
        endpoint: SocketAddr,
        /// Why.
        #[source]
        source: connect::Error,
    },
    /// Who answers at the endpoint's address is not who it must be; it has not seen the request.
    #[error("wrong identity at {endpoint}")]
    Identity {
        /// That endpoint.
        endpoint: SocketAddr,
        /// What was found.
        #[source]
        source: connect::Error,
    },
    /// The connection closed before the request was written to it, or the peer refused the stream unprocessed.
    #[error("{endpoint} did not take the request")]
    NotProcessed {
        /// That endpoint.
        endpoint: SocketAddr,
    },
    /// The endpoint reset or closed before an answer; it may have seen the request.
    #[error("reset by {endpoint} before an answer")]
    Reset {
        /// That endpoint.
        endpoint: SocketAddr,
        /// As the HTTP library saw it.
        #[source]
        source: Arc<Broken>,
    },
    /// What the endpoint answered is not HTTP.
    #[error("no HTTP from {endpoint}")]
    Protocol {
        /// That endpoint.
        endpoint: SocketAddr,
        /// As the HTTP library saw it.
        #[source]
        source: Arc<Broken>,
    },
    /// The endpoint's answer breaks a rule of HTTP that readers take differently.
    #[error("bad answer from {endpoint}")]
    BadResponse {
        /// That endpoint.
        endpoint: SocketAddr,
        /// Which rule.
        #[source]
        source: FramingError,
    },
    /// The answer's header block is beyond the limits.
    #[error("header block of {endpoint}'s answer beyond the limits")]
    ResponseHeadersTooLarge {
        /// That endpoint.
        endpoint: SocketAddr,
    },
    /// No answer within the request's timeout.
    #[error("no answer within {limit:?}")]
    Timeout {
        /// The timeout.
        limit: Duration,
    },
    /// Nothing moved in either direction for too long before an answer.
    #[error("nothing moved for {limit:?} before an answer")]
    Idle {
        /// The idle time.
        limit: Duration,
    },
    /// The downstream broke off its request.
    #[error("the downstream broke off its request")]
    Downstream,
}

impl ProxyError {
    /// The HTTP status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::Downstream => StatusCode::BAD_REQUEST,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            Self::NoRoute { .. } => StatusCode::NOT_FOUND,
            Self::NotAllowed => StatusCode::FORBIDDEN,
            Self::NoEndpoint { .. }
            | Self::Overflow { .. }
            | Self::Connect { .. }
            | Self::Identity { .. }
            | Self::NotProcessed { .. }
            | Self::Reset { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Protocol { .. } | Self::BadResponse { .. } | Self::ResponseHeadersTooLarge { .. } => {
                StatusCode::BAD_GATEWAY
            }
            Self::Timeout { .. } | Self::Idle { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The gRPC status of the answer (`grpc/doc/statuscodes.md`).
    #[must_use]
    pub fn grpc_status(&self) -> u8 {
        match self {
            Self::BadRequest(_) => 13,                         // INTERNAL, as gRPC maps HTTP 400
            Self::HeadersTooLarge => 8,                        // RESOURCE_EXHAUSTED
            Self::Downstream => 1,                             // CANCELLED
            Self::NotAllowed => 7,                             // PERMISSION_DENIED
            Self::Unsupported(_) | Self::NoRoute { .. } => 12, // UNIMPLEMENTED
            Self::NoEndpoint { .. }
            | Self::Overflow { .. }
            | Self::Connect { .. }
            | Self::Identity { .. }
            | Self::NotProcessed { .. }
            | Self::Reset { .. }
            | Self::Protocol { .. }
            | Self::BadResponse { .. }
            | Self::ResponseHeadersTooLarge { .. } => 14, // UNAVAILABLE
            Self::Timeout { .. } | Self::Idle { .. } => 4,     // DEADLINE_EXCEEDED
        }
    }

    /// The response flag.
    #[must_use]
    pub fn flag(&self) -> ResponseFlag {
        match self {
            Self::BadRequest(_) | Self::HeadersTooLarge | Self::Unsupported(_) => ResponseFlag::DPE,
            Self::NoRoute { .. } => ResponseFlag::NR,
            Self::NotAllowed => ResponseFlag::RBAC,
            Self::NoEndpoint { .. } => ResponseFlag::UH,
            Self::Overflow { cap: Overflow::Memory, .. } => ResponseFlag::OM,
            Self::Overflow {
                cap: Overflow::Requests | Overflow::Connections | Overflow::Pending, ..
            } => ResponseFlag::UO,
            Self::Connect { .. } => ResponseFlag::UF,
            Self::Identity { .. } => ResponseFlag::ID,
            Self::NotProcessed { .. } | Self::Reset { .. } => ResponseFlag::UC,
            Self::Protocol { .. } | Self::BadResponse { .. } | Self::ResponseHeadersTooLarge { .. } => {
                ResponseFlag::UPE
            }
            Self::Timeout { .. } => ResponseFlag::UT,
            Self::Idle { .. } => ResponseFlag::SI,
            Self::Downstream => ResponseFlag::DC,
        }
    }

    /// The reason, as in `x-outrider-reason` and metrics: a closed list.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad_request",
            Self::HeadersTooLarge => "headers_too_large",
            Self::Unsupported(_) => "unsupported",
            Self::NoRoute { .. } => "no_route",
            Self::NotAllowed => "not_allowed",
            Self::NoEndpoint { .. } => "no_endpoint",
            Self::Overflow { cap: Overflow::Requests, .. } => "max_requests",
            Self::Overflow { cap: Overflow::Connections, .. } => "max_connections",
            Self::Overflow { cap: Overflow::Pending, .. } => "max_pending",
            Self::Overflow { cap: Overflow::Memory, .. } => "overload",
            Self::Connect { .. } => "connect_failed",
            Self::Identity { .. } => "identity_mismatch",
            Self::NotProcessed { .. } => "not_processed",
            Self::Reset { .. } => "reset_before_answer",
            Self::Protocol { .. } => "protocol_error",
            Self::BadResponse { .. } => "bad_response",
            Self::ResponseHeadersTooLarge { .. } => "response_headers_too_large",
            Self::Timeout { .. } => "request_timeout",
            Self::Idle { .. } => "stream_idle",
            Self::Downstream => "downstream_gone",
        }
    }

    /// Whether the app may have seen the request, and so what may be repeated; `None`: never retried, because
    /// another attempt would end alike.
    #[must_use]
    pub fn retry_class(&self) -> Option<Processed> {
        match self {
            Self::BadRequest(_)
            | Self::HeadersTooLarge
            | Self::Unsupported(_)
            | Self::NoRoute { .. }
            | Self::NotAllowed
            | Self::NoEndpoint { .. }
            | Self::Overflow { .. }
            | Self::ResponseHeadersTooLarge { .. }
            | Self::Timeout { .. }
            | Self::Idle { .. }
            | Self::Downstream => None,
            Self::Connect { .. } | Self::Identity { .. } | Self::NotProcessed { .. } => Some(Processed::No),
            Self::Reset { .. } | Self::Protocol { .. } | Self::BadResponse { .. } => Some(Processed::Maybe),
        }
    }

    /// Whether it speaks against the endpoint, so that balancing should prefer others.
    #[must_use]
    pub fn is_endpoints_fault(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Identity { .. }
            | Self::NotProcessed { .. }
            | Self::Reset { .. }
            | Self::Protocol { .. }
            | Self::BadResponse { .. }
            | Self::Timeout { .. }
            | Self::Idle { .. } => true,
            Self::BadRequest(_)
            | Self::HeadersTooLarge
            | Self::Unsupported(_)
            | Self::NoRoute { .. }
            | Self::NotAllowed
            | Self::NoEndpoint { .. }
            | Self::Overflow { .. }
            | Self::ResponseHeadersTooLarge { .. }
            | Self::Downstream => false,
        }
    }

    /// Whether the caller's sidecar may repeat the request elsewhere whatever its method: the app has not seen it.
    #[must_use]
    pub fn is_unprocessed(&self) -> bool {
        match self {
            Self::NoEndpoint { .. }
            | Self::Overflow { .. }
            | Self::Connect { .. }
            | Self::Identity { .. }
            | Self::NotProcessed { .. } => true,
            Self::BadRequest(_)
            | Self::HeadersTooLarge
            | Self::Unsupported(_)
            | Self::NoRoute { .. }
            | Self::NotAllowed
            | Self::Reset { .. }
            | Self::Protocol { .. }
            | Self::BadResponse { .. }
            | Self::ResponseHeadersTooLarge { .. }
            | Self::Timeout { .. }
            | Self::Idle { .. }
            | Self::Downstream => false,
        }
    }
}
