//! Objects for tests, in few words.

use std::{net::IpAddr, sync::Arc};

use outrider_certs::TrustDomain;
use serde_json::Value as Json;

use super::{
    objects::{
        Event, Kind, Name, Namespace, Object, ObjectKey, Pod, PodRef, Protocol, Reach, Service, ServicePort,
        Slice, SliceEndpoint, SlicePort, Uid,
    },
    value::World,
};
use crate::controller::gateway::{
    grant::Grant,
    read::read,
    route::{Record, RouteKey, RouteKind, Routed},
};

pub(crate) const DOMAIN: &str = "cluster.local";

pub(crate) fn world() -> World {
    World {
        domain: DOMAIN.into(),
        trust_domain: TrustDomain::parse("mesh.test").unwrap(),
        ranges: Arc::default(),
    }
}

pub(crate) fn key(namespace: &str, name: &str) -> ObjectKey {
    ObjectKey::new(namespace, name)
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn namespace(name: &str, is_enabled: bool) -> Event {
    let namespace = Namespace { is_enabled, is_terminating: false };
    Event::Set(Object::Namespace(name.into(), namespace))
}

/// A Service with one unnamed port; `reach` is its address, "headless", or a name.
pub(crate) fn service(namespace: &str, name: &str, reach: &str, port: u16) -> Event {
    service_with(namespace, name, reach, &[("", port, Protocol::Detect)])
}

pub(crate) fn service_with(
    namespace: &str,
    name: &str,
    reach: &str,
    ports: &[(&str, u16, Protocol)],
) -> Event {
    let addresses: Vec<IpAddr> = reach.split(',').filter_map(|text| text.parse().ok()).collect();
    let reach = match reach {
        "headless" => Reach::Pods,
        _ if !addresses.is_empty() => Reach::Addresses(addresses),
        name => Reach::Name(name.into()),
    };
    let port = |(name, port, protocol): &(&str, u16, Protocol)| ServicePort {
        name: (*name).into(),
        port: *port,
        protocol: *protocol,
    };
    let ports = ports.iter().map(port).collect();
    Event::Set(Object::Service(key(namespace, name), Service { reach, ports }))
}

/// A pod that is there.
#[derive(Clone, Debug)]
pub(crate) struct TestPod {
    pub(crate) name: &'static str,
    pub(crate) ip: &'static str,
    pub(crate) is_injected: bool,
}

pub(crate) fn meshed(name: &'static str, ip: &'static str) -> TestPod {
    TestPod { name, ip, is_injected: true }
}

pub(crate) fn plain(name: &'static str, ip: &'static str) -> TestPod {
    TestPod { name, ip, is_injected: false }
}

pub(crate) fn pod(namespace: &str, pod: &TestPod) -> Event {
    Event::Set(Object::Pod(key(namespace, pod.name), pod_facts(pod)))
}

pub(crate) fn pod_facts(pod: &TestPod) -> Pod {
    Pod {
        uid: Uid::of(pod.name),
        addresses: vec![ip(pod.ip)],
        service_account: "runner".into(),
        labels: Box::default(),
        is_injected: pod.is_injected,
        plain_ports: Box::default(),
        is_on_host_network: false,
        created: 0,
    }
}

/// One whose connections to this port are not the mesh's.
pub(crate) fn pod_except(namespace: &str, pod: &TestPod, port: u16) -> Event {
    let facts = Pod { plain_ports: [port].into(), ..pod_facts(pod) };
    Event::Set(Object::Pod(key(namespace, pod.name), facts))
}

pub(crate) fn endpoint(pod: &TestPod) -> SliceEndpoint {
    SliceEndpoint {
        address: ip(pod.ip),
        pod: Some(PodRef { name: pod.name.into(), uid: Uid::of(pod.name) }),
        host: None,
        zone: Name::default(),
        is_ready: true,
        is_serving: true,
        is_terminating: false,
    }
}

/// The slice `NAME-1` of a Service with one unnamed port.
pub(crate) fn slice(namespace: &str, service: &str, port: u16, pods: &[TestPod]) -> Event {
    slice_of(namespace, service, &[("", port)], pods.iter().map(endpoint).collect())
}

pub(crate) fn slice_of(
    namespace: &str,
    service: &str,
    ports: &[(&str, u16)],
    endpoints: Vec<SliceEndpoint>,
) -> Event {
    let ports = ports.iter().map(|(name, port)| SlicePort { name: (*name).into(), port: *port }).collect();
    let slice = Slice { service: service.into(), ports, endpoints };
    Event::Set(Object::Slice(key(namespace, &format!("{service}-1")), slice))
}

pub(crate) fn gone(kind: Kind, namespace: &str, name: &str) -> Event {
    Event::Gone(kind, key(namespace, name))
}

pub(crate) fn http_route(namespace: &str, name: &str, spec: &Json) -> Event {
    route(RouteKind::Http, namespace, name, spec)
}

pub(crate) fn route(kind: RouteKind, namespace: &str, name: &str, spec: &Json) -> Event {
    let key = RouteKey { kind, key: key(namespace, name) };
    let route = Arc::new(read(kind, &key.key, 0, spec));
    Event::Set(Object::Route(key, Box::new(Routed { route, record: Record::default() })))
}

/// HTTPRoutes of `from` may refer to all Services of `namespace`.
pub(crate) fn grant(namespace: &str, from: &str) -> Event {
    let spec = serde_json::json!({
        "from": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": from}],
        "to": [{"group": "", "kind": "Service"}],
    });
    Event::Set(Object::Grant(key(namespace, from), Grant::read(&spec)))
}
