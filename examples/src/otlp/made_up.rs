//! Made-up spans for tests.

use std::ops::Range;

use super::span::{Kind, Span};

/// A proxy's span; parent 0 is none, times are microseconds after one o'clock.
pub(crate) fn span(id: u64, parent: u64, service: &str, kind: Kind, micros: Range<u64>) -> Span {
    let at = |micros: u64| 3_600_000_000_000 + micros * 1000;
    Span {
        trace: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
        id,
        parent: Some(parent).filter(|parent| *parent != 0),
        service: service.into(),
        name: "GET".into(),
        kind,
        is_proxy: true,
        start: at(micros.start),
        end: at(micros.end),
        is_error: false,
        status: Some(200),
        resend: 0,
        cluster: None,
        endpoint: None,
    }
}

/// web → orders → inventory, as the demo's sidecars tell it.
pub(crate) fn call() -> Vec<Span> {
    vec![
        span(5, 4, "inventory", Kind::Server, 800..1200),
        span(4, 3, "orders", Kind::Client, 700..1300),
        span(3, 2, "orders", Kind::Server, 200..1700),
        span(2, 1, "web", Kind::Client, 20..1980),
        span(1, 0, "web", Kind::Internal, 0..2000),
    ]
}
