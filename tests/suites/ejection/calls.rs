//! Calls of HTTP and gRPC.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use outrider::model::{health::Standing, outlier::Reason};

use super::{IN_TURNS, Load, Moody, Service, endpoint, is_ejected};
use crate::harness::{
    Client, HttpApp, TcpApp, TestMesh,
    app::nobody,
    body,
    client::{call, field, request},
    eventually, soon,
};

#[tokio::test]
async fn an_app_that_answers_503_is_asked_no_more() {
    let (good, also_good) = (HttpApp::named("good").await, HttpApp::named("good").await);
    let bad = Moody::new(StatusCode::SERVICE_UNAVAILABLE).await;
    let apps = [bad.app.address(), good.address(), also_good.address()];
    let service = Service::new(&apps, "", IN_TURNS).await;
    let statuses = service.call(30).await;
    assert_eq!(statuses.iter().filter(|status| **status != StatusCode::OK).count(), 5);
    assert_eq!((bad.app.count(), service.ejected()), (5, vec![0]));
    assert_eq!(service.ejected_for(Reason::GatewayFailures), 1);
}

#[tokio::test]
async fn it_is_back_after_one_good_answer_and_gets_its_share_at_once() {
    let good = HttpApp::named("good").await;
    let bad = Moody::new(StatusCode::BAD_GATEWAY).await;
    // By latency, too: what was remembered of its failures does not keep requests away.
    for balance in ["round_robin", "peak_ewma"] {
        bad.turns(StatusCode::BAD_GATEWAY);
        let service = Service::new(
            &[bad.app.address(), good.address()],
            "",
            &format!(
                "balance: {balance}, outlier_detection: {{ejection_time: 300ms, max_ejection_time: 300ms}}"
            ),
        )
        .await;
        while !service.is_ejected(0) {
            service.call(1).await;
        }
        eventually("it has rested", || service.standing(0) == Standing::Due).await;
        // The probe is repeated elsewhere: it costs its caller nothing.
        let before = bad.app.count();
        assert_eq!(service.call(1).await, [StatusCode::OK]);
        assert_eq!((bad.app.count() - before, service.is_ejected(0)), (1, true), "{balance}");
        assert_eq!(service.ejected_for(Reason::Probe), 1);
        bad.turns(StatusCode::OK);
        eventually("it has rested again", || service.standing(0) == Standing::Due).await;
        service.call(1).await;
        assert_eq!(service.standing(0), Standing::Usable);
        let before = bad.app.count();
        // By latency, one slow answer keeps some away for a while, and no more than that.
        let share = async {
            while bad.app.count() - before < 8 {
                service.call(40).await;
            }
        };
        soon(&format!("{balance}: it gets its share"), share).await;
    }
}

#[tokio::test]
async fn an_endpoint_that_refuses_connections_is_asked_no_more() {
    let mesh = TestMesh::new();
    let app = HttpApp::named("good").await;
    let orders = mesh.callee("orders", app.address(), "").await;
    let gone = nobody();
    let keys = "balance: round_robin, outlier_detection: {ejection_time: 1h}";
    let web = mesh.caller(&[gone, orders.address()], keys).await;
    for _ in 0..40 {
        assert_eq!(call(web.address(), Method::POST).await.0, StatusCode::OK);
    }
    assert!(is_ejected(&endpoint(&web, gone)));
    assert_eq!(web.cluster("orders").runtime.outlier.ejected_for(Reason::LocalFailures), 1);
    assert_eq!(web.retries(), 5, "and after that, nothing is to be repeated");
}

#[tokio::test]
async fn a_sidecar_whose_app_is_down_is_taken_at_its_word() {
    let app = HttpApp::named("good").await;
    let service = Service::new(&[nobody(), app.address()], "", IN_TURNS).await;
    let statuses = service.call(30).await;
    assert_eq!(statuses.iter().filter(|status| **status != StatusCode::OK).count(), 5);
    assert_eq!((service.ejected(), service.ejected_for(Reason::GatewayFailures)), (vec![0], 1));
}

#[tokio::test]
async fn an_app_far_slower_than_the_others_rests() {
    let quick = [HttpApp::named("quick").await, HttpApp::named("quick").await];
    let slow = HttpApp::start(|_request| async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(Response::new(body::full("slow")))
    })
    .await;
    let apps = [quick[0].address(), slow.address(), quick[1].address()];
    let keys = "balance: round_robin, outlier_detection: {ejection_time: 1h, window: 2s, min_requests: 5}";
    let service = Service::new(&apps, "", keys).await;
    let _load = Load::start(service.web.address(), 6, Duration::from_millis(5));
    eventually("the slow one rests", || service.is_ejected(1)).await;
    assert_eq!((service.ejected(), service.ejected_for(Reason::Slow)), (vec![1], 1));
}

