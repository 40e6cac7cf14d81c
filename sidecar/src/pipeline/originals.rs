//! Original destinations that a worker has seen: each is an endpoint, so that connections to it can be kept.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Instant,
};

use indexmap::{IndexMap, IndexSet};

use crate::model::{
    Cluster, ClusterName, Endpoint, EndpointSettings, endpoint::Client, runtime::EndpointRuntime,
};

/// Destinations that a worker remembers, each with every client in whose name it is connected to: the own app has a few
/// ports, and what passes through goes to some hundred addresses. How many connections are kept is bounded for all together
/// (`connect`), and by the clusters' caps.
const MAX_ORIGINALS: usize = 1024;

/// What a worker knows of original destinations.
#[derive(Debug, Default)]
pub struct Originals {
    /// Clusters with one of them as their one endpoint: so that connections to it can be kept.
    clusters: Mutex<IndexMap<Key, Arc<Cluster>>>,
    /// Those that are the host's own. One that it has lost leads nowhere.
    own: Mutex<IndexSet<SocketAddr>>,
}

type Key = (ClusterName, SocketAddr, Option<Arc<Client>>);

impl Originals {
    /// Whether an address is the host's own; `find_out` is asked about those that were not seen yet.
    pub(super) fn is_own(&self, mut address: SocketAddr, find_out: impl FnOnce() -> bool) -> bool {
        address.set_port(0);
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if own.contains(&address) {
            return true;
        }
        let is_own = find_out();
        if is_own && own.len() < MAX_ORIGINALS {
            own.insert(address);
        }
        is_own
    }

    /// `cluster` with that address as its one endpoint, connected to in the name of `client` if there is one.
    pub(super) fn cluster(
        &self,
        cluster: &Arc<Cluster>,
        address: SocketAddr,
        client: Option<Arc<Client>>,
        now: Instant,
    ) -> Arc<Cluster> {
        let mut known = self.clusters.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (cluster.name().clone(), address, client.clone());
        let before = known.get(&key);
        if let Some(before) = before
            && Arc::ptr_eq(&before.settings, &cluster.settings)
            && Arc::ptr_eq(&before.limits, &cluster.limits)
            && Arc::ptr_eq(&before.runtime, &cluster.runtime)
        {
            return Arc::clone(before);
        }
        let endpoint = before.and_then(|before| before.endpoints.first().cloned());
        let endpoint = endpoint.unwrap_or_else(|| {
            Arc::new(Endpoint {
                settings: EndpointSettings::new(address, Arc::from([])),
                runtime: Arc::new(EndpointRuntime::new(now)),
                client,
            })
        });
        let only = Arc::new(cluster.only(endpoint));
        if known.len() >= MAX_ORIGINALS && !known.contains_key(&key) {
            make_room(&mut known);
        }
        known.insert(key, Arc::clone(&only));
        only
    }
}

