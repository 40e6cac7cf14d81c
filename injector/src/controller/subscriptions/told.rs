//! What has been said on one stream, and what to say next so that its other end knows what we know. Pure.
//!
//! # Invariants
//! - A Service is said, with all its endpoints, before the first Destination that names it, and before the first Service
//!   with routes that name it.
//! - What a key leads to is said as its callers see it, also if routes need it; what routes need only, as they do.
//! - Differences of endpoints are to what was said last on this stream, whatever happened between.
//! - A Service and the endpoints that belong to it have one generation, which the endpoints complete.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    sync::Arc,
};

use outrider::discovery::controller::api::outrider_discovery_v1 as api;

use super::{Change, Led, Value};
use crate::controller::model::{objects::Name, value::Endpoint};

/// Endpoints in one message.
pub const MAX_ENDPOINTS_A_MESSAGE: usize = 1000;

/// What the other end knows.
#[derive(Debug)]
pub struct Told {
    epoch: u64,
    /// Where keys lead, as was said.
    keys: HashMap<Name, Option<Name>>,
    /// Services that were said: those that keys lead to, and those that these need.
    services: HashMap<Name, Known>,
    /// Generations that the other end has from before this stream, by key.
    resumed: HashMap<Name, u64>,
}

#[derive(Debug)]
struct Known {
    value: Arc<Value>,
    /// Keys that lead here.
    keys: HashSet<Name>,
    /// Services that need it, to which keys lead.
    needed_by: HashSet<Name>,
    /// Services that it needs, if keys lead to it.
    needs: HashSet<Name>,
}

impl Told {
    /// A stream on which nothing was said.
    #[must_use]
    pub fn new(epoch: u64) -> Self {
        Self { epoch, keys: HashMap::new(), services: HashMap::new(), resumed: HashMap::new() }
    }

    /// The other end says what it has for `key` already. Counts for the answer that follows.
    pub fn resume(&mut self, key: &str, epoch: u64, generation: u64) {
        if epoch == self.epoch && generation != 0 {
            self.resumed.insert(key.into(), generation);
        }
    }

    /// The other end does not want `key` any more.
    pub fn forget(&mut self, key: &str) {
        self.resumed.remove(key);
        if let Some((key, Some(service))) = self.keys.remove_entry(key) {
            self.leave(&key, &service);
        }
    }

    /// The messages that say a change, in their order.
    pub fn say(&mut self, change: Change) -> Vec<api::WatchResponse> {
        match change {
            Change::Workload { generation, inbound } => {
                vec![message(api::watch_response::Message::Workload(api::Workload { generation, inbound }))]
            }
            Change::Value(led) => self.changed(&led),
            Change::Destination(key, led) => self.destination(key, led.as_ref(), false),
            Change::Unknown(key) => self.destination(key, None, true),
        }
    }

    /// A value is another. It may be one that nobody here asks for any more.
    fn changed(&mut self, led: &Led) -> Vec<api::WatchResponse> {
        let name = &led.value.facts.name;
        let Some(known) = self.services.get(name) else {
            // It is said before the first key that leads to it.
            return Vec::new();
        };
        if led.value.is_back != known.keys.is_empty() {
            return Vec::new();
        }
        let mut said = self.needed(led);
        said.extend(self.value(&led.value));
        self.need(name, led);
        said
    }

    /// What a value needs, as far as it is not known.
    fn needed(&mut self, led: &Led) -> Vec<api::WatchResponse> {
        let mut said = Vec::new();
        for need in &led.needs {
            match self.services.get(&need.facts.name) {
                Some(known) if known.keys.is_empty() => said.extend(self.value(need)),
                // It is kept up to date for its callers.
                Some(_) => {}
                None => said.extend(self.first(need)),
            }
        }
        said
    }

    /// Notes what a service needs to which keys lead. What it needed before and nobody needs now is forgotten.
    fn need(&mut self, name: &Name, led: &Led) {
        let Some(known) = self.services.get_mut(name) else { return };
        let needs: HashSet<Name> = if known.keys.is_empty() {
            HashSet::new()
        } else {
            led.needs.iter().map(|need| Name::clone(&need.facts.name)).collect()
        };
        let before = std::mem::replace(&mut known.needs, needs.clone());
        for need in &needs {
            if let Some(known) = self.services.get_mut(need) {
                known.needed_by.insert(Name::clone(name));
            }
        }
        for need in before.difference(&needs) {
            self.release(need, name);
        }
    }

    fn release(&mut self, need: &Name, by: &Name) {
        if let Some(known) = self.services.get_mut(need) {
            known.needed_by.remove(by);
            if known.keys.is_empty() && known.needed_by.is_empty() {
                self.services.remove(need);
            }
        }
    }

    /// A service that was not said.
    fn first(&mut self, value: &Arc<Value>) -> Vec<api::WatchResponse> {
        self.know(value);
        let mut said = vec![service(self.epoch, value)];
        said.extend(endpoints(value, None));
        said
    }

