//! The server itself, by the client that the product uses.

use futures_util::StreamExt as _;
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec},
    core::v1::{ConfigMap, Pod, Secret},
};
use kube::{
    Api, Error,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    runtime::{WatchStreamExt as _, reflector, watcher},
};
use serde_json::json;

use super::{API_AUDIENCE, Account, ApiServer, Kind};
use crate::harness::{eventually, soon};

fn map(name: &str, value: &str) -> ConfigMap {
    let object = json!({"metadata": {"name": name, "labels": {"of": value}}, "data": {"value": value}});
    serde_json::from_value(object).unwrap()
}

fn put_map(server: &ApiServer, name: &str, value: &str) {
    server.put(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"of": value}},
        "data": {"value": value},
    }));
}

fn code<T: std::fmt::Debug>(result: Result<T, Error>) -> (u16, String) {
    match result {
        Err(Error::Api(status)) => (status.code, status.reason.clone()),
        other => panic!("not refused by the server: {other:?}"),
    }
}

#[tokio::test]
async fn objects_are_changed_by_whoever_knows_the_newest_version() {
    let server = ApiServer::start().await;
    let api: Api<ConfigMap> = Api::namespaced(server.client().await, "default");
    let post = PostParams::default();
    let first = api.create(&post, &map("a", "1")).await.unwrap();
    assert_eq!(code(api.create(&post, &map("a", "1")).await), (409, "AlreadyExists".to_owned()));
    assert_eq!(code(api.get("none").await), (404, "NotFound".to_owned()));

    let changed = ConfigMap { data: map("a", "2").data, ..first.clone() };
    let second = api.replace("a", &post, &changed).await.unwrap();
    assert!(second.metadata.resource_version > first.metadata.resource_version);
    assert_eq!(code(api.replace("a", &post, &changed).await), (409, "Conflict".to_owned()));

    let patch = json!({"data": {"more": "3"}});
    let patched = api.patch("a", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    assert_eq!(patched.data.unwrap().len(), 2);
    let applied = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "data": {"x": "1", "y": "1"},
    });
    let applying = PatchParams::apply("tester").force();
    api.patch("b", &applying, &Patch::Apply(&applied)).await.unwrap();
    let applied =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "data": {"x": "2"}});
    let object = api.patch("b", &applying, &Patch::Apply(&applied)).await.unwrap();
    assert_eq!(object.data.unwrap().into_iter().collect::<Vec<_>>(), [("x".to_owned(), "2".to_owned())]);

    let stale = DeleteParams::default().preconditions(kube::api::Preconditions {
        uid: first.metadata.uid.clone(),
        resource_version: first.metadata.resource_version.clone(),
    });
    assert_eq!(code(api.delete("a", &stale).await), (409, "Conflict".to_owned()));
    let newest = api.get("a").await.unwrap().metadata;
    let fresh = DeleteParams::default().preconditions(kube::api::Preconditions {
        uid: newest.uid,
        resource_version: newest.resource_version,
    });
    let (one, other) = tokio::join!(api.delete("a", &fresh), api.delete("a", &fresh));
    assert!(one.is_ok() != other.is_ok(), "of two, one wins");
    assert_eq!(server.objects("configmaps").len(), 1);
}

#[tokio::test]
async fn a_watcher_survives_whatever_happens_to_its_watch() {
    let server = ApiServer::start().await;
    let api: Api<ConfigMap> = Api::all(server.client().await);
    let (reader, writer) = reflector::store();
    let events = watcher(api, watcher::Config::default()).default_backoff().reflect(writer);
    let task = tokio::spawn(events.for_each(|_event| async {}));
    let told = |value: &'static str| {
        let reader = reader.clone();
        async move {
            eventually(&format!("the watcher knows {value}"), || {
                let known = reader.state();
                known.len() == 1 && known[0].data.as_ref().is_some_and(|data| data["value"] == value)
            })
            .await;
        }
    };
    put_map(&server, "a", "first");
    told("first").await;
    server.watched("configmaps", 1).await;

    server.drop_watches();
    put_map(&server, "a", "after a drop");
    told("after a drop").await;

    // The next watch begins before what is kept: 410, and everything is listed again.
    server.stop().await;
    let lists = server.count("list", "configmaps");
    put_map(&server, "b", "unseen");
    server.remove("configmaps", "default", "b");
    put_map(&server, "a", "after a relist");
    server.forget_history();
    server.start_again().await;
    told("after a relist").await;
    assert!(server.count("list", "configmaps") > lists);

    server.refuse(Some((503, Some(1))));
    server.drop_watches();
    put_map(&server, "a", "after refusals");
    let asked = server.count("watch", "configmaps");
    eventually("it asks in vain", || server.count("watch", "configmaps") > asked).await;
    server.refuse(None);
    told("after refusals").await;

    server.stall_watches(true);
    put_map(&server, "a", "after silence");
    server.stall_watches(false);
    told("after silence").await;
    task.abort();
}

