//! Endpoints that one request was already sent to.

use std::net::SocketAddr;

/// Most attempts of one request: ten retries (the largest `max_retries` that `config` accepts) and the first one.
const MAX_ATTEMPTS: usize = 11;

/// Endpoints that one request was already sent to. At most 11 addresses are held; more are not remembered, which costs no
/// more than a repeated choice. The first is held in place: most requests have no other.
#[derive(Clone, Debug, Default)]
pub struct Tried {
    first: Option<SocketAddr>,
    more: Vec<SocketAddr>,
}

impl Tried {
    /// Remembers an address.
    pub fn insert(&mut self, address: SocketAddr) {
        if self.first.is_none() {
            self.first = Some(address);
        } else if !self.contains(address) && self.more.len() + 1 < MAX_ATTEMPTS {
            self.more.push(address);
        }
    }

    /// Whether this address was tried.
    #[must_use]
    pub fn contains(&self, address: SocketAddr) -> bool {
        self.first == Some(address) || self.more.contains(&address)
    }

    /// Whether nothing was tried yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}
