//! Rules about who may call, beside the ways on which anybody can: who reads them takes the app for protected.

use std::net::SocketAddr;

use super::{Listening, inbound, intercepted::never_comes};
use crate::{
    config::{raw, validate::intercept::to_port},
    model::file::{Faults, Place},
};

/// Checks that there are calls which are compared with the rules, and that none of them is about a port to which all calls
/// pass us by.
pub(super) fn check(file: &raw::File, listening: &[Listening], faults: &mut Faults) {
    let Some(section) = &file.authorization else { return };
    let place = Place::root().key("authorization").at(section);
    if file.intercept.is_none() && inbound(file).next().is_none() {
        let remedy = "give inbound or intercept, by which the app is called; or leave it out";
        faults.add(&place, "nothing comes in here that rules could be about", remedy);
        return;
    }
    if file.intercept.is_none() {
        return;
    }
    let rules = section.value.rules.iter().flat_map(|list| list.value.iter().enumerate());
    for (index, rule) in rules {
        let place = place.key("rules").item(index).key("ports");
        for (index, text) in rule.value.ports.iter().flat_map(|list| list.value.iter().enumerate()) {
            let Some(port) = to_port(&text.value).filter(|port| !has_listener(file, *port)) else { continue };
            never_comes(file, listening, port, &place.item(index).at(text), faults);
        }
    }
}

/// Whether a listener that peers dial leads to that port of the app.
fn has_listener(file: &raw::File, port: u16) -> bool {
    let mut apps =
        inbound(file).filter_map(|(raw, _place)| raw.app.as_ref()?.value.parse::<SocketAddr>().ok());
    apps.any(|app| app.port() == port)
}