#[tokio::test]
async fn a_watch_is_told_what_begins_and_ends_to_match() {
    let server = ApiServer::start().await;
    put_map(&server, "a", "red");
    put_map(&server, "b", "blue");
    let api: Api<ConfigMap> = Api::namespaced(server.client().await, "default");
    let params = ListParams::default().labels("of=red");
    let list = api.list(&params).await.unwrap();
    assert_eq!(list.items.len(), 1);
    let from = list.metadata.resource_version.unwrap();
    let mut events = api.watch(&WatchParams::default().labels("of=red"), &from).await.unwrap().boxed();
    put_map(&server, "b", "red");
    put_map(&server, "a", "blue");
    server.watched("configmaps", 1).await;
    let mut next = async || soon("an event", events.next()).await.unwrap().unwrap();
    assert!(matches!(next().await, WatchEvent::Added(map) if map.metadata.name.as_deref() == Some("b")));
    assert!(matches!(next().await, WatchEvent::Deleted(map) if map.metadata.name.as_deref() == Some("a")));
    server.send_bookmarks();
    let revision =
        server.object("configmaps", "default", "a").unwrap()["metadata"]["resourceVersion"].clone();
    assert!(matches!(next().await, WatchEvent::Bookmark(mark) if revision == mark.metadata.resource_version));
    drop(events);
    server.watched("configmaps", 0).await;

    // A watch whose beginning is cut off ends at once.
    server.forget_history();
    let mut events = api.watch(&WatchParams::default(), &from).await.unwrap().boxed();
    let event = soon("an event", events.next()).await.unwrap().unwrap();
    assert!(matches!(event, WatchEvent::Error(status) if status.code == 410 && status.reason == "Expired"));
    assert!(soon("the end", events.next()).await.is_none());
}

#[tokio::test]
async fn pages_of_a_list_are_of_one_version() {
    let server = ApiServer::start().await;
    for name in ["a", "b", "c", "d", "e"] {
        put_map(&server, name, "1");
    }
    let api: Api<ConfigMap> = Api::all(server.client().await);
    let first = api.list(&ListParams::default().limit(2)).await.unwrap();
    server.remove("configmaps", "default", "d");
    put_map(&server, "aa", "1");
    let params = ListParams::default().limit(10).continue_token(&first.metadata.continue_.unwrap());
    let rest = api.list(&params).await.unwrap();
    let name = |map: &ConfigMap| map.metadata.name.clone().unwrap();
    let names: Vec<_> = first.items.iter().chain(&rest.items).map(name).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    server.forget_history();
    assert_eq!(code(api.list(&params).await).0, 410);
}

#[tokio::test]
async fn tokens_are_reviewed_with_their_audience_and_their_pod() {
    let server = ApiServer::start().await;
    let pod = server.put(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "orders-1", "namespace": "shop"},
        "spec": {"containers": []},
    }));
    let token = server.token(Account::service_account("shop", "orders", "outrider-ca").in_pod(&pod));
    let api: Api<TokenReview> = Api::all(server.client().await);
    let review = async |token: &str, audience: &str| {
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![audience.to_owned()]) };
        let review = TokenReview { metadata: ObjectMeta::default(), spec, status: None };
        api.create(&PostParams::default(), &review).await.unwrap().status.unwrap()
    };
    let good = review(&token, "outrider-ca").await;
    assert_eq!(good.authenticated, Some(true));
    assert_eq!(good.audiences.unwrap(), ["outrider-ca"]);
    let user = good.user.unwrap();
    assert_eq!(user.username.unwrap(), "system:serviceaccount:shop:orders");
    assert_eq!(user.extra.unwrap()["authentication.kubernetes.io/pod-name"], ["orders-1"]);
    for (token, audience) in [(token.as_str(), "another"), ("nonsense", "outrider-ca")] {
        assert_ne!(review(token, audience).await.authenticated, Some(true));
    }
    server.remove("pods", "shop", "orders-1");
    let gone = review(&token, "outrider-ca").await;
    assert_ne!(gone.authenticated, Some(true));
    assert!(gone.error.unwrap().contains("invalidated"));
}

