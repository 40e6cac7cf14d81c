//! What sidecars get, and who gets nothing.

use outrider::discovery::controller::api::outrider_discovery_v1::{
    self as api, WatchRequest, watch_request, watch_response::Message,
};
use outrider_injector::controller::subscriptions::MaxWants;
use tonic::Code;

use super::{
    cluster::{Cluster, meshed, path, plain, spiffe_id},
    replica::{Replica, material},
    sidecar::{Sidecar, as_workload, hello, with_leaf},
};
use crate::harness::{TestCa, ca::Wrong, soon};

#[tokio::test]
async fn a_sidecar_is_told_what_it_asks_for_and_what_becomes_of_it() {
    let cluster = Cluster::with_orders().await;
    let replica = Replica::start(&cluster, "one").await;
    let mut sidecar = Sidecar::connect_as(&cluster, replica.address, "shop", "orders-a").await;
    let orders = sidecar.ask("orders:80").await.expect("it is a service");
    assert_eq!((&orders.cluster["tls"], &orders.cluster["protocol"]), (&"mesh".into(), &"http".into()));
    assert_eq!(sidecar.addresses("orders:80"), ["10.1.0.1:8080", "10.1.0.2:8080"]);
    let first = &orders.endpoints["10.1.0.1:8080"];
    assert_eq!(
        (first.spiffe_id.as_str(), first.zone.as_str()),
        (spiffe_id("shop", "runner").as_str(), "eu-1")
    );
    assert_eq!(
        sidecar.inbound.as_deref(),
        Some(r#"{"ports":[{"port":8080,"protocol":"http"}]}"#),
        "of itself"
    );

    // Another way to the same says no more than that.
    sidecar.want("10.96.0.1:80").await;
    assert!(matches!(sidecar.hear().await.unwrap(), Message::Destination(_)));
    assert_eq!(sidecar.ask("10.1.0.2:8080").await, Some(orders), "a pod of it");
    assert_eq!(sidecar.ask("unknown:80").await, None);

    // A difference, not the whole.
    cluster.pods("shop", &[meshed("orders-c", "10.1.0.3")]);
    cluster.slice("shop", "orders", &[meshed("orders-b", "10.1.0.2"), meshed("orders-c", "10.1.0.3")]);
    let Message::Endpoints(told) = sidecar.hear().await.unwrap() else { panic!("endpoints alone") };
    assert_eq!((told.full, told.set.len(), told.gone), (false, 1, vec!["10.1.0.1:8080".to_owned()]));

    cluster.server.remove("services", "shop", "orders");
    sidecar.until("it leads nowhere", |sidecar| sidecar.keys["orders:80"].is_empty()).await;
    cluster.service("shop", "unknown", "10.96.0.2");
    sidecar.until("what comes later is told", |sidecar| !sidecar.keys["unknown:80"].is_empty()).await;
}

#[tokio::test]
async fn a_service_becomes_the_meshs_with_its_first_pod_in_it() {
    let cluster = Cluster::new().await;
    let (before, after) = (plain("stock-a", "10.1.0.1"), meshed("stock-b", "10.1.0.2"));
    cluster.service("shop", "stock", "10.96.0.1");
    cluster.pods("shop", &[before]);
    cluster.slice("shop", "stock", &[before]);
    let replica = Replica::start(&cluster, "one").await;
    let mut sidecar = Sidecar::connect(&cluster, replica.address).await;
    let stock = sidecar.ask("stock:80").await.unwrap();
    assert_eq!((&stock.cluster["tls"], stock.endpoints.len()), (&"none".into(), 1));
    cluster.pods("shop", &[after]);
    cluster.slice("shop", "stock", &[before, after]);
    let is_mesh =
        |sidecar: &Sidecar| sidecar.held("stock:80").is_some_and(|held| held.cluster["tls"] == "mesh");
    sidecar.until("it is the mesh's", is_mesh).await;
    let is_alone = |sidecar: &Sidecar| sidecar.addresses("stock:80") == ["10.1.0.2:8080"];
    sidecar.until("only the pod in the mesh is told", is_alone).await;
}

#[tokio::test]
async fn who_is_not_a_workload_of_the_mesh_gets_nothing() {
    let cluster = Cluster::with_orders().await;
    let replica = Replica::start(&cluster, "one").await;
    let path = path("shop", "runner");
    let mut strangers = vec![None, Some(TestCa::new().leaf(&path))];
    strangers.extend([Wrong::OtherDomain, Wrong::Expired].map(|wrong| Some(cluster.ca.wrong(wrong, &path))));
    for (index, leaf) in strangers.iter().enumerate() {
        let tls = with_leaf(&cluster.ca, leaf.as_ref());
        let opened = soon("an answer", Sidecar::open(replica.address, tls, hello(""))).await;
        assert!(opened.is_err(), "stranger {index} was served");
    }
    let denied = replica.metric("outrider_controller_handshakes_failed_total").await;
    assert!(denied >= 3.0, "{denied}");
    // One of the trust domain, but not of Kubernetes.
    let tls = with_leaf(&cluster.ca, Some(&cluster.ca.leaf("orders")));
    let mut other = soon("an answer", Sidecar::open(replica.address, tls, hello(""))).await.unwrap();
    assert_eq!(other.ended().await.code(), Code::PermissionDenied);
    Sidecar::connect(&cluster, replica.address).await.ask("orders:80").await.expect("a workload is served");
}

#[tokio::test]
async fn a_root_that_is_trusted_no_more_ends_the_streams_of_its_workloads() {
    let cluster = Cluster::with_orders().await;
    let replica = Replica::start(&cluster, "one").await;
    let mut sidecar = Sidecar::connect(&cluster, replica.address).await;
    sidecar.ask("orders:80").await.unwrap();
    let other = TestCa::new();
    replica.identity.replace(material(&cluster, TestCa::common_bundle(&[&cluster.ca, &other], 2)));
    cluster.slice("shop", "orders", &[meshed("orders-b", "10.1.0.2")]);
    sidecar.until("it goes on", |sidecar| sidecar.addresses("orders:80").len() == 1).await;
    replica.identity.replace(material(&cluster, TestCa::common_bundle(&[&other], 3)));
    sidecar.ended().await;
    assert!(replica.metric("outrider_controller_trust_cuts_total").await >= 1.0);
}

#[tokio::test]
async fn who_says_what_cannot_be_is_told_so() {
    let cluster = Cluster::with_orders().await;
    let replica = Replica::start(&cluster, "one").await;
    let want = |key: String| watch_request::Message::Want(api::Want { key, epoch: 0, generation: 0 });
    for (message, code) in [
        (want("no key".to_owned()), Code::InvalidArgument),
        (want("x".repeat(1000)), Code::InvalidArgument),
        (want("x".repeat(17 * 1024)), Code::OutOfRange),
        (hello("again").message.unwrap(), Code::InvalidArgument),
    ] {
        let mut sidecar = Sidecar::connect(&cluster, replica.address).await;
        sidecar.say(message).await;
        let status = sidecar.ended().await;
        // What is too large for a message is refused by the transport, which may end the stream without a word.
        assert!(status.code() == code || code == Code::OutOfRange, "{status}");
    }
    let tls = as_workload(&cluster.ca, "shop", "runner");
    let first = WatchRequest { message: Some(want("orders:80".to_owned())) };
    let mut rude = soon("a stream", Sidecar::open(replica.address, tls, first)).await.unwrap();
    assert_eq!(rude.ended().await.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn streams_have_a_bound() {
    let cluster = Cluster::with_orders().await;
    let replica = Replica::begin(&cluster, "one", |options| options.limits.streams_of_identity = 2).await;
    replica.until_ready().await;
    let mut first = Sidecar::connect(&cluster, replica.address).await;
    first.ask("orders:80").await.unwrap();
    let mut second = Sidecar::connect(&cluster, replica.address).await;
    second.ask("orders:80").await.unwrap();
    let mut third = Sidecar::connect(&cluster, replica.address).await;
    assert_eq!(third.ended().await.code(), Code::ResourceExhausted);
    let mut other = Sidecar::connect_as(&cluster, replica.address, "elsewhere", "").await;
    other.ask("orders.shop:80").await.unwrap();
    drop(first);
    soon("there is room again", async {
        while Sidecar::connect(&cluster, replica.address).await.hear().await.is_err() {}
    })
    .await;
}

#[tokio::test]
async fn who_wants_too_much_is_refused_that_and_takes_nothing_from_others() {
    let cluster = Cluster::with_orders().await;
    let wants = MaxWants { of_identity: 2, of_all: 100 };
    let replica = Replica::begin(&cluster, "one", |options| options.limits.wants = wants).await;
    replica.until_ready().await;
    let mut sidecar = Sidecar::connect(&cluster, replica.address).await;
    sidecar.ask("orders:80").await.unwrap();
    assert_eq!(sidecar.ask("one:80").await, None);
    sidecar.want("two:80").await;
    sidecar.until("it is refused", |sidecar| sidecar.refused.contains("two:80")).await;
    let mut other = Sidecar::connect_as(&cluster, replica.address, "elsewhere", "").await;
    other.ask("orders.shop:80").await.expect("others are served");
    cluster.slice("shop", "orders", &[meshed("orders-b", "10.1.0.2")]);
    sidecar.until("the rest goes on", |sidecar| sidecar.addresses("orders:80").len() == 1).await;
    let forget = api::Forget { key: "one:80".to_owned() };
    sidecar.say(watch_request::Message::Forget(forget)).await;
    assert_eq!(sidecar.ask("two:80").await, None, "there is room again");
    assert!(replica.metric("outrider_controller_wants_refused_total").await >= 1.0);
}

#[tokio::test]
async fn who_does_not_read_is_cut_and_holds_nobody_up() {
    let cluster = Cluster::with_orders().await;
    cluster.service("shop", "many", "10.96.0.9");
    cluster.many("shop", "many", 5000);
    let replica = Replica::start(&cluster, "one").await;
    let slow = Sidecar::connect(&cluster, replica.address).await;
    slow.want("many:80").await;
    let mut other = Sidecar::connect(&cluster, replica.address).await;
    other.ask("orders:80").await.unwrap();
    let slow_ended = r#"outrider_controller_streams_ended_total{reason="slow"}"#;
    let mut rounds = 0;
    while replica.metric(slow_ended).await < 1.0 {
        rounds += 1;
        let pods = if rounds % 2 == 0 { vec![] } else { vec![meshed("orders-a", "10.1.0.1")] };
        cluster.slice("shop", "orders", &pods);
        other.until("the other is told", |sidecar| sidecar.addresses("orders:80").len() == pods.len()).await;
    }
    assert!(rounds > 3, "while the slow one was waited for: {rounds}");
    // What was on its way to it arrives, and then the end of the connection.
    let mut slow = slow;
    slow.ended().await;
}

#[tokio::test]
async fn who_comes_again_is_told_what_has_changed_and_by_another_replica_everything() {
    let cluster = Cluster::with_orders().await;
    let replica = Replica::start(&cluster, "one").await;
    let mut before = Sidecar::connect(&cluster, replica.address).await;
    let held = before.ask("orders:80").await.unwrap();
    let again = |address| {
        let want = api::Want { key: "orders:80".to_owned(), epoch: held.epoch, generation: held.generation };
        let (cluster, held) = (&cluster, held.clone());
        async move {
            let mut sidecar = Sidecar::connect(cluster, address).await;
            sidecar.services.insert("orders.shop.svc:80".to_owned(), held);
            sidecar.say(watch_request::Message::Want(want)).await;
            let mut services = 0;
            while !sidecar.keys.contains_key("orders:80") {
                services += usize::from(matches!(sidecar.hear().await.unwrap(), Message::Service(_)));
            }
            (sidecar, services)
        }
    };
    // Somebody else must keep the value, as it is made anew for who asks first.
    let (mut resumed, services) = again(replica.address).await;
    assert_eq!(services, 0);
    cluster.slice("shop", "orders", &[meshed("orders-b", "10.1.0.2")]);
    resumed.until("differences go on", |sidecar| sidecar.addresses("orders:80") == ["10.1.0.2:8080"]).await;
    let (late, services) = again(replica.address).await;
    assert_eq!((services, late.addresses("orders:80")), (1, vec!["10.1.0.2:8080"]));
    let other = Replica::start(&cluster, "two").await;
    let (elsewhere, services) = again(other.address).await;
    assert_eq!((services, elsewhere.addresses("orders:80")), (1, vec!["10.1.0.2:8080"]));
}

#[tokio::test]
async fn a_controller_that_stops_sends_sidecars_to_another() {
    let cluster = Cluster::with_orders().await;
    let (one, two) = (Replica::start(&cluster, "one").await, Replica::start(&cluster, "two").await);
    let mut sidecar = Sidecar::connect(&cluster, one.address).await;
    let told = sidecar.ask("orders:80").await.unwrap();
    one.begin_to_stop();
    assert_eq!(sidecar.ended().await.code(), Code::Unavailable);
    one.stop().await;
    let mut sidecar = Sidecar::connect(&cluster, two.address).await;
    let again = sidecar.ask("orders:80").await.unwrap();
    assert_eq!((again.cluster, again.endpoints), (told.cluster, told.endpoints), "all replicas say the same");
}
