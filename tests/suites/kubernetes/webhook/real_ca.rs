//! The built programs together: a webhook whose certificate is from the CA, by its pod's token.

use kube::{
    Api,
    api::{DynamicObject, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use outrider_injector::{check, installation::NAMESPACE};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    CONFIGURATIONS, Caller, NAME, SERVER_NAME, allow_injector, ca_bundle, configuration, get, pod, review,
};
use crate::{
    harness::api_server::{Account, ApiServer},
    processes::{
        mesh::Network,
        process::{Process, program},
        run, until,
    },
};

/// The CA's and the injector's places in a folder.
struct Cluster {
    api: ApiServer,
    network: Network,
    folder: TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let api = ApiServer::start().await;
        api.put(configuration());
        api.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}));
        Self { api, network: Network::new(), folder: tempfile::tempdir().unwrap() }
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        outrider_certs::files::write_atomically(&path, text.as_bytes()).unwrap();
        path.display().to_string()
    }

    /// A program with a kubeconfig of that token.
    fn run(&self, name: &str, program_name: &str, token: &str, arguments: &[&str]) -> Process {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let kubeconfig = self.api.kubeconfig(&folder, token).display().to_string();
        let first = [format!("KUBECONFIG={kubeconfig}"), program(program_name).display().to_string()];
        let all = first.into_iter().chain(arguments.iter().map(|&text| text.to_owned()));
        Process::start(name, "/usr/bin/env".as_ref(), all, &folder)
    }

    /// A replica of the CA that certifies the webhook's name.
    fn ca(&self) -> Process {
        let listen = self.network.host(1).at(4350).to_string();
        let metrics = self.network.host(1).at(4351).to_string();
        let name = format!("spiffe://cluster.local/ns/outrider/sa/outrider-injector={SERVER_NAME}");
        let arguments = [
            "serve",
            "--kubernetes",
            "--namespace",
            NAMESPACE,
            "--listen",
            &listen,
            "--metrics-listen",
            &metrics,
            "--min-validity",
            "2s",
            "--dns-name",
            &name,
        ];
        self.run("ca", "outrider-ca", self.api.admin_token(), &arguments)
    }

    /// The token of an injector's pod.
    fn ca_token(&self, pod: &str) -> String {
        let pod = self.api.put(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "namespace": NAMESPACE},
            "spec": {"serviceAccountName": NAME, "containers": []},
        }));
        self.api.token(Account::service_account(NAMESPACE, NAME, "outrider-ca").in_pod(&pod))
    }

    /// A replica of the webhook, with certificates that do not last.
    fn injector(&self, number: u8) -> Injector {
        let host = self.network.host(10 + number);
        let (address, status) = (host.at(4380), host.at(4391));
        let token =
            self.write(&format!("injector-{number}/token"), &self.ca_token(&format!("injector-{number}")));
        let roots = self.folder.path().join("bundle.pem").display().to_string();
        let (ca, listen, metrics) =
            (self.network.host(1).at(4350).to_string(), address.to_string(), status.to_string());
        let process = self.run(
            &format!("injector-{number}"),
            "outrider-injector",
            &allow_injector(&self.api),
            &[
                "serve",
                "--listen",
                &listen,
                "--metrics-listen",
                &metrics,
                "--ca-address",
                &ca,
                "--ca-token",
                &token,
                "--trust-bundle",
                &roots,
                "--validity",
                "10s",
            ],
        );
        Injector { address, status, process }
    }
}

/// A running replica.
struct Injector {
    address: std::net::SocketAddr,
    status: std::net::SocketAddr,
    process: Process,
}

impl Injector {
    async fn ready(mut self) -> Self {
        let status = self.status;
        until("the webhook is ready", async || {
            assert!(!self.process.has_ended(), "it ended: {}", self.process.log());
            get(status, "/ready").await.0 == 200
        })
        .await;
        self
    }

    /// When its certificate runs out, in seconds since 1970.
    async fn not_after(&self) -> f64 {
        let (_, text) = get(self.status, "/metrics").await;
        let line =
            text.lines().find(|line| line.starts_with("outrider_injector_certificate_not_after_seconds "));
        line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or(0.0)
    }
}

/// Puts the CA's roots where the trust bundle is mounted.
async fn publish(cluster: &Cluster) {
    let kubeconfig = cluster.api.kubeconfig(cluster.folder.path(), cluster.api.admin_token());
    until("the CA has its keys", async || {
        let output = tokio::process::Command::new(program("outrider-ca"))
            .env("KUBECONFIG", &kubeconfig)
            .args(["bundle", "--kubernetes", "--namespace", NAMESPACE])
            .output()
            .await
            .unwrap();
        let bundle = String::from_utf8_lossy(&output.stdout).into_owned();
        let is_there = output.status.success() && bundle.contains("CERTIFICATE");
        if is_there {
            cluster.write("bundle.pem", &bundle);
        }
        is_there
    })
    .await;
}

