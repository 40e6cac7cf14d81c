//! The node's network: a cable to each pod, and addresses of Services that are nobody's.

use std::{
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
};

use crate::intercept::namespace::{Host, ip, nft, sysctl};

/// The node's own address: of the API server, and from where the kubelet probes.
pub(super) const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 43, 0, 1);

/// Has this namespace pass on what pods send each other.
pub(super) fn up() {
    ip(&format!("address add {ADDRESS}/32 dev lo"));
    sysctl("net/ipv4/ip_forward", "1");
}

/// Makes a pod's network namespace. All that leaves it goes by the node, also to another pod, so that addresses of
/// Services work for those who have no sidecar.
pub(super) async fn join(address: Ipv4Addr) -> Host {
    let host = Host::alone().await;
    let cable = format!("pod{}", address.octets()[3]);
    ip(&format!("link add {cable} type veth peer name eth0 netns {}", host.id()));
    ip(&format!("link set {cable} up"));
    ip(&format!("route add {address}/32 dev {cable} src {ADDRESS}"));
    host.run(|| {
        ip("link set lo up");
        ip(&format!("address add {address}/32 dev eth0"));
        ip("link set eth0 up");
        ip(&format!("route add {ADDRESS}/32 dev eth0 scope link"));
        ip(&format!("route add default via {ADDRESS}"));
    });
    host
}

/// Has connections to Services end at pods, as `kube-proxy` does: each port at one of its endpoints.
pub(super) fn proxy(ports: &[(SocketAddrV4, SocketAddrV4)]) {
    let mut rules = String::from("table ip services\ndelete table ip services\ntable ip services {\n");
    for hook in ["prerouting", "output"] {
        writeln!(rules, "chain {hook} {{\ntype nat hook {hook} priority -100;").expect("text");
        for (service, pod) in ports {
            let (address, port) = (service.ip(), service.port());
            writeln!(rules, "ip daddr {address} tcp dport {port} dnat to {pod}").expect("text");
        }
        rules.push_str("}\n");
    }
    rules.push('}');
    nft(&rules);
}
