//! Who runs where: the hosts of the mesh, each on a loopback address of its own.
//!
//! Every host has its own address, as it would have on a network, so that each sidecar can use the same fixed ports.
//! Linux answers on all of 127.0.0.0/8, so no interface has to be set up; the /24 used is one where every address
//! needed is free.

use std::{
    fmt, io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

/// The trust domain of the mesh.
pub const TRUST_DOMAIN: &str = "demo.outrider";
/// Longest path of an admin socket: what Unix sockets take without the final zero byte (unix(7)), less the process ID
/// that a sidecar appends before it takes the path over from another.
const MAX_SOCKET_PATH: usize = 107 - ".4194304".len();
/// Networks tried before giving up.
const ATTEMPTS: u32 = 24;
/// Added to every port in the second and third round, for machines where something holds a port on all addresses.
const PORT_OFFSETS: [u16; 3] = [0, 10_000, 20_000];

/// The whole set-up.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The run's folder: configuration, keys, sockets, logs.
    pub dir: PathBuf,
    /// Where the CA listens.
    pub ca: SocketAddr,
    /// Its metrics and health.
    pub ca_metrics: SocketAddr,
    /// `web`, `orders` and the replicas of `inventory`, callers first.
    pub workloads: Vec<Workload>,
}

/// One replica of a service with its sidecar: a host.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Name of the replica, unique: `inventory-2`; of its folder and its logs too.
    pub name: String,
    /// Its service.
    pub service: Service,
    /// Where the service itself listens, in plaintext, for its own sidecar.
    pub app: SocketAddr,
    /// Where the sidecar takes the service's calls.
    pub outbound: SocketAddr,
    /// Where the sidecar takes mutual TLS from peers.
    pub inbound: SocketAddr,
    /// Where the sidecar tells its health and metrics.
    pub health: SocketAddr,
    /// Its folder: configuration, state, admin socket.
    pub dir: PathBuf,
}

/// The services, in the order in which a request passes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Called from outside the mesh.
    Web,
    /// Called by `web`.
    Orders,
    /// Called by `orders`; three replicas.
    Inventory,
}

impl Service {
    /// Its name, which is also its cluster's and the path of its SPIFFE ID.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Web => "web",
            Self::Orders => "orders",
            Self::Inventory => "inventory",
        }
    }

    /// The service it calls.
    #[must_use]
    pub fn calls(self) -> Option<Self> {
        match self {
            Self::Web => Some(Self::Orders),
            Self::Orders => Some(Self::Inventory),
            Self::Inventory => None,
        }
    }

    /// The service that calls it through the mesh.
    #[must_use]
    pub fn called_by(self) -> Option<Self> {
        match self {
            Self::Web => None,
            Self::Orders => Some(Self::Web),
            Self::Inventory => Some(Self::Orders),
        }
    }

    /// The SPIFFE ID of each of its replicas.
    #[must_use]
    pub fn spiffe_id(self) -> String {
        format!("spiffe://{TRUST_DOMAIN}/{self}")
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Workload {
    /// The sidecar's configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("outrider.yaml")
    }

    /// The sidecar's admin socket.
    #[must_use]
    pub fn admin(&self) -> PathBuf {
        self.dir.join("admin.sock")
    }
}

impl Plan {
    /// Chooses free addresses and names everything that will live in `dir`, an absolute path.
    ///
    /// # Errors
    /// If no network has all addresses free, or `dir` is too long for Unix sockets in it.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        let (network, offset) = free_network()?;
        let plan = Self::at(dir, network, offset);
        for workload in &plan.workloads {
            let length = workload.admin().as_os_str().len();
            if length > MAX_SOCKET_PATH {
                bail!(
                    "{} is too long for an admin socket ({length} bytes, {MAX_SOCKET_PATH} fit); give a shorter --dir",
                    workload.admin().display()
                );
            }
        }
        Ok(plan)
    }

    fn at(dir: &Path, network: Network, offset: u16) -> Self {
        let at = |host, port: u16| network.address(host, port + offset);
        let workload = |name: &str, service, host| Workload {
            name: name.to_owned(),
            service,
            app: at(host, 8080),
            outbound: at(host, 4340),
            inbound: at(host, 4343),
            health: at(host, 4391),
            dir: dir.join(name),
        };
        Self {
            dir: dir.to_owned(),
            ca: at(1, 4350),
            ca_metrics: at(1, 4391),
            workloads: vec![
                workload("web", Service::Web, 10),
                workload("orders", Service::Orders, 20),
                workload("inventory-1", Service::Inventory, 31),
                workload("inventory-2", Service::Inventory, 32),
                workload("inventory-3", Service::Inventory, 33),
            ],
        }
    }

    /// The replicas of a service.
    pub fn replicas(&self, service: Service) -> impl Iterator<Item = &Workload> {
        self.workloads.iter().filter(move |workload| workload.service == service)
    }

    /// The only or first replica of a service.
    ///
    /// # Panics
    /// Never: every service has a replica.
    #[must_use]
    pub fn first(&self, service: Service) -> &Workload {
        self.replicas(service).next().expect("every service has a replica")
    }

    fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        let of_workloads =
            self.workloads.iter().flat_map(|host| [host.app, host.outbound, host.inbound, host.health]);
        [self.ca, self.ca_metrics].into_iter().chain(of_workloads)
    }
}

/// 127.x.y.0/24.
#[derive(Clone, Copy, Debug)]
struct Network(u8, u8);

impl Network {
    fn address(self, host: u8, port: u16) -> SocketAddr {
        SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(127, self.0, self.1, host), port))
    }
}

/// A network where everything can be bound, by trying. Someone else may take an address right after, so networks are
/// tried in random order: two demos started at once don't meet.
fn free_network() -> anyhow::Result<(Network, u16)> {
    let mut last = None;
    for offset in PORT_OFFSETS {
        for _ in 0..ATTEMPTS / 3 {
            let network = Network(fastrand::u8(16..=250), fastrand::u8(..));
            let taken = Plan::at(Path::new("/"), network, offset)
                .addresses()
                .find_map(|address| Some((address, bind(address).err()?)));
            match taken {
                None => return Ok((network, offset)),
                Some(taken) => last = Some(taken),
            }
        }
    }
    let (address, error) = last.context("no network was tried")?;
    Err(error).with_context(|| {
        format!("found no free loopback addresses: tried {ATTEMPTS} networks, in the last one {address} can't be bound")
    })
}

fn bind(address: SocketAddr) -> io::Result<()> {
    TcpListener::bind(address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_listeners_share_an_address() {
        let plan = Plan::at(Path::new("/run"), Network(16, 0), 0);
        let mut addresses: Vec<_> = plan.addresses().collect();
        let all = addresses.len();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), all);
    }

    #[test]
    fn a_folder_too_long_for_sockets_is_refused() {
        let long = PathBuf::from(format!("/{}", "d".repeat(120)));
        let error = Plan::new(&long).expect_err("too long");
        assert!(error.to_string().contains("shorter --dir"), "{error}");
    }
}
