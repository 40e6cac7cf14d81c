//! Ethernet, IPv4, IPv6 and TCP headers, as far as it takes to find a segment's payload (RFC 791, RFC 8200, RFC 9293).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `EtherType`s.
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86DD;
/// Protocol number.
const TCP: u8 = 6;
/// TCP's flag SYN.
const SYN: u8 = 0x02;

/// A TCP segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Segment<'a> {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    /// Number of the first byte of the payload.
    pub(super) sequence: u32,
    /// Whether the stream starts behind it.
    pub(super) is_first: bool,
    pub(super) payload: &'a [u8],
}

/// The TCP segment in a frame; `None` for everything else, fragments and extension headers included: in namespaces that
/// this is for there are none.
pub(super) fn segment(frame: &[u8]) -> Option<Segment<'_>> {
    let (header, packet) = frame.split_at_checked(14)?;
    let (from, to, tcp) = match number(header, 12)? {
        IPV4 => ipv4(packet)?,
        IPV6 => ipv6(packet)?,
        _ => return None,
    };
    let header_bytes = usize::from(*tcp.get(12)? >> 4) * 4;
    let is_first = *tcp.get(13)? & SYN != 0;
    let sequence = u32::from_be_bytes(tcp.get(4..8)?.try_into().ok()?);
    Some(Segment {
        from: SocketAddr::new(from, number(tcp, 0)?),
        to: SocketAddr::new(to, number(tcp, 2)?),
        sequence: if is_first { sequence.wrapping_add(1) } else { sequence },
        is_first,
        payload: tcp.get(header_bytes..)?,
    })
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Addresses and what is inside, without what Ethernet pads short packets with.
fn ipv4(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    let header_bytes = usize::from(*packet.first()? & 0x0F) * 4;
    let is_fragment = number(packet, 6)? & 0x3FFF != 0;
    if *packet.get(9)? != TCP || is_fragment {
        return None;
    }
    let address = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; 4] = packet.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(bytes).into())
    };
    Some((address(12)?, address(16)?, packet.get(header_bytes..usize::from(number(packet, 2)?))?))
}

fn ipv6(packet: &[u8]) -> Option<(IpAddr, IpAddr, &[u8])> {
    if *packet.get(6)? != TCP {
        return None;
    }
    let address = |at: usize| -> Option<IpAddr> {
        let bytes: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(bytes).into())
    };
    Some((address(8)?, address(24)?, packet.get(40..40 + usize::from(number(packet, 4)?))?))
}
