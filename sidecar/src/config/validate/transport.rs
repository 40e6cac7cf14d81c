//! `clusters[].tls` and the keys that belong to one transport or another.

use std::{net::IpAddr, path::Path, sync::Arc};

use serde_saphyr::Spanned;

use crate::{
    config::{
        defaults::{self, Tls},
        raw,
        value::{Text, choice, is_host, path, required},
    },
    model::{
        file::{Faults, Place, quoted, report_odd_keys},
        transport::{ClientCertificate, PeerKind, PublicSettings, Roots, Transport},
    },
};

/// How a cluster is reached. A key of a transport that it does not have is a fault: it would read as if it held.
pub(super) fn transport(
    raw: &raw::Cluster,
    folder: &Path,
    place: &Place,
    faults: &mut Faults,
) -> Option<Transport> {
    let tls = choice(raw.tls.as_ref(), &defaults::TLS, place, faults);
    let mut only = |is_there: bool, key, line: Option<Place>, what| {
        if is_there {
            let place = line.unwrap_or_else(|| place.key(key));
            faults.add(&place, format!("is for {what} only"), "leave it out, or choose that transport");
        }
    };
    let at = |text: Text<'_>, key| text.map(|text| place.key(key).at(text));
    if tls != Tls::Mesh {
        let ids = raw.spiffe_ids.as_ref();
        only(ids.is_some(), "spiffe_ids", ids.map(|ids| place.key("spiffe_ids").at(ids)), "tls: mesh");
        for (text, key) in [
            (&raw.peer, "peer"),
            (&raw.peer_protocol, "peer_protocol"),
            (&raw.mesh_protocol, "mesh_protocol"),
        ] {
            only(text.is_some(), key, at(text.as_ref(), key), "tls: mesh");
        }
    }
    if tls != Tls::None {
        let text = raw.plain_protocol.as_ref();
        only(text.is_some(), "plain_protocol", at(text, "plain_protocol"), "tls: none");
    }
    if tls != Tls::Public
        && let Some(section) = &raw.public
    {
        only(true, "public", Some(place.key("public").at(section)), "tls: public");
    }
    match tls {
        Tls::Mesh => Some(mesh(raw, place, faults)),
        Tls::Public => public(raw.public.as_ref(), folder, place, faults)
            .map(|public| Transport::Public(Arc::new(public))),
        Tls::None => Some(Transport::Plain(choice(
            raw.plain_protocol.as_ref(),
            &defaults::PLAIN_PROTOCOL,
            place,
            faults,
        ))),
    }
}

fn mesh(raw: &raw::Cluster, place: &Place, faults: &mut Faults) -> Transport {
    let is_standard = choice(raw.peer.as_ref(), &defaults::PEER, place, faults);
    let among_sidecars = choice(raw.mesh_protocol.as_ref(), &defaults::MESH_PROTOCOL, place, faults);
    let with_standard = choice(raw.peer_protocol.as_ref(), &defaults::PEER_PROTOCOL, place, faults);
    let (other, key, what, remedy) = if is_standard {
        let remedy = "leave it out, or say peer_protocol";
        (&raw.mesh_protocol, "mesh_protocol", "is for sidecars only", remedy)
    } else {
        let remedy = "leave it out, or set peer: standard";
        (&raw.peer_protocol, "peer_protocol", "is for standard peers only", remedy)
    };
    if let Some(text) = other {
        faults.add(&place.key(key).at(text), what, remedy);
    }
    Transport::Mesh(peer_kind(is_standard), if is_standard { with_standard } else { among_sidecars })
}

/// What the other end of a mesh connection is.
pub(super) fn peer_kind(is_standard: bool) -> PeerKind {
    if is_standard { PeerKind::Standard } else { PeerKind::Outrider }
}

fn public(
    raw: Option<&Spanned<raw::Public>>,
    folder: &Path,
    place: &Place,
    faults: &mut Faults,
) -> Option<PublicSettings> {
    let place = place.key("public");
    let Some(raw) = raw else {
        faults.add(&place, "is missing", "tls: public needs public.server_name");
        return None;
    };
    let place = place.at(raw);
    let raw = &raw.value;
    report_odd_keys(&raw.odd_keys, raw::Public::KEYS, &place, faults);
    let roots = match &raw.roots {
        Some(text) if text.value != defaults::ROOTS => {
            Roots::File(path(text, folder, &place.key("roots"), faults))
        }
        Some(_) | None => Roots::System,
    };
    let protocol = choice(raw.protocol.as_ref(), &defaults::PUBLIC_PROTOCOL, &place, faults);
    let client = client(raw, folder, &place, faults);
    Some(PublicSettings { server_name: server_name(raw, &place, faults)?, roots, client, protocol })
}

fn server_name(raw: &raw::Public, place: &Place, faults: &mut Faults) -> Option<Arc<str>> {
    let place = place.key("server_name");
    let remedy = "say whom the server's certificate must be for, as api.example.com";
    let text = required(raw.server_name.as_ref(), &place, remedy, faults)?;
    let is_name = |text: &str| is_host(text) && !text.starts_with('[') && !text.contains('_');
    if text.value.parse::<IpAddr>().is_err() && !is_name(&text.value) {
        let problem = format!("{} is neither a DNS name nor an IP address", quoted(&text.value));
        faults.add(&place.at(text), problem, "write it as api.example.com or 203.0.113.7, without port");
    }
    Some(text.value.to_ascii_lowercase().into())
}

/// Certificate and key, both or neither.
fn client(raw: &raw::Public, folder: &Path, place: &Place, faults: &mut Faults) -> Option<ClientCertificate> {
    let mut file = |text: Text<'_>, key| text.map(|text| path(text, folder, &place.key(key), faults));
    let certificate = file(raw.certificate.as_ref(), "certificate");
    let key = file(raw.key.as_ref(), "key");
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some(ClientCertificate { certificate, key }),
        (Some(_), None) => {
            faults.add(
                &place.key("key"),
                "is missing",
                "name the PEM file with the certificate's key (PKCS#8)",
            );
            None
        }
        (None, Some(_)) => {
            let remedy = "name the PEM file with leaf and intermediates";
            faults.add(&place.key("certificate"), "is missing", remedy);
            None
        }
        (None, None) => None,
    }
}
