//! Which of the services that the controller has told are in force, and as what.
//!
//! # Invariants
//! - A service is in force as a whole: its settings, its routes, and every service that they send requests to; else as it
//!   was last, if that is whole, or not at all. Where copies of requests would go is no part of it: there are none then.
//! - Routes lead to services that the controller has told, and to nothing of the file.
//! - To a service that the app has not asked for no name, no address and no routes lead but the rules of others.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    Fault, Settings,
    taken::{Taken, without_names_of_others},
    validate::{self, ToldRoutes},
};
use crate::model::{
    ClusterSettings,
    controller::{Fragment, Rejected},
    dns::ResolverSettings,
};

/// What was said of services, as it was read.
#[derive(Debug, Default)]
pub(super) struct Services {
    known: HashMap<Arc<str>, Known>,
    /// What `dns` of services was read with.
    resolver: Option<Arc<ResolverSettings>>,
}

#[derive(Debug)]
struct Known {
    said: Fragment,
    /// What that means.
    newest: Result<Service, Vec<Fault>>,
    /// What was in force last.
    last: Option<Service>,
}

#[derive(Clone, Debug)]
struct Service {
    cluster: Arc<ClusterSettings>,
    routes: Arc<ToldRoutes>,
}

/// What is tried for a service.
struct Pick<'a> {
    fragment: &'a Fragment,
    known: &'a Known,
    service: Option<&'a Service>,
    is_newest: bool,
    faults: Vec<Fault>,
    conflict: Option<Fault>,
    /// As it is in force, if it is.
    cluster: Option<Arc<ClusterSettings>>,
}

impl Services {
    /// Adds what is sound to what the file says.
    pub(super) fn join(
        &mut self,
        settings: &mut Settings,
        fragments: &[Fragment],
        rejected: &mut Vec<Rejected>,
    ) {
        self.read(fragments, &settings.resolver);
        let mut picks: Vec<Pick<'_>> =
            fragments.iter().filter_map(|it| Some(Pick::new(it, self.known.get(&it.name)?))).collect();
        picks.sort_by(|one, other| one.fragment.name.cmp(&other.fragment.name));
        let asked = asked(fragments);
        // Each time round, something is given up: what is given up may be what others name.
        loop {
            lay_out(&mut picks, settings, &asked);
            if !give_up_what_is_not_whole(&mut picks) {
                break;
            }
        }
        tell_lost_copies(&mut picks);
        let mut routes = Vec::new();
        for pick in &picks {
            let Some(cluster) = &pick.cluster else { continue };
            settings.clusters.push(Arc::clone(cluster));
            routes.extend(pick.routes());
        }
        validate::lead(settings, &routes);
        let mut in_force = Vec::new();
        for pick in picks {
            let name = &pick.fragment.name;
            if !pick.faults.is_empty() {
                let (service, faults) = (Arc::clone(name), pick.faults);
                rejected.push(Rejected { service, faults, is_conflict: false });
            }
            if let Some(fault) = pick.conflict {
                let (service, faults) = (Arc::clone(name), vec![fault]);
                rejected.push(Rejected { service, faults, is_conflict: true });
            }
            if pick.is_newest {
                in_force.push(Arc::clone(name));
            }
        }
        for name in in_force {
            if let Some(known) = self.known.get_mut(&name) {
                known.last = known.newest.as_ref().ok().cloned();
            }
        }
    }

    fn read(&mut self, fragments: &[Fragment], resolver: &Arc<ResolverSettings>) {
        let is_other_resolver = self.resolver.as_ref() != Some(resolver);
        self.resolver = Some(Arc::clone(resolver));
        let said: HashSet<&Arc<str>> = fragments.iter().map(|fragment| &fragment.name).collect();
        self.known.retain(|name, _| said.contains(name));
        for fragment in fragments {
            let Fragment { name, revision, cluster, routes, .. } = fragment;
            let before = self.known.remove(name);
            let is_same = |known: &Known| {
                known.said.cluster == *cluster
                    && known.said.routes == *routes
                    && known.said.revision == *revision
            };
            let known = match before {
                Some(known) if is_same(&known) && !is_other_resolver => known,
                before => Known {
                    said: fragment.clone(),
                    newest: Service::read(fragment, resolver),
                    last: before.and_then(|before| before.last),
                },
            };
            self.known.insert(Arc::clone(name), known);
        }
    }
}

impl Service {
    fn read(fragment: &Fragment, resolver: &Arc<ResolverSettings>) -> Result<Self, Vec<Fault>> {
        let Fragment { name, revision, cluster, routes, .. } = fragment;
        let cluster = validate::fragment(name, cluster, *revision, resolver);
        let routes = validate::told_routes(name, routes.as_deref());
        match (cluster, routes) {
            (Ok(cluster), Ok(routes)) => Ok(Self { cluster: Arc::new(cluster), routes: Arc::new(routes) }),
            (cluster, routes) => {
                let faults = [cluster.err(), routes.err()].into_iter().flatten();
                Err(faults.flatten().collect())
            }
        }
    }
}

