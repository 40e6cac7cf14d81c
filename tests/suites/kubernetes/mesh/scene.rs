//! A cluster with its control plane, and pods in it.

use std::{net::SocketAddr, path::PathBuf};

use http::{Method, StatusCode, Version};
use outrider::admin;
use serde_json::{Value, json};

use crate::{
    harness::{Client, HttpApp, api_server::Account, body, client::request},
    kubernetes::{
        gateway,
        identity::{AUDIENCE, Ca, Cluster},
    },
    processes::{
        DEADLINE,
        mesh::Host,
        process::{Process, program},
        until,
    },
};

/// Where the controller is.
const CONTROLLER: u8 = 2;
/// Where the caller is.
const WEB: u8 = 3;

/// A cluster whose control plane runs, and a pod that calls.
pub(super) struct Scene {
    pub(super) cluster: Cluster,
    pub(super) ca: Ca,
    pub(super) controller: Process,
    web: Option<Pod>,
}

/// A pod: an app and its sidecar.
pub(super) struct Pod {
    host: Host,
    folder: PathBuf,
    process: Process,
    app: HttpApp,
    object: Value,
}

impl Scene {
    pub(super) async fn new() -> Self {
        let cluster = Cluster::start().await;
        gateway::install(&cluster.api);
        for name in ["outrider", "shop"] {
            cluster.api.put(json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": name, "labels": {"outrider.io/inject": "enabled"}},
            }));
        }
        let ca = cluster.ca(1, &[]).await;
        cluster.write("roots.pem", &cluster.bundle().await.to_pem());
        let controller = start_controller(&cluster, &ca).await;
        let mut scene = Self { cluster, ca, controller, web: None };
        scene.web = Some(scene.pod("web", "web-1", WEB).await);
        scene
    }

    /// Starts another process of the controller in the place of the one that ended.
    pub(super) async fn start_controller_again(&mut self) {
        self.controller = start_controller(&self.cluster, &self.ca).await;
    }

    /// A pod of that service account, whose sidecar is ready.
    pub(super) async fn pod(&self, account: &str, name: &'static str, number: u8) -> Pod {
        let (cluster, host) = (&self.cluster, self.cluster.host(number));
        let ip = host.inbound().ip();
        let object = cluster.api.put(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "labels": {"outrider.io/injected": "true"}},
            "spec": {"serviceAccountName": account, "containers": []},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
        }));
        let app = HttpApp::named(name).await;
        let token = Account::service_account("shop", account, AUDIENCE).in_pod(&object);
        cluster.write_in(name, "token", &cluster.api.token(token));
        let config = format!(
            "service: {account}\ntrust_domain: cluster.local\nstate_dir: state\n\
             identity: {{ca: {{address: '{}', service_account_token_file: token, bundle_file: ../roots.pem}}}}\n\
             controller: {{address: '{}', spiffe_id: 'spiffe://cluster.local/ns/outrider/sa/outrider-controller'}}\n\
             admin: {{socket: admin.sock, listen: '{}'}}\n\
             inbound: [{{name: in, listen: '{}', app: '{}'}}]\n\
             outbound: [{{name: out, listen: '{}'}}]\n",
            self.ca.address,
            cluster.host(CONTROLLER).at(4360),
            host.health(),
            host.inbound(),
            app.address(),
            host.outbound(),
        );
        let file = cluster.write_in(name, "outrider.yaml", &config).display().to_string();
        let folder = cluster.folder.path().join(name);
        let (variable, outrider) =
            (format!("OUTRIDER_POD_NAME={name}"), program("outrider").display().to_string());
        let run = [&*variable, &*outrider, "run", "--log-level", "debug", "--config", &*file];
        let process = Process::start(name, "/usr/bin/env".as_ref(), run, &folder);
        let mut pod = Pod { host, folder, process, app, object };
        until(&format!("{name} is ready"), async || {
            assert!(!pod.process.has_ended(), "it ended while starting");
            let ready = admin::call(&pod.socket(), Method::GET, "/ready").await;
            ready.is_ok_and(|answer| answer.status == StatusCode::OK)
        })
        .await;
        pod
    }

    /// A Service at port 80.
    pub(super) fn service(&self, name: &str, ip: &str) {
        self.cluster.api.put(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": name},
            "spec": {
                "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "selector": {"app": name},
                "ports": [{"port": 80, "targetPort": 4343, "protocol": "TCP", "appProtocol": "http"}],
            },
        }));
    }

    /// A Service that is another name.
    pub(super) fn external_name(&self, name: &str, target: &str) {
        self.cluster.api.put(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "shop", "name": name},
            "spec": {"type": "ExternalName", "externalName": target},
        }));
    }

    /// Which pods a Service has.
    pub(super) fn slice(&self, service: &str, pods: &[&Pod]) {
        let endpoint = |pod: &&Pod| {
            let metadata = &pod.object["metadata"];
            json!({
                "addresses": [pod.host.inbound().ip()],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "namespace": "shop", "name": metadata["name"], "uid": metadata["uid"]},
            })
        };
        self.cluster.api.put(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "namespace": "shop", "name": format!("{service}-1"),
                "labels": {"kubernetes.io/service-name": service},
            },
            "ports": [{"name": "", "port": 4343, "protocol": "TCP"}],
            "endpoints": pods.iter().map(endpoint).collect::<Vec<_>>(),
        }));
    }

    /// The shares of two Services, which a route gives to the calls of `orders`.
    pub(super) fn split(&self, weights: [(&str, u32); 2]) {
        let backends = weights.map(|(name, weight)| json!({"name": name, "port": 80, "weight": weight}));
        self.cluster.api.put(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"namespace": "shop", "name": "canary"},
            "spec": {
                "parentRefs": [{"group": "", "kind": "Service", "name": "orders"}],
                "rules": [{"backendRefs": backends}],
            },
        }));
    }

    /// The pod that calls.
    pub(super) fn web(&self) -> &Pod {
        self.web.as_ref().expect("it runs")
    }

    /// What `web` hears when it calls that name: the status, and the text or why there is none.
    pub(super) async fn call(&self, name: &str) -> (StatusCode, String) {
        let address = self.web().host.outbound();
        let mut client = Client::connect(address, Version::HTTP_11).await;
        let mut request = request(Method::GET, "/", body::empty());
        request.headers_mut().insert("host", name.parse().unwrap());
        let answer = client.send(request).await.expect("an answer");
        (answer.status(), body::text(answer.into_body()).await)
    }

    /// Calls until anybody answers: when a Service is new, the controller has yet to hear of it.
    pub(super) async fn until_known(&self, name: &str) {
        until(&format!("{name} is known"), async || self.call(name).await.0 == StatusCode::OK).await;
    }

    /// Calls until that pod answers; every call must have an answer of an app.
    pub(super) async fn until_from(&self, name: &str, pod: &str) {
        until(&format!("{pod} answers"), async || {
            let (status, text) = self.call(name).await;
            assert_eq!(status, StatusCode::OK, "{text}");
            text == pod
        })
        .await;
    }

    /// Calls until no app answers.
    pub(super) async fn until_refused(&self, name: &str) {
        until("it is refused", async || self.call(name).await.0 != StatusCode::OK).await;
    }

    /// Who answers so many calls.
    pub(super) async fn answers(&self, name: &str, count: usize) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..count {
            let (status, text) = self.call(name).await;
            assert_eq!(status, StatusCode::OK, "{text}");
            all.push(text);
        }
        all
    }
}

