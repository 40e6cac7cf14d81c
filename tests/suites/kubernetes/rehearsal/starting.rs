//! What happens before an app starts, and what must not.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};

use super::{calls::service, mesh::Mesh, network, pod::Pod, rehearse};
use crate::{harness::within, kubernetes::webhook::caller::get, processes::until};

/// A Deployment of one pod whose own init container needs the network.
const FETCHES: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      serviceAccountName: web
      volumes: [{name: data, emptyDir: {}}]
      initContainers:
        - name: fetch
          image: registry.example/app:1
          command: [curl, -sS, --fail, --max-time, '20', --retry, '5', --retry-all-errors, -o, /data/got, 'http://orders.shop/']
          volumeMounts: [{name: data, mountPath: /data}]
          securityContext: {runAsUser: 1000}
      containers:
        - name: app
          image: registry.example/app:1
          command: [service, --name, web, --listen, '0.0.0.0:8080']
          volumeMounts: [{name: data, mountPath: /data, readOnly: true}]
";

#[test]
fn an_init_container_of_the_users_reaches_the_mesh() {
    rehearse(async || {
        let mesh = Mesh::start().await;
        let orders = mesh.apply(&service("orders", 1)).await;
        orders[0].ready().await;
        let web = mesh.apply(FETCHES).await;
        web[0].ready().await;
        let events = web[0].events();
        let order =
            ["outrider-init ended 0", "outrider started", "fetch started", "fetch ended 0", "app started"];
        let places: Vec<_> = order.iter().map(|event| events.iter().position(|one| one == event)).collect();
        assert!(places.is_sorted() && places.iter().all(Option::is_some), "{events:?}");
        let got = web[0].text("app", &["cat", "/data/got"]).await;
        assert!(got.contains("URI=spiffe://cluster.local/ns/shop/sa/web"), "{got}");
    });
}

/// What becomes of a connection from within a pod.
async fn connects(pod: &Pod, to: SocketAddr) -> bool {
    pod.host.begin(move || async move { TcpStream::connect(to).await.is_ok() }).await.expect("it ends")
}

#[test]
fn nothing_leaves_and_no_app_starts_before_the_sidecar_is_ready() {
    rehearse(async || {
        let mesh = Mesh::start().await;
        until("the roots are where pods start", async || {
            mesh.cluster.api.object("configmaps", "shop", "outrider-trust-bundle").is_some()
        })
        .await;
        // Without the controller a sidecar does not know the cluster.
        mesh.stop("outrider-controller").await;
        let web = mesh.apply(&service("web", 1)).await;
        let web = &web[0];
        until("the sidecar waits for the controller alone", async || {
            let (status, missing) = get(web.at(4391), "/ready").await;
            status == 503 && missing.contains("controller") && !missing.contains("identity")
        })
        .await;
        let outside = TcpListener::bind((network::ADDRESS, 0)).await.unwrap();
        let address = outside.local_addr().unwrap();
        // The kernel brings the connection to the sidecar, which goes nowhere with it.
        let _in_vain = connects(web, address).await;
        let came = tokio::time::timeout(std::time::Duration::from_secs(1), outside.accept()).await;
        assert!(came.is_err(), "somebody came: {came:?}");
        assert!(!web.status("app").is_kept && !web.status("outrider").is_started, "{:?}", web.events());

        mesh.start_again(&["outrider-controller"]).await;
        web.ready().await;
        assert_eq!(web.status("outrider").restarts, 0);
        assert!(connects(web, address).await);
        assert!(tokio::time::timeout(crate::processes::DEADLINE, outside.accept()).await.is_ok());
        assert!(
            within(crate::processes::DEADLINE, || web
                .events()
                .last()
                .is_some_and(|one| one == "app started"))
            .await
        );
    });
}
