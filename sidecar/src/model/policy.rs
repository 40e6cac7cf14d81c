//! What holds for requests: of a whole cluster, or of some requests to it.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Method};

use super::{
    edits::{Edits, Redirect},
    fault::Fault,
    mirror::Mirror,
    rate_limit::RateLimit,
    statuses::{GrpcStatuses, Statuses},
};

/// What holds for a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// From the request's arrival to the response's head; `None`: only what the caller says and `stream_idle` bound it.
    pub request_timeout: Option<Duration>,
    /// What may be repeated.
    pub retry: RetryPolicy,
    /// How many may begin; at most [`super::rate_limit::MAX_RATE_LIMITS`]. Policies that have the very same list share what
    /// is left: a route that says nothing of its own has its cluster's.
    pub rate_limits: Arc<[RateLimit]>,
    /// What is injected into them; `None`: nothing.
    pub fault: Option<Arc<Fault>>,
    /// What is changed of them and of their answers; `None`: nothing.
    pub edits: Option<Arc<Edits>>,
    /// Where their callers are sent instead; `None`: they go on.
    pub redirect: Option<Arc<Redirect>>,
    /// Where copies of them go; `None`: nowhere.
    pub mirrors: Option<Arc<[Mirror]>>,
}

impl Policy {
    /// For the own app: nothing is limited, and nothing repeated that it may have seen.
    #[must_use]
    pub fn own_app() -> Self {
        Self { retry: RetryPolicy::OWN_APP, ..Self::bare() }
    }

    /// Nothing is limited, and nothing repeated.
    #[must_use]
    pub fn bare() -> Self {
        let (retry, rate_limits) = (RetryPolicy::NONE, Arc::default());
        let (fault, edits, redirect, mirrors) = (None, None, None, None);
        Self { request_timeout: None, retry, rate_limits, fault, edits, redirect, mirrors }
    }
}

/// What may be repeated, and how often.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Attempts beyond the first, 0..=10.
    pub max_retries: u32,
    /// From an attempt's beginning to the answer's head; `None`: only the request's own limits hold.
    pub per_try_timeout: Option<Duration>,
    /// Answers of the app that are repeated.
    pub statuses: Statuses,
    /// Those that are repeated for their gRPC status, told before any message.
    pub grpc_statuses: GrpcStatuses,
    /// Which requests are repeated that the app may have seen.
    pub methods: Methods,
    /// Bytes of a request body kept so that it can be sent again; past that it streams and cannot be retried.
    pub replay_bytes: usize,
    /// First backoff; it doubles, fully jittered, up to ten times this.
    pub backoff_base: Duration,
    /// When a second attempt is made beside one that has no answer yet.
    pub hedge: Hedge,
}

impl RetryPolicy {
    /// Nothing is repeated.
    pub const NONE: Self = Self {
        max_retries: 0,
        per_try_timeout: None,
        statuses: Statuses::NONE,
        grpc_statuses: GrpcStatuses::NONE,
        methods: Methods::Idempotent,
        replay_bytes: 0,
        backoff_base: Duration::ZERO,
        hedge: Hedge::Never,
    };

    /// For the own app: what it refused unseen, as when it takes no more requests on a connection, is sent to it once more.
    /// All else is left to the caller, who has other endpoints.
    pub const OWN_APP: Self = Self { max_retries: 1, methods: Methods::None, ..Self::NONE };
}

/// Which requests are repeated that the app may have seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Methods {
    /// Those whose method is idempotent (RFC 9110 §9.2.2).
    Idempotent,
    /// All: the app takes a request that comes twice for one.
    Any,
    /// None: only what the app has certainly not seen.
    None,
}

/// When a second attempt is made beside one that has no answer yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hedge {
    /// Never.
    Never,
    /// After this time.
    After(Duration),
    /// After the time within which the endpoint has answered 95 % of its newest requests.
    P95,
}

/// How much may be repeated of all that a cluster carries: retries and hedges of whatever route.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryBudget {
    /// Share of recent requests that may be retries, 0.0..=1.0.
    pub ratio: f64,
    /// Retries per second that are always allowed.
    pub min_per_second: u32,
    /// Retries and hedges that may be under way, over all workers.
    pub max_active: u32,
}

impl RetryBudget {
    /// Nothing may be repeated.
    pub const NONE: Self = Self { ratio: 0.0, min_per_second: 0, max_active: 0 };
}

/// Requests of a certain kind to a cluster, and what holds for them.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// Its name, unique in its cluster.
    pub name: Arc<str>,
    /// Which requests these are; `None`: those that a rule of the [route table](super::route_table) leads here, and no
    /// others.
    pub matches: Option<RouteMatch>,
    /// What holds for its requests: what it does not say itself is the cluster's.
    pub policy: Arc<Policy>,
}

/// What a request must be to be a route's: all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMatch {
    /// Its path, without the query.
    pub path: PathMatch,
    /// Its method is one of these; empty: any.
    pub methods: Vec<Method>,
    /// Its fields.
    pub headers: Vec<HeaderMatch>,
    /// Its query.
    pub query: Vec<TextMatch>,
    /// Its cookies.
    pub cookies: Vec<TextMatch>,
    /// It is a call of gRPC, by its content type.
    pub is_grpc: bool,
}

impl RouteMatch {
    /// What every request is.
    pub const ANY: Self = Self {
        path: PathMatch::Any,
        methods: Vec::new(),
        headers: Vec::new(),
        query: Vec::new(),
        cookies: Vec::new(),
        is_grpc: false,
    };
}

/// What a path must be, in its [one spelling](crate::canonical::path).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// Any.
    Any,
    /// This one, or one below it: `/shop` is `/shop`, `/shop/` and `/shop/carts`, and not `/shopping`. Kept without a
    /// `/` at its end, so that of `/` nothing is left.
    Prefix(Box<str>),
    /// Exactly this one.
    Exact(Box<str>),
}

/// What a field must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderMatch {
    /// Its name.
    pub name: HeaderName,
    /// Its value, which it must have exactly (of a repeated field, one of them); `None`: whatever it is.
    pub value: Option<HeaderValue>,
}

/// What a parameter of the query must be, or a cookie; of several of one name, the first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextMatch {
    /// Its name.
    pub name: Box<str>,
    /// Its value, which it must have exactly; `None`: whatever it is.
    pub value: Option<Box<str>>,
}
