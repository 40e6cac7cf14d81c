//! Why the proxy answered instead of the upstream: one enum, and its total maps.
//!
//! Each variant has one HTTP status, one gRPC status, one response flag, one reason and one retry class. The matches
//! are exhaustive on purpose: a new variant does not compile until all are decided. The table in
//! `docs/request-path.md` is made from these functions by a test.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::StatusCode;

use crate::{
    connect,
    headers::framing::FramingError,
    model::{Cluster, ClusterName, flag::ResponseFlag, health::Tally, rate_limit::Quota, wanted::Key},
    relay::received::Broken,
    resilience::{circuit_breaker::Overflow, fault::Abort, outcome::Judgement, retry::Processed},
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
    /// The host, or the service, has rules, and the request is of none of them.
    #[error("no rule for this request among those of {authority}")]
    NoRule {
        /// What was asked for, shortened.
        authority: String,
    },
    /// Nobody knows where this leads, and the controller has not said so in time.
    #[error("the controller has not said where {0} leads")]
    NotDiscovered(Key),
    /// The caller may not call here any more, for the list of those who may has changed since it connected; or it proved
    /// nothing, and no exception permits what it asks for.
    #[error("this caller may not ask for this here")]
    NotAllowed,
    /// It was allowed when it began, and the rules have changed since.
    #[error("this caller may not ask for this any more")]
    NoLongerAllowed,
    /// No authorization rule allows the call: none of ours, or, of an opaque stream, none of the far sidecar's.
    #[error("no authorization rule allows this")]
    NotAuthorized,
    /// The cluster has no endpoint that may be asked.
    #[error("no endpoint in cluster {cluster} that may be asked: {tally}")]
    NoEndpoint {
        /// That cluster.
        cluster: ClusterName,
        /// Why none may.
        tally: Tally,
    },
    /// A circuit breaker's cap is reached.
    #[error("{cap} in cluster {cluster}")]
    Overflow {
        /// That cluster.
        cluster: ClusterName,
        /// Which cap.
        cap: Overflow,
    },
    /// Too many requests (or streams) have begun of late; none of them has been let through to the app.
    #[error("the rate limit of cluster {cluster} is reached")]
    RateLimited {
        /// That cluster.
        cluster: ClusterName,
        /// The limit, if it is ours. Else the sidecar of an endpoint has refused a stream for its own.
        quota: Option<Box<Quota>>,
    },
    /// The configuration orders this answer.
    #[error("a fault that was injected on purpose")]
    FaultInjected(Abort),
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
        /// What its sidecar says of it, if it said why.
        said: Option<Judgement>,
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
    /// The endpoint gave no answer within the time of an attempt, or was ejected for its silence meanwhile.
    #[error("no answer from {endpoint} within {limit:?}")]
    TryTimeout {
        /// That endpoint.
        endpoint: SocketAddr,
        /// The time that it had.
        limit: Duration,
    },
    /// No answer within the request's timeout.
    #[error("no answer within {limit:?}")]
    Timeout {
        /// The timeout.
        limit: Duration,
    },
    /// The time that the caller gave ran out: its `grpc-timeout`, or what it still had itself.
    #[error("the caller's {limit:?} are over")]
    DeadlineExceeded {
        /// What was left when the request came.
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
    /// No endpoint of that cluster may be asked.
    #[must_use]
    pub fn no_endpoint(cluster: &Cluster, now: Instant) -> Self {
        Self::NoEndpoint { cluster: cluster.name().clone(), tally: Tally::of(&cluster.endpoints, now) }
    }

    /// The HTTP status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::Downstream => StatusCode::BAD_REQUEST,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Unsupported(_) => StatusCode::NOT_IMPLEMENTED,
            Self::NoRoute { .. } | Self::NoRule { .. } => StatusCode::NOT_FOUND,
            Self::NotAllowed | Self::NoLongerAllowed | Self::NotAuthorized => StatusCode::FORBIDDEN,
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::FaultInjected(abort) => abort.status,
            Self::NotDiscovered(_)
            | Self::NoEndpoint { .. }
            | Self::Overflow { .. }
            | Self::Connect { .. }
            | Self::Identity { .. }
            | Self::NotProcessed { .. }
            | Self::Reset { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Protocol { .. } | Self::BadResponse { .. } | Self::ResponseHeadersTooLarge { .. } => {
                StatusCode::BAD_GATEWAY
            }
            Self::TryTimeout { .. }
            | Self::Timeout { .. }
            | Self::DeadlineExceeded { .. }
            | Self::Idle { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The gRPC status of the answer (`grpc/doc/statuscodes.md`).
    #[must_use]
    pub fn grpc_status(&self) -> u8 {
        match self {
            Self::BadRequest(_) => 13, // INTERNAL, as gRPC maps HTTP 400
            Self::HeadersTooLarge | Self::RateLimited { .. } => 8, // RESOURCE_EXHAUSTED
            Self::FaultInjected(abort) => abort.grpc_status,
            Self::Downstream => 1, // CANCELLED
            Self::NotAllowed | Self::NoLongerAllowed | Self::NotAuthorized => 7, // PERMISSION_DENIED
            Self::Unsupported(_) | Self::NoRoute { .. } | Self::NoRule { .. } => 12, // UNIMPLEMENTED
            Self::NotDiscovered(_)
            | Self::NoEndpoint { .. }
            | Self::Overflow { .. }
            | Self::Connect { .. }
            | Self::Identity { .. }
            | Self::NotProcessed { .. }
            | Self::Reset { .. }
            | Self::Protocol { .. }
            | Self::BadResponse { .. }
            | Self::ResponseHeadersTooLarge { .. } => 14, // UNAVAILABLE
            Self::TryTimeout { .. }
            | Self::Timeout { .. }
            | Self::DeadlineExceeded { .. }
            | Self::Idle { .. } => 4, // DEADLINE_EXCEEDED
        }
    }

    /// The response flag.
    #[must_use]
    pub fn flag(&self) -> ResponseFlag {
        match self {
            Self::BadRequest(_) | Self::HeadersTooLarge | Self::Unsupported(_) => ResponseFlag::DPE,
            Self::NoRoute { .. } | Self::NoRule { .. } | Self::NotDiscovered(_) => ResponseFlag::NR,
            Self::NotAllowed | Self::NoLongerAllowed | Self::NotAuthorized => ResponseFlag::RBAC,
            Self::RateLimited { .. } => ResponseFlag::RL,
            Self::FaultInjected(_) => ResponseFlag::FI,
            Self::NoEndpoint { .. } => ResponseFlag::UH,
            Self::Overflow { cap: Overflow::Memory, .. } => ResponseFlag::OM,
            Self::Overflow {
                cap: Overflow::Requests | Overflow::Connections | Overflow::Pending | Overflow::Peer,
                ..
            } => ResponseFlag::UO,
            Self::Connect { .. } => ResponseFlag::UF,
            Self::Identity { .. } => ResponseFlag::ID,
            Self::NotProcessed { .. } | Self::Reset { .. } => ResponseFlag::UC,
            Self::Protocol { .. } | Self::BadResponse { .. } | Self::ResponseHeadersTooLarge { .. } => {
                ResponseFlag::UPE
            }
            Self::TryTimeout { .. } | Self::Timeout { .. } => ResponseFlag::UT,
            Self::DeadlineExceeded { .. } => ResponseFlag::DE,
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
            Self::NoRule { .. } => "no_rule",
            Self::NotDiscovered(_) => "not_discovered",
            Self::NotAllowed => "not_allowed",
            Self::NoLongerAllowed => "no_longer_allowed",
            Self::NotAuthorized => "not_authorized",
            Self::NoEndpoint { .. } => "no_endpoint",
            Self::Overflow { cap: Overflow::Requests, .. } => "max_requests",
            Self::Overflow { cap: Overflow::Connections, .. } => "max_connections",
            Self::Overflow { cap: Overflow::Pending, .. } => "max_pending",
            Self::Overflow { cap: Overflow::Peer, .. } => "max_requests_of_peer",
            Self::Overflow { cap: Overflow::Memory, .. } => "overload",
            Self::RateLimited { .. } => "rate_limited",
            Self::FaultInjected(_) => "fault_injected",
            Self::Connect { .. } => "connect_failed",
            Self::Identity { .. } => "identity_mismatch",
            Self::NotProcessed { .. } => "not_processed",
            Self::Reset { .. } => "reset_before_answer",
            Self::Protocol { .. } => "protocol_error",
            Self::BadResponse { .. } => "bad_response",
            Self::ResponseHeadersTooLarge { .. } => "response_headers_too_large",
            Self::TryTimeout { .. } => "per_try_timeout",
            Self::Timeout { .. } => "request_timeout",
            Self::DeadlineExceeded { .. } => "deadline_exceeded",
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
            | Self::NoRule { .. }
            | Self::NotDiscovered(_)
            | Self::NotAllowed
            | Self::NoLongerAllowed
            | Self::NotAuthorized
            | Self::NoEndpoint { .. }
            | Self::Overflow { .. }
            // Elsewhere the same caller would be one too many, too: repeating it makes a storm of what is to be less.
            | Self::RateLimited { .. }
            | Self::FaultInjected(_)
            | Self::ResponseHeadersTooLarge { .. }
            | Self::Timeout { .. }
            | Self::DeadlineExceeded { .. }
            | Self::Idle { .. }
            | Self::Downstream => None,
            Self::Connect { .. } | Self::Identity { .. } | Self::NotProcessed { .. } => Some(Processed::No),
            Self::Reset { .. }
            | Self::Protocol { .. }
            | Self::BadResponse { .. }
            | Self::TryTimeout { .. } => Some(Processed::Maybe),
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
            | Self::TryTimeout { .. }
            | Self::Timeout { .. }
            | Self::DeadlineExceeded { .. }
            | Self::Idle { .. } => true,
            Self::BadRequest(_)
            | Self::HeadersTooLarge
            | Self::Unsupported(_)
            | Self::NoRoute { .. }
            | Self::NoRule { .. }
            | Self::NotDiscovered(_)
            | Self::NotAllowed
            | Self::NoLongerAllowed
            | Self::NotAuthorized
            | Self::NoEndpoint { .. }
            | Self::Overflow { .. }
            | Self::RateLimited { .. }
            | Self::FaultInjected(_)
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
            | Self::NoRule { .. }
            | Self::NotDiscovered(_)
            | Self::NotAllowed
            | Self::NoLongerAllowed
            | Self::NotAuthorized
            // It was not, but that is no leave to repeat it: see `retry_class`.
            | Self::RateLimited { .. }
            | Self::FaultInjected(_)
            | Self::Reset { .. }
            | Self::Protocol { .. }
            | Self::BadResponse { .. }
            | Self::ResponseHeadersTooLarge { .. }
            | Self::TryTimeout { .. }
            | Self::Timeout { .. }
            | Self::DeadlineExceeded { .. }
            | Self::Idle { .. }
            | Self::Downstream => false,
        }
    }
}
