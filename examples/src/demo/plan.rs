//! Who runs where: the hosts of the mesh, each on a loopback address of its own.

use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use super::traces::{Protocol, Target};
use crate::network::Network;

/// The trust domain of the mesh.
pub const TRUST_DOMAIN: &str = "demo.outrider";
/// Longest path of an admin socket: what Unix sockets take without the final zero byte (unix(7)), less the process ID
/// that a sidecar appends before it takes the path over from another.
pub const MAX_SOCKET_PATH: usize = 107 - ".4194304".len();
/// The whole set-up.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The run's folder: configuration, keys, sockets, logs.
    pub dir: PathBuf,
    /// Where the CA listens.
    pub ca: SocketAddr,
    /// Its metrics and health.
    pub ca_metrics: SocketAddr,
    /// Where the demo's own receiver of traces listens, if the sidecars are to send them there.
    pub receiver: SocketAddr,
    /// Where the sidecars send their traces.
    pub traces: Target,
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
    /// Chooses free addresses and names everything that will live in `dir`, an absolute path. Traces go to the demo's own
    /// receiver.
    ///
    /// # Errors
    /// If no network has all addresses free, or `dir` is too long for Unix sockets in it.
    pub fn new(dir: &Path) -> anyhow::Result<Self> {
        let network = Network::free(|network| Self::at(dir, network).addresses().collect())?;
        let plan = Self::at(dir, network);
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

    fn at(dir: &Path, network: Network) -> Self {
        let at = |host, port| network.address(host, port);
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
            receiver: at(2, 4317),
            traces: Target { endpoint: format!("http://{}", at(2, 4317)), protocol: Protocol::Grpc },
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

    /// The replica of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn named(&self, name: &str) -> anyhow::Result<&Workload> {
        let found = self.workloads.iter().find(|workload| workload.name == name);
        found.with_context(|| format!("there is no {name}"))
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
        [self.ca, self.ca_metrics, self.receiver].into_iter().chain(of_workloads)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_listeners_share_an_address() {
        let plan = Plan::at(Path::new("/run"), Network { place: (16, 0), port_offset: 0 });
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
