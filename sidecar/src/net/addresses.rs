//! What the operating system knows of addresses.

use std::{
    fs,
    net::{SocketAddr, SocketAddrV6, UdpSocket},
};

use outrider_certs::program::is_without_ipv6;
use socket2::{Domain, Socket, Type};

/// Where the kernel says whether sockets can be bound to addresses that are not the host's.
const NONLOCAL_BIND: [&str; 2] =
    ["/proc/sys/net/ipv4/ip_nonlocal_bind", "/proc/sys/net/ipv6/ip_nonlocal_bind"];

/// IPv4 as IPv4, also where a socket of IPv6 says it in its own way. A link-local address keeps its interface, without
/// which it is none.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() => {
            SocketAddrV6::new(*v6.ip(), v6.port(), 0, v6.scope_id()).into()
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => SocketAddr::new(address.ip().to_canonical(), address.port()),
    }
}

/// As [`Net::is_own`](super::Net::is_own): to no other address can a socket be bound. The one that stands for all is none.
pub(super) fn is_own(mut address: SocketAddr) -> bool {
    address.set_port(0);
    !address.ip().is_unspecified() && UdpSocket::bind(address).is_ok()
}

/// The setting of the kernel by which a socket can be bound to any address, so that the host's own cannot be told
/// from others; `None`: there is no such.
#[must_use]
pub fn nonlocal_bind() -> Option<&'static str> {
    let is_set = |file: &&str| fs::read_to_string(file).is_ok_and(|value| value.trim() != "0");
    NONLOCAL_BIND.into_iter().find(is_set)
}

/// Whether there is IPv6. Without it there are no sockets of it; where it is merely switched off on every interface,
/// they are good for IPv4.
pub(super) fn has_ipv6() -> bool {
    !Socket::new(Domain::IPV6, Type::STREAM, None).is_err_and(|error| is_without_ipv6(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_same_whichever_socket_says_it() {
        let told = |text: &str| canonical(text.parse().unwrap()).to_string();
        assert_eq!(told("[::ffff:10.0.0.7]:80"), "10.0.0.7:80");
        assert_eq!(told("10.0.0.7:80"), "10.0.0.7:80");
        assert_eq!(told("[fd00::1%3]:80"), "[fd00::1]:80", "an interface says nothing of it");
        assert_eq!(told("[fe80::1%3]:80"), "[fe80::1%3]:80");
    }

    #[test]
    fn loopback_is_our_own_and_documentation_is_not() {
        for own in ["127.0.0.1:80", "127.9.9.9:0"] {
            assert!(is_own(own.parse().unwrap()), "{own}");
        }
        for other in ["192.0.2.1:80", "0.0.0.0:80", "[::]:80", "[2001:db8::1]:80"] {
            assert!(!is_own(other.parse().unwrap()), "{other}");
        }
    }
}
