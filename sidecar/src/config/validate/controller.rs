//! `controller`: where we ask for what the app uses and the file does not name.

use outrider_certs::SpiffeId;
use serde_saphyr::Spanned;

use super::bootstrap::{section, to_usize};
use crate::{
    config::{
        Environment, defaults,
        environment::{POD, POD_UID},
        raw,
        value::{host_and_port, quantity, required},
    },
    model::{
        controller::ControllerSettings,
        file::{Faults, Place, quoted, report_odd_keys},
    },
};

/// Longest name of a pod (Kubernetes: a DNS subdomain).
const MAX_POD_BYTES: usize = 253;

/// Checks the section; `None` if there is none.
pub(super) fn controller(
    raw: Option<&Spanned<raw::Controller>>,
    trust_domain: Option<&Spanned<String>>,
    environment: &Environment,
    faults: &mut Faults,
) -> Option<ControllerSettings> {
    let place = section(raw, "controller");
    let raw = &raw?.value;
    report_odd_keys(&raw.odd_keys, raw::Controller::KEYS, &place, faults);
    let key = place.key("address");
    let address = required(raw.address.as_ref(), &key, "give the controller's host:port", faults)
        .map(|text| host_and_port(text, &key, faults));
    let key = place.key("spiffe_id");
    let id = required(raw.spiffe_id.as_ref(), &key, "say who must answer at that address", faults);
    let spiffe_id = id.and_then(|text| spiffe_id(text, trust_domain, &key.at(text), faults));
    let max_wanted = quantity(raw.max_wanted.as_ref(), &defaults::MAX_WANTED, &place, faults);
    let max_waiting = quantity(raw.max_waiting.as_ref(), &defaults::MAX_WAITING, &place, faults);
    let wait = quantity(raw.wait.as_ref(), &defaults::CONTROLLER_WAIT, &place, faults);
    let idle = quantity(raw.idle.as_ref(), &defaults::CONTROLLER_IDLE, &place, faults);
    let pod = environment.get(POD).filter(|pod| pod.len() <= MAX_POD_BYTES).map(str::to_owned);
    let pod_uid = environment.get(POD_UID).filter(|uid| uid.len() <= MAX_POD_BYTES).map(str::to_owned);
    let (max_wanted, max_waiting) = (to_usize(max_wanted), to_usize(max_waiting));
    Some(ControllerSettings {
        address: address?,
        spiffe_id: spiffe_id?,
        pod,
        pod_uid,
        wait,
        idle,
        max_wanted,
        max_waiting,
    })
}

/// One of our own trust domain: whoever says where everything goes is no stranger.
fn spiffe_id(
    text: &Spanned<String>,
    trust_domain: Option<&Spanned<String>>,
    place: &Place,
    faults: &mut Faults,
) -> Option<SpiffeId> {
    match SpiffeId::parse(&text.value) {
        Ok(id) if trust_domain.is_none_or(|own| own.value == id.trust_domain().as_str()) => Some(id),
        Ok(id) => {
            let problem = format!("{} is of another trust domain", quoted(id.as_str()));
            faults.add(place, problem, "name a controller of our own trust domain");
            None
        }
        Err(error) => {
            let problem = format!("{} is not a SPIFFE ID: {error}", quoted(&text.value));
            faults.add(
                place,
                problem,
                "write it as spiffe://cluster.local/ns/outrider/sa/outrider-controller",
            );
            None
        }
    }
}
