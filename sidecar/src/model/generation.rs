//! Generations: the configurations of a process as they come into force, one after the other.

use std::sync::Arc;

use indexmap::IndexMap;

use super::{listener::Listener, runtime::ListenerRuntime, settings::Settings};

/// A configuration in force, and what of its listeners is older than it.
#[derive(Debug)]
pub struct Generation {
    /// Raised by one with every configuration that comes into force; the first is 1.
    pub number: u64,
    /// The number of the generation since which listeners and the rules about who may call have been as they are: it stays
    /// where services of the controller come and go, so that connections have nothing to be judged by anew.
    pub rules: u64,
    /// What the configuration says.
    pub settings: Arc<Settings>,
    /// Its listeners, by name, in the order of the configuration.
    pub listeners: IndexMap<Arc<str>, ListenerEntry>,
}

/// A listener of one generation.
#[derive(Clone, Debug)]
pub struct ListenerEntry {
    /// What the configuration says.
    pub settings: Arc<Listener>,
    /// Counters, carried over from generation to generation by name.
    pub runtime: Arc<ListenerRuntime>,
    /// The generation in which its present life began. A life ends when the listener goes, or when what makes its
    /// connections changes ([`Listener::carries_on`]); connections of a life that is over are drained.
    pub life: u64,
}

impl Generation {
    /// The configuration that a process starts with.
    #[must_use]
    pub fn first(settings: Arc<Settings>) -> Self {
        Self::make(1, 1, settings, &IndexMap::new())
    }

    /// The generation after this one.
    #[must_use]
    pub fn next(&self, settings: Arc<Settings>) -> Self {
        let number = self.number + 1;
        Self::make(number, number, settings, &self.listeners)
    }

    /// The same, of the same file: what the controller says is another.
    #[must_use]
    pub fn next_of_same_file(&self, settings: Arc<Settings>) -> Self {
        let number = self.number + 1;
        let is_same = settings.listeners == self.settings.listeners
            && settings.authorization == self.settings.authorization;
        Self::make(number, if is_same { self.rules } else { number }, settings, &self.listeners)
    }

    fn make(
        number: u64,
        rules: u64,
        settings: Arc<Settings>,
        before: &IndexMap<Arc<str>, ListenerEntry>,
    ) -> Self {
        let entry = |listener: &Arc<Listener>| {
            let before = before.get(&listener.name);
            let goes_on = before.filter(|before| listener.carries_on(&before.settings));
            ListenerEntry {
                settings: Arc::clone(listener),
                runtime: before.map(|before| Arc::clone(&before.runtime)).unwrap_or_default(),
                life: goes_on.map_or(number, |before| before.life),
            }
        };
        let listeners =
            settings.listeners.iter().map(|listener| (Arc::clone(&listener.name), entry(listener))).collect();
        Self { number, rules, listeners, settings }
    }

    /// The listener of that name, if it still has that life.
    #[must_use]
    pub fn listener(&self, name: &str, life: u64) -> Option<&ListenerEntry> {
        self.listeners.get(name).filter(|entry| entry.life == life)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        ClusterName, ListenerKind,
        cluster::AppProtocol,
        fixture,
        intercept::{Mode, Unknown},
        listener::{Exceptions, Inbound, InterceptedInbound, Protocol},
        transport::PeerKind,
    };

    fn http(name: &str, port: u16) -> Listener {
        let kind = ListenerKind::OutboundHttp { default_cluster: None };
        Listener { name: name.into(), address: ([127, 0, 0, 1], port).into(), kind, proxy_protocol: None }
    }

    fn inbound(protocol: Protocol) -> Listener {
        let kind = ListenerKind::Inbound(Arc::new(Inbound {
            app: ClusterName::new("inbound/a"),
            port: Some(8080),
            protocol,
            app_protocol: AppProtocol::Auto,
            peer: PeerKind::Outrider,
            allow: Vec::new(),
            exceptions: Exceptions::default(),
            proxy_protocol: None,
            app_proxy_protocol: None,
        }));
        Listener { kind, ..http("a", 1) }
    }

    fn config(listeners: &[Listener]) -> Arc<Settings> {
        let listeners = listeners.iter().cloned().map(Arc::new).collect();
        Arc::new(Settings { listeners, ..fixture::config(&[]) })
    }