#[test]
fn two_replicas_serve_with_certificates_of_the_ca_and_renew_them_under_way() {
    run(Box::pin(async {
        let cluster = Cluster::start().await;
        let _ca = cluster.ca();
        publish(&cluster).await;
        let one = cluster.injector(1).ready().await;
        let other = cluster.injector(2).ready().await;
        let found: Value = cluster.api.object(CONFIGURATIONS, "", NAME).unwrap();
        assert!(found["metadata"]["annotations"]["outrider.io/ca-bundle-sequence"].is_string(), "{found}");
        let (before, mut asked) = (one.not_after().await, 0);
        assert!(before > 0.0);
        until("the certificate was renewed", async || {
            for injector in [&one, &other] {
                let caller = Caller::new(injector.address, &ca_bundle(&cluster.api).unwrap());
                assert_eq!(caller.ask(&review(&pod())).await["allowed"], true);
                asked += 1;
            }
            one.not_after().await > before && other.not_after().await > before
        })
        .await;
        assert!(asked > 2);
    }));
}

/// What the API server makes of a pod with these labels.
async fn created(
    cluster: &Cluster,
    namespace: &str,
    labels: Value,
    spec: Value,
) -> Result<Value, kube::Error> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod"));
    let pods: Api<DynamicObject> = Api::namespaced_with(cluster.api.client().await, namespace, &kind);
    let object = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "pod-", "labels": labels}, "spec": spec,
    });
    let created = pods.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await?;
    Ok(serde_json::to_value(created).unwrap())
}

#[test]
fn with_the_manifests_applied_pods_get_a_sidecar_where_labels_say_so() {
    run(Box::pin(async {
        let cluster = Cluster::start().await;
        let _ca = cluster.ca();
        publish(&cluster).await;
        let injector = cluster.injector(1).ready().await;
        cluster.api.route_service(NAMESPACE, NAME, injector.address);
        // Webhooks, rights and namespace as they are installed; the roots are written once more.
        for object in super::super::manifests() {
            cluster.api.put(object);
        }
        until("the webhook has its roots", async || ca_bundle(&cluster.api).is_some()).await;
        for (name, labels) in [("shop", json!({"outrider.io/inject": "enabled"})), ("bank", json!({}))] {
            cluster.api.put(
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}),
            );
        }
        let app = json!({"containers": [{"name": "app", "image": "app"}]});
        for (namespace, labels, has_sidecar) in [
            ("shop", json!({}), true),
            ("shop", json!({"outrider.io/inject": "disabled"}), false),
            ("bank", json!({}), false),
            ("bank", json!({"outrider.io/inject": "enabled"}), true),
            ("shop", json!({"outrider.io/control-plane": "ca"}), true),
            (NAMESPACE, json!({"outrider.io/inject": "enabled"}), false),
        ] {
            let pod = created(&cluster, namespace, labels.clone(), app.clone()).await.unwrap();
            let inits = pod["spec"]["initContainers"].as_array().cloned().unwrap_or_default();
            let names: Vec<_> = inits.iter().map(|init| init["name"].as_str().unwrap()).collect();
            let expected = if has_sidecar { vec!["outrider-init", "outrider"] } else { vec![] };
            assert_eq!(names, expected, "{namespace} {labels}");
        }
        for namespace in ["shop", "bank"] {
            let label = json!({"outrider.io/inject": "true"});
            let refused = created(&cluster, namespace, label, app.clone()).await.unwrap_err().to_string();
            assert!(refused.contains("allowed: enabled, disabled"), "{namespace}: {refused}");
        }
        let mut on_the_host = app.clone();
        on_the_host["hostNetwork"] = true.into();
        let refused = created(&cluster, "shop", json!({}), on_the_host).await.unwrap_err().to_string();
        assert!(refused.contains("denied the request") && refused.contains("hostNetwork"), "{refused}");
        // And `check` sees that it works, by a pod on trial.
        let facts = check::gather(&cluster.api.client().await, NAMESPACE, std::time::SystemTime::now()).await;
        assert_eq!(facts.trial, Some(check::Trial::Injected));
    }));
}

#[test]
fn without_the_ca_it_is_not_ready_and_begins_when_there_is_one() {
    run(Box::pin(async {
        let cluster = Cluster::start().await;
        cluster.write("bundle.pem", "");
        let injector = cluster.injector(1);
        until("it answers", async || get(injector.status, "/live").await.0 == 200).await;
        let (status, text) = get(injector.status, "/ready").await;
        assert!(status == 503 && text.contains("certificate"), "{text}");
        let _ca = cluster.ca();
        publish(&cluster).await;
        let injector = injector.ready().await;
        let caller = Caller::new(injector.address, &ca_bundle(&cluster.api).unwrap());
        assert_eq!(caller.ask(&review(&pod())).await["allowed"], true);
    }));
}
