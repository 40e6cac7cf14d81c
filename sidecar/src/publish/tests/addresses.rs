//! Who is at which address.

use super::*;
use crate::model::cluster::ServiceAddress;

/// A cluster with these service addresses.
fn served(name: &str, addresses: &[&str], endpoints: &[EndpointSettings]) -> Arc<ClusterSettings> {
    let addresses = addresses.iter().map(|text| service(text)).collect();
    Arc::new(ClusterSettings { addresses, ..ClusterSettings::clone(&fixed(name, endpoints)) })
}

fn service(text: &str) -> ServiceAddress {
    match text.parse::<SocketAddr>() {
        Ok(address) => ServiceAddress { ip: address.ip(), port: Some(address.port()) },
        Err(_) => ServiceAddress { ip: text.parse().unwrap(), port: None },
    }
}

#[tokio::test(start_paused = true)]
async fn addresses_of_services_and_endpoints_lead_to_their_clusters() {
    let orders = served("orders", &["10.96.0.10:80", "fd96::10"], &[endpoint(1, A), endpoint(2, A)]);
    let users = served("users", &["10.96.0.11"], &[endpoint(3, B)]);
    let app = Arc::new(ClusterSettings {
        transport: Transport::App,
        ..ClusterSettings::clone(&fixed("inbound/http", &[endpoint(9, A)]))
    });
    let clusters = [orders, users, app];
    let snapshot = intercepted(&fixture::snapshot(), &clusters);
    let services = &snapshot.addresses.services;
    let found = ["10.96.0.10:80", "fd96::10", "10.96.0.11"].map(|text| services[&service(text)].as_str());
    assert_eq!((found, services.len()), (["orders", "orders", "users"], 3));
    let endpoints = &snapshot.addresses.endpoints;
    let (name, found) = &endpoints[&endpoint(2, A).address];
    assert!(
        name.as_str() == "orders" && Arc::ptr_eq(found, &at(&snapshot, 1)),
        "the very endpoint of the cluster"
    );
    assert_eq!(endpoints.len(), 3, "the own app is nobody's destination");
    assert!(endpoints.values().all(|(name, _)| snapshot.cluster(name).is_some()));
    let explicit = next(&fixture::snapshot(), &clusters);
    assert!(explicit.addresses.services.is_empty() && explicit.addresses.endpoints.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_of_several_clusters_is_that_of_the_first() {
    let (orders, stock) =
        (fixed("orders", &[endpoint(1, A)]), fixed("stock", &[endpoint(1, B), endpoint(2, B)]));
    let name_at = |snapshot: &Snapshot, port| {
        snapshot.addresses.endpoints[&endpoint(port, A).address].0.as_str().to_owned()
    };
    let first = intercepted(&fixture::snapshot(), &[Arc::clone(&orders), Arc::clone(&stock)]);
    assert_eq!((name_at(&first, 1), name_at(&first, 2)), ("orders".to_owned(), "stock".to_owned()));
    let second = intercepted(&first, &[stock, orders]);
    assert_eq!(name_at(&second, 1), "stock");
    assert!(Arc::ptr_eq(
        &second.addresses.endpoints[&endpoint(1, A).address].1,
        &second.clusters[0].endpoints[0]
    ));
}

#[tokio::test(start_paused = true)]
async fn addresses_follow_reloads_and_discovery() {
    let first = intercepted(&fixture::snapshot(), &[served("orders", &["10.96.0.10"], &[endpoint(1, A)])]);
    let second = intercepted(&first, &[served("orders", &["10.96.0.12"], &[endpoint(2, A)])]);
    assert!(!second.addresses.services.contains_key(&service("10.96.0.10")));
    assert_eq!(second.addresses.services[&service("10.96.0.12")].as_str(), "orders");
    assert!(!second.addresses.endpoints.contains_key(&endpoint(1, A).address));
    let third = intercepted(&second, &[served("stock", &["10.96.0.12"], &[endpoint(2, A)])]);
    assert_eq!(third.addresses.services[&service("10.96.0.12")].as_str(), "stock");
    assert_eq!(third.addresses.endpoints[&endpoint(2, A).address].0.as_str(), "stock");
    assert!(intercepted(&third, &[]).addresses.services.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_of_ipv4_is_found_as_such_however_it_is_written() {
    let written = EndpointSettings { address: "[::ffff:10.0.0.1]:1".parse().unwrap(), ..endpoint(1, A) };
    let snapshot = intercepted(&fixture::snapshot(), &[fixed("orders", &[written])]);
    assert!(snapshot.addresses.endpoints.contains_key(&endpoint(1, A).address));
}
