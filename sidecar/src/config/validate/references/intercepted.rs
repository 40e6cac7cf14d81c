//! Intercepted ports beside exceptions, our own listeners, and their names.

use std::collections::HashMap;

use super::{Listening, inbound};
use crate::{
    config::{raw, validate::intercept::to_port},
    model::file::{Faults, Place, quoted},
};

/// Checks what would make the rules of an intercepted port hold for nothing, or for something else.
pub(super) fn check(file: &raw::File, listening: &[Listening], faults: &mut Faults) {
    let ports = ports(file);
    for (port, place) in &ports {
        never_comes(file, listening, *port, place, faults);
    }
    check_app_names(file, &ports, faults);
}

/// A fault if the kernel brings nothing here that is for that port: rules for it, which stand at `place`, hold for nothing.
pub(super) fn never_comes(
    file: &raw::File,
    listening: &[Listening],
    port: u16,
    place: &Place,
    faults: &mut Faults,
) {
    if let Some(exception) = exception(file, port) {
        let problem = format!("port {port} is left alone by {}", exception.path());
        faults.add(place, problem, "keep one of them: rules for it would never be looked at");
    }
    let is_reached = |own: &&Listening| own.address.port() == port && !own.address.ip().is_loopback();
    if let Some(own) = listening.iter().find(is_reached) {
        let problem = format!("port {port} is that of our own listener at {}", own.place.path());
        faults.add(place, problem, "give the port that the app itself listens on");
    }
}

/// The ports that have rules of their own, and where they stand.
fn ports(file: &raw::File) -> HashMap<u16, Place> {
    let Some((section, place)) = section(file) else { return HashMap::new() };
    let list = section.ports.as_ref().map(|list| list.value.as_slice()).unwrap_or_default();
    let mut ports = HashMap::new();
    for (index, item) in list.iter().enumerate() {
        let Some(text) = &item.value.port else { continue };
        let Some(port) = to_port(&text.value) else { continue };
        let place = place.key("ports").item(index).key("port").at(text);
        // One that stands there twice is told with the list.
        ports.entry(port).or_insert(place);
    }
    ports
}

/// `intercept.inbound`, if it is there.
fn section(file: &raw::File) -> Option<(&raw::InterceptInbound, Place)> {
    let intercept = file.intercept.as_ref()?;
    let inbound = intercept.value.inbound.as_ref()?;
    Some((&inbound.value, Place::root().key("intercept").key("inbound").at(inbound)))
}

/// Where a port is among those that are left alone.
fn exception(file: &raw::File, port: u16) -> Option<Place> {
    let (section, place) = section(file)?;
    let list = section.except_ports.as_ref()?;
    let index = list.value.iter().position(|text| to_port(&text.value) == Some(port))?;
    Some(place.key("except_ports").item(index))
}

/// The cluster of the app behind an intercepted port is named by that port, as the one behind a listener is by the
/// listener's name: `inbound/8080`, `inbound/other`.
fn check_app_names(file: &raw::File, ports: &HashMap<u16, Place>, faults: &mut Faults) {
    if file.intercept.is_none() {
        return;
    }
    for (raw, place) in inbound(file) {
        let Some(name) = &raw.name else { continue };
        let is_taken = name.value == "other"
            || to_port(&name.value)
                .is_some_and(|port| port.to_string() == name.value && ports.contains_key(&port));
        if is_taken {
            let problem = format!("{} stands for an intercepted port", quoted(&name.value));
            faults.add(&place.key("name").at(name), problem, "give the listener another name");
        }
    }
}