    /// The life of `a` after a reload from `before` to `after`, and whether its counters are the same.
    fn reloaded(before: &[Listener], after: &[Listener]) -> (u64, bool) {
        let first = Generation::first(config(before));
        let second = first.next(config(after));
        (
            second.listeners["a"].life,
            Arc::ptr_eq(&first.listeners["a"].runtime, &second.listeners["a"].runtime),
        )
    }

    #[test]
    fn a_listener_lives_on_unless_its_connections_would_be_others() {
        let default_cluster = Some(ClusterName::new("orders"));
        let to_orders = Listener { kind: ListenerKind::OutboundHttp { default_cluster }, ..http("a", 1) };
        assert_eq!(reloaded(&[http("a", 1)], &[to_orders, http("b", 2)]), (1, true));
        assert_eq!(reloaded(&[http("a", 1)], &[http("a", 2)]), (2, true), "elsewhere");
        assert_eq!(reloaded(&[http("a", 1)], &[inbound(Protocol::Http)]), (2, true), "another direction");
        assert_eq!(reloaded(&[inbound(Protocol::Http)], &[inbound(Protocol::Tcp)]), (2, true));
        let mut closed = inbound(Protocol::Http);
        if let ListenerKind::Inbound(inbound) = &mut closed.kind {
            Arc::make_mut(inbound).allow = vec!["spiffe://test.mesh/a".parse().unwrap()];
        }
        assert_eq!(reloaded(&[inbound(Protocol::Http)], &[closed]), (1, true), "judged anew per request");
    }

    #[test]
    fn services_that_come_and_go_leave_the_rules_as_they_are() {
        let first = Generation::first(config(&[inbound(Protocol::Http)]));
        let second = first.next_of_same_file(config(&[inbound(Protocol::Http)]));
        assert_eq!((second.number, second.rules), (2, 1));
        let third = second.next_of_same_file(config(&[inbound(Protocol::Tcp)]));
        assert_eq!((third.number, third.rules), (3, 3), "what the own app speaks is another");
        let fourth = third.next(config(&[inbound(Protocol::Tcp)]));
        assert_eq!((fourth.number, fourth.rules), (4, 4), "another file may say anything");
    }

    #[test]
    fn an_intercepted_listener_lives_on_unless_some_port_carries_another_protocol() {
        let rules = |protocol| {
            let ListenerKind::Inbound(rules) = inbound(protocol).kind else { panic!() };
            rules
        };
        let intercepted = |ports: &[(u16, Protocol)], others| {
            let ports = ports.iter().map(|(port, protocol)| (*port, rules(*protocol))).collect();
            let intercepted = InterceptedInbound { mode: Mode::Redirect, ports, others: rules(others) };
            Listener { kind: ListenerKind::InterceptedInbound(intercepted), ..http("a", 1) }
        };
        let before = || [intercepted(&[(80, Protocol::Http)], Protocol::Detect)];
        let life = |after| reloaded(&before(), &[after]).0;
        assert_eq!(
            life(intercepted(&[(80, Protocol::Http), (90, Protocol::Detect)], Protocol::Detect)),
            1,
            "named"
        );
        assert_eq!(life(intercepted(&[(80, Protocol::Tcp)], Protocol::Detect)), 2);
        assert_eq!(life(intercepted(&[], Protocol::Detect)), 2, "one of the others from now on");
        assert_eq!(life(intercepted(&[(80, Protocol::Http)], Protocol::Tcp)), 2);
        assert_eq!(life(intercepted(&[(80, Protocol::Http), (90, Protocol::Tcp)], Protocol::Detect)), 2);
        let outbound =
            |unknown| Listener { kind: ListenerKind::InterceptedOutbound { unknown }, ..http("a", 1) };
        let (pass, deny) = (outbound(Unknown::Passthrough), outbound(Unknown::Deny));
        assert_eq!(reloaded(&[pass], &[deny]), (1, true), "judged anew per request");
    }

    #[test]
    fn a_listener_that_comes_back_starts_afresh() {
        let first = Generation::first(config(&[http("a", 1)]));
        let third = first.next(config(&[http("b", 1)])).next(config(&[http("a", 1)]));
        assert_eq!(third.listeners["a"].life, 3);
        assert!(third.listener("a", 1).is_none());
        assert!(!Arc::ptr_eq(&first.listeners["a"].runtime, &third.listeners["a"].runtime));
    }
}