impl Pod {
    /// Where anybody may ask its sidecar a few things.
    pub(super) fn read_only(&self) -> SocketAddr {
        self.host.health()
    }

    /// Where its sidecar is asked.
    pub(super) fn socket(&self) -> PathBuf {
        self.folder.join("admin.sock")
    }

    /// How many requests its app has had.
    pub(super) fn count(&self) -> usize {
        self.app.count()
    }

    pub(super) fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

async fn start_controller(cluster: &Cluster, ca: &Ca) -> Process {
    let host = cluster.host(CONTROLLER);
    let api_token = cluster.api.service_account_token("outrider", "outrider-controller");
    let folder = cluster.folder.path().join("controller");
    std::fs::create_dir_all(&folder).unwrap();
    let kubeconfig = cluster.api.kubeconfig(&folder, &api_token);
    let pod = cluster.api.put(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "outrider", "name": "controller-1"},
        "spec": {"serviceAccountName": "outrider-controller", "containers": []},
    }));
    let account = Account::service_account("outrider", "outrider-controller", AUDIENCE).in_pod(&pod);
    let token = cluster.write_in("controller", "token", &cluster.api.token(account));
    let arguments = [
        format!("KUBECONFIG={}", kubeconfig.display()),
        program("outrider-controller").display().to_string(),
        format!("serve --listen {} --metrics-listen {}", host.at(4360), host.at(4391)),
        format!("--name controller-1 --namespace outrider --watch-seconds 2 --ca-address {}", ca.address),
        format!("--token-file {}", token.display()),
        format!("--bundle {}", cluster.folder.path().join("roots.pem").display()),
    ];
    let arguments = arguments.iter().flat_map(|text| text.split(' ')).map(str::to_owned);
    let mut process = Process::start("controller", "/usr/bin/env".as_ref(), arguments, &folder);
    until("the controller is ready", async || {
        assert!(!process.has_ended(), "it ended while starting");
        let Ok(stream) = tokio::net::TcpStream::connect(host.at(4391)).await else { return false };
        let ready = Client::over(stream, Version::HTTP_11).await.get("/ready").await;
        ready.is_ok_and(|answer| answer.status() == StatusCode::OK)
    })
    .await;
    process
}

/// Kills a process, and waits until it has ended.
pub(super) async fn kill(process: &mut Process) {
    process.kill();
    process.exited(DEADLINE).await;
}
