//! A cluster: an API server, and objects as Kubernetes would have written them.

use outrider_certs::X509Svid;
use serde_json::{Value, json};

use crate::kubernetes::policies;

use crate::harness::{
    TestCa,
    api_server::ApiServer,
    ca::{DOMAIN, TestLeaf},
};

/// The API server and the mesh's CA.
pub(in crate::kubernetes) struct Cluster {
    pub(in crate::kubernetes) server: ApiServer,
    pub(in crate::kubernetes) ca: TestCa,
}

/// A pod that runs.
#[derive(Clone, Copy, Debug)]
pub(in crate::kubernetes) struct Pod {
    pub(in crate::kubernetes) name: &'static str,
    pub(in crate::kubernetes) ip: &'static str,
    pub(in crate::kubernetes) is_injected: bool,
}

pub(in crate::kubernetes) fn meshed(name: &'static str, ip: &'static str) -> Pod {
    Pod { name, ip, is_injected: true }
}

pub(in crate::kubernetes) fn plain(name: &'static str, ip: &'static str) -> Pod {
    Pod { name, ip, is_injected: false }
}

impl Cluster {
    pub(in crate::kubernetes) async fn new() -> Self {
        let cluster = Self::bare().await;
        policies::install(&cluster);
        cluster
    }

    /// One in which nobody has defined our policies.
    pub(in crate::kubernetes) async fn bare() -> Self {
        let cluster = Self { server: ApiServer::start().await, ca: TestCa::new() };
        cluster.namespace("outrider", &[]);
        cluster
    }

    /// One with `orders` in `shop` at 10.96.0.1:80: two pods in the mesh at port 8080.
    pub(in crate::kubernetes) async fn with_orders() -> Self {
        Self::new().await.and_orders()
    }

    /// The same, with `orders`.
    pub(in crate::kubernetes) fn and_orders(self) -> Self {
        let cluster = self;
        cluster.namespace("shop", &[("outrider.io/inject", "enabled")]);
        cluster.service("shop", "orders", "10.96.0.1");
        let pods = [meshed("orders-a", "10.1.0.1"), meshed("orders-b", "10.1.0.2")];
        cluster.pods("shop", &pods);
        cluster.slice("shop", "orders", &pods);
        cluster
    }

    pub(in crate::kubernetes) fn namespace(&self, name: &str, labels: &[(&str, &str)]) {
        let labels: serde_json::Map<String, Value> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
        self.server.put(json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels},
        }));
    }

    /// A Service with port 80.
    pub(in crate::kubernetes) fn service(&self, namespace: &str, name: &str, ip: &str) {
        self.server.put(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name},
            "spec": {
                "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "selector": {"app": name},
                "ports": [{"port": 80, "targetPort": 8080, "protocol": "TCP", "appProtocol": "http"}],
            },
        }));
    }

    pub(in crate::kubernetes) fn pods(&self, namespace: &str, pods: &[Pod]) {
        for pod in pods {
            let labels = if pod.is_injected { json!({"outrider.io/injected": "true"}) } else { json!({}) };
            self.server.put(json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"namespace": namespace, "name": pod.name, "labels": labels},
                "spec": {"serviceAccountName": "runner", "containers": [{"name": "app", "image": "app"}]},
                "status": {"phase": "Running", "podIP": pod.ip, "podIPs": [{"ip": pod.ip}]},
            }));
        }
    }

    /// The slice of a Service with these pods, which must be there, at port 8080.
    pub(in crate::kubernetes) fn slice(&self, namespace: &str, service: &str, pods: &[Pod]) {
        let endpoint = |pod: &Pod| {
            let object = self.server.object("pods", namespace, pod.name).expect("the pod is there");
            json!({
                "addresses": [pod.ip], "zone": "eu-1", "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod.name, "uid": object["metadata"]["uid"]},
            })
        };
        self.slice_with(namespace, service, pods.iter().map(endpoint).collect());
    }

    /// The same with any endpoints.
    pub(in crate::kubernetes) fn slice_with(&self, namespace: &str, service: &str, endpoints: Vec<Value>) {
        self.server.put(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "namespace": namespace, "name": format!("{service}-1"),
                "labels": {"kubernetes.io/service-name": service},
            },
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
        }));
    }

    /// So many endpoints outside of the cluster.
    pub(in crate::kubernetes) fn many(&self, namespace: &str, service: &str, count: usize) {
        let endpoint =
            |number: usize| json!({"addresses": [format!("192.168.{}.{}", number / 250, number % 250)]});
        self.slice_with(namespace, service, (0..count).map(endpoint).collect());
    }
}

/// The path of a workload's SPIFFE ID.
pub(in crate::kubernetes) fn path(namespace: &str, account: &str) -> String {
    format!("ns/{namespace}/sa/{account}")
}

/// The SPIFFE ID as text.
pub(in crate::kubernetes) fn spiffe_id(namespace: &str, account: &str) -> String {
    format!("spiffe://{DOMAIN}/{}", path(namespace, account))
}

pub(in crate::kubernetes) fn svid(leaf: &TestLeaf) -> X509Svid {
    X509Svid::from_parts(vec![leaf.der.clone()], leaf.key_der()).expect("a good certificate")
}
