//! Trails made by hand, for tests.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Version, uri::PathAndQuery};
use outrider_certs::SpiffeId;

use super::trail::{Asked, Attempt, Caller, Traffic, Trail};
use crate::model::{ClusterName, edge::Direction, flag::ResponseFlag};

pub(crate) fn peer(path: &str) -> Caller {
    Caller::Peer(SpiffeId::parse(&format!("spiffe://demo.outrider/{path}")).unwrap())
}

/// A GET of `/items/7?card=1` by the own app to `orders`, answered with 503 after 20 ms for want of an endpoint.
pub(crate) fn trail() -> Trail {
    let mut trail =
        Trail::new(Traffic::Http, Direction::Outbound, Arc::from("out"), Caller::App, Instant::now());
    trail.asked = Some(Asked {
        method: Method::GET,
        target: Some(PathAndQuery::from_static("/items/7?card=1")),
        authority: "orders".into(),
        version: Version::HTTP_11,
    });
    trail.client = Some([127, 0, 0, 1].into());
    trail.request_id = Some(HeaderValue::from_static("request-7"));
    trail.cluster = Some(ClusterName::new("orders"));
    trail.route = Some(Arc::from("reads"));
    trail.generation = 3;
    trail.status = Some(503);
    trail.flag = Some(ResponseFlag::UH);
    trail.reason = Some("no_endpoint".into());
    trail.error = Some("no endpoint in cluster orders that may be asked: none is listed".into());
    trail.answered = Some(Duration::from_millis(20));
    trail.ended = Duration::from_millis(20);
    trail
}

/// An attempt that began after so many milliseconds.
pub(crate) fn attempt(port: u16, begun_ms: u64) -> Attempt {
    Attempt::new(SocketAddr::from(([10, 0, 0, 7], port)), Duration::from_millis(begun_ms))
}
