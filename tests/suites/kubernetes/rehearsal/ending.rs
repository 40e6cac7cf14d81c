//! How pods end: nothing is lost, and the sidecar goes last.

use futures_util::future::join_all;
use http::Method;

use super::{
    calls::{service, slow_service},
    load::Load,
    mesh::Mesh,
    pod::Pod,
    rehearse,
};
use crate::processes::until;

/// Where an event stands among those of a pod.
fn place(pod: &Pod, event: &str) -> usize {
    let events = pod.events();
    events.iter().position(|one| one == event).unwrap_or_else(|| panic!("not {event:?} in {events:?}"))
}

#[test]
fn a_rolling_restart_under_load_loses_no_call_that_may_be_repeated() {
    rehearse(async || rolling_restart(&slow_service("orders", 2, 40), &Method::GET).await);
}

#[test]
fn a_rolling_restart_under_load_loses_no_call_at_all_if_apps_stay_until_all_have_heard() {
    rehearse(async || {
        let stays = "          lifecycle: {preStop: {exec: {command: [sleep, '1']}}}\n";
        rolling_restart(&(slow_service("orders", 2, 40) + stays), &Method::POST).await;
    });
}

/// Two replicas give way to others, one after the other, under load.
async fn rolling_restart(orders: &str, method: &Method) {
    let mesh = Mesh::start().await;
    let orders = mesh.apply(orders).await;
    let web = mesh.apply(&service("web", 1)).await;
    for pod in orders.iter().chain(&web) {
        pod.ready().await;
    }
    let loads = Load::several(&web[0], mesh.cluster.service("orders"), method);
    for old in &orders {
        mesh.cluster.replica("orders").await.ready().await;
        join_all(loads.iter().map(|load| load.goes_on(20))).await;
        old.delete().await;
    }
    join_all(loads.iter().map(|load| load.goes_on(20))).await;
    for load in loads {
        assert_eq!(load.end().await, Vec::<String>::new(), "{:?}", orders[0].events());
    }
    for old in &orders {
        assert!(place(old, "outrider preStop 0") < place(old, "outrider told to end"));
        assert!(place(old, "app told to end") < place(old, "app ended 0"));
        assert!(place(old, "app ended 0") < place(old, "outrider told to end"));
        assert!(place(old, "outrider told to end") < place(old, "outrider ended 0"));
        assert!(!old.events().iter().any(|event| event.contains("in time")), "{:?}", old.events());
    }
}

/// A pod whose app has something to say when it is told to end.
const LAST_WORDS: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: app
          image: registry.example/app:1
          command:
            - sh
            - -c
            - |
              trap 'curl -sS --fail --max-time 10 http://orders/last; exit $?' TERM
              echo begun
              while :; do sleep 1 & wait $!; done
";

#[test]
fn an_app_that_is_told_to_end_may_still_call_others() {
    rehearse(async || {
        let mesh = Mesh::start().await;
        let orders = mesh.apply(&service("orders", 1)).await;
        orders[0].ready().await;
        let web = mesh.apply(LAST_WORDS).await;
        web[0].ready().await;
        until("the app has begun", async || web[0].log("app").contains("begun")).await;
        web[0].delete().await;
        assert!(
            place(&web[0], "app ended 0") < place(&web[0], "outrider told to end"),
            "{:?}",
            web[0].events()
        );
        assert!(web[0].log("app").contains("\"path\":\"/last\""), "{}", web[0].log("app"));
    });
}

/// A Job that calls, and ends with this code.
fn job(name: &str, code: u8) -> String {
    format!(
        "apiVersion: batch/v1
kind: Job
metadata: {{name: {name}, namespace: shop}}
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: main
          image: registry.example/app:1
          command: [sh, -c, 'curl -sS --fail --max-time 20 --retry 5 --retry-all-errors http://orders/job && exit {code}']
"
    )
}

#[test]
fn pods_of_jobs_complete_with_the_codes_of_their_apps() {
    rehearse(async || {
        let mesh = Mesh::start().await;
        let orders = mesh.apply(&service("orders", 1)).await;
        orders[0].ready().await;
        let pods = mesh.apply(&(job("good", 0) + "---\n" + &job("bad", 3))).await;
        for (pod, code, phase) in [(&pods[0], 0, "Succeeded"), (&pods[1], 3, "Failed")] {
            until("the sidecar is over", async || pod.status("outrider").is_over).await;
            assert_eq!((pod.status("main").ended, pod.phase()), (Some(code), phase), "{:?}", pod.events());
            assert_eq!(pod.status("outrider").ended, Some(0), "{}", pod.log("outrider"));
            assert!(place(pod, &format!("main ended {code}")) < place(pod, "outrider told to end"));
            assert!(pod.log("main").contains("\"path\":\"/job\""), "{}", pod.log("main"));
        }
    });
}
