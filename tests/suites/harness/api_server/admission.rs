//! Mutating webhooks: called for each pod that is created, as the API server calls them.
//!
//! There is no second round for `reinvocationPolicy: IfNeeded`; matching by `matchConditions` is not known here.

use std::{sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, version::TLS13};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{
    Shared,
    accounts::Account,
    failure::Failure,
    patch::{self, PatchKind},
    request::Target,
    selectors::Selector,
    store,
};
use crate::harness::BoxError;

/// What the webhooks make of an object that is about to be created, one after the other.
pub(super) async fn admitted(
    shared: &Shared,
    (target, account, is_dry): (&Target, &Account, bool),
    mut object: Value,
) -> Result<Value, Failure> {
    let (hooks, namespace) = {
        let store = shared.store.lock().unwrap();
        let resource = "admissionregistration.k8s.io/mutatingwebhookconfigurations";
        let hooks = store.list(resource, None, store.revision())?;
        (hooks, store.find("namespaces", "", &target.namespace).map(|found| (*found).clone()))
    };
    let namespace = namespace.unwrap_or_default();
    let mut all = Vec::new();
    for hook in &hooks {
        all.extend(hook["webhooks"].as_array().cloned().unwrap_or_default());
    }
    for hook in &all {
        let is_selected =
            selects(&hook["namespaceSelector"], &namespace) && selects(&hook["objectSelector"], &object);
        if is_for(hook, target) && is_selected {
            object = asked(shared, hook, (target, account, is_dry), object).await?;
        }
    }
    Ok(object)
}

fn is_for(hook: &Value, target: &Target) -> bool {
    let rules = hook["rules"].as_array().cloned().unwrap_or_default();
    rules.iter().any(|rule| {
        let lists = |field: &str, wanted: &str| {
            rule[field].as_array().is_some_and(|list| list.iter().any(|one| one == "*" || one == wanted))
        };
        lists("operations", "CREATE")
            && lists("apiGroups", &target.kind.group)
            && lists("resources", &target.kind.plural)
    })
}

/// Whether a label selector fits an object's labels.
fn selects(selector: &Value, object: &Value) -> bool {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut parts = Vec::new();
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        parts.push(format!("{key}={}", text(value)));
    }
    for one in selector["matchExpressions"].as_array().into_iter().flatten() {
        let (key, values) = (text(&one["key"]), one["values"].as_array().cloned().unwrap_or_default());
        let values = values.iter().map(text).collect::<Vec<_>>().join(",");
        parts.push(match one["operator"].as_str() {
            Some("In") => format!("{key} in ({values})"),
            Some("NotIn") => format!("{key} notin ({values})"),
            Some("Exists") => key,
            Some("DoesNotExist") => format!("!{key}"),
            other => panic!("no operator of a selector: {other:?}"),
        });
    }
    Selector::parse(Some(&parts.join(",")), None).expect("a selector").matches(object)
}

async fn asked(
    shared: &Shared,
    hook: &Value,
    (target, account, is_dry): (&Target, &Account, bool),
    object: Value,
) -> Result<Value, Failure> {
    let name = hook["name"].as_str().unwrap_or_default();
    let seconds = hook["timeoutSeconds"].as_u64().unwrap_or(10);
    let uid = store::uid();
    let kind = json!({"group": target.kind.group, "version": target.kind.version, "kind": target.kind.kind});
    let resource =
        json!({"group": target.kind.group, "version": target.kind.version, "resource": target.kind.plural});
    let review = json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": uid, "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
            "name": object["metadata"]["name"], "namespace": target.namespace, "operation": "CREATE",
            "userInfo": {"username": account.username, "groups": account.groups},
            "object": object, "oldObject": null, "dryRun": is_dry,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    });
    let called = call(shared, &hook["clientConfig"], &review, seconds);
    let answer = match tokio::time::timeout(Duration::from_secs(seconds), called).await {
        Ok(answer) => answer,
        Err(_elapsed) => Err("context deadline exceeded".into()),
    };
    let response = match answer {
        Ok(answer) if answer["response"]["uid"] == *uid => answer["response"].clone(),
        Ok(_) if hook["failurePolicy"] == "Ignore" => return Ok(object),
        Err(_) if hook["failurePolicy"] == "Ignore" => return Ok(object),
        Ok(answer) => return Err(failed(name, &format!("unexpected response: {answer}"))),
        Err(error) => return Err(failed(name, &error.to_string())),
    };
    if response["allowed"] != true {
        let code =
            response["status"]["code"].as_u64().and_then(|code| u16::try_from(code).ok()).unwrap_or(403);
        let why = response["status"]["message"].as_str().unwrap_or("without explanation");
        return Err(Failure::new(
            code,
            "Forbidden",
            format!("admission webhook \"{name}\" denied the request: {why}"),
        ));
    }
    let Some(patch) = response["patch"].as_str() else { return Ok(object) };
    let patch = STANDARD.decode(patch).ok().and_then(|patch| serde_json::from_slice(&patch).ok());
    let patch = patch.ok_or_else(|| failed(name, "the patch is not base64 of JSON"))?;
    patch::patched(PatchKind::Json, &object, patch, None)
}

fn failed(name: &str, why: &str) -> Failure {
    let message =
        format!("Internal error occurred: failed calling webhook \"{name}\": failed to call webhook: {why}");
    Failure::new(500, "InternalError", message)
}

async fn call(shared: &Shared, client: &Value, review: &Value, seconds: u64) -> Result<Value, BoxError> {
    let text = |pointer: &str| client.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (service, namespace) = (text("/service/name"), text("/service/namespace"));
    let host = format!("{service}.{namespace}.svc");
    let address = shared.services.lock().unwrap().get(&(namespace, service)).copied();
    let address = address.ok_or_else(|| format!("dial tcp: lookup {host}: no such host"))?;
    let mut roots = RootCertStore::empty();
    let bundle = STANDARD.decode(text("/caBundle"))?;
    for root in CertificateDer::pem_slice_iter(&bundle) {
        roots.add(root?)?;
    }
    let provider = outrider_certs::rustls_verify::provider();
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(ServerName::try_from(host.clone())?, stream).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let _connection = tokio::spawn(connection);
    let request = Request::post(format!("{}?timeout={seconds}s", text("/service/path")))
        .header(header::HOST, host)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(review.to_string())))?;
    let response = sender.send_request(request).await?;
    if !response.status().is_success() {
        return Err(format!("an error on the server: {}", response.status()).into());
    }
    Ok(serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?)
}
