//! Who runs where: one caller, three replicas, and a CA; the same for every proxy.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::network::Network;

/// The trust domain.
pub const TRUST_DOMAIN: &str = "chaos.outrider";
/// The service that is called, and its cluster.
pub const CALLED: &str = "orders";
/// The service that calls.
pub const CALLER: &str = "web";
/// Replicas of it. Half of three is one: an ejection bound of 50 % allows one to be out.
pub const REPLICAS: u8 = 3;

/// The whole set-up.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Folder of the run.
    pub dir: PathBuf,
    /// Where the CA listens.
    pub ca: SocketAddr,
    /// Its metrics and health.
    pub ca_metrics: SocketAddr,
    /// First of the numbers that tell this run's Envoys from others on the machine.
    pub envoy_base_id: u32,
    /// Where the calls come from.
    pub caller: Host,
    /// Those who are called.
    pub replicas: Vec<Host>,
}

/// One host: a sidecar, and an app beside it unless it is the caller's.
#[derive(Clone, Debug)]
pub struct Host {
    /// `web`, `orders-1`.
    pub name: String,
    /// Its service.
    pub service: &'static str,
    /// Unique among the hosts.
    pub number: u8,
    /// Where the app listens.
    pub app: SocketAddr,
    /// Where the sidecar takes the own app's calls.
    pub outbound: SocketAddr,
    /// Where the sidecar takes mutual TLS from peers.
    pub inbound: SocketAddr,
    /// Where the sidecar tells its health: `/ready`.
    pub health: SocketAddr,
    /// The app's folder.
    pub dir: PathBuf,
}

impl Plan {
    /// In a network namespace of its own every address is free; elsewhere some are looked for.
    ///
    /// # Errors
    /// If nothing is free.
    pub fn new(dir: &Path, is_alone: bool) -> anyhow::Result<Self> {
        let network = match is_alone {
            true => Network { place: (64, 0), port_offset: 0 },
            false => Network::free(|network| Self::at(dir, network).addresses())?,
        };
        Ok(Self::at(dir, network))
    }

    fn at(dir: &Path, network: Network) -> Self {
        let host = |name: &str, service, number| Host {
            name: name.to_owned(),
            service,
            number,
            app: network.address(number, 8080),
            outbound: network.address(number, 4340),
            inbound: network.address(number, 4343),
            health: network.address(number, 4391),
            dir: dir.join(name),
        };
        let replicas = (1..=REPLICAS).map(|number| host(&format!("{CALLED}-{number}"), CALLED, 20 + number));
        Self {
            dir: dir.to_owned(),
            ca: network.address(1, 4350),
            ca_metrics: network.address(1, 4391),
            envoy_base_id: fastrand::u32(1_000..400_000),
            caller: host(CALLER, CALLER, 10),
            replicas: replicas.collect(),
        }
    }

    /// Everybody with a sidecar.
    pub fn hosts(&self) -> impl Iterator<Item = &Host> {
        std::iter::once(&self.caller).chain(&self.replicas)
    }

    /// Logs of all processes.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The CA's state.
    #[must_use]
    pub fn ca_state(&self) -> PathBuf {
        self.dir.join("ca")
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        let of_hosts = self.hosts().flat_map(|host| [host.app, host.outbound, host.inbound, host.health]);
        [self.ca, self.ca_metrics].into_iter().chain(of_hosts).collect()
    }
}

/// The SPIFFE ID of a service.
#[must_use]
pub fn spiffe_id(service: &str) -> String {
    format!("spiffe://{TRUST_DOMAIN}/{service}")
}