#[tokio::test]
async fn a_service_account_may_do_what_its_roles_say() {
    let server = ApiServer::start().await;
    let stranger = server.client_as("nobody's").await;
    assert_eq!(code(Api::<Pod>::all(stranger).list(&ListParams::default()).await).0, 401);
    let token = server.service_account_token("outrider", "outrider-ca");
    let client = server.client_as(&token).await;
    let pods: Api<Pod> = Api::all(client.clone());
    assert_eq!(code(pods.list(&ListParams::default()).await), (403, "Forbidden".to_owned()));
    let subjects = json!([{"kind": "ServiceAccount", "name": "outrider-ca", "namespace": "outrider"}]);
    server.put(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "reads-pods"},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}],
    }));
    server.put(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "reads-pods"},
        "subjects": subjects, "roleRef": {"kind": "ClusterRole", "name": "reads-pods"},
    }));
    server.put(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": "keeps-a-secret", "namespace": "outrider"},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["outrider-ca"]}],
    }));
    server.put(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "keeps-a-secret", "namespace": "outrider"},
        "subjects": subjects, "roleRef": {"kind": "Role", "name": "keeps-a-secret"},
    }));
    pods.list(&ListParams::default()).await.unwrap();
    assert_eq!(code(pods.delete_collection(&DeleteParams::default(), &ListParams::default()).await).0, 403);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "outrider");
    assert_eq!(code(secrets.get("outrider-ca").await).0, 404);
    assert_eq!(code(secrets.get("another").await).0, 403);
    let elsewhere: Api<Secret> = Api::namespaced(client, "default");
    assert_eq!(code(elsewhere.get("outrider-ca").await).0, 403);
    let expired = Account {
        expires: std::time::SystemTime::UNIX_EPOCH,
        ..Account::service_account("a", "b", API_AUDIENCE)
    };
    let client = server.client_as(&server.token(expired)).await;
    assert_eq!(code(Api::<Pod>::all(client).list(&ListParams::default()).await).0, 401);
}

#[tokio::test]
async fn a_process_finds_it_by_a_kubeconfig_and_its_moods_are_seen() {
    let server = ApiServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    server.service_account_folder(folder.path(), "outrider", server.admin_token());
    assert!(std::fs::read_to_string(folder.path().join("ca.crt")).unwrap().contains("BEGIN CERTIFICATE"));
    let by_token = server.kubeconfig(folder.path(), server.admin_token());
    let by_token = std::fs::read_to_string(by_token).unwrap();
    let by_file = server.kubeconfig_by_file(folder.path(), &folder.path().join("token"));
    let by_file = std::fs::read_to_string(by_file).unwrap();
    for text in [by_token, by_file] {
        let config = kube::config::Kubeconfig::from_yaml(&text).unwrap();
        let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await.unwrap();
        assert!(config.cluster_url.to_string().contains(&server.address().to_string()));
        let api: Api<Secret> = Api::default_namespaced(kube::Client::try_from(config).unwrap());
        assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 0);
    }
    let token = server.token(Account {
        groups: vec!["system:masters".to_owned()],
        ..Account::service_account("a", "b", API_AUDIENCE)
    });
    let api: Api<Secret> = Api::all(server.client_as(&token).await);
    server.refuse_if(|call| (call.verb == "list" && call.resource == "secrets").then_some(500));
    assert_eq!(code(api.list(&ListParams::default()).await).0, 500);
    server.refuse(None);
    server.delay(std::time::Duration::from_millis(20));
    let began = std::time::Instant::now();
    api.list(&ListParams::default()).await.unwrap();
    assert!(began.elapsed() >= std::time::Duration::from_millis(20));
    server.revoke(&token);
    assert_eq!(code(api.list(&ListParams::default()).await).0, 401);
    let users: Vec<_> = server.calls().into_iter().map(|call| call.user).collect();
    assert_eq!(users[..3], ["admin", "admin", "system:serviceaccount:a:b"]);
    assert_eq!(users.last().unwrap(), "anonymous");
}

#[tokio::test]
async fn kinds_are_found_by_discovery_and_unknown_ones_are_not_there() {
    let server = ApiServer::start().await;
    let client = server.client().await;
    server.set_version("v1.28.3");
    assert_eq!(client.apiserver_version().await.unwrap().minor, "28");
    let gvk = kube::api::GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
    let route = || kube::discovery::pinned_kind(&client, &gvk);
    assert!(route().await.is_err());
    server.define(Kind::custom("gateway.networking.k8s.io/v1", "httproutes", "HTTPRoute"));
    let (resource, _capabilities) = route().await.unwrap();
    let api: Api<kube::api::DynamicObject> = Api::namespaced_with(client.clone(), "default", &resource);
    let object = server.put(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": {"name": "r"}, "spec": {"a": 1},
    }));
    assert_eq!(object["metadata"]["generation"], 1);
    let status = json!({"spec": {"a": 2}, "status": {"seen": true}});
    let patched = api.patch_status("r", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    assert_eq!(patched.data, json!({"spec": {"a": 1}, "status": {"seen": true}}));
    let spec = json!({"spec": {"a": 2}, "status": {"seen": false}});
    let patched = api.patch("r", &PatchParams::default(), &Patch::Merge(spec)).await.unwrap();
    assert_eq!(patched.data, json!({"spec": {"a": 2}, "status": {"seen": true}}));
    assert_eq!(patched.metadata.generation, Some(2));
    let found = kube::Discovery::new(client).run().await.unwrap();
    assert!(found.has_group("discovery.k8s.io"));
}