impl<'a> Pick<'a> {
    fn new(fragment: &'a Fragment, known: &'a Known) -> Self {
        let pick = Self {
            fragment,
            known,
            service: None,
            is_newest: true,
            faults: Vec::new(),
            conflict: None,
            cluster: None,
        };
        match &known.newest {
            Ok(service) => Self { service: Some(service), ..pick },
            Err(faults) => {
                Self { service: known.last.as_ref(), is_newest: false, faults: faults.clone(), ..pick }
            }
        }
    }

    /// Its routes, where they count.
    fn routes(&self) -> Option<&'a ToldRoutes> {
        let service = self.service.filter(|_| self.fragment.is_asked_for && self.cluster.is_some())?;
        Some(&service.routes)
    }

    /// What was tried will not do.
    fn give_up(&mut self, fault: Fault) {
        if self.is_newest {
            self.faults.push(fault);
        }
        self.service = self.known.last.as_ref().filter(|_| self.is_newest);
        self.is_newest = false;
    }
}

/// Which services the names lead to that the app has asked for: where a name leads is said for this caller, and counts before
/// what a service says of itself.
fn asked(fragments: &[Fragment]) -> HashMap<Box<str>, Arc<str>> {
    let names = |fragment: &Fragment| {
        let name = Arc::clone(&fragment.name);
        fragment.names.clone().into_iter().map(move |key| (key, Arc::clone(&name)))
    };
    fragments.iter().flat_map(names).collect()
}

/// Gives each what it may have beside the file and the others.
fn lay_out(picks: &mut [Pick<'_>], file: &Settings, asked: &HashMap<Box<str>, Arc<str>>) {
    let mut taken = Taken::default();
    file.clusters.iter().for_each(|cluster| taken.add(cluster));
    for pick in picks {
        (pick.cluster, pick.conflict) = (None, None);
        let Some(service) = pick.service else { continue };
        let cluster = if pick.fragment.is_asked_for {
            without_names_of_others(&service.cluster, asked)
        } else {
            behind_rules(&service.cluster)
        };
        pick.conflict = taken.conflict(&cluster);
        if pick.conflict.is_none() {
            let cluster = taken.named(&cluster, &pick.fragment.names);
            taken.add(&cluster);
            pick.cluster = Some(cluster);
        }
    }
}

fn there<'a>(picks: &[Pick<'a>]) -> HashSet<&'a str> {
    picks.iter().filter(|pick| pick.cluster.is_some()).map(|pick| &*pick.fragment.name).collect()
}

/// Whether there is a service whose routes send requests to one that is not there.
fn give_up_what_is_not_whole(picks: &mut [Pick<'_>]) -> bool {
    let there = there(picks);
    let mut is_any = false;
    for pick in picks {
        let missing =
            pick.routes().and_then(|routes| routes.needed.iter().find(|name| !there.contains(&***name)));
        if let Some(missing) = missing {
            is_any = true;
            pick.give_up(missing_service(&pick.fragment.name, missing));
        }
    }
    is_any
}

/// Copies that go nowhere are told, and hold nothing up.
fn tell_lost_copies(picks: &mut [Pick<'_>]) {
    let there = there(picks);
    for pick in picks.iter_mut().filter(|pick| pick.is_newest) {
        let copied = pick.routes().into_iter().flat_map(|routes| &routes.copied);
        let lost = copied.filter(|name| !there.contains(&***name)).map(|lost| Fault {
            path: format!("controller.services[{}].routes", pick.fragment.name),
            line: None,
            problem: format!(
                "copies of requests go to {lost}, which is no service that is told and in force: there are none; all else is \
                 in force"
            ),
            remedy: REMEDY.to_owned(),
        });
        pick.faults.extend(lost.collect::<Vec<_>>());
    }
}

/// What to do about a service that is named and is not there.
const REMEDY: &str = "have the controller tell it before; if it does, see why it is left out";

fn missing_service(service: &str, missing: &str) -> Fault {
    Fault {
        path: format!("controller.services[{service}].routes"),
        line: None,
        problem: format!("rules send requests to {missing}, which is no service that is told and in force"),
        remedy: REMEDY.to_owned(),
    }
}

/// A service, without what leads the app there.
fn behind_rules(cluster: &Arc<ClusterSettings>) -> Arc<ClusterSettings> {
    if cluster.authorities.is_empty() && cluster.addresses.is_empty() {
        return Arc::clone(cluster);
    }
    let (authorities, addresses) = (Vec::new(), Vec::new());
    Arc::new(ClusterSettings { authorities, addresses, ..ClusterSettings::clone(cluster) })
}
