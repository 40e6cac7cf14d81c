//! What interception leaves alone, one by one: every exception is a hole in mutual TLS, so each has a name and a counter.

use std::{collections::BTreeSet, fmt, net::SocketAddr, sync::Arc};

use arc_swap::ArcSwap;
use ipnet::IpNet;

use super::{
    intercept::{InterceptSettings, MARK_MAX, TPROXY_MARK},
    settings::Settings,
};

/// Which way a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Out of the namespace.
    Outbound,
    /// Into it.
    Inbound,
}

impl Way {
    /// As configuration and metrics call it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// Which connections are left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Matched {
    /// Those to this destination port.
    Port(u16),
    /// Outbound: those to these destinations. Inbound: those from these sources.
    Cidr(IpNet),
    /// Those that this user makes.
    Uid(u32),
    /// Those to a listener of our own that is not one of interception: it guards itself.
    Listener(u16),
}

/// One exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Which way.
    pub way: Way,
    /// Which connections.
    pub matched: Matched,
    /// What the kernel marks such a connection with, so that both directions of it are counted.
    pub mark: u32,
}

/// Its name, which is the `rule` of the metric: `outbound_port_3306`, `inbound_cidr_fd00::/8`.
impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_", self.way.label())?;
        match self.matched {
            Matched::Port(port) => write!(f, "port_{port}"),
            Matched::Cidr(cidr) => write!(f, "cidr_{cidr}"),
            Matched::Uid(uid) => write!(f, "uid_{uid}"),
            Matched::Listener(port) => write!(f, "listener_{port}"),
        }
    }
}

/// Bytes that passed each exception, both directions together, as last read from the kernel; empty where it may not be
/// asked.
#[derive(Debug, Default)]
pub struct Passed(ArcSwap<Vec<(Exception, u64)>>);

impl Passed {
    /// What was last read.
    #[must_use]
    pub fn latest(&self) -> Arc<Vec<(Exception, u64)>> {
        self.0.load_full()
    }

    /// What is read now.
    pub fn set(&self, counted: Vec<(Exception, u64)>) {
        self.0.store(Arc::new(counted));
    }
}

/// All exceptions of a configuration, each once, in the order in which the kernel tries them.
///
/// The ports of our own listeners that others may reach (the read-only door for probes and metrics, explicit inbound
/// listeners) are among them: redirected, a connection to one would look as if it were for the app.
#[must_use]
pub fn exceptions(intercept: &InterceptSettings, settings: &Settings) -> Vec<Exception> {
    let addresses = settings.listeners.iter().map(|listener| listener.address);
    let reachable =
        addresses.chain(settings.bootstrap.admin.listen).filter(|address| !address.ip().is_loopback());
    from_parts(intercept, reachable)
}

pub(crate) fn from_parts(
    intercept: &InterceptSettings,
    listeners: impl Iterator<Item = SocketAddr>,
) -> Vec<Exception> {
    let (outbound, inbound) = (&intercept.outbound, &intercept.inbound);
    let own = [outbound.port, inbound.port];
    let mut found = BTreeSet::new();
    found.extend(outbound.except_uids.iter().map(|uid| (Way::Outbound, Matched::Uid(*uid))));
    found.extend(outbound.except_ports.iter().map(|port| (Way::Outbound, Matched::Port(*port))));
    found.extend(outbound.except_cidrs.iter().map(|cidr| (Way::Outbound, Matched::Cidr(cidr.trunc()))));
    found.extend(inbound.except_ports.iter().map(|port| (Way::Inbound, Matched::Port(*port))));
    found.extend(inbound.except_cidrs.iter().map(|cidr| (Way::Inbound, Matched::Cidr(cidr.trunc()))));
    // A port stands once in the kernel's map of ports.
    let is_new = |port: &u16| *port != 0 && !own.contains(port) && !inbound.except_ports.contains(port);
    let listeners = listeners.map(|address| address.port()).filter(is_new);
    found.extend(listeners.map(|port| (Way::Inbound, Matched::Listener(port))));
    let mut taken = BTreeSet::new();
    found
        .into_iter()
        .map(|(way, matched)| {
            let mut exception = Exception { way, matched, mark: 0 };
            exception.mark = mark(&exception.to_string(), &taken);
            taken.insert(exception.mark);
            exception
        })
        .collect()
}

/// A free mark, which hardly ever depends on other exceptions: connections outlive a change of the rules, and must not
/// be counted to somebody else's exception then.
fn mark(name: &str, taken: &BTreeSet<u32>) -> u32 {
    let range = MARK_MAX - TPROXY_MARK;
    // FNV-1a: only to spread names evenly.
    let hash =
        name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let wanted = hash % range;
    let free =
        (0..range).map(|step| TPROXY_MARK + 1 + (wanted + step) % range).find(|mark| !taken.contains(mark));
    // More exceptions than marks: the last share one, and so a counter. The configuration's bounds are far below.
    free.unwrap_or(MARK_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        fixture,
        intercept::{Mode, Own},
    };

    fn settings(ports: &[u16], cidrs: &[&str]) -> InterceptSettings {
        let mut settings = fixture::intercept(Mode::Redirect, Own::Uid(4343));
        settings.outbound.except_ports = ports.to_vec();
        settings.outbound.except_cidrs = cidrs.iter().map(|cidr| cidr.parse().unwrap()).collect();
        settings.inbound.except_cidrs.clear();
        settings
    }

    fn names(settings: &InterceptSettings, listeners: &[&str]) -> Vec<String> {
        let listeners = listeners.iter().map(|address| address.parse().unwrap());
        from_parts(settings, listeners).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_exception_is_there_once_and_named_by_what_it_lets_pass() {
        let settings = settings(&[3306, 25, 3306], &["10.1.2.3/8", "10.0.0.0/8", "fd00::1/8"]);
        assert_eq!(
            names(&settings, &["0.0.0.0:4391", "0.0.0.0:4343", "[::]:4340", "10.0.0.1:9090"]),
            [
                "outbound_port_25",
                "outbound_port_3306",
                "outbound_cidr_10.0.0.0/8",
                "outbound_cidr_fd00::/8",
                "outbound_uid_7",
                "inbound_port_9090",
                "inbound_listener_4391",
            ]
        );
    }

    #[test]
    fn a_mark_stays_when_other_exceptions_come_and_go() {
        let of = |ports: &[u16]| {
            let all = from_parts(&settings(ports, &[]), std::iter::empty());
            all.into_iter().find(|exception| exception.matched == Matched::Port(3306)).unwrap().mark
        };
        assert_eq!(of(&[3306]), of(&[25, 53, 3306, 5432]));
    }

    #[test]
    fn marks_differ_even_if_there_are_many() {
        let ports: Vec<u16> = (1..=5000).collect();
        let all = from_parts(&settings(&ports, &[]), std::iter::empty());
        let marks: BTreeSet<u32> = all.iter().map(|exception| exception.mark).collect();
        assert_eq!(marks.len(), all.len());
        assert!(marks.iter().all(|mark| (TPROXY_MARK + 1..=MARK_MAX).contains(mark)));
    }
}
