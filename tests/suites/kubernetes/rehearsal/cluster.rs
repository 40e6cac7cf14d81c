//! What a cluster has beside kubelets: an API server, and controllers that make pods of workloads, give Services their
//! addresses, and write down where they run.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use kube::{
    Api,
    api::{DynamicObject, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use outrider_injector::documents;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;

use super::{
    container::{Container, Place, Role},
    fields::{list, number, text},
    kubelet, network,
    pod::Pod,
};
use crate::{harness::api_server::ApiServer, kubernetes::gateway};

/// First addresses of pods and of Services are one more.
const PODS: [u8; 3] = [10, 43, 0];
const SERVICES: [u8; 3] = [10, 96, 0];
/// Behind the names of pods' owners.
const HASH: &str = "5d4f8c7b9";
/// How late EndpointSlices say what pods say: whoever is told to end is called meanwhile.
const LAG: Duration = Duration::from_millis(200);
/// Lines of each log that a failed claim shows.
const SHOWN_LINES: usize = 25;

/// A cluster of one node, which is this namespace.
pub(super) struct Cluster {
    pub(super) api: ApiServer,
    folder: TempDir,
    /// The last numbers of addresses that are taken.
    taken: AtomicU8,
    services: AtomicU8,
    /// One change of what is stored at a time; and what the node's proxy was told last.
    proxied: Mutex<Vec<(SocketAddrV4, SocketAddrV4)>>,
    /// Something changed on which EndpointSlices depend.
    changed: Notify,
}

impl Cluster {
    /// An empty one, with the kinds of the Gateway API.
    pub(super) async fn start() -> Arc<Self> {
        network::up();
        let folder = tempfile::Builder::new().prefix("outrider-node-").tempdir().expect("a folder");
        let cluster = Self {
            api: ApiServer::start_at(&network::ADDRESS.to_string()).await,
            folder,
            taken: AtomicU8::new(10),
            services: AtomicU8::new(0),
            proxied: Mutex::default(),
            changed: Notify::new(),
        };
        gateway::install(&cluster.api);
        cluster.write_hosts();
        let cluster = Arc::new(cluster);
        let node = Arc::clone(&cluster);
        tokio::spawn(async move {
            loop {
                node.changed.notified().await;
                tokio::time::sleep(LAG).await;
                node.update_endpoints();
            }
        });
        cluster
    }

    /// Stores what manifests say; pods of their workloads come to be, and run. Returns these.
    pub(super) async fn apply(self: &Arc<Self>, manifests: &str) -> Vec<Arc<Pod>> {
        let mut pods = Vec::new();
        for mut object in documents::read(manifests).expect("manifests").0 {
            if object["kind"] == "Service" {
                self.give_address(&mut object);
            }
            let stored = self.api.put(object);
            match text(&stored, "/kind") {
                "Service" => self.write_hosts(),
                "Deployment" => {
                    for _ in 0..number(&stored, "/spec/replicas").unwrap_or(1) {
                        pods.push(self.pod_of(&stored, "ReplicaSet").await.expect("a pod"));
                    }
                }
                "Job" => pods.push(self.pod_of(&stored, "Job").await.expect("a pod")),
                _ => {}
            }
        }
        self.changed.notify_one();
        pods
    }

    /// A Service keeps the address that it had.
    fn give_address(&self, service: &mut Value) {
        let (namespace, name) = (text(service, "/metadata/namespace"), text(service, "/metadata/name"));
        let before = self.api.object("services", namespace, name);
        let address = before.map(|before| before["spec"]["clusterIP"].clone());
        let address = address.unwrap_or_else(|| {
            let [a, b, c] = SERVICES;
            json!(Ipv4Addr::new(a, b, c, self.services.fetch_add(1, Ordering::SeqCst) + 1))
        });
        service["spec"]["clusterIPs"] = json!([address]);
        service["spec"]["clusterIP"] = address;
        service["spec"]["type"] = json!("ClusterIP");
    }

    /// One more pod of a Deployment in `shop`.
    pub(super) async fn replica(self: &Arc<Self>, deployment: &str) -> Arc<Pod> {
        self.try_replica(deployment).await.unwrap_or_else(|refusal| panic!("no pod: {refusal}"))
    }

    /// The same, or why the API server made none.
    pub(super) async fn try_replica(self: &Arc<Self>, deployment: &str) -> Result<Arc<Pod>, String> {
        let stored =
            self.api.object("apps/deployments", "shop", deployment).expect("there is such a Deployment");
        self.pod_of(&stored, "ReplicaSet").await
    }

    /// One more pod of a workload, which runs.
    async fn pod_of(self: &Arc<Self>, workload: &Value, owner: &str) -> Result<Arc<Pod>, String> {
        let name = text(workload, "/metadata/name");
        let owner_name = if owner == "Job" { name.to_owned() } else { format!("{name}-{HASH}") };
        let mut pod = workload["spec"]["template"].clone();
        (pod["apiVersion"], pod["kind"]) = (json!("v1"), json!("Pod"));
        let metadata = &mut pod["metadata"];
        let [a, b, c] = PODS;
        let address = Ipv4Addr::new(a, b, c, self.taken.fetch_add(1, Ordering::SeqCst) + 1);
        metadata["name"] = json!(format!("{owner_name}-{}", address.octets()[3]));
        metadata["namespace"] = workload["metadata"]["namespace"].clone();
        if owner == "ReplicaSet" {
            metadata["labels"]["pod-template-hash"] = json!(HASH);
        }
        metadata["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": owner, "name": owner_name, "uid": "1", "controller": true}]);
        // What the API server and its admission add.
        pod["spec"]["nodeName"] = json!("node");
        for (key, value) in [("serviceAccountName", "default"), ("restartPolicy", "Always")] {
            if pod["spec"].get(key).is_none() {
                pod["spec"][key] = json!(value);
            }
        }
        self.run(pod, address).await
    }

    /// Has the API server, and its webhooks, make a pod, and runs it.
    async fn run(self: &Arc<Self>, pod: Value, address: Ipv4Addr) -> Result<Arc<Pod>, String> {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod"));
        let namespace = text(&pod, "/metadata/namespace");
        let pods: Api<DynamicObject> = Api::namespaced_with(self.api.client().await, namespace, &kind);
        let made =
            pods.create(&PostParams::default(), &serde_json::from_value(pod).expect("an object")).await;
        let mut object = serde_json::to_value(made.map_err(|refusal| refusal.to_string())?).expect("JSON");
        let host = network::join(address).await;
        object["status"] = json!({"phase": "Pending", "podIP": address, "podIPs": [{"ip": address}], "hostIP": network::ADDRESS});
        let place = Place {
            folder: self.folder(text(&object, "/metadata/name")),
            hosts: self.hosts(),
            network: format!("/proc/{}/ns/net", host.id()),
            environment: self.environment(&object),
        };
        let inits = list(&object, "/spec/initContainers")
            .iter()
            .map(|spec| (spec, if spec["restartPolicy"] == "Always" { Role::Sidecar } else { Role::Init }));
        let apps = list(&object, "/spec/containers").iter().map(|spec| (spec, Role::App));
        let containers =
            inits.chain(apps).map(|(spec, role)| Container::new(spec, role, &object, &place)).collect();
        let pod = Arc::new(Pod::new(Arc::clone(self), (object, address, host), containers));
        kubelet::run(&pod);
        Ok(pod)
    }

    /// The address of a Service in `shop`.
    pub(super) fn service(&self, name: &str) -> SocketAddr {
        let service = self.api.object("services", "shop", name).expect("there is such a Service");
        let port = number(&service, "/spec/ports/0/port").and_then(|port| port.try_into().ok());
        let address = text(&service, "/spec/clusterIP").parse::<Ipv4Addr>();
        (address.expect("an address"), port.expect("a port")).into()
    }

    /// What every container finds in its environment.
    fn environment(&self, pod: &Value) -> Vec<(String, String)> {
        let api = self.api.address();
        let all = [
            ("HOSTNAME", text(pod, "/metadata/name").to_owned()),
            ("KUBERNETES_SERVICE_HOST", api.ip().to_string()),
            ("KUBERNETES_SERVICE_PORT", api.port().to_string()),
        ];
        all.map(|(name, value)| (name.to_owned(), value)).to_vec()
    }

    /// The folder of a pod.
    pub(super) fn folder(&self, pod: &str) -> PathBuf {
        let folder = self.folder.path().join(pod);
        fs::create_dir_all(&folder).expect("a folder");
        folder
    }

    fn hosts(&self) -> PathBuf {
        self.folder.path().join("hosts")
    }

    /// Names of Services, in place of a DNS. The file is always the same one, since containers have it mounted.
    fn write_hosts(&self) {
        let mut text = String::from("127.0.0.1 localhost\n::1 localhost\n");
        for service in self.api.objects("services") {
            let (name, namespace) =
                (self::text(&service, "/metadata/name"), self::text(&service, "/metadata/namespace"));
            let address = self::text(&service, "/spec/clusterIP");
            text.push_str(&format!("{address} {name}.{namespace}.svc.cluster.local {name}.{namespace}.svc {name}.{namespace} {name}\n"));
        }
        fs::write(self.hosts(), text).expect("written");
    }

    /// Shows the end of every container's log.
    pub(super) fn show_logs(&self) {
        let pods = fs::read_dir(self.folder.path()).into_iter().flatten().flatten();
        let files = pods.filter_map(|pod| fs::read_dir(pod.path()).ok()).flatten().flatten();
        let is_log = |path: &PathBuf| path.extension().is_some_and(|end| end == "log");
        for path in files.map(|file| file.path()).filter(is_log) {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let shown = &lines[lines.len().saturating_sub(SHOWN_LINES)..];
            eprintln!("--- the end of {} ---\n{}", path.display(), shown.join("\n"));
        }
    }

    /// Changes a pod's object, if it is still there, and what follows of it.
    pub(super) fn change(&self, pod: &Pod, change: impl FnOnce(&mut Value)) {
        {
            let _one = self.proxied.lock().unwrap();
            let Some(mut object) = self.api.object("pods", &pod.namespace, &pod.name) else { return };
            change(&mut object);
            self.api.put(object);
        }
        self.changed.notify_one();
    }

    /// Forgets a pod that is over.
    pub(super) fn remove(&self, pod: &Pod) {
        {
            let _one = self.proxied.lock().unwrap();
            self.api.remove("pods", &pod.namespace, &pod.name);
        }
        self.changed.notify_one();
    }

    /// Writes down where each Service runs, and tells the node's proxy.
    fn update_endpoints(&self) {
        let mut proxied = self.proxied.lock().unwrap();
        let pods = self.api.objects("pods");
        let mut all = Vec::new();
        for service in self.api.objects("services") {
            let slice = slice(&service, &pods);
            let ready = list(&slice, "/endpoints").iter().find(|one| one["conditions"]["ready"] == true);
            let address = |text: &str| text.parse::<Ipv4Addr>().ok();
            if let (Some(service_address), Some(pod)) = (
                address(text(&service, "/spec/clusterIP")),
                ready.and_then(|one| address(text(one, "/addresses/0"))),
            ) {
                let ports = list(&service, "/spec/ports").iter().zip(list(&slice, "/ports"));
                all.extend(ports.map(|(from, to)| {
                    let port = |of: &Value| {
                        number(of, "/port").and_then(|port| port.try_into().ok()).expect("a port")
                    };
                    (SocketAddrV4::new(service_address, port(from)), SocketAddrV4::new(pod, port(to)))
                }));
            }
            self.api.put(slice);
        }
        if *proxied != all {
            network::proxy(&all);
            *proxied = all;
        }
    }
}