#[tokio::test]
async fn an_app_that_fails_more_often_than_the_others_rests() {
    let apps = [HttpApp::named("good").await, HttpApp::named("good").await];
    let turn = std::sync::atomic::AtomicUsize::new(0);
    let turn = std::sync::Arc::new(turn);
    let poor = HttpApp::start(move |_request| {
        let is_bad = turn.fetch_add(1, std::sync::atomic::Ordering::Relaxed).is_multiple_of(3);
        async move {
            let status = if is_bad { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::OK };
            Ok(Response::builder().status(status).body(body::full("poor"))?)
        }
    })
    .await;
    let apps = [apps[0].address(), apps[1].address(), poor.address()];
    let keys = "balance: round_robin, outlier_detection: {ejection_time: 1h, window: 1s}";
    let service = Service::new(&apps, "", keys).await;
    let _load = Load::start(service.web.address(), 6, Duration::from_millis(5));
    eventually("the poor one rests", || service.is_ejected(2)).await;
    assert_eq!((service.ejected(), service.ejected_for(Reason::SuccessRate)), (vec![2], 1));
}

#[tokio::test]
async fn an_app_that_accepts_and_never_answers_rests_though_nothing_timed_out() {
    let quick = [HttpApp::named("quick").await, HttpApp::named("quick").await];
    let silent = TcpApp::start(async |stream| {
        let _held = stream;
        std::future::pending().await
    })
    .await;
    let apps = [quick[0].address(), quick[1].address(), silent.address()];
    let service = Service::new(&apps, "app_protocol: http1", IN_TURNS).await;
    // Whoever calls gets stuck when it is the silent one's turn; so there are always new ones.
    let address = service.web.address();
    let load = tokio::spawn(async move {
        let mut calls = tokio::task::JoinSet::new();
        loop {
            calls.spawn(call(address, Method::GET));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    eventually("the silent one rests", || service.is_ejected(2)).await;
    assert_eq!((service.ejected(), service.ejected_for(Reason::Silent)), (vec![2], 1));
    load.abort();
}

/// An app of gRPC that ends every call with that status: in its trailers, or in its head.
async fn grpc_app(status: &'static str, is_in_trailers: bool) -> HttpApp {
    HttpApp::start(move |request| async move {
        body::drain(request.into_body()).await?;
        let response = Response::builder().header("content-type", "application/grpc");
        let status = HeaderValue::from_static(status);
        Ok(if is_in_trailers {
            let trailers = HeaderMap::from_iter([("grpc-status".parse()?, status)]);
            response.body(body::streamed(5, Some(trailers)))?
        } else {
            response.header("grpc-status", status).body(body::empty())?
        })
    })
    .await
}

#[tokio::test]
async fn calls_that_end_as_unavailable_eject_wherever_that_stands() {
    for is_in_trailers in [true, false] {
        let (good, bad) = (grpc_app("0", is_in_trailers).await, grpc_app("14", is_in_trailers).await);
        let service = Service::new(&[bad.address(), good.address()], "app_protocol: http2", IN_TURNS).await;
        let mut client = Client::http2(service.web.address()).await;
        for _ in 0..30 {
            let mut sent = request(Method::POST, "/shop.Orders/Place", body::empty());
            sent.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            let response = client.send(sent).await.unwrap();
            assert_eq!(field(&response, "content-type"), Some("application/grpc"));
            drop(body::drain(response.into_body()).await);
        }
        assert_eq!((bad.count(), service.ejected()), (5, vec![0]), "in trailers: {is_in_trailers}");
        assert_eq!(service.ejected_for(Reason::GatewayFailures), 1);
    }
}

#[tokio::test]
async fn an_app_that_breaks_its_answers_off_rests() {
    let good = HttpApp::named("good").await;
    let bad = HttpApp::start(|_request| async {
        let (sender, body) = body::channel();
        tokio::spawn(async move {
            sender.send(Ok(hyper::body::Frame::data("half".into()))).await.ok();
            sender.send(Err("broken".into())).await.ok();
        });
        Ok(Response::new(body))
    })
    .await;
    let keys = "balance: round_robin, outlier_detection: {ejection_time: 1h, window: 1s}";
    let service = Service::new(&[bad.address(), good.address()], "", keys).await;
    for _ in 0..120 {
        let mut client = Client::http1(service.web.address()).await;
        if let Ok(response) = client.get("/").await {
            drop(body::drain(response.into_body()).await);
        }
    }
    eventually("it rests", || service.is_ejected(0)).await;
    assert_eq!(service.ejected(), [0]);
}
