//! Injected faults: what is done to one request?
//!
//! Delay and abort are drawn one after the other and independently, as Envoy does, from the worker's randomness: a
//! simulation with one seed injects the same faults again. Nothing is drawn where nothing can come of it.

use std::time::Duration;

use http::{HeaderMap, StatusCode};

use crate::model::{fault::Fault, policy::HeaderMatch};

/// What is done to a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injection {
    /// It waits first.
    pub delay: Option<Duration>,
    /// It is answered, and goes no further.
    pub abort: Option<Abort>,
}

/// An answer that is made up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    /// Its HTTP status, unless it is gRPC's.
    pub status: StatusCode,
    /// Its gRPC status.
    pub grpc_status: u8,
}

/// What is done to a request with these fields.
#[must_use]
pub fn decide(fault: &Fault, headers: &HeaderMap, is_grpc: bool, rng: &mut fastrand::Rng) -> Injection {
    if fault.header.as_ref().is_some_and(|field| !has(headers, field)) {
        return Injection::default();
    }
    let delay = fault.delay.filter(|_| is_drawn(fault.delay_percent, rng));
    let abort = abort(fault, is_grpc).filter(|_| is_drawn(fault.abort_percent, rng));
    Injection { delay, abort }
}

fn abort(fault: &Fault, is_grpc: bool) -> Option<Abort> {
    match (fault.abort, fault.abort_grpc) {
        (Some(status), grpc_status) => {
            Some(Abort { status, grpc_status: grpc_status.unwrap_or_else(|| as_grpc(status)) })
        }
        (None, Some(grpc_status)) if is_grpc => Some(Abort { status: StatusCode::OK, grpc_status }),
        (None, _) => None,
    }
}

/// What clients of gRPC make of an HTTP status (`grpc/doc/http-grpc-status-mapping.md`).
fn as_grpc(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => 13,                   // INTERNAL
        401 => 16,                   // UNAUTHENTICATED
        403 => 7,                    // PERMISSION_DENIED
        404 => 12,                   // UNIMPLEMENTED
        429 | 502 | 503 | 504 => 14, // UNAVAILABLE
        _ => 2,                      // UNKNOWN
    }
}

fn has(headers: &HeaderMap, HeaderMatch { name, value }: &HeaderMatch) -> bool {
    match value {
        None => headers.contains_key(name),
        Some(value) => headers.get_all(name).iter().any(|found| found == value),
    }
}

fn is_drawn(percent: u32, rng: &mut fastrand::Rng) -> bool {
    match percent {
        0 => false,
        100.. => true,
        percent => rng.u32(0..100) < percent,
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    const FAULT: Fault = Fault {
        delay: Some(Duration::from_millis(10)),
        delay_percent: 100,
        abort: Some(StatusCode::SERVICE_UNAVAILABLE),
        abort_grpc: None,
        abort_percent: 100,
        header: None,
    };

    fn decide(fault: &Fault, headers: &HeaderMap, is_grpc: bool) -> Injection {
        super::decide(fault, headers, is_grpc, &mut fastrand::Rng::with_seed(1))
    }

    #[test]
    fn only_requests_with_the_field_are_touched() {
        let name = HeaderName::from_static("x-fault");
        let with = |value: Option<&'static str>| {
            let value = value.map(HeaderValue::from_static);
            Fault { header: Some(HeaderMatch { name: name.clone(), value }), ..FAULT }
        };
        let mut headers = HeaderMap::new();
        assert_eq!(decide(&with(None), &headers, false), Injection::default());
        headers.append(&name, HeaderValue::from_static("no"));
        headers.append(&name, HeaderValue::from_static("yes"));
        let all = decide(&FAULT, &HeaderMap::new(), false);
        assert!(all.delay.is_some() && all.abort.is_some());
        assert_eq!(decide(&with(None), &headers, false), all);
        assert_eq!(decide(&with(Some("yes")), &headers, false), all);
        assert_eq!(decide(&with(Some("other")), &headers, false), Injection::default());
    }

    #[test]
    fn a_call_of_grpc_is_aborted_in_its_own_words() {
        let of = |abort: Option<u16>, abort_grpc, is_grpc| {
            let abort = abort.map(|status| StatusCode::from_u16(status).unwrap());
            let injection = decide(&Fault { abort, abort_grpc, ..FAULT }, &HeaderMap::new(), is_grpc);
            injection.abort.map(|abort| (abort.status.as_u16(), abort.grpc_status))
        };
        assert_eq!(of(Some(503), Some(8), true), Some((503, 8)));
        assert_eq!(of(None, Some(8), true), Some((200, 8)));
        assert_eq!(of(None, Some(8), false), None, "it has no HTTP status");
        assert_eq!(of(None, None, true), None);
        for (status, grpc) in [(400, 13), (401, 16), (403, 7), (404, 12), (429, 14), (503, 14), (500, 2)] {
            assert_eq!(of(Some(status), None, true), Some((status, grpc)));
        }
    }

    #[test]
    fn nothing_is_drawn_where_nothing_can_come_of_it() {
        let none = HeaderMap::new();
        for fault in [
            FAULT,
            Fault { delay_percent: 0, abort_percent: 0, ..FAULT },
            Fault { delay: None, delay_percent: 50, abort: None, abort_percent: 50, ..FAULT },
        ] {
            let mut rng = fastrand::Rng::with_seed(7);
            let _drawn = super::decide(&fault, &none, false, &mut rng);
            assert_eq!(rng.u64(..), fastrand::Rng::with_seed(7).u64(..), "{fault:?}");
        }
    }

    proptest! {
        #[test]
        fn shares_are_as_ordered_and_independent(
            delay_percent in 0_u32..=100,
            abort_percent in 0_u32..=100,
            seed in any::<u64>(),
        ) {
            let fault = Fault { delay_percent, abort_percent, ..FAULT };
            let mut rng = fastrand::Rng::with_seed(seed);
            let none = HeaderMap::new();
            let drawn: Vec<_> = (0..20_000).map(|_| super::decide(&fault, &none, false, &mut rng)).collect();
            let share = |is: fn(&Injection) -> bool| {
                drawn.iter().filter(|injection| is(injection)).count() as f64 / 200.0
            };
            let (delay, abort) = (f64::from(delay_percent), f64::from(abort_percent));
            // Five standard deviations of 20,000 draws are less than 1.8 percent.
            prop_assert!((share(|it| it.delay.is_some()) - delay).abs() < 2.0);
            prop_assert!((share(|it| it.abort.is_some()) - abort).abs() < 2.0);
            let both = share(|it| it.delay.is_some() && it.abort.is_some());
            prop_assert!((both - delay * abort / 100.0).abs() < 2.0);
        }
    }
}
