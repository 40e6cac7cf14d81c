//! Listeners: addresses we accept on, each with its direction.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::SystemTime,
};

use indexmap::IndexMap;
use ipnet::IpNet;
use outrider_certs::{SpiffeId, TrustDomain};

use super::{
    authorization::Authorization,
    cluster::{AppProtocol, ClusterName},
    intercept::{Mode, Unknown},
    proxy_protocol::{self, ProxyProtocol},
    transport::PeerKind,
};

/// An address we accept on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name in the configuration, unique; a metric label.
    pub name: Arc<str>,
    /// Where it listens. Port 0 lets the operating system choose (tests).
    pub address: SocketAddr,
    /// What it accepts and where that goes.
    pub kind: ListenerKind,
    /// Who, at a listener for the own app, may say whose connection it is; inbound rules have their own.
    pub proxy_protocol: Option<Arc<ProxyProtocol>>,
}

/// What a listener accepts and where that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerKind {
    /// Plain HTTP from the own app, routed to clusters by authority.
    OutboundHttp {
        /// Where an authority that no cluster names goes; `None` answers 404.
        default_cluster: Option<ClusterName>,
    },
    /// Plain bytes from the own app, all to one cluster.
    OutboundTcp {
        /// That cluster.
        cluster: ClusterName,
    },
    /// Mutual TLS from peers, to the own app.
    Inbound(Arc<Inbound>),
    /// Whatever the own app sends, brought here by the kernel; where it goes says its original destination.
    InterceptedOutbound {
        /// What becomes of destinations that no cluster has.
        unknown: Unknown,
    },
    /// Whatever comes for the own app, brought here by the kernel; the original destination says for which port.
    InterceptedInbound(InterceptedInbound),
}

/// What the kernel brings here from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterceptedInbound {
    /// How it is brought here.
    pub mode: Mode,
    /// Ports of the own app with rules of their own.
    pub ports: IndexMap<u16, Arc<Inbound>>,
    /// The other ports.
    pub others: Arc<Inbound>,
}

/// The inbound rules of a listener, or of a port: who may come in, and what the app behind it speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// The cluster made for the own app, named `inbound/<listener>` or `inbound/<port>`; without TLS. It has one
    /// endpoint, or, where the kernel brings connections here, none: the original destination is it then.
    pub app: ClusterName,
    /// The app's port; `None`: where the kernel brings connections here, the one that was dialled.
    pub port: Option<u16>,
    /// What is carried.
    pub protocol: Protocol,
    /// What the app speaks, for HTTP.
    pub app_protocol: AppProtocol,
    /// What the peer's side of the connection is.
    pub peer: PeerKind,
    /// The SPIFFE IDs that may call, compared by equality; empty: any workload of the own trust domain, and of those that
    /// authorization rules name.
    pub allow: Vec<SpiffeId>,
    /// What may come in without mutual TLS.
    pub exceptions: Exceptions,
    /// Who may say whose connection it is.
    pub proxy_protocol: Option<Arc<ProxyProtocol>>,
    /// By which header the app is told who calls.
    pub app_proxy_protocol: Option<proxy_protocol::Version>,
}

/// What may come in without mutual TLS. Only intercepted ports have any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exceptions {
    /// Plaintext from anybody, before that time.
    pub plaintext_until: Option<SystemTime>,
    /// Paths that anybody may `GET` or `HEAD` in plaintext, compared by equality: health probes.
    pub probes: Vec<String>,
    /// The app's own TLS, from anybody: what is no handshake of the mesh goes to the app as it is.
    pub app_tls: bool,
    /// From which addresses all of that holds; empty: from any.
    pub from: Vec<IpNet>,
    /// So many proxies in front of us are believed in what callers in plaintext say of who called them, at most
    /// [`super::forwarded::MAX_TRUSTED_HOPS`]: the caller itself, and those before it.
    pub trusted_hops: usize,
}

/// By which exception a connection came in without mutual TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// [`Exceptions::plaintext_until`].
    Plaintext,
    /// [`Exceptions::probes`].
    Probe,
    /// [`Exceptions::app_tls`].
    AppTls,
}

/// What somebody without a proven identity asks for.
#[derive(Clone, Copy, Debug)]
pub enum Asked<'a> {
    /// To have their bytes carried to the app as they are.
    Bytes,
    /// To have a request answered.
    Request {
        /// Its method.
        method: &'a str,
        /// The path of its target as it was sent, without the query.
        path: &'a str,
        /// Whether the head is all there is to it: no body follows, nor another protocol.
        is_bare: bool,
    },
}