/// Forgets those to which there is no connection; if there is one to each, the older half. Connections that are kept to
/// those are closed, as nobody would find them again.
fn make_room(known: &mut IndexMap<Key, Arc<Cluster>>) {
    let runtime = |cluster: &Cluster| cluster.endpoints.first().map(|endpoint| Arc::clone(&endpoint.runtime));
    let is_in_use = |runtime: &EndpointRuntime| runtime.connections.load(Ordering::Relaxed) > 0;
    known.retain(|_key, cluster| runtime(cluster).is_some_and(|runtime| is_in_use(&runtime)));
    if known.len() >= MAX_ORIGINALS {
        for (_key, cluster) in known.drain(..MAX_ORIGINALS / 2) {
            if let Some(runtime) = runtime(&cluster) {
                runtime.is_removed.store(true, Ordering::Release);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ClusterSettings, fixture, transport::Transport};

    const APP: &str = "10.0.0.7:8080";

    fn app(name: &str) -> Arc<Cluster> {
        let settings = ClusterSettings { transport: Transport::App, ..fixture::settings(name) };
        Arc::new(fixture::cluster(settings, 0, Instant::now()))
    }

    fn only(cluster: &Cluster) -> &Arc<Endpoint> {
        assert_eq!(cluster.endpoints.len(), 1);
        &cluster.endpoints[0]
    }

    fn client(number: usize) -> Option<Arc<Client>> {
        let address = [10, 1, u8::try_from(number / 256).unwrap(), u8::try_from(number % 256).unwrap()];
        Some(Arc::new(Client { address: Some(address.into()), announcement: None }))
    }

    #[test]
    fn a_destination_is_the_same_endpoint_each_time_so_that_its_connections_are_found() {
        let (originals, now, app) = (Originals::default(), Instant::now(), app("inbound/8080"));
        let find = |address: &str, client| originals.cluster(&app, address.parse().unwrap(), client, now);
        let first = find(APP, None);
        assert!(Arc::ptr_eq(&first, &find(APP, None)));
        assert_eq!(only(&first).address(), APP.parse().unwrap());
        assert_eq!(only(&first).client, None);
        assert!(Arc::ptr_eq(&first.runtime, &app.runtime) && Arc::ptr_eq(&first.settings, &app.settings));
        let other = find("10.0.0.8:8080", None);
        assert!(!Arc::ptr_eq(&only(&first).runtime, &only(&other).runtime));
    }

    #[test]
    fn clients_in_whose_name_the_app_is_called_share_no_connection() {
        let (originals, now, app) = (Originals::default(), Instant::now(), app("inbound/8080"));
        let find = |client| originals.cluster(&app, APP.parse().unwrap(), client, now);
        let (nobody, first, second) = (find(None), find(client(1)), find(client(2)));
        assert_eq!(only(&first).client, client(1));
        let announced =
            |text: &[u8]| Some(Arc::new(Client { address: None, announcement: Some(text.into()) }));
        let (third, fourth) = (find(announced(b"a")), find(announced(b"b")));
        for (one, other) in
            [(&nobody, &first), (&first, &second), (&second, &nobody), (&nobody, &third), (&third, &fourth)]
        {
            assert!(!Arc::ptr_eq(&only(one).runtime, &only(other).runtime));
        }
        assert!(Arc::ptr_eq(&second, &find(client(2))));
        assert!(Arc::ptr_eq(&fourth, &find(announced(b"b"))));
    }

    #[test]
    fn a_reload_changes_the_policy_and_keeps_the_connections() {
        let (originals, now, before) = (Originals::default(), Instant::now(), app("inbound/8080"));
        let find = |cluster| originals.cluster(cluster, APP.parse().unwrap(), None, now);
        let first = find(&before);
        let mut settings = ClusterSettings::clone(&before.settings);
        settings.caps.max_requests = 7;
        let after =
            Arc::new(Cluster { settings: Arc::new(settings), ..before.only(Arc::clone(only(&first))) });
        let second = find(&after);
        assert_eq!(second.settings.caps.max_requests, 7);
        assert!(Arc::ptr_eq(only(&first), only(&second)));
    }

    #[test]
    fn destinations_without_a_connection_make_room_first() {
        let (originals, now, app) = (Originals::default(), Instant::now(), app("inbound/8080"));
        let find = |number| originals.cluster(&app, APP.parse().unwrap(), client(number), now);
        let used = find(0);
        only(&used).runtime.connections.store(1, Ordering::Relaxed);
        (1..3 * MAX_ORIGINALS).for_each(|number| drop(find(number)));
        assert!(originals.clusters.lock().unwrap().len() <= MAX_ORIGINALS);
        assert!(Arc::ptr_eq(&used, &find(0)), "its connections are worth something");
        assert!(!only(&used).runtime.is_removed.load(Ordering::Acquire));
    }

    #[test]
    fn where_all_have_connections_those_of_the_oldest_are_given_up() {
        let (originals, now, app) = (Originals::default(), Instant::now(), app("inbound/8080"));
        let find = |number| originals.cluster(&app, APP.parse().unwrap(), client(number), now);
        let clusters: Vec<_> = (0..=MAX_ORIGINALS)
            .map(|number| {
                let cluster = find(number);
                only(&cluster).runtime.connections.store(1, Ordering::Relaxed);
                cluster
            })
            .collect();
        let is_removed = |number: usize| only(&clusters[number]).runtime.is_removed.load(Ordering::Acquire);
        assert!(is_removed(0) && is_removed(MAX_ORIGINALS / 2 - 1));
        assert!(!is_removed(MAX_ORIGINALS / 2) && !is_removed(MAX_ORIGINALS));
        assert!(Arc::ptr_eq(&clusters[MAX_ORIGINALS], &find(MAX_ORIGINALS)), "the newest stay");
        assert!(!Arc::ptr_eq(&clusters[0], &find(0)), "it starts afresh");
    }

    #[test]
    fn an_own_address_is_asked_for_once_whatever_its_port_and_others_always() {
        let originals = Originals::default();
        let asked = std::cell::Cell::new(0);
        let is_own = |address: &str, answer| {
            originals.is_own(address.parse().unwrap(), || {
                asked.set(asked.get() + 1);
                answer
            })
        };
        assert!(is_own("10.0.0.7:80", true) && is_own("10.0.0.7:81", true));
        assert_eq!(asked.get(), 1);
        assert!(!is_own("10.0.0.8:80", false));
        assert!(is_own("10.0.0.8:80", true), "it may have come meanwhile");
        assert_eq!(asked.get(), 3);
    }
}
