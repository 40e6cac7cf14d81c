//! The webhook as the API server calls it: over TLS, by the `caBundle` of its configuration and the name of its Service.
//!
//! ```text
//!   Caller ──TLS, AdmissionReview──▶ webhook (in this process) ──▶ fake API server: caBundle, events, version
//! ```

mod bounds;
pub(super) mod caller;
mod certificates;
mod real_ca;
mod registration;
mod reviews;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use outrider::clock::Clock;
use outrider_injector::{
    installation::{Installation, NAMESPACE, REGISTRY, TRUST_DOMAIN},
    webhook::{self, Error, Limits, Listeners, Options, Origin, Registration},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use self::caller::{Caller, get};
use crate::harness::{TestCa, TestLeaf, api_server::ApiServer, soon};

/// Name of the Service, and of its configuration.
const NAME: &str = "outrider-injector";
/// What the API server calls it.
const SERVER_NAME: &str = "outrider-injector.outrider.svc";
/// The resource of configurations.
const CONFIGURATIONS: &str = "admissionregistration.k8s.io/mutatingwebhookconfigurations";

/// A configuration whose `caBundle` is empty.
fn configuration() -> Value {
    let webhook = |name: &str| {
        json!({
            "name": format!("{name}.outrider.io"), "admissionReviewVersions": ["v1"], "sideEffects": "NoneOnDryRun",
            "failurePolicy": "Fail", "reinvocationPolicy": "IfNeeded", "timeoutSeconds": 10,
            "clientConfig": {"service": {"name": NAME, "namespace": NAMESPACE, "path": "/inject", "port": 443}},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
        })
    };
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": NAME}, "webhooks": [webhook("namespaces"), webhook("pods")],
    })
}

/// What the injector may do, and nothing else.
fn allow_injector(api: &ApiServer) -> String {
    let rbac = "rbac.authorization.k8s.io/v1";
    api.put(json!({
        "apiVersion": rbac, "kind": "ClusterRole", "metadata": {"name": NAME},
        "rules": [
            {
                "apiGroups": ["admissionregistration.k8s.io"], "resources": ["mutatingwebhookconfigurations"],
                "resourceNames": [NAME], "verbs": ["get", "list", "watch", "patch"],
            },
            {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
        ],
    }));
    api.put(json!({
        "apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": {"name": NAME},
        "roleRef": {"kind": "ClusterRole", "name": NAME},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}],
    }));
    api.service_account_token(NAMESPACE, NAME)
}

/// PEM files that a webhook serves with.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new(ca: &TestCa) -> Self {
        let files = Self { folder: tempfile::tempdir().unwrap() };
        files.write(&ca.web_leaf(SERVER_NAME), &[ca]);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, leaf: &TestLeaf, roots: &[&TestCa]) {
        self.write_roots(roots);
        self.put("tls.key", &leaf.key_pem());
        self.put("tls.crt", &leaf.pem());
    }

    fn write_roots(&self, roots: &[&TestCa]) {
        let roots: String = roots.iter().map(|ca| outrider_certs::pem::certificate(&ca.root())).collect();
        self.put("ca.crt", &roots);
    }

    fn put(&self, name: &str, text: &str) {
        outrider_certs::files::write_atomically(&self.path(name), text.as_bytes()).unwrap();
    }

    fn origin(&self) -> Origin {
        Origin::Files {
            certificate: self.path("tls.crt"),
            key: self.path("tls.key"),
            roots: self.path("ca.crt"),
        }
    }
}

/// A running webhook; ends when it is dropped.
struct Webhook {
    address: SocketAddr,
    status: SocketAddr,
    stop: CancellationToken,
    running: JoinHandle<Result<(), Error>>,
}

impl Drop for Webhook {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Webhook {
    async fn start(api: &ApiServer, files: &Files, limits: Limits) -> Self {
        let token = allow_injector(api);
        let listen = async || TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listeners = Listeners { reviews: listen().await, status: listen().await };
        let (address, status) =
            (listeners.reviews.local_addr().unwrap(), listeners.status.local_addr().unwrap());
        let options = Options {
            installation: Installation::new(NAMESPACE, TRUST_DOMAIN.parse().unwrap(), REGISTRY),
            client: api.client_as(&token).await,
            origin: files.origin(),
            server_name: SERVER_NAME.try_into().unwrap(),
            registration: Some(Registration {
                configuration: NAME.to_owned(),
                service: NAME.to_owned(),
                namespace: NAMESPACE.to_owned(),
            }),
            instance: Some("outrider-injector-1".to_owned()),
            limits,
        };
        let stop = CancellationToken::new();
        let running =
            tokio::spawn(Box::pin(webhook::serve(options, listeners, Clock::system(), stop.clone())));
        Self { address, status, stop, running }
    }

    /// What `/ready` says: status and text.
    async fn ready(&self) -> (u16, String) {
        get(self.status, "/ready").await
    }

    async fn until_ready(&self) {
        let ready = async {
            while self.ready().await.0 != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        soon("the webhook is ready", ready).await;
    }

    /// A number of its metrics.
    async fn metric(&self, name: &str) -> f64 {
        let (_, text) = get(self.status, "/metrics").await;
        let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(found, _)| found == name));
        line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or(0.0)
    }

    /// Calls as the API server does by the configuration as it is now.
    fn caller(&self, api: &ApiServer) -> Caller {
        Caller::new(self.address, &ca_bundle(api).unwrap())
    }
}

/// An API server with the configuration, a CA of files, and a webhook that is ready.
async fn ready() -> (ApiServer, TestCa, Files, Webhook) {
    of(Limits { shutdown_delay: Duration::ZERO, ..Limits::default() }).await
}

/// The same with other bounds.
async fn of(limits: Limits) -> (ApiServer, TestCa, Files, Webhook) {
    let (api, ca) = (ApiServer::start().await, TestCa::new());
    api.put(configuration());
    api.put(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}));
    let files = Files::new(&ca);
    let webhook = Webhook::start(&api, &files, limits).await;
    webhook.until_ready().await;
    (api, ca, files, webhook)
}

/// The roots by which the API server knows the webhook now, if both entries have the same.
fn ca_bundle(api: &ApiServer) -> Option<String> {
    use base64::Engine as _;
    let found = api.object(CONFIGURATIONS, "", NAME)?;
    let bundle =
        |index: usize| found["webhooks"][index]["clientConfig"]["caBundle"].as_str().map(str::to_owned);
    let (one, other) = (bundle(0)?, bundle(1)?);
    let decoded = base64::engine::general_purpose::STANDARD.decode(&one).unwrap();
    (one == other).then(|| String::from_utf8(decoded).unwrap())
}

/// A pod as the API server has it when it asks: of a ReplicaSet, with defaults filled in.
fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "generateName": "orders-7d4b9c6f5d-", "labels": {"app": "orders", "pod-template-hash": "7d4b9c6f5d"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders-7d4b9c6f5d", "controller": true,
                "uid": "4f1d9b5e-5f9c-4d0e-9d4b-2f6f6f1b9a11",
            }],
        },
        "spec": {
            "containers": [{
                "name": "app", "image": "app:1", "terminationMessagePath": "/dev/termination-log",
                "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080, "scheme": "HTTP"}, "timeoutSeconds": 1},
            }],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "futureField": {"a": [1, {"b": null}]},
        },
    })
}

/// A review of the making of a pod.
fn review(pod: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "operation": "CREATE", "namespace": "shop", "dryRun": false,
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller", "extra": {"x": ["y"]}},
            "object": pod, "oldObject": null, "options": {"kind": "CreateOptions"}, "futureField": true,
        },
    })
}
