//! What one caller and all callers together may ask for.
//!
//! Rates are kept by the generic cell rate algorithm (ITU-T I.371): per caller
//! one point in time, no timers. Who is over the rate is refused at once and
//! may try again; nothing waits in line.
//!
//! Who has shown a verified SVID and who has not share nothing: each kind has a
//! total and a memory of its own, so that strangers with many addresses cannot
//! keep workloads from renewing.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::spiffe_id::SpiffeId;

/// Most callers of either kind whose rate is remembered at a time.
const MAX_CALLERS: usize = 16 * 1024;
/// What of an IPv6 address names a caller: the network, for whoever has one of
/// its addresses usually has all (RFC 6177).
const IPV6_NETWORK: u128 = !0 << 64;

/// A rate with room for a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Requests per second, in the long run; at least 1.
    pub per_second: u32,
    /// Requests at once, after a pause; at least 1.
    pub burst: u32,
}

/// Bounds of the server. Every one has a default that suits a few thousand
/// workloads and is meant to be out of the way of honest ones.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Connections at a time; over that, the oldest that waits is closed. One
    /// address without an SVID has a quarter. Default 1024.
    pub connections: usize,
    /// Requests being answered at a time; more are refused. One address without
    /// an SVID has a quarter. Default 128.
    pub requests: usize,
    /// Time for a TLS handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// Time for an answer. Default 10 s.
    pub request_timeout: Duration,
    /// Age at which a connection is asked to end. Default 2 min.
    pub connection_age: Duration,
    /// Time open requests have to finish when the CA stops. Default 10 s.
    pub grace: Duration,
    /// Rate of one caller: an SVID's ID, or else an IPv4 address or IPv6 /64
    /// network. Default 20/s, 100 at once.
    pub per_caller: Rate,
    /// Rate of all callers with an SVID together, and once more that of all
    /// without. Default 200/s, 1000 at once.
    pub total: Rate,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            requests: 128,
            handshake_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            connection_age: Duration::from_secs(120),
            grace: Duration::from_secs(10),
            per_caller: Rate { per_second: 20, burst: 100 },
            total: Rate { per_second: 200, burst: 1000 },
        }
    }
}

/// Whose rate a request counts against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Caller {
    /// Somebody with a verified SVID.
    Workload(SpiffeId),
    /// Anybody else at this address.
    Address(IpAddr),
}

/// Which rate is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exceeded {
    /// The caller's own.
    Caller,
    /// That of all callers of its kind.
    Total,
}

impl Rate {
    /// Time between two requests at this rate.
    fn interval(self) -> Duration {
        Duration::from_secs(1) / self.per_second.max(1)
    }

    /// Counts a request at `now`, or returns `None` if it is too many.
    /// `due` is when the caller would have used up what it had.
    fn admit(self, due: Option<Instant>, now: Instant) -> Option<Instant> {
        let due = due.map_or(now, |due| due.max(now)) + self.interval();
        let room = self.interval() * self.burst.max(1);
        (due.duration_since(now) <= room).then_some(due)
    }
}

/// Counts requests.
#[derive(Debug)]
pub(super) struct RateLimiter {
    workloads: Share<SpiffeId>,
    addresses: Share<IpAddr>,
}

impl RateLimiter {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { workloads: Share::new(limits), addresses: Share::new(limits) }
    }

    /// Counts one request of `caller`, or says which rate it would exceed.
    pub(super) fn admit(&self, caller: Caller, now: Instant) -> Result<(), Exceeded> {
        match caller {
            Caller::Workload(id) => self.workloads.admit(id, now),
            Caller::Address(address) => self.addresses.admit(network(address), now),
        }
    }
}

/// What an address is remembered as.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & IPV6_NETWORK).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Counts the requests of one kind of caller.
#[derive(Debug)]
struct Share<K> {
    per_caller: Rate,
    total: Rate,
    state: Mutex<State<K>>,
}

#[derive(Debug)]
struct State<K> {
    total: Option<Instant>,
    callers: HashMap<K, Instant>,
}

impl<K: Hash + Eq> Share<K> {
    fn new(limits: &Limits) -> Self {
        let state = Mutex::new(State { total: None, callers: HashMap::new() });
        Self { per_caller: limits.per_caller, total: limits.total, state }
    }

