//! The PROXY protocol (HAProxy's `proxy-protocol.txt`): a header before everything else, by which a proxy tells whose
//! connection it carries on.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// Whose word is taken for where a connection comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Connections from these addresses may begin with a header. Never empty (checked by `config`).
    pub from: Vec<IpNet>,
    /// Whether those must.
    pub is_required: bool,
}

/// Which header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// A line of text with the addresses.
    V1,
    /// Binary, with the addresses and, of a verified caller, its SPIFFE ID.
    V2,
}

/// Between which addresses a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// Whose connection it is.
    pub source: SocketAddr,
    /// Whom that one dialled.
    pub destination: SocketAddr,
}

impl ProxyProtocol {
    /// Whether the word of that address is taken.
    #[must_use]
    pub fn listens_to(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.from.iter().any(|range| range.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_one_family_holds_for_that_family_whatever_clothes_an_address_wears() {
        let from = ["10.0.0.0/8", "fd00::/8"].map(|range| range.parse().unwrap()).to_vec();
        let proxy = ProxyProtocol { from, is_required: false };
        for (address, is_in) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("fd00::1", true),
            ("::1", false),
        ] {
            assert_eq!(proxy.listens_to(address.parse().unwrap()), is_in, "{address}");
        }
    }
}
