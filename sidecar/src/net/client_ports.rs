//! Ports of connections that we make in the name of a client.
//!
//! The kernel would take one of those that systems give to their own connections (on Linux from 32768 on, with the IANA
//! from 49152). Should the client then call from that very port, its packets would be taken for those of our connection,
//! and it would not get through. From the ports below hardly anybody calls.

use std::{
    ops::Range,
    sync::atomic::{AtomicU32, Ordering},
};

const PORTS: Range<u16> = 1024..32768;
/// From one to the next: a prime, so that all have their turn before one comes again, and neighbours are far apart, as
/// those in use may stand in rows.
const STEP: u32 = 12_289;

/// Which port is next.
#[derive(Debug, Default)]
pub(super) struct ClientPorts(AtomicU32);

impl ClientPorts {
    /// Begins somewhere: two processes that begin apart rarely try the same.
    pub(super) fn starting(first: u32) -> Self {
        Self(AtomicU32::new(first))
    }

    /// A port that was not used for as long as possible.
    pub(super) fn next(&self) -> u16 {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        let count = u32::from(PORTS.end - PORTS.start);
        // Less than `count`, so that it fits.
        let offset = u16::try_from((number % count) * STEP % count).unwrap_or_default();
        PORTS.start + offset
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_port_has_its_turn_before_one_comes_again() {
        let count = PORTS.len();
        for first in [0, 7, u32::MAX / 2] {
            let ports = ClientPorts::starting(first);
            let once: HashSet<_> = (0..count).map(|_| ports.next()).collect();
            assert_eq!(once.len(), count);
            assert!(once.iter().all(|port| PORTS.contains(port)));
        }
    }
}