    /// The caller's rate is asked first, so that one who floods does not use
    /// up what belongs to all. The memory is swept only within the total rate.
    fn admit(&self, caller: K, now: Instant) -> Result<(), Exceeded> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let known = state.callers.get(&caller).copied();
        let due = self.per_caller.admit(known, now).ok_or(Exceeded::Caller)?;
        let total = self.total.admit(state.total, now).ok_or(Exceeded::Total)?;
        state.total = Some(total);
        if known.is_none() && state.callers.len() >= MAX_CALLERS {
            state.callers.retain(|_, due| *due > now);
            if state.callers.len() >= MAX_CALLERS {
                return Err(Exceeded::Total);
            }
        }
        state.callers.insert(caller, due);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(per_caller: Rate, total: Rate) -> RateLimiter {
        RateLimiter::new(&Limits { per_caller, total, ..Limits::default() })
    }

    fn address(last: u8) -> Caller {
        Caller::Address(IpAddr::from([127, 0, 0, last]))
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let rate = Rate { per_second: 10, burst: 3 };
        let limiter = limiter(rate, Rate { per_second: 1000, burst: 1000 });
        let start = Instant::now();
        let admitted = (0..5).filter(|_| limiter.admit(address(1), start).is_ok()).count();
        assert_eq!(admitted, 3);
        assert_eq!(limiter.admit(address(1), start), Err(Exceeded::Caller));
        assert_eq!(limiter.admit(address(2), start), Ok(()));
        let later = start + Duration::from_millis(100);
        assert_eq!(limiter.admit(address(1), later), Ok(()));
        assert_eq!(limiter.admit(address(1), later), Err(Exceeded::Caller));
    }

    #[test]
    fn callers_of_a_kind_share_a_total() {
        let many = Rate { per_second: 1000, burst: 1000 };
        let limiter = limiter(many, Rate { per_second: 1, burst: 2 });
        let now = Instant::now();
        assert_eq!(limiter.admit(address(1), now), Ok(()));
        assert_eq!(limiter.admit(address(2), now), Ok(()));
        assert_eq!(limiter.admit(address(3), now), Err(Exceeded::Total));
    }

    #[test]
    fn strangers_cannot_use_up_what_workloads_have() {
        let many = Rate { per_second: 1000, burst: 1000 };
        let limiter = limiter(many, Rate { per_second: 1, burst: 2 });
        let now = Instant::now();
        let strangers = (0..=255).filter(|last| limiter.admit(address(*last), now).is_ok()).count();
        assert_eq!(strangers, 2);
        let workload = Caller::Workload(SpiffeId::parse("spiffe://example.org/orders").unwrap());
        assert_eq!(limiter.admit(workload.clone(), now), Ok(()));
        assert_eq!(limiter.admit(workload.clone(), now), Ok(()));
        assert_eq!(limiter.admit(workload, now), Err(Exceeded::Total));
    }

    #[test]
    fn an_ipv6_network_is_one_caller() {
        let limiter = limiter(Rate { per_second: 1, burst: 1 }, Rate { per_second: 1000, burst: 1000 });
        let now = Instant::now();
        let admit = |text: &str| limiter.admit(Caller::Address(text.parse().unwrap()), now);
        assert_eq!(admit("2001:db8:0:1::1"), Ok(()));
        assert_eq!(admit("2001:db8:0:1:ffff::2"), Err(Exceeded::Caller));
        assert_eq!(admit("2001:db8:0:2::1"), Ok(()));
        assert_eq!(admit("::ffff:192.0.2.1"), Ok(()));
        assert_eq!(admit("192.0.2.1"), Err(Exceeded::Caller), "mapped or not, it is one address");
        assert_eq!(admit("192.0.2.2"), Ok(()));
    }

    #[test]
    fn remembered_callers_are_bounded() {
        let many = Rate { per_second: 1, burst: 1 };
        let limiter = limiter(many, Rate { per_second: 1_000_000, burst: 1_000_000 });
        let now = Instant::now();
        for number in 0..MAX_CALLERS {
            let bytes = u32::try_from(number).unwrap().to_be_bytes();
            assert_eq!(limiter.admit(Caller::Address(IpAddr::from(bytes)), now), Ok(()));
        }
        let new = Caller::Address(IpAddr::from([200, 0, 0, 1]));
        assert_eq!(limiter.admit(new.clone(), now), Err(Exceeded::Total));
        assert_eq!(limiter.admit(new, now + Duration::from_secs(2)), Ok(()));
    }
}
