//! The built program, from its command line to its end.

use std::{fs, net::SocketAddr, path::Path, time::Duration};

use serde_json::json;
use tempfile::TempDir;

use super::{
    cluster::{Cluster, path},
    replica::{get, number, stored},
    sidecar::Sidecar,
};
use crate::{
    harness::{api_server::Account, eventually, soon},
    processes::process::{Process, program},
};

/// A controller as a process of its own.
pub(super) struct Program {
    pub(super) process: Process,
    pub(super) address: SocketAddr,
    pub(super) status: SocketAddr,
    pub(super) folder: TempDir,
}

impl Program {
    /// One that knows the cluster.
    pub(super) async fn start(cluster: &Cluster) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let files = identity_files(cluster, "outrider", "outrider-controller", folder.path());
        let files = ["--certificate", "--key", "--bundle"].into_iter().zip(files);
        let files: Vec<_> = files.map(|(flag, path)| [flag.to_owned(), path]).collect();
        Self::start_in(cluster, folder, "test.outrider", files.concat()).await
    }

    /// One with these flags for its identity, and its files in `folder`.
    async fn start_in(cluster: &Cluster, folder: TempDir, trust_domain: &str, identity: Vec<String>) -> Self {
        let mut arguments = of_cluster(cluster, folder.path(), "outrider-controller");
        let flags = "serve --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 --name one --log-format json";
        arguments.extend(flags.split(' ').map(str::to_owned));
        arguments.extend(["--trust-domain".to_owned(), trust_domain.to_owned()]);
        arguments.extend(identity);
        let process = Process::start("controller", "/usr/bin/env".as_ref(), arguments, folder.path());
        let address = listening(&process, "the controller is listening", "address").await;
        let status = listening(&process, "the controller is listening", "metrics").await;
        soon("it is ready", async {
            while !get(status, "/ready").await.starts_with("HTTP/1.1 200") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        Self { process, address, status, folder }
    }
}

/// Certificate, key and roots of a workload, as files in `folder`.
pub(super) fn identity_files(
    cluster: &Cluster,
    namespace: &str,
    account: &str,
    folder: &Path,
) -> [String; 3] {
    let leaf = cluster.ca.leaf(&path(namespace, account));
    let texts = [leaf.pem(), leaf.key_pem(), cluster.ca.bundle().to_pem()];
    let write = |(end, text): (&str, String)| {
        let place = folder.join(format!("{account}.{end}"));
        fs::write(&place, text).unwrap();
        place.display().to_string()
    };
    let ends = ["svid.pem", "key.pem", "bundle.pem"];
    let mut pairs = ends.into_iter().zip(texts).map(write);
    std::array::from_fn(|_| pairs.next().unwrap())
}

/// `/usr/bin/env` and what it needs to run a program that finds the cluster.
fn of_cluster(cluster: &Cluster, folder: &Path, name: &str) -> Vec<String> {
    let kubeconfig = cluster.server.kubeconfig(folder, cluster.server.admin_token());
    vec![format!("KUBECONFIG={}", kubeconfig.display()), program(name).display().to_string()]
}

/// An address that a process has put into a line of its log.
pub(super) async fn listening(process: &Process, line: &str, field: &str) -> SocketAddr {
    let find = || {
        let log = process.log();
        let line = log.lines().find(|found| found.contains(line))?;
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        // The sidecar's lines are flat.
        line["fields"][field].as_str().or_else(|| line[field].as_str())?.parse().ok()
    };
    eventually(line, || find().is_some()).await;
    find().unwrap()
}

#[tokio::test]
async fn the_program_serves_and_stops_when_it_is_told() {
    let cluster = Cluster::with_orders().await;
    let mut program = Program::start(&cluster).await;
    let mut sidecar = Sidecar::connect(&cluster, program.address).await;
    assert_eq!(sidecar.ask("orders:80").await.unwrap().endpoints.len(), 2);
    program.process.terminate();
    assert_eq!(sidecar.ended().await.code(), tonic::Code::Unavailable);
    assert!(program.process.exited(Duration::from_secs(60)).await.success());
}

#[tokio::test]
async fn its_certificate_comes_from_the_ca_by_its_service_account() {
    let cluster = Cluster::with_orders().await;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let ca = |flags: &str| {
        let arguments = of_cluster(&cluster, folder.path(), "outrider-ca").into_iter();
        arguments.chain(flags.split(' ').map(str::to_owned)).collect::<Vec<_>>()
    };
    let place = "--kubernetes --namespace outrider";
    let serve = format!("serve {place} --listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 --log-format json");
    let process = Process::start("ca", "/usr/bin/env".as_ref(), ca(&serve), folder.path());
    let address = listening(&process, "the CA is listening", "address").await;
    let printed = tokio::process::Command::new("/usr/bin/env").args(ca(&format!("bundle {place}"))).output();
    let roots = String::from_utf8(printed.await.unwrap().stdout).unwrap();
    fs::write(at("roots.pem"), &roots).unwrap();
    let pod = cluster.server.put(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "outrider", "name": "controller-1"},
        "spec": {"serviceAccountName": "outrider-controller", "containers": []},
    }));
    let account = Account::service_account("outrider", "outrider-controller", "outrider-ca").in_pod(&pod);
    fs::write(at("token"), cluster.server.token(account)).unwrap();
    let identity =
        format!("--ca-address {address} --token-file {} --bundle {}", at("token"), at("roots.pem"));
    let identity = identity.split(' ').map(str::to_owned).collect();
    let program = Program::start_in(&cluster, folder, "cluster.local", identity).await;
    let text = get(program.status, "/metrics").await;
    assert!(number(&text, "outrider_controller_identity_not_after_timestamp_seconds") > 0.0);
    let map = ("configmaps", "shop", "outrider-trust-bundle");
    stored(&cluster, "the CA's root is told", map, |map| map["data"]["bundle.pem"] == *roots).await;
}