/// Where a Service runs.
fn slice(service: &Value, pods: &[Value]) -> Value {
    let selector = service["spec"]["selector"].as_object();
    let is_of = |pod: &&Value| {
        let labels = &pod["metadata"]["labels"];
        pod["metadata"]["namespace"] == service["metadata"]["namespace"]
            && !text(pod, "/status/podIP").is_empty()
            && !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
            && selector.is_some_and(|selector| selector.iter().all(|(key, value)| labels[key] == *value))
    };
    let found: Vec<_> = pods.iter().filter(is_of).collect();
    let endpoint = |pod: &&Value| {
        let is_ready = list(pod, "/status/conditions")
            .iter()
            .any(|one| one["type"] == "Ready" && one["status"] == "True");
        let is_ending = pod["metadata"]["deletionTimestamp"].is_string();
        json!({
            "addresses": [pod["status"]["podIP"]],
            "conditions": {"ready": is_ready && !is_ending, "serving": is_ready, "terminating": is_ending},
            "targetRef": {
                "kind": "Pod", "namespace": pod["metadata"]["namespace"], "name": pod["metadata"]["name"],
                "uid": pod["metadata"]["uid"],
            },
        })
    };
    let port = |port: &Value| {
        let target = port.get("targetPort").unwrap_or(&port["port"]);
        let ports = found.first().map_or(&[][..], |pod| list(pod, "/spec/containers/0/ports"));
        let named = ports.iter().find(|port| port["name"] == *target).map(|port| &port["containerPort"]);
        let number = if target.is_u64() { target } else { named.unwrap_or(&port["port"]) };
        json!({"name": text(port, "/name"), "port": number, "protocol": "TCP", "appProtocol": port["appProtocol"]})
    };
    let name = text(service, "/metadata/name");
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "namespace": service["metadata"]["namespace"], "name": format!("{name}-1"),
            "labels": {"kubernetes.io/service-name": name},
        },
        "ports": list(service, "/spec/ports").iter().map(port).collect::<Value>(),
        "endpoints": found.iter().map(endpoint).collect::<Value>(),
    })
}