/// What a listener carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Either, told apart connection by connection.
    Detect,
    /// Requests.
    Http,
    /// Bytes.
    Tcp,
}

impl Exceptions {
    /// Whether somebody from that address may come in without mutual TLS with whatever they like, now (by the clock on the
    /// wall).
    #[must_use]
    pub fn permits_plaintext(&self, from: IpAddr, now: SystemTime) -> bool {
        self.plaintext_until.is_some_and(|until| now < until) && self.are_for(from)
    }

    /// Whether any of it holds for that address; IPv4 in the clothes of IPv6 is IPv4.
    fn are_for(&self, from: IpAddr) -> bool {
        let from = from.to_canonical();
        self.from.is_empty() || self.from.iter().any(|range| range.contains(&from))
    }

    /// Whether there is any.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether there is any that holds now (by the clock on the wall), for that address.
    #[must_use]
    pub fn is_any_open(&self, from: IpAddr, now: SystemTime) -> bool {
        Exception::ALL.into_iter().any(|exception| self.is_open(exception, from, now))
    }

    /// Whether that one holds now: what came in by it from that address may go on.
    #[must_use]
    pub fn is_open(&self, exception: Exception, from: IpAddr, now: SystemTime) -> bool {
        let is_there = match exception {
            Exception::Plaintext => self.permits_plaintext(from, now),
            Exception::Probe => !self.probes.is_empty() || self.permits_plaintext(from, now),
            Exception::AppTls => self.app_tls,
        };
        is_there && self.are_for(from)
    }
}

impl Exception {
    /// Every exception, in the order of their discriminants.
    pub const ALL: [Self; 3] = [Self::Plaintext, Self::Probe, Self::AppTls];

    /// The exception as a metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Plaintext => "plaintext",
            Self::Probe => "probe",
            Self::AppTls => "app_tls",
        }
    }
}

impl Inbound {
    /// The port of the app that a connection is for, which the kernel may have brought here from `original`. 0, which is
    /// nobody's, if nobody knows.
    #[must_use]
    pub fn app_port(&self, original: Option<SocketAddr>) -> u16 {
        self.port.or(original.map(|original| original.port())).unwrap_or_default()
    }

    /// Whether somebody without a proven identity, whose connection came in by `exception` and from that address, may have
    /// that, now (by the clock on the wall). `allow` is no part of it: there is nobody to look for on the list.
    #[must_use]
    pub fn permits(&self, (exception, from): (Exception, IpAddr), asked: Asked<'_>, now: SystemTime) -> bool {
        let permits_plaintext = || self.exceptions.permits_plaintext(from, now);
        match (exception, asked) {
            (Exception::AppTls, Asked::Bytes) => self.exceptions.is_open(Exception::AppTls, from, now),
            // Its bytes are the app's TLS: there are no requests in them for us to see.
            (Exception::AppTls, Asked::Request { .. }) => false,
            // What is declared to be HTTP is carried as HTTP, or not at all.
            (Exception::Plaintext | Exception::Probe, Asked::Bytes) => {
                self.protocol != Protocol::Http && permits_plaintext()
            }
            (Exception::Plaintext | Exception::Probe, Asked::Request { .. }) => {
                permits_plaintext() || (self.exceptions.are_for(from) && self.is_probe(asked))
            }
        }
    }

    /// Whether that is one of [`Exceptions::probes`].
    #[must_use]
    pub fn is_probe(&self, asked: Asked<'_>) -> bool {
        let Asked::Request { method, path, is_bare: true } = asked else { return false };
        matches!(method, "GET" | "HEAD") && self.exceptions.probes.iter().any(|probe| probe == path)
    }

    /// Whether that peer may call here: it is on the list, or there is none and it is a workload of our trust domain, or of
    /// one that `rules` let somebody in from.
    #[must_use]
    pub fn allows(&self, peer: &SpiffeId, own: &TrustDomain, rules: Option<&Authorization>) -> bool {
        if self.allow.is_empty() {
            let domain = peer.trust_domain();
            peer.is_workload() && (domain == own || rules.is_some_and(|rules| rules.names(domain)))
        } else {
            self.allow.contains(peer)
        }
    }
}

