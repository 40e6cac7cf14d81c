//! Who is not ejected.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Method, Response, StatusCode};
use outrider::model::health::Standing;

use super::{IN_TURNS, Moody, Service, looked_at};
use crate::harness::{Client, HttpApp, TestMesh, app::nobody, body, client::call, eventually};

#[tokio::test]
async fn what_was_asked_for_is_not_the_endpoints_doing() {
    let good = HttpApp::named("good").await;
    for status in [400, 401, 404, 408, 429, 501] {
        let status = StatusCode::from_u16(status).unwrap();
        let odd = Moody::new(status).await;
        let service = Service::new(&[odd.app.address(), good.address()], "", IN_TURNS).await;
        let statuses = service.call(40).await;
        assert!(statuses.contains(&status));
        assert_eq!(service.ejected(), [0_usize; 0], "{status}");
    }
}

#[tokio::test]
async fn callers_who_leave_and_timeouts_too_short_for_all_eject_nobody() {
    let slow = async || {
        HttpApp::start(|_request| async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok(Response::new(body::full("slow")))
        })
        .await
    };
    let apps = [slow().await, slow().await, slow().await];
    let addresses: Vec<_> = apps.iter().map(HttpApp::address).collect();
    let keys = format!("{IN_TURNS}, request_timeout: 10ms");
    let service = Service::new(&addresses, "", &keys).await;
    let statuses = service.call(60).await;
    assert!(statuses.iter().all(|status| *status == StatusCode::GATEWAY_TIMEOUT));
    assert_eq!(service.ejected(), [0_usize; 0]);
    let service = Service::new(&addresses, "", IN_TURNS).await;
    for seen in 1..=30 {
        let before = apps.iter().map(HttpApp::count).sum::<usize>();
        let mut client = Client::http1(service.web.address()).await;
        let mut asking = Box::pin(client.get("/"));
        tokio::select! {
            _answer = &mut asking => panic!("too early"),
            () = eventually("it is asked", || apps.iter().map(HttpApp::count).sum::<usize>() > before) => {}
        }
        drop(asking);
        assert_eq!(service.ejected(), [0_usize; 0], "after {seen}");
    }
    assert_eq!(service.call(3).await, [StatusCode::OK; 3]);
}

#[tokio::test]
async fn a_single_long_poll_waits_as_long_as_it_likes() {
    let polls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&polls);
    let poll = HttpApp::start(move |request| {
        let count = Arc::clone(&count);
        async move {
            if request.uri().path() == "/poll" {
                count.fetch_add(1, Ordering::Relaxed);
                std::future::pending::<()>().await;
            }
            Ok(Response::new(body::full("quick")))
        }
    })
    .await;
    let other = HttpApp::named("quick").await;
    let service = Service::new(&[poll.address(), other.address()], "", "").await;
    let mut client = Client::http1(service.web.address()).await;
    // Whichever of them has it.
    let polling = async {
        let mut asking = Box::pin(client.get("/poll"));
        tokio::select! {
            _answer = &mut asking => {}
            () = async {
                for _ in 0..7 {
                    service.call(30).await;
                    looked_at(&service.web, 1).await;
                }
            } => {}
        }
    };
    polling.await;
    assert!(polls.load(Ordering::Relaxed) <= 1, "it is asked once, and not again elsewhere");
    assert_eq!(service.call(3).await, [StatusCode::OK; 3]);
}

#[tokio::test]
async fn the_only_endpoint_is_asked_whatever_it_answers_and_of_two_one_is_left() {
    let bad = [
        Moody::new(StatusCode::SERVICE_UNAVAILABLE).await,
        Moody::new(StatusCode::SERVICE_UNAVAILABLE).await,
    ];
    let alone = Service::new(&[bad[0].app.address()], "", IN_TURNS).await;
    alone.call(30).await;
    assert_eq!(bad[0].app.count(), 30);
    let both = Service::new(&[bad[0].app.address(), bad[1].app.address()], "", IN_TURNS).await;
    both.call(60).await;
    assert!(both.ejected().len() <= 1);
}

#[tokio::test]
async fn an_endpoint_that_says_it_is_overloaded_weighs_less_and_stays() {
    let good = HttpApp::named("good").await;
    let busy = HttpApp::start(|_request| async {
        let response = Response::builder().status(429).header("retry-after", "120");
        Ok(response.body(body::empty())?)
    })
    .await;
    let service = Service::new(&[busy.address(), good.address()], "", IN_TURNS).await;
    let statuses = service.call(200).await;
    let refused = statuses.iter().filter(|status| **status == StatusCode::TOO_MANY_REQUESTS).count();
    assert!((5..60).contains(&refused), "{refused} of 200");
    assert_eq!(service.standing(0), Standing::Usable);
    let endpoint = service.endpoint(0);
    let until = endpoint.runtime.health.overloaded_until_us.load(Ordering::Relaxed);
    let left = Duration::from_micros(until).saturating_sub(endpoint.runtime.epoch.elapsed());
    // What it says may be about us alone: others are not kept from it for two minutes.
    assert!(!left.is_zero() && left <= Duration::from_secs(10), "{left:?}");
}

#[tokio::test]
async fn a_rest_goes_on_over_a_reload_and_ends_when_the_others_are_gone() {
    let mesh = TestMesh::new();
    let app = HttpApp::named("good").await;
    let orders = mesh.callee("orders", app.address(), "").await;
    let gone = nobody();
    let yaml = |endpoints: &[_], keys: &str| {
        let cluster = TestMesh::cluster("orders", endpoints, &format!("{IN_TURNS}{keys}"));
        format!("outbound: [{{name: out, listen: '127.0.0.1:0'}}]\nclusters: [{cluster}]")
    };
    let mut web = mesh.start("web", &yaml(&[gone, orders.address()], "")).await;
    for _ in 0..20 {
        call(web.address(), Method::GET).await;
    }
    assert!(super::is_ejected(&super::endpoint(&web, gone)));
    mesh.reload(&mut web, "web", &yaml(&[gone, orders.address()], ", connect_timeout: 1s")).await.unwrap();
    assert!(super::is_ejected(&super::endpoint(&web, gone)));
    for _ in 0..10 {
        assert_eq!(call(web.address(), Method::GET).await.0, StatusCode::OK);
    }
    mesh.reload(&mut web, "web", &yaml(&[gone], "")).await.unwrap();
    eventually("the last one is let in", || !super::is_ejected(&super::endpoint(&web, gone))).await;
}
