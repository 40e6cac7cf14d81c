//! What the controller says, in the words of the file, by the same rules. What would let it decide more than where calls of
//! the own app go, and what the app speaks, is refused: the file alone opens holes and names files of this host.

use std::{path::Path, sync::Arc};

use super::{clusters, dns::Surroundings};
use crate::{
    config::{Fault, defaults, raw},
    model::{
        ClusterSettings,
        dns::ResolverSettings,
        file::{Faults, Place, quoted, read},
    },
};

/// Bytes of what is said of one service.
const MAX_BYTES: usize = 64 * 1024;

/// A service's cluster. Its endpoints are found by the controller in that revision, or in the DNS.
pub(in crate::config) fn fragment(
    name: &str,
    text: &str,
    revision: u64,
    resolver: &Arc<ResolverSettings>,
) -> Result<ClusterSettings, Vec<Fault>> {
    let place = Place::root().key(&format!("controller.services[{name}]"));
    let (mut faults, raw) = (Faults::default(), bounded::<raw::Cluster>(text, &place)?);
    refuse(&raw, &place, &mut faults);
    if raw.name.as_ref().is_none_or(|text| text.value != name) {
        faults.add(&place.key("name"), format!("is not {}", quoted(name)), "name cluster and service alike");
    }
    let around = Surroundings { folder: Path::new(""), resolver: Arc::clone(resolver), told: Some(revision) };
    match clusters::cluster(&raw, &around, &place, &mut faults) {
        Some(cluster) if faults.is_empty() => Ok(cluster),
        Some(_) | None => Err(faults.into_vec()),
    }
}

/// Keys that belong to the file.
fn refuse(raw: &raw::Cluster, place: &Place, faults: &mut Faults) {
    let mut only = |place: Option<Place>| {
        if let Some(place) = place {
            faults.add(&place, "is for the file only", "leave it out of what the controller says");
        }
    };
    only(raw.endpoints.as_ref().map(|list| place.key("endpoints").at(list)));
    only(raw.endpoints_file.as_ref().map(|text| place.key("endpoints_file").at(text)));
    if let Some(public) = &raw.public {
        let place = place.key("public").at(public);
        let public = &public.value;
        only(public.roots.as_ref().filter(|text| text.value != defaults::ROOTS).map(|_| place.key("roots")));
        only(public.certificate.as_ref().map(|_| place.key("certificate")));
        only(public.key.as_ref().map(|_| place.key("key")));
    }
}

/// Reads a text that is not too long.
pub(super) fn bounded<T: serde::de::DeserializeOwned>(text: &str, place: &Place) -> Result<T, Vec<Fault>> {
    if text.len() > MAX_BYTES {
        let mut faults = Faults::default();
        faults.add(place, format!("has {} bytes", text.len()), format!("keep to {MAX_BYTES}"));
        return Err(faults.into_vec());
    }
    read(text).map_err(|fault| vec![Fault { path: place.path().to_owned(), ..fault }])
}
