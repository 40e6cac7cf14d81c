//! What each message of the controller changes.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use outrider_certs::SpiffeId;

use super::{Changes, Fault, Known, Leads, State, Wish, routing::Routing};
use crate::{
    discovery::controller::api::outrider_discovery_v1::{Destination, Endpoint, Endpoints, Refused, Service},
    model::{EndpointSettings, file::MAX_ENDPOINTS, wanted::Key},
};

/// Services beyond those that are used: what comes before the word that leads to it.
pub(super) const MAX_LOOSE_SERVICES: usize = 1024;
/// Characters that are kept of what a service is: more than `config` takes, so that it says so.
const MAX_CLUSTER_CHARS: usize = 64 * 1024 + 1;
/// What the controller has no answer to is asked again, if the app tries again, after this.
const UNANSWERED_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of a zone's name, as in the file; a longer one is none.
const MAX_ZONE_BYTES: usize = 128;

impl Wish {
    /// Whether it may be asked, for all that was answered before.
    pub(super) fn may_ask(&self, now: Instant) -> bool {
        self.unanswered.is_none_or(|at| now.saturating_duration_since(at) >= UNANSWERED_PAUSE)
    }
}

impl State {
    /// A wish is not taken. What was known stays, as if there were no controller to be asked.
    pub(super) fn refused(&mut self, said: &Refused, now: Instant, changes: &mut Changes) {
        let Some(key) = Key::parse(&said.key) else { return };
        let Some(wish) = self.keys.get_mut(&key) else { return };
        wish.unanswered = Some(now);
        changes.settled.push(key);
    }

    pub(super) fn service(
        &mut self,
        said: Service,
        now: Instant,
        changes: &mut Changes,
    ) -> Result<(), Fault> {
        let Service { name, epoch, generation, cluster, routes } = said;
        let cluster = match cluster.char_indices().nth(MAX_CLUSTER_CHARS) {
            Some((end, _)) => cluster.get(..end).unwrap_or_default().to_owned(),
            None => cluster,
        };
        if let Some(known) = self.services.get_mut(&*name) {
            (known.epoch, known.generation) = (epoch, generation);
            if *known.cluster != *cluster {
                self.revision += 1;
                known.revision = self.revision;
                known.cluster = cluster.into();
                changes.fragments = true;
                // Until others are said, those that were said of it.
                changes.list = Some(name.into());
            }
            if known.routing.say(routes) {
                changes.fragments = true;
                self.note_use();
            }
            return Ok(());
        }
        if self.services.len() >= self.max_wanted.saturating_add(MAX_LOOSE_SERVICES) {
            return Err(Fault::TooMany("services"));
        }
        self.revision += 1;
        let known = Known {
            epoch,
            generation,
            revision: self.revision,
            cluster: cluster.into(),
            routing: Routing::new(routes),
            endpoints: BTreeMap::new(),
            used_at: now,
            ended: 0,
            is_used: false,
            is_told: false,
        };
        // It comes into force with the first key that leads to it.
        self.services.insert(name.into(), known);
        Ok(())
    }

    pub(super) fn endpoints(&mut self, said: &Endpoints, changes: &mut Changes) {
        let name: Arc<str> = Arc::from(said.service.as_str());
        // Else of a service that was forgotten meanwhile.
        let Some(known) = self.services.get_mut(&name) else { return };
        known.generation = said.generation;
        if said.full {
            known.endpoints.clear();
        }
        for address in said.gone.iter().filter_map(|text| text.parse::<SocketAddr>().ok()) {
            known.endpoints.remove(&address);
        }
        for endpoint in said.set.iter().filter_map(settings) {
            if known.endpoints.len() < MAX_ENDPOINTS || known.endpoints.contains_key(&endpoint.address) {
                known.endpoints.insert(endpoint.address, endpoint);
            }
        }
        // Of a list in parts, the last has the generation: what is known stays in use until it is there.
        if said.generation != 0 {
            if !known.is_told {
                known.is_told = true;
                // Routes may have waited for it.
                changes.fragments = self.note_use();
            }
            changes.list = Some(name);
        }
    }

    pub(super) fn destination(
        &mut self,
        said: Destination,
        now: Instant,
        changes: &mut Changes,
    ) -> Result<(), Fault> {
        // Of a key that was forgotten meanwhile.
        let Some(key) = Key::parse(&said.key).filter(|key| self.keys.contains_key(key)) else {
            return Ok(());
        };
        let leads = if said.service.is_empty() {
            None
        } else {
            let unknown = || Fault::UnknownService(said.key.clone());
            Some(Arc::clone(self.services.get_key_value(&*said.service).ok_or_else(unknown)?.0))
        };
        let Some(wish) = self.keys.get_mut(&key) else { return Ok(()) };
        wish.is_fresh = true;
        let before = wish.leads.clone();
        wish.unanswered = (said.unknown && leads.is_none()).then_some(now);
        match (&leads, &before) {
            (None, _) if said.unknown => wish.leads = None,
            (None, Some(Leads::Outside(_))) => {}
            (Some(now), Some(Leads::To(before))) if now == before => {}
            (None, _) => {
                wish.leads = Some(Leads::Outside(Arc::default()));
                wish.used_at = now;
                changes.outside = true;
            }
            (Some(service), _) => {
                wish.leads = Some(Leads::To(Arc::clone(service)));
                changes.fragments = true;
                if let Some(known) = self.services.get_mut(service) {
                    known.used_at = now;
                }
            }
        }
        match before {
            Some(Leads::To(_)) if leads.is_none() => changes.fragments = true,
            Some(Leads::Outside(_)) if leads.is_some() || said.unknown => changes.outside = true,
            Some(_) | None => {}
        }
        changes.confirmed = leads;
        changes.settled.push(key);
        if changes.fragments {
            self.note_use();
            self.sweep_services(changes);
        }
        Ok(())
    }
}

fn is_zone(text: &str) -> bool {
    (1..=MAX_ZONE_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// An endpoint; `None`: nobody could be called there.
fn settings(said: &Endpoint) -> Option<EndpointSettings> {
    let address = said.address.parse().ok()?;
    let ids = match said.spiffe_id.as_str() {
        "" => Vec::new(),
        text => vec![SpiffeId::parse(text).ok()?],
    };
    Some(EndpointSettings {
        zone: is_zone(&said.zone).then(|| Arc::from(said.zone.as_str())),
        is_ready: said.ready,
        ..EndpointSettings::new(address, ids.into())
    })
}
