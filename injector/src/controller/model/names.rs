//! Names as apps write them, taken as a resolver in a pod would take them.
//!
//! A pod's `/etc/resolv.conf` has `ndots:5` and the search list `<ns>.svc.<domain> svc.<domain> <domain>`
//! (Kubernetes, "DNS for Services and Pods").

use std::net::{IpAddr, SocketAddr};

/// Longest key, in bytes: a DNS name of 253 and a port.
pub const MAX_KEY_BYTES: usize = 260;

/// Names with fewer dots are tried with the search list first.
const NDOTS: usize = 5;

/// What a key asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// An address.
    Address(SocketAddr),
    /// A name, in lower case, with or without the root's dot.
    Name {
        /// As the app wrote it.
        host: String,
        /// Where.
        port: u16,
    },
}

impl Asked {
    /// Reads a key; `None` if it is none, or one longer than [`MAX_KEY_BYTES`].
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        if key.len() > MAX_KEY_BYTES {
            return None;
        }
        if let Ok(address) = key.parse::<SocketAddr>() {
            // An IPv4 address is one address, however it is written.
            return Some(Self::Address(SocketAddr::new(address.ip().to_canonical(), address.port())));
        }
        let (host, port) = key.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port > 0)?;
        let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let labels = host.strip_suffix('.').unwrap_or(host);
        let is_name = !labels.is_empty()
            && labels.split('.').all(|label| !label.is_empty())
            && host.bytes().all(is_name_byte);
        is_name.then(|| Self::Name { host: host.to_ascii_lowercase(), port })
    }
}

/// What a name of the cluster's own domain stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meant<'a> {
    /// A Service.
    Service {
        /// Its namespace.
        namespace: &'a str,
        /// Its name.
        name: &'a str,
    },
    /// One endpoint of a headless Service, by its host name.
    Host {
        /// The Service's namespace.
        namespace: &'a str,
        /// The Service's name.
        name: &'a str,
        /// The endpoint's.
        host: &'a str,
    },
    /// A pod by its address (`10-1-2-3.shop.pod`).
    Pod(IpAddr),
}

/// The absolute names that a resolver in a pod of `namespace` tries for `host`, in its order, without the root's dot.
#[must_use]
pub fn candidates(host: &str, namespace: &str, domain: &str) -> Vec<String> {
    if let Some(absolute) = host.strip_suffix('.') {
        return vec![absolute.to_owned()];
    }
    let mut names = vec![
        format!("{host}.{namespace}.svc.{domain}"),
        format!("{host}.svc.{domain}"),
        format!("{host}.{domain}"),
    ];
    let dots = host.bytes().filter(|byte| *byte == b'.').count();
    names.insert(if dots >= NDOTS { 0 } else { 3 }, host.to_owned());
    names
}

/// What an absolute name stands for; `None` if it is not of the cluster's domain.
#[must_use]
pub fn meant<'a>(absolute: &'a str, domain: &str) -> Option<Meant<'a>> {
    let rest = absolute.strip_suffix(domain)?.strip_suffix('.')?;
    let labels: Vec<&str> = rest.split('.').collect();
    match *labels.as_slice() {
        [name, namespace, "svc"] => Some(Meant::Service { namespace, name }),
        [host, name, namespace, "svc"] => Some(Meant::Host { namespace, name, host }),
        [address, _, "pod"] => pod_address(address).map(Meant::Pod),
        _ => None,
    }
}

/// `10-1-2-3` or `2001-db8--1`, as the cluster's DNS writes addresses of pods.
fn pod_address(text: &str) -> Option<IpAddr> {
    let v4 = text.replace('-', ".").parse().ok().map(IpAddr::V4);
    v4.or_else(|| text.replace('-', ":").parse().ok().map(IpAddr::V6))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOMAIN: &str = "cluster.local";

    #[test]
    fn keys_are_addresses_or_names_with_a_port() {
        let address = |text: &str| Some(Asked::Address(text.parse().unwrap()));
        assert_eq!(Asked::parse("10.1.2.3:80"), address("10.1.2.3:80"));
        assert_eq!(Asked::parse("[2001:db8::1]:80"), address("[2001:db8::1]:80"));
        assert_eq!(Asked::parse("[::ffff:10.1.2.3]:80"), address("10.1.2.3:80"), "one address, one key");
        let name = |host: &str| Some(Asked::Name { host: host.to_owned(), port: 8080 });
        assert_eq!(Asked::parse("Orders.shop:8080"), name("orders.shop"));
        assert_eq!(
            Asked::parse("orders.shop.svc.cluster.local.:8080"),
            name("orders.shop.svc.cluster.local.")
        );
        for bad in
            ["", "orders", "orders:", "orders:0", "orders:99999", ":80", "a..b:80", ".:80", "a b:80", "é:80"]
        {
            assert_eq!(Asked::parse(bad), None, "{bad}");
        }
        assert_eq!(Asked::parse(&format!("{}:80", "a".repeat(MAX_KEY_BYTES))), None);
    }

    #[test]
    fn relative_names_are_tried_as_a_resolver_tries_them() {
        assert_eq!(
            candidates("orders", "shop", DOMAIN),
            ["orders.shop.svc.cluster.local", "orders.svc.cluster.local", "orders.cluster.local", "orders"]
        );
        assert_eq!(
            candidates("orders.shop.svc.cluster.local.", "x", DOMAIN),
            ["orders.shop.svc.cluster.local"]
        );
        let many = candidates("a.b.c.d.e.f", "shop", DOMAIN);
        assert_eq!(many.first().unwrap(), "a.b.c.d.e.f", "five dots are enough to be absolute");
    }

    #[test]
    fn names_of_the_domain_mean_services_hosts_and_pods() {
        let service = Meant::Service { namespace: "shop", name: "orders" };
        assert_eq!(meant("orders.shop.svc.cluster.local", DOMAIN), Some(service));
        let host = Meant::Host { namespace: "shop", name: "orders", host: "orders-0" };
        assert_eq!(meant("orders-0.orders.shop.svc.cluster.local", DOMAIN), Some(host));
        let pod = |text: &str| Some(Meant::Pod(text.parse().unwrap()));
        assert_eq!(meant("10-1-2-3.shop.pod.cluster.local", DOMAIN), pod("10.1.2.3"));
        assert_eq!(meant("2001-db8--1.shop.pod.cluster.local", DOMAIN), pod("2001:db8::1"));
        for outside in
            ["example.com", "orders.shop.svc", "orders.shop.svc.notcluster.local", "cluster.local", ""]
        {
            assert_eq!(meant(outside, DOMAIN), None, "{outside}");
        }
    }
}