    fn know(&mut self, value: &Arc<Value>) {
        let known = Known {
            value: Arc::clone(value),
            keys: HashSet::new(),
            needed_by: HashSet::new(),
            needs: HashSet::new(),
        };
        self.services.entry(Name::clone(&value.facts.name)).or_insert(known);
    }

    /// How a service that was said differs from what was said of it.
    fn value(&mut self, value: &Arc<Value>) -> Vec<api::WatchResponse> {
        let Some(known) = self.services.get_mut(&value.facts.name) else { return Vec::new() };
        let before = std::mem::replace(&mut known.value, Arc::clone(value));
        if before.generation == value.generation {
            return Vec::new();
        }
        let mut said = Vec::new();
        let is_same = before.facts.cluster == value.facts.cluster
            && before.facts.routing.routes == value.facts.routing.routes;
        if !is_same {
            said.push(service(self.epoch, value));
        }
        said.extend(endpoints(value, Some(&before.facts.endpoints)));
        said
    }

    fn destination(&mut self, key: Name, led: Option<&Led>, unknown: bool) -> Vec<api::WatchResponse> {
        let resumed = self.resumed.remove(&key);
        let mut said = Vec::new();
        let name = led.map(|led| Name::clone(&led.value.facts.name));
        if let (Some(led), Some(name)) = (led, &name) {
            said.extend(self.needed(led));
            if self.services.contains_key(name) {
                said.extend(self.value(&led.value));
            } else if resumed == Some(led.value.generation) {
                self.know(&led.value);
            } else {
                said.extend(self.first(&led.value));
            }
            if let Some(known) = self.services.get_mut(name) {
                known.keys.insert(Name::clone(&key));
            }
            self.need(name, led);
        }
        let before = self.keys.insert(Name::clone(&key), name.clone()).flatten();
        if let Some(before) = before.filter(|before| Some(before) != name.as_ref()) {
            self.leave(&key, &before);
        }
        let service = name.map(|name| name.to_string()).unwrap_or_default();
        let destination = api::Destination { key: key.to_string(), service, unknown };
        said.push(message(api::watch_response::Message::Destination(destination)));
        said
    }

    /// A key leads to a service no more. What it needed for its callers it does not need for routes.
    fn leave(&mut self, key: &Name, service: &Name) {
        let Some(known) = self.services.get_mut(service) else { return };
        known.keys.remove(key);
        if !known.keys.is_empty() {
            return;
        }
        let needs = std::mem::take(&mut known.needs);
        if known.needed_by.is_empty() {
            self.services.remove(service);
        }
        for need in needs {
            self.release(&need, service);
        }
    }
}

/// A message of the stream.
#[must_use]
pub fn message(message: api::watch_response::Message) -> api::WatchResponse {
    api::WatchResponse { message: Some(message) }
}

fn service(epoch: u64, value: &Value) -> api::WatchResponse {
    message(api::watch_response::Message::Service(api::Service {
        name: value.facts.name.to_string(),
        epoch,
        // Its endpoints say it: who lost them with the stream must not take the settings for all.
        generation: 0,
        cluster: value.facts.cluster.to_string(),
        routes: value.facts.routing.routes.iter().map(ToString::to_string).collect(),
    }))
}

/// All endpoints of a value, or how they differ from those `before`, in parts.
fn endpoints(value: &Value, before: Option<&Arc<BTreeMap<SocketAddr, Endpoint>>>) -> Vec<api::WatchResponse> {
    let facts = &value.facts;
    let is_new = |(address, endpoint): &(&SocketAddr, &Endpoint)| {
        before.and_then(|known| known.get(*address)) != Some(endpoint)
    };
    let set: Vec<api::Endpoint> = facts.endpoints.iter().filter(is_new).map(endpoint).collect();
    let is_gone = |address: &&SocketAddr| !facts.endpoints.contains_key(*address);
    let mut gone = before.into_iter().flat_map(|known| known.keys()).filter(is_gone).map(ToString::to_string);
    let mut gone: Vec<String> = gone.by_ref().collect();
    let mut parts = Vec::new();
    let mut set = set.into_iter();
    loop {
        let some: Vec<api::Endpoint> = set.by_ref().take(MAX_ENDPOINTS_A_MESSAGE).collect();
        let rest = gone.split_off(gone.len().min(MAX_ENDPOINTS_A_MESSAGE));
        let is_last = set.len() == 0 && rest.is_empty();
        parts.push(api::Endpoints {
            service: facts.name.to_string(),
            generation: if is_last { value.generation } else { 0 },
            full: before.is_none() && parts.is_empty(),
            set: some,
            gone: std::mem::replace(&mut gone, rest),
        });
        if is_last {
            break;
        }
    }
    parts.into_iter().map(|part| message(api::watch_response::Message::Endpoints(part))).collect()
}

fn endpoint((address, endpoint): (&SocketAddr, &Endpoint)) -> api::Endpoint {
    api::Endpoint {
        address: address.to_string(),
        spiffe_id: endpoint.spiffe_id.to_string(),
        zone: endpoint.zone.to_string(),
        ready: endpoint.is_ready,
        pod: endpoint.pod.to_string(),
    }
}
