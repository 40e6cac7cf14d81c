//! What only one cluster may have: names, authorities and addresses.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::Fault;
use crate::model::{ClusterName, ClusterSettings, cluster::ServiceAddress};

/// A service, without the names that lead the app elsewhere.
pub(super) fn without_names_of_others(
    cluster: &Arc<ClusterSettings>,
    asked: &HashMap<Box<str>, Arc<str>>,
) -> Arc<ClusterSettings> {
    let is_anothers =
        |name: &String| asked.get(name.as_str()).is_some_and(|service| **service != *cluster.name.as_str());
    if !cluster.authorities.iter().any(is_anothers) {
        return Arc::clone(cluster);
    }
    let mut rest = ClusterSettings::clone(cluster);
    rest.authorities.retain(|name| !is_anothers(name));
    Arc::new(rest)
}

/// What clusters have that only one may have.
#[derive(Debug, Default)]
pub(super) struct Taken {
    names: HashSet<ClusterName>,
    authorities: HashMap<String, ClusterName>,
    addresses: HashMap<ServiceAddress, ClusterName>,
}

impl Taken {
    pub(super) fn add(&mut self, cluster: &ClusterSettings) {
        self.names.insert(cluster.name.clone());
        let authorities =
            cluster.authorities.iter().map(|authority| (authority.clone(), cluster.name.clone()));
        self.authorities.extend(authorities);
        self.addresses.extend(cluster.addresses.iter().map(|address| (*address, cluster.name.clone())));
    }

    /// What of a cluster another has.
    pub(super) fn conflict(&self, cluster: &ClusterSettings) -> Option<Fault> {
        let authority = || {
            cluster.authorities.iter().find_map(|authority| {
                Some((format!("authority {authority}"), self.authorities.get(authority)?))
            })
        };
        let address = || {
            cluster
                .addresses
                .iter()
                .find_map(|address| Some((format!("address {address}"), self.addresses.get(address)?)))
        };
        let name = self.names.get(&cluster.name).map(|name| ("the name".to_owned(), name));
        let (what, whose) = name.or_else(authority).or_else(address)?;
        Some(Fault {
            path: format!("controller.services[{}]", cluster.name),
            line: None,
            problem: format!("{what} is that of cluster {whose}"),
            remedy: "take it out of the file, where it is the file's, to have what the controller says"
                .to_owned(),
        })
    }

    /// The cluster, with the names by which the app has asked for it and that nobody else has.
    pub(super) fn named(&self, cluster: &Arc<ClusterSettings>, names: &[Box<str>]) -> Arc<ClusterSettings> {
        let is_known = |name: &str| {
            self.authorities.contains_key(name) || cluster.authorities.iter().any(|known| known == name)
        };
        let named = names.iter().map(|name| &**name).filter(|name| !is_known(name));
        let new: Vec<String> = named.map(str::to_owned).collect();
        if new.is_empty() {
            return Arc::clone(cluster);
        }
        let mut named = ClusterSettings::clone(cluster);
        named.authorities.extend(new);
        Arc::new(named)
    }
}
