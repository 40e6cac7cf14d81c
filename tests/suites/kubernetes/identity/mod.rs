//! Who gets which identity: `outrider-ca serve --kubernetes` and sidecars as processes, beside a fake API server that
//! enforces the roles which the CA is given.
//!
//! ```text
//!   sidecar ──token file──▶ CA replica ──TokenReview──▶ API server
//!                              └── keys and join tokens in Secrets ──▶ the same
//! ```

mod client;
mod join_tokens;
mod replicas;
mod sidecars;

use std::{fs, net::SocketAddr, path::PathBuf};

use outrider_certs::{TrustBundle, TrustDomain};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    harness::api_server::{Account, ApiServer},
    processes::{
        mesh::{Host, Network},
        process::{Process, program},
        until,
    },
};

/// The trust domain in Kubernetes.
const DOMAIN: &str = "cluster.local";
/// Where the control plane is.
const NAMESPACE: &str = "outrider";
/// What tokens for the CA are for.
pub(in crate::kubernetes) const AUDIENCE: &str = "outrider-ca";

/// An API server, and places for CA replicas and sidecars.
pub(in crate::kubernetes) struct Cluster {
    pub(in crate::kubernetes) api: ApiServer,
    network: Network,
    pub(in crate::kubernetes) folder: TempDir,
    /// The token with which the CA calls the API server.
    ca_token: String,
}

impl Cluster {
    pub(in crate::kubernetes) async fn start() -> Self {
        let api = ApiServer::start().await;
        super::grant(&api);
        let folder = tempfile::Builder::new().prefix("cluster").tempdir().unwrap();
        let ca_token = api.service_account_token(NAMESPACE, "outrider-ca");
        api.kubeconfig(folder.path(), &ca_token);
        Self { api, network: Network::new(), folder, ca_token }
    }

    pub(in crate::kubernetes) fn host(&self, number: u8) -> Host {
        self.network.host(number)
    }

    /// `/usr/bin/env` and what it needs to run `outrider-ca` as the CA in the cluster.
    fn ca_arguments(&self, arguments: &[&str]) -> Vec<String> {
        let kubeconfig = self.folder.path().join("kubeconfig");
        let first =
            [format!("KUBECONFIG={}", kubeconfig.display()), program("outrider-ca").display().to_string()];
        let place = ["--kubernetes", "--namespace", NAMESPACE];
        let rest = arguments[..1].iter().chain(&place).chain(&arguments[1..]).map(|&text| text.to_owned());
        first.into_iter().chain(rest).collect()
    }

    /// Starts a replica of the CA; does not wait for anything.
    fn start_ca(&self, number: u8, extra: &[&str]) -> Ca {
        let (listen, metrics) = (self.host(number).at(4350), self.host(number).at(4351));
        let (listen_text, metrics_text) = (listen.to_string(), metrics.to_string());
        let mut arguments = vec!["serve", "--listen", &listen_text, "--metrics-listen", &metrics_text];
        arguments.extend(["--min-validity", "2s", "--log", "debug"]);
        arguments.extend(extra);
        let name = format!("ca-{number}");
        let arguments = self.ca_arguments(&arguments);
        let process = Process::start(&name, "/usr/bin/env".as_ref(), arguments, self.folder.path());
        Ca { address: listen, process }
    }

    /// Starts a replica and waits until it listens.
    pub(in crate::kubernetes) async fn ca(&self, number: u8, extra: &[&str]) -> Ca {
        self.start_ca(number, extra).listening().await
    }

    /// What `outrider-ca` prints for a command that ends.
    async fn command(&self, arguments: &[&str]) -> String {
        let output = tokio::process::Command::new("/usr/bin/env").args(self.ca_arguments(arguments)).output();
        let output = output.await.unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The bundle that the Secret holds.
    pub(in crate::kubernetes) async fn bundle(&self) -> TrustBundle {
        TrustBundle::from_pem(domain(), self.command(&["bundle"]).await.as_bytes()).unwrap()
    }

    /// Puts a pod there; its sidecar may get tokens.
    fn pod(&self, namespace: &str, account: &str) -> Value {
        let name = format!("{account}-1");
        self.api.put(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
            "spec": {"serviceAccountName": account, "containers": []},
        }))
    }

    /// A token of that pod.
    fn token(&self, namespace: &str, account: &str, audience: &str) -> String {
        let name = format!("{account}-1");
        let pod = self.api.object("pods", namespace, &name).unwrap_or_else(|| self.pod(namespace, account));
        self.api.token(Account::service_account(namespace, account, audience).in_pod(&pod))
    }

    /// The same in a folder of its own.
    pub(in crate::kubernetes) fn write_in(&self, folder: &str, name: &str, text: &str) -> PathBuf {
        fs::create_dir_all(self.folder.path().join(folder)).unwrap();
        self.write(&format!("{folder}/{name}"), text)
    }

    /// Writes a file of the cluster's folder.
    pub(in crate::kubernetes) fn write(&self, name: &str, text: &str) -> PathBuf {
        let place = self.folder.path().join(name);
        outrider_certs::files::write_atomically(&place, text.as_bytes()).unwrap();
        place
    }
}

/// A replica of the CA.
pub(in crate::kubernetes) struct Ca {
    pub(in crate::kubernetes) address: SocketAddr,
    pub(in crate::kubernetes) process: Process,
}

impl Ca {
    async fn listening(mut self) -> Self {
        let address = self.address;
        until("the CA listens", async || {
            assert!(!self.process.has_ended(), "the CA ended while starting");
            tokio::net::TcpStream::connect(address).await.is_ok()
        })
        .await;
        self
    }

    /// Lines of the issuance log so far.
    fn issued(&self) -> Vec<Value> {
        let log = self.process.log();
        log.lines()
            .filter(|line| line.starts_with('{'))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn domain() -> TrustDomain {
    TrustDomain::parse(DOMAIN).unwrap()
}

/// Every log of the cluster's folder.
fn logs(cluster: &Cluster) -> String {
    let mut found = String::new();
    let mut folders = vec![cluster.folder.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log") {
                found.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    found
}
