//! Objects as the API server sends them: only the fields that are read, so that the rest is never held.

use std::{borrow::Cow, collections::BTreeMap, fmt::Debug, net::IpAddr};

use kube::{
    api::{ObjectMeta, TypeMeta},
    core::{ClusterResourceScope, NamespaceResourceScope},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::lenient;
use crate::{
    controller::model::objects::{
        Kind, Name, Namespace, Object, ObjectKey, Pod, PodRef, Protocol, Reach, Service, ServicePort, Slice,
        SliceEndpoint, SlicePort, Uid,
    },
    names,
    pod::inbound_except_ports,
};

/// Label of an EndpointSlice: the Service it is of (KEP 752).
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// A kind of objects that the model takes.
pub trait Watched:
    kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static
{
    /// As the model knows it.
    const KIND: Kind;

    /// What is kept of it.
    fn object(self) -> Object;

    /// Its key in the model.
    fn key(&self) -> ObjectKey {
        let meta = self.meta();
        ObjectKey::new(
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default(),
        )
    }
}

/// Where objects of a type are found.
macro_rules! resource {
    ($type:ident, $scope:ident, $group:literal, $plural:literal, $kind:literal) => {
        resource!($type, $scope, $group, "v1", $plural, $kind);
    };
    ($type:ident, $scope:ident, $group:literal, $version:literal, $plural:literal, $kind:literal) => {
        impl kube::Resource for $type {
            type DynamicType = ();
            type Scope = $scope;

            fn kind((): &()) -> Cow<'_, str> {
                $kind.into()
            }

            fn group((): &()) -> Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> Cow<'_, str> {
                $version.into()
            }

            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

pub(super) use resource;

resource!(ApiNamespace, ClusterResourceScope, "", "namespaces", "Namespace");
resource!(ApiService, NamespaceResourceScope, "", "services", "Service");
resource!(ApiSlice, NamespaceResourceScope, "discovery.k8s.io", "endpointslices", "EndpointSlice");
resource!(ApiPod, NamespaceResourceScope, "", "pods", "Pod");
resource!(ApiConfigMap, NamespaceResourceScope, "", "configmaps", "ConfigMap");
resource!(ApiLease, NamespaceResourceScope, "coordination.k8s.io", "leases", "Lease");

fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

fn label<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(name).map(String::as_str)
}

/// A Namespace.
#[derive(Clone, Debug, Deserialize)]
pub struct ApiNamespace {
    #[serde(deserialize_with = "lenient::metadata")]
    metadata: ObjectMeta,
}

impl Watched for ApiNamespace {
    const KIND: Kind = Kind::Namespace;

    fn object(self) -> Object {
        let namespace = Namespace {
            is_enabled: label(&self.metadata, names::INJECT) == Some("enabled"),
            is_terminating: self.metadata.deletion_timestamp.is_some(),
        };
        Object::Namespace(self.key().name, namespace)
    }
}

/// A Service.
#[derive(Clone, Debug, Deserialize)]
pub struct ApiService {
    #[serde(deserialize_with = "lenient::metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: ServiceSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServiceSpec {
    #[serde(deserialize_with = "lenient::field")]
    r#type: String,
    #[serde(rename = "clusterIP", deserialize_with = "lenient::field")]
    cluster_ip: String,
    #[serde(rename = "clusterIPs", deserialize_with = "lenient::list")]
    cluster_ips: Vec<String>,
    #[serde(deserialize_with = "lenient::field")]
    external_name: String,
    #[serde(deserialize_with = "lenient::list")]
    ports: Vec<ApiServicePort>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ApiServicePort {
    #[serde(deserialize_with = "lenient::field")]
    name: String,
    /// 0: not a number of a port.
    #[serde(deserialize_with = "lenient::field")]
    port: u16,
    #[serde(deserialize_with = "lenient::field")]
    protocol: String,
    #[serde(deserialize_with = "lenient::field")]
    app_protocol: Option<String>,
}

/// The API server fills in `TCP` where nothing is said; whoever else makes an object may not.
fn is_tcp(protocol: &str) -> bool {
    protocol.is_empty() || protocol == "TCP"
}

impl Watched for ApiService {
    const KIND: Kind = Kind::Service;

    fn object(self) -> Object {
        let (key, spec) = (self.key(), self.spec);
        let given = spec.cluster_ips.iter().chain([&spec.cluster_ip]);
        let mut addresses: Vec<IpAddr> = given.filter_map(|text| text.parse().ok()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let reach = if spec.r#type == "ExternalName" {
            Reach::Name(spec.external_name.into())
        } else if spec.cluster_ip == "None" {
            Reach::Pods
        } else {
            Reach::Addresses(addresses)
        };
        let ports = spec.ports.into_iter().filter(|port| is_tcp(&port.protocol) && port.port > 0);
        let port = |port: ApiServicePort| ServicePort {
            name: port.name.into(),
            port: port.port,
            protocol: Protocol::of(port.app_protocol.as_deref()),
        };
        Object::Service(key, Service { reach, ports: ports.map(port).collect() })
    }
}

/// An EndpointSlice.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiSlice {
    #[serde(deserialize_with = "lenient::metadata")]
    metadata: ObjectMeta,
    #[serde(default, deserialize_with = "lenient::list")]
    endpoints: Vec<ApiEndpoint>,
    #[serde(default, deserialize_with = "lenient::list")]
    ports: Vec<ApiSlicePort>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ApiEndpoint {
    #[serde(deserialize_with = "lenient::list")]
    addresses: Vec<String>,
    #[serde(deserialize_with = "lenient::field")]
    conditions: Conditions,
    #[serde(deserialize_with = "lenient::field")]
    hostname: Option<String>,
    target_ref: Option<TargetRef>,
    #[serde(deserialize_with = "lenient::field")]
    zone: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct TargetRef {
    kind: String,
    namespace: String,
    name: String,
    uid: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ApiSlicePort {
    name: Option<String>,
    /// The API server looks at no more than that it is a number.
    #[serde(deserialize_with = "lenient::field")]
    port: Option<u16>,
    protocol: Option<String>,
}

impl Watched for ApiSlice {
    const KIND: Kind = Kind::Slice;

    fn object(self) -> Object {
        let key = self.key();
        let Some(service) = label(&self.metadata, SERVICE_LABEL).map(Name::from) else {
            return Object::Nothing(Kind::Slice, key);
        };
        let endpoint = |endpoint: ApiEndpoint| {
            // All addresses of an endpoint are equal, and one is what there is (API reference of `addresses`); what is
            // no address is a name (addressType FQDN), which nothing here can be sent to.
            let address = endpoint.addresses.first()?.parse().ok()?;
            let is_its = |at: &TargetRef| at.kind == "Pod" && *at.namespace == *key.namespace;
            let pod = endpoint.target_ref.filter(is_its);
            // "A nil value should be interpreted as true", of `ready`, and `serving` is then what `ready` is.
            let is_ready = endpoint.conditions.ready.unwrap_or(true);
            Some(SliceEndpoint {
                address,
                pod: pod.map(|at| PodRef { uid: Uid::of(&at.uid), name: at.name.into() }),
                host: endpoint
                    .hostname
                    .filter(|host| !host.is_empty())
                    .map(|host| host.to_ascii_lowercase().into()),
                zone: endpoint.zone.unwrap_or_default().into(),
                is_ready,
                is_serving: endpoint.conditions.serving.unwrap_or(is_ready),
                is_terminating: endpoint.conditions.terminating.unwrap_or(false),
            })
        };
        let endpoints = self.endpoints.into_iter().filter_map(endpoint).collect();
        let ports = self.ports.into_iter();
        let ports = ports.filter(|port| is_tcp(port.protocol.as_deref().unwrap_or_default()));
        let port = |port: ApiSlicePort| {
            let number = port.port.filter(|number| *number > 0)?;
            Some(SlicePort { name: port.name.unwrap_or_default().into(), port: number })
        };
        Object::Slice(key.clone(), Slice { service, ports: ports.filter_map(port).collect(), endpoints })
    }
}

/// A Pod.
#[derive(Clone, Debug, Deserialize)]
pub struct ApiPod {
    #[serde(deserialize_with = "lenient::metadata")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodSpec {
    #[serde(deserialize_with = "lenient::field")]
    service_account_name: String,
    #[serde(deserialize_with = "lenient::field")]
    host_network: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PodStatus {
    #[serde(deserialize_with = "lenient::field")]
    phase: String,
    #[serde(rename = "podIP", deserialize_with = "lenient::field")]
    pod_ip: String,
    #[serde(rename = "podIPs", deserialize_with = "lenient::list")]
    pod_ips: Vec<PodIp>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PodIp {
    ip: String,
}

impl Watched for ApiPod {
    const KIND: Kind = Kind::Pod;

    fn object(self) -> Object {
        let key = self.key();
        if matches!(self.status.phase.as_str(), "Succeeded" | "Failed") {
            // Its address may be another's already.
            return Object::Nothing(Kind::Pod, key);
        }
        let given = self.status.pod_ips.iter().map(|at| &at.ip).chain([&self.status.pod_ip]);
        let mut addresses: Vec<IpAddr> = given.filter_map(|text| text.parse().ok()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let account = self.spec.service_account_name;
        let is_injected = label(&self.metadata, names::INJECTED) == Some("true");
        let labels = self.metadata.labels.iter().flatten().filter(|_| is_injected);
        let config = annotation(&self.metadata, names::CONFIG).filter(|_| is_injected);
        let pod = Pod {
            uid: Uid::of(self.metadata.uid.as_deref().unwrap_or_default()),
            addresses,
            service_account: if account.is_empty() { "default".into() } else { account.into() },
            labels: labels.map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect(),
            is_injected,
            plain_ports: config.map(inbound_except_ports).unwrap_or_default().into(),
            is_on_host_network: self.spec.host_network,
            created: self.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        };
        Object::Pod(key, pod)
    }
}

/// A ConfigMap, as the trust bundle is in one.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct ApiConfigMap {
    /// What it is; items of a list do not say.
    #[serde(flatten)]
    pub types: Option<TypeMeta>,
    /// Where it is.
    pub metadata: ObjectMeta,
    /// What is in it.
    #[serde(default)]
    pub data: BTreeMap<String, String>,
}

/// A Lease.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct ApiLease {
    /// What it is.
    #[serde(flatten)]
    pub types: Option<TypeMeta>,
    /// Where it is, and its version.
    pub metadata: ObjectMeta,
    /// Who has it.
    #[serde(default)]
    pub spec: LeaseSpec,
}

/// Who has a Lease, and since when.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct LeaseSpec {
    /// Empty: nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holder_identity: Option<String>,
    /// How long it holds after `renew_time`, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_duration_seconds: Option<i64>,
    /// When the holder got it (RFC 3339 with microseconds).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acquire_time: Option<String>,
    /// When the holder last said that it lives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renew_time: Option<String>,
    /// How often it changed hands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_transitions: Option<i64>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read<T: Watched>(object: serde_json::Value) -> Object {
        serde_json::from_value::<T>(object).unwrap().object()
    }

    #[test]
    fn services_are_read_as_the_api_server_writes_them() {
        let service = |spec: serde_json::Value| {
            let object = json!({"metadata": {"namespace": "shop", "name": "orders"}, "spec": spec});
            let Object::Service(key, service) = read::<ApiService>(object) else { panic!("a Service") };
            assert_eq!(key, ObjectKey::new("shop", "orders"));
            service
        };
        let both = service(json!({
            "type": "ClusterIP", "clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"],
            "ports": [{"name": "web", "port": 80, "protocol": "TCP", "appProtocol": "http", "targetPort": "http"},
                      {"name": "dns", "port": 53, "protocol": "UDP"}],
        }));
        assert_eq!(
            both.reach,
            Reach::Addresses(vec!["10.96.0.1".parse().unwrap(), "fd00::1".parse().unwrap()])
        );
        assert_eq!(both.ports, [ServicePort { name: "web".into(), port: 80, protocol: Protocol::Http }]);
        assert_eq!(service(json!({"clusterIP": "None"})).reach, Reach::Pods);
        let external = service(json!({"type": "ExternalName", "externalName": "mail.example.com"}));
        assert_eq!(external.reach, Reach::Name("mail.example.com".into()));
        assert_eq!(
            service(json!({"clusterIP": ""})).reach,
            Reach::Addresses(Vec::new()),
            "not given one yet"
        );
    }

    #[test]
    fn conditions_that_are_not_told_have_the_meaning_that_the_api_gives_them() {
        let slice = |conditions: serde_json::Value, target: serde_json::Value| {
            let object = json!({
                "metadata": {"namespace": "shop", "name": "orders-1", "labels": {"kubernetes.io/service-name": "orders"}},
                "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}, {"port": null}],
                "endpoints": [{"addresses": ["10.1.0.1"], "conditions": conditions, "targetRef": target, "zone": "a"}],
            });
            let Object::Slice(_, slice) = read::<ApiSlice>(object) else { panic!("a slice") };
            assert_eq!(slice.ports.len(), 1);
            slice.endpoints.into_iter().next().unwrap()
        };
        let pod = json!({"kind": "Pod", "namespace": "shop", "name": "a", "uid": "u"});
        let told = slice(json!({}), pod.clone());
        assert!(told.is_ready && told.is_serving && !told.is_terminating && told.pod.is_some());
        let told = slice(json!({"ready": false}), json!(null));
        assert!(!told.is_ready && !told.is_serving && told.pod.is_none());
        let told = slice(json!({"ready": false, "serving": true, "terminating": true}), pod);
        assert!(!told.is_ready && told.is_serving && told.is_terminating);
        let foreign = json!({"kind": "Pod", "namespace": "other", "name": "a", "uid": "u"});
        assert_eq!(slice(json!({}), foreign).pod, None, "no pod of another namespace is a Service's");
    }

    #[test]
    fn slices_of_no_service_and_finished_pods_are_nothing() {
        let orphan =
            json!({"metadata": {"namespace": "shop", "name": "x"}, "endpoints": null, "ports": null});
        assert!(matches!(read::<ApiSlice>(orphan), Object::Nothing(Kind::Slice, _)));
        let pod = |phase: &str| {
            json!({
                "metadata": {"namespace": "shop", "name": "a", "uid": "u", "labels": {"outrider.io/injected": "true"},
                    "creationTimestamp": "2026-01-01T00:00:10Z"},
                "spec": {"containers": []}, "status": {"phase": phase, "podIP": "10.1.0.1", "podIPs": [{"ip": "10.1.0.1"}, {"ip": "fd00::1"}]},
            })
        };
        assert!(matches!(read::<ApiPod>(pod("Succeeded")), Object::Nothing(Kind::Pod, _)));
        let Object::Pod(_, running) = read::<ApiPod>(pod("Running")) else { panic!("a pod") };
        assert_eq!((running.addresses.len(), &*running.service_account), (2, "default"));
        assert!(running.is_in_mesh() && running.created == 1_767_225_610);
    }

    #[test]
    fn what_is_odd_of_an_object_counts_as_not_said() {
        let odd = json!({
            "metadata": {"namespace": "shop", "name": "orders", "generation": "odd", "labels": {"kubernetes.io/service-name": "orders"}},
            "endpoints": [7, {"addresses": ["10.1.0.1"], "conditions": "odd", "zone": 3}],
            "ports": [{"name": "a", "port": 70000}, {"name": "b", "port": -1}, {"name": "c", "port": 0}, {"name": "d", "port": 8080}],
        });
        let Object::Slice(key, slice) = read::<ApiSlice>(odd) else { panic!("a slice") };
        assert_eq!(key, ObjectKey::new("shop", "orders"));
        assert_eq!((slice.ports.len(), slice.ports[0].port, slice.endpoints.len()), (1, 8080, 1));
        let odd = json!({
            "metadata": {"namespace": "shop", "name": "orders"},
            "spec": {"clusterIP": 7, "clusterIPs": ["10.96.0.1", 7], "ports": [{"port": 70000}, {"port": 80, "name": null}]},
        });
        let Object::Service(_, service) = read::<ApiService>(odd) else { panic!("a Service") };
        assert_eq!(service.reach, Reach::Addresses(vec!["10.96.0.1".parse().unwrap()]));
        assert_eq!(service.ports.len(), 1);
        let odd = json!({
            "metadata": {"namespace": "shop", "name": "a"},
            "spec": {"serviceAccountName": null, "hostNetwork": "odd"}, "status": {"podIPs": "odd", "podIP": "10.1.0.1"},
        });
        let Object::Pod(_, pod) = read::<ApiPod>(odd) else { panic!("a pod") };
        assert_eq!((pod.addresses.len(), &*pod.service_account), (1, "default"));
        let odd =
            json!({"metadata": {"name": "shop", "labels": {"outrider.io/inject": "enabled", "odd": 7}}});
        let Object::Namespace(name, namespace) = read::<ApiNamespace>(odd) else { panic!("a namespace") };
        assert!(&*name == "shop" && namespace.is_enabled);
    }

    #[test]
    fn a_pods_excepted_ports_are_those_that_were_put_in_force() {
        let config = "intercept:\n  inbound:\n    port: 4343\n    except_ports: [8080, 9090]\n";
        let pod = |labels: serde_json::Value| {
            let object = json!({
                "metadata": {"namespace": "shop", "name": "a", "labels": labels, "annotations": {"outrider.io/config": config}},
            });
            let Object::Pod(_, pod) = read::<ApiPod>(object) else { panic!("a pod") };
            pod
        };
        let injected = pod(json!({"outrider.io/injected": "true"}));
        assert!([8080, 9090, 4391].iter().all(|port| !injected.is_mesh_at(*port)) && injected.is_mesh_at(80));
        assert!(pod(json!({})).plain_ports.is_empty(), "nothing was put in force");
    }
}
