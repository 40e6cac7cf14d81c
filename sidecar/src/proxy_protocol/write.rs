//! What the own app is told of who calls.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use outrider_certs::SpiffeId;

use super::SIGNATURE;
use crate::model::proxy_protocol::{Link, Version};

/// The TLV with the caller's SPIFFE ID, as text: the first of those that applications may use as they like (§2.2.8,
/// `PP2_TYPE_MIN_CUSTOM`). A certificate's common name, which has a type of its own, is something else.
pub const SPIFFE_ID_TLV: u8 = 0xe0;
/// `PP2_TYPE_SSL`: that there is TLS, and what of it (§2.2.6).
const SSL_TLV: u8 = 0x20;
/// `PP2_SUBTYPE_SSL_VERSION`.
const SSL_VERSION_TLV: u8 = 0x21;
/// `PP2_CLIENT_SSL`, `PP2_CLIENT_CERT_CONN`, `PP2_CLIENT_CERT_SESS`: over TLS, with a certificate on this very connection.
const CLIENT: u8 = 0x01 | 0x02 | 0x04;
/// As OpenSSL's `SSL_get_version`, which HAProxy sends. There is no other in the mesh.
const TLS_VERSION: &[u8] = b"TLSv1.3";

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub enum Caller<'a> {
    /// A verified peer.
    Verified(&'a SpiffeId),
    /// Somebody who proved nothing.
    Unverified,
}

/// The header that tells of a connection of `caller`.
#[must_use]
pub fn header(version: Version, link: Link, caller: Caller<'_>) -> Vec<u8> {
    match version {
        Version::V1 => line(link),
        Version::V2 => binary(link, caller),
    }
}

/// Both addresses in one family: where they are of two, in IPv6's (as HAProxy).
enum Family {
    V4([[u8; 4]; 2]),
    V6([Ipv6Addr; 2]),
}

impl Family {
    fn of(link: Link) -> Self {
        match [link.source, link.destination].map(|end| end.ip().to_canonical()) {
            [IpAddr::V4(source), IpAddr::V4(destination)] => {
                Self::V4([source.octets(), destination.octets()])
            }
            ends => Self::V6(ends.map(|end| match end {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            })),
        }
    }
}

fn line(link: Link) -> Vec<u8> {
    let ports = [link.source, link.destination].map(|end| end.port());
    let [source_port, destination_port] = ports;
    let text = match Family::of(link) {
        Family::V4(ends) => {
            let [source, destination] = ends.map(IpAddr::from);
            format!("PROXY TCP4 {source} {destination} {source_port} {destination_port}\r\n")
        }
        Family::V6([source, destination]) => {
            format!("PROXY TCP6 {source} {destination} {source_port} {destination_port}\r\n")
        }
    };
    text.into_bytes()
}

fn binary(link: Link, caller: Caller<'_>) -> Vec<u8> {
    let mut payload = Vec::new();
    let family = match Family::of(link) {
        Family::V4(ends) => {
            ends.iter().for_each(|end| payload.extend_from_slice(end));
            0x11
        }
        Family::V6(ends) => {
            ends.iter().for_each(|end| payload.extend_from_slice(&end.octets()));
            0x21
        }
    };
    for end in [link.source, link.destination] {
        payload.extend_from_slice(&SocketAddr::port(&end).to_be_bytes());
    }
    if let Caller::Verified(id) = caller {
        let mut ssl = vec![CLIENT];
        // The certificate was verified.
        ssl.extend_from_slice(&0_u32.to_be_bytes());
        tlv(&mut ssl, SSL_VERSION_TLV, TLS_VERSION);
        tlv(&mut payload, SSL_TLV, &ssl);
        tlv(&mut payload, SPIFFE_ID_TLV, id.as_str().as_bytes());
    }
    let mut header = SIGNATURE.to_vec();
    header.extend_from_slice(&[0x21, family]);
    header.extend_from_slice(&length(&payload).to_be_bytes());
    header.extend_from_slice(&payload);
    header
}

fn tlv(to: &mut Vec<u8>, kind: u8, value: &[u8]) {
    to.push(kind);
    to.extend_from_slice(&length(value).to_be_bytes());
    to.extend_from_slice(value);
}

/// Of bytes that are far fewer than would fit: the longest are a SPIFFE ID, of 2048 (SPIFFE-ID §2.3).
fn length(bytes: &[u8]) -> u16 {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX)
}
