//! Loopback addresses for a mesh on one machine.
//!
//! Every host of it has its own address, as it would have on a network, so that each sidecar can use the same fixed
//! ports. Linux answers on all of 127.0.0.0/8, so no interface has to be set up.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener},
};

use anyhow::Context;

/// Networks tried before giving up.
const ATTEMPTS: u32 = 24;
/// Added to every port in the second and third round, for machines where something holds a port on all addresses.
const PORT_OFFSETS: [u16; 3] = [0, 10_000, 20_000];

/// 127.x.y.0/24, and what is added to every port.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// x and y.
    pub place: (u8, u8),
    /// Added to every port.
    pub port_offset: u16,
}

impl Network {
    /// An address of one of its hosts.
    #[must_use]
    pub fn address(self, host: u8, port: u16) -> SocketAddr {
        let (x, y) = self.place;
        SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(127, x, y, host), port + self.port_offset))
    }

    /// A network where everything that is `needed` can be bound, by trying. Someone else may take an address right
    /// after, so networks are tried in random order: two meshes started at once don't meet.
    ///
    /// # Errors
    /// If none was found, with what stood in the way.
    pub fn free(needed: impl Fn(Self) -> Vec<SocketAddr>) -> anyhow::Result<Self> {
        let mut last = None;
        for port_offset in PORT_OFFSETS {
            for _ in 0..ATTEMPTS / 3 {
                let network = Self { place: (fastrand::u8(16..=250), fastrand::u8(..)), port_offset };
                let taken =
                    needed(network).into_iter().find_map(|address| Some((address, bind(address).err()?)));
                match taken {
                    None => return Ok(network),
                    Some(taken) => last = Some(taken),
                }
            }
        }
        let (address, error) = last.context("no network was tried")?;
        Err(error).with_context(|| {
            format!(
                "found no free loopback addresses: tried {ATTEMPTS} networks, in the last one {address} can't be bound"
            )
        })
    }
}

fn bind(address: SocketAddr) -> io::Result<()> {
    TcpListener::bind(address).map(drop)
}