impl InterceptedInbound {
    /// The rules for that port.
    #[must_use]
    pub fn of(&self, port: u16) -> &Arc<Inbound> {
        self.ports.get(&port).unwrap_or(&self.others)
    }
}

impl Listener {
    /// Whether connections that `before` accepted may stay as this listener's: where they came in and what they carry
    /// is the same. What else may differ (who may call, where requests go) is judged anew for every request.
    ///
    /// Whoever adds a setting that a connection is made with adds it here.
    #[must_use]
    pub fn carries_on(&self, before: &Self) -> bool {
        let is_same = |now: &Inbound, before: &Inbound| {
            (now.protocol, now.peer) == (before.protocol, before.peer)
                && now.proxy_protocol == before.proxy_protocol
        };
        self.address == before.address
            && self.proxy_protocol == before.proxy_protocol
            && match (&self.kind, &before.kind) {
                (ListenerKind::OutboundHttp { .. }, ListenerKind::OutboundHttp { .. })
                | (ListenerKind::OutboundTcp { .. }, ListenerKind::OutboundTcp { .. })
                | (ListenerKind::InterceptedOutbound { .. }, ListenerKind::InterceptedOutbound { .. }) => {
                    true
                }
                (ListenerKind::Inbound(now), ListenerKind::Inbound(before)) => is_same(now, before),
                (ListenerKind::InterceptedInbound(now), ListenerKind::InterceptedInbound(before)) => {
                    let ports = now.ports.keys().chain(before.ports.keys());
                    let mut rules = ports.map(|port| (now.of(*port), before.of(*port)));
                    is_same(&now.others, &before.others) && rules.all(|(now, before)| is_same(now, before))
                }
                (
                    ListenerKind::OutboundHttp { .. }
                    | ListenerKind::OutboundTcp { .. }
                    | ListenerKind::Inbound(_)
                    | ListenerKind::InterceptedOutbound { .. }
                    | ListenerKind::InterceptedInbound(_),
                    _,
                ) => false,
            }
    }

    /// The inbound rules for what came to `original`, if it takes connections from peers. An explicit listener has one set
    /// of rules, whatever was dialled.
    #[must_use]
    pub fn inbound(&self, original: Option<SocketAddr>) -> Option<&Arc<Inbound>> {
        match &self.kind {
            ListenerKind::Inbound(inbound) => Some(inbound),
            ListenerKind::InterceptedInbound(intercepted) => {
                original.map(|original| intercepted.of(original.port()))
            }
            ListenerKind::OutboundHttp { .. }
            | ListenerKind::OutboundTcp { .. }
            | ListenerKind::InterceptedOutbound { .. } => None,
        }
    }

    /// Who may say whose connection it is, of those that came to `original`.
    #[must_use]
    pub fn proxy_protocol(&self, original: Option<SocketAddr>) -> Option<&Arc<ProxyProtocol>> {
        match self.inbound(original) {
            Some(inbound) => inbound.proxy_protocol.as_ref(),
            None => self.proxy_protocol.as_ref(),
        }
    }

    /// How the kernel brings its connections here; `None`: they were made to it.
    #[must_use]
    pub fn intercepts(&self) -> Option<Mode> {
        match &self.kind {
            ListenerKind::InterceptedInbound(intercepted) => Some(intercepted.mode),
            // The own app's address is no secret to keep for anybody.
            ListenerKind::InterceptedOutbound { .. } => Some(Mode::Redirect),
            ListenerKind::OutboundHttp { .. }
            | ListenerKind::OutboundTcp { .. }
            | ListenerKind::Inbound(_) => None,
        }
    }

