//! Endpoints that one request was already sent to.

use std::net::SocketAddr;

/// Most attempts of one request: ten retries (the largest `max_retries` that `config` accepts) and the first one.
const MAX_ATTEMPTS: usize = 11;

/// Endpoints that one request was already sent to. At most 11 addresses are held, on the stack; more are not
/// remembered, which costs no more than a repeated choice.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    addresses: [Option<SocketAddr>; MAX_ATTEMPTS],
}

impl Tried {
    /// Remembers an address.
    pub fn insert(&mut self, address: SocketAddr) {
        if self.contains(address) {
            return;
        }
        if let Some(free) = self.addresses.iter_mut().find(|held| held.is_none()) {
            *free = Some(address);
        }
    }

    /// Whether this address was tried.
    #[must_use]
    pub fn contains(&self, address: SocketAddr) -> bool {
        self.held().any(|held| held == address)
    }

    /// Whether nothing was tried yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held().next().is_none()
    }

    fn held(&self) -> impl Iterator<Item = SocketAddr> {
        self.addresses.iter().map_while(|held| *held)
    }
}
