//! `federation`: other trust domains, and where their bundles come from.

use std::{collections::HashSet, path::Path};

use outrider_certs::{SpiffeId, TrustDomain};
use serde_saphyr::Spanned;

use super::bootstrap::parse_trust_domain;
use crate::{
    config::{
        defaults, raw, url,
        value::{Text, path, required, word},
    },
    model::{
        federation::{BundleEndpoint, FederatedDomain, Profile},
        file::{Faults, Place, quoted, report_odd_keys},
        transport::Roots,
    },
};

/// Other trust domains of one file. Each is looked at on its own.
const MAX_DOMAINS: usize = 64;
/// The words of `profile`; whether it is `https_spiffe`.
const PROFILES: [(&str, bool); 2] = [("https_web", false), ("https_spiffe", true)];

/// Every other trust domain. One with a fault may be left out.
pub(super) fn federation(file: &raw::File, folder: &Path, faults: &mut Faults) -> Vec<FederatedDomain> {
    let Some(list) = &file.federation else { return Vec::new() };
    let place = Place::root().key("federation").at(list);
    if list.value.len() > MAX_DOMAINS {
        let problem = format!("{} trust domains", list.value.len());
        faults.add(&place, problem, format!("keep to {MAX_DOMAINS}"));
        return Vec::new();
    }
    let mut found: Vec<(FederatedDomain, Place)> = Vec::with_capacity(list.value.len());
    for (index, item) in list.value.iter().enumerate() {
        let place = place.item(index).at(item);
        let Some(domain) = domain(&item.value, folder, &place, faults) else { continue };
        let key = place.key("trust_domain");
        if file.trust_domain.as_ref().is_some_and(|own| own.value == domain.trust_domain.as_str()) {
            let remedy = "leave it out: our own roots come with our identity";
            faults.add(&key, format!("{} is our own trust domain", domain.trust_domain), remedy);
        } else if found.iter().any(|(other, _)| other.trust_domain == domain.trust_domain) {
            let problem = format!("{} stands here twice", domain.trust_domain);
            faults.add(&key, problem, "list every trust domain once");
        } else {
            found.push((domain, place));
        }
    }
    check_servers(file, &found, faults);
    found.into_iter().map(|(domain, _)| domain).collect()
}

fn domain(
    raw: &raw::Federated,
    folder: &Path,
    place: &Place,
    faults: &mut Faults,
) -> Option<FederatedDomain> {
    report_odd_keys(&raw.odd_keys, raw::Federated::KEYS, place, faults);
    let trust_domain = parse_trust_domain(raw.trust_domain.as_ref(), place, faults);
    let bundle_file =
        raw.bundle_file.as_ref().map(|text| path(text, folder, &place.key("bundle_file"), faults));
    let endpoint = match &raw.endpoint {
        Some(text) => Some(endpoint(raw, text, folder, place, faults)?),
        None => {
            let only = [
                ("profile", raw.profile.as_ref()),
                ("endpoint_spiffe_id", raw.endpoint_spiffe_id.as_ref()),
                ("roots", raw.roots.as_ref()),
            ];
            for (key, text) in only {
                if let Some(text) = text {
                    let remedy = "leave it out, or give endpoint";
                    faults.add(&place.key(key).at(text), "is about an endpoint", remedy);
                }
            }
            None
        }
    };
    if endpoint.is_none() && bundle_file.is_none() {
        faults.add(place, "has neither endpoint nor bundle_file", "give at least one of them");
        return None;
    }
    Some(FederatedDomain { trust_domain: trust_domain?, endpoint, bundle_file })
}