    /// Whether it takes connections from peers rather than from the own app.
    #[must_use]
    pub fn is_inbound(&self) -> bool {
        matches!(self.kind, ListenerKind::Inbound(_) | ListenerKind::InterceptedInbound(_))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DAY: SystemTime = SystemTime::UNIX_EPOCH;
    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));
    const GET: Asked<'_> = Asked::Request { method: "GET", path: "/healthz", is_bare: true };

    fn before() -> SystemTime {
        DAY - Duration::from_millis(1)
    }

    fn port(protocol: Protocol, exceptions: Exceptions) -> Inbound {
        Inbound {
            app: ClusterName::new("inbound/8080"),
            port: None,
            protocol,
            app_protocol: AppProtocol::Auto,
            peer: PeerKind::Outrider,
            allow: Vec::new(),
            exceptions,
            proxy_protocol: None,
            app_proxy_protocol: None,
        }
    }

    fn probes() -> Exceptions {
        Exceptions { probes: vec!["/healthz".to_owned()], ..Exceptions::default() }
    }

    #[test]
    fn a_port_without_exceptions_permits_nothing() {
        let port = port(Protocol::Detect, Exceptions::default());
        for exception in Exception::ALL {
            assert!(
                !port.permits((exception, HERE), GET, DAY)
                    && !port.permits((exception, HERE), Asked::Bytes, DAY)
            );
        }
        assert!(port.exceptions.is_none() && !port.exceptions.is_any_open(HERE, DAY));
    }

    #[test]
    fn plaintext_is_over_when_its_day_begins() {
        let exceptions = Exceptions { plaintext_until: Some(DAY), ..Exceptions::default() };
        for (protocol, bytes) in [(Protocol::Detect, true), (Protocol::Tcp, true), (Protocol::Http, false)] {
            let port = port(protocol, exceptions.clone());
            assert!(port.permits((Exception::Plaintext, HERE), GET, before()));
            assert_eq!(
                port.permits((Exception::Plaintext, HERE), Asked::Bytes, before()),
                bytes,
                "{protocol:?}"
            );
            assert!(!port.permits((Exception::Plaintext, HERE), GET, DAY));
            assert!(!port.permits((Exception::Plaintext, HERE), Asked::Bytes, DAY));
            // Who has come with the app's TLS is not let in as somebody else.
            assert!(!port.permits((Exception::AppTls, HERE), Asked::Bytes, before()));
        }
        assert!(exceptions.is_any_open(HERE, before()) && !exceptions.is_any_open(HERE, DAY));
        let with_probes = Exceptions { probes: probes().probes, ..exceptions };
        assert!(with_probes.is_any_open(HERE, DAY) && !with_probes.is_open(Exception::Plaintext, HERE, DAY));
    }

    #[test]
    fn a_probe_is_a_bare_get_or_head_of_exactly_that_path() {
        let port = port(Protocol::Detect, probes());
        let asks = |method, path, is_bare| {
            port.permits((Exception::Probe, HERE), Asked::Request { method, path, is_bare }, DAY)
        };
        assert!(asks("GET", "/healthz", true) && asks("HEAD", "/healthz", true));
        for (method, path, is_bare) in [
            ("POST", "/healthz", true),
            ("get", "/healthz", true),
            ("GET", "/healthz", false),
            ("GET", "/healthz/", true),
            ("GET", "/Healthz", true),
            ("GET", "/", true),
            ("GET", "", true),
        ] {
            assert!(!asks(method, path, is_bare), "{method} {path} {is_bare}");
        }
        assert!(!port.permits((Exception::Probe, HERE), Asked::Bytes, DAY));
        assert!(!port.permits((Exception::AppTls, HERE), GET, DAY), "its requests are not ours to see");
    }

    #[test]
    fn exceptions_may_hold_for_some_addresses_alone() {
        let from = ["192.0.2.0/30", "10.0.0.0/8", "fd00::/8"].map(|range| range.parse().unwrap()).to_vec();
        let all = Exceptions { plaintext_until: Some(DAY), app_tls: true, from, ..probes() };
        let port = port(Protocol::Detect, all);
        for (address, may) in [
            ("10.255.0.1", true),
            ("::ffff:10.1.2.3", true),
            ("fd12::1", true),
            ("192.0.2.3", true),
            ("192.0.2.4", false),
            ("11.0.0.1", false),
            ("fe80::1", false),
            ("::1", false),
        ] {
            let address = address.parse().unwrap();
            for (exception, asked) in [
                (Exception::Plaintext, GET),
                (Exception::Plaintext, Asked::Bytes),
                (Exception::Probe, GET),
                (Exception::AppTls, Asked::Bytes),
            ] {
                assert_eq!(
                    port.permits((exception, address), asked, before()),
                    may,
                    "{address} {exception:?}"
                );
                assert_eq!(
                    port.exceptions.is_open(exception, address, before()),
                    may,
                    "{address} {exception:?}"
                );
            }
            assert_eq!(port.permits((Exception::Probe, address), GET, DAY), may, "{address}");
            assert_eq!(port.exceptions.is_any_open(address, DAY), may, "{address}");
        }
    }

    #[test]
    fn labels_follow_their_discriminants() {
        assert!(Exception::ALL.into_iter().enumerate().all(|(index, it)| it as usize == index));
    }
}