fn endpoint(
    raw: &raw::Federated,
    text: &Spanned<String>,
    folder: &Path,
    place: &Place,
    faults: &mut Faults,
) -> Option<BundleEndpoint> {
    let url = url::bundle_endpoint(&text.value)
        .map_err(|problem| {
            let remedy = "write it as https://bundles.example.com/path";
            faults.add(&place.key("endpoint").at(text), format!("is {problem}"), remedy);
        })
        .ok();
    let key = place.key("profile");
    // What it means is too grave for a default (SPIFFE Federation §7.2).
    let remedy = "say how the endpoint's server is authenticated: https_web or https_spiffe";
    let profile = required(raw.profile.as_ref(), &key, remedy, faults)?;
    let is_spiffe = word(profile, &PROFILES, &key.at(profile), faults)?;
    let mut only = |text: Text<'_>, key, profile| {
        if let Some(text) = text {
            let problem = format!("is for profile {profile} only");
            faults.add(&place.key(key).at(text), problem, "leave it out, or choose that profile");
        }
    };
    let profile = if is_spiffe {
        only(raw.roots.as_ref(), "roots", "https_web");
        Profile::Spiffe(server(raw, place, faults)?)
    } else {
        only(raw.endpoint_spiffe_id.as_ref(), "endpoint_spiffe_id", "https_spiffe");
        Profile::Web(match &raw.roots {
            Some(text) if text.value != defaults::ROOTS => {
                Roots::File(path(text, folder, &place.key("roots"), faults))
            }
            Some(_) | None => Roots::System,
        })
    };
    Some(BundleEndpoint { url: url?, profile })
}

fn server(raw: &raw::Federated, place: &Place, faults: &mut Faults) -> Option<SpiffeId> {
    let key = place.key("endpoint_spiffe_id");
    let remedy = "name whom the endpoint's server must be, as spiffe://prod.example.com/bundle-server";
    let text = required(raw.endpoint_spiffe_id.as_ref(), &key, remedy, faults)?;
    match SpiffeId::parse(&text.value) {
        Ok(id) if id.is_workload() => Some(id),
        Ok(_) | Err(_) => {
            let problem = format!("{} is not the SPIFFE ID of a workload", quoted(&text.value));
            faults.add(&key.at(text), problem, remedy);
            None
        }
    }
}

/// What vouches for an endpoint's server must come from somewhere: from a file, from our own roots, or from an endpoint
/// that is authenticated without the bundle in question.
fn check_servers(file: &raw::File, found: &[(FederatedDomain, Place)], faults: &mut Faults) {
    let own = file.trust_domain.as_ref().map(|own| own.value.as_str());
    for (domain, place) in found {
        let Some(server) = served_by(domain) else { continue };
        let key = place.key("endpoint_spiffe_id");
        let is_listed = |name: &TrustDomain| found.iter().any(|(other, _)| other.trust_domain == *name);
        if own.is_some_and(|own| own != server.as_str()) && !is_listed(server) {
            let problem = format!("{server} is a trust domain that nobody vouches for here");
            faults.add(&key, problem, format!("list {server} under federation, too"));
        } else if !has_beginning(domain, own, found) {
            let problem = "what vouches for this server comes from this server".to_owned();
            let remedy = format!("give bundle_file: a bundle of {server} to begin with");
            faults.add(&place.key("bundle_file"), problem, remedy);
        }
    }
}

/// The trust domain whose bundle vouches for the domain's endpoint.
fn served_by(domain: &FederatedDomain) -> Option<&TrustDomain> {
    match &domain.endpoint.as_ref()?.profile {
        Profile::Spiffe(server) => Some(server.trust_domain()),
        Profile::Web(_) => None,
    }
}

fn has_beginning(domain: &FederatedDomain, own: Option<&str>, all: &[(FederatedDomain, Place)]) -> bool {
    let mut seen = HashSet::new();
    let mut next = Some(domain);
    while let Some(domain) = next {
        if domain.bundle_file.is_some() {
            return true;
        }
        // Whose endpoint is not listed or faulty has a fault of its own.
        let Some(server) = served_by(domain) else { return true };
        if own.is_none_or(|own| own == server.as_str()) {
            return true;
        }
        if !seen.insert(&domain.trust_domain) {
            return false;
        }
        next = all.iter().map(|(other, _)| other).find(|other| other.trust_domain == *server);
    }
    true
}
