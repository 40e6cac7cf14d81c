//! Looks at a cluster. It changes nothing: the one pod that it creates is on trial (dry run).

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use kube::Client;
use serde_json::{Value, json};

use super::{Facts, Part, Right, Seen, Trial, Webhook, census::Census, trial};
use crate::{install, names};

/// Objects in one answer of the API server.
const PAGE: usize = 500;
/// Time for one question.
const LIMIT: Duration = Duration::from_secs(15);
/// Words of the API server that are told on.
const MAX_WORDS: usize = 400;

const PARTS: [&str; 3] = ["outrider-ca", "outrider-controller", "outrider-injector"];

/// Looks at the cluster that `client` reaches, and the installation in `namespace`. What cannot be seen is told in the facts.
pub async fn gather(client: &Client, namespace: &str, now: SystemTime) -> Facts {
    let ask = Ask { client, namespace };
    let mut facts = Facts { now: Some(now), namespace: namespace.to_owned(), ..Facts::default() };
    let version = ask.get("/version").await;
    facts.version = facts.take("the version", version).as_ref().and_then(version_of);
    let mut is_bare = true;
    for name in PARTS {
        let deployment = ask.find(&format!("/apis/apps/v1/namespaces/{namespace}/deployments/{name}")).await;
        let Some(deployment) = facts.take(name, deployment) else {
            is_bare = false;
            continue;
        };
        is_bare &= deployment.is_none();
        facts.parts.push(part(name, deployment.as_ref()));
    }
    let webhook = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/outrider-injector";
    let webhook = ask.find(webhook).await;
    facts.webhook = seen(facts.take("the webhook", webhook), |object| webhook_of(&object));
    facts.is_bare = is_bare && matches!(facts.webhook, Seen::Absent);
    if facts.is_bare {
        return facts;
    }
    let bundle = format!("/api/v1/namespaces/{namespace}/configmaps/{}", names::BUNDLE_CONFIG_MAP);
    let bundle = ask.find(&bundle).await;
    let bundle = facts.take("the trust bundle", bundle);
    facts.roots = seen(bundle, |bundle| ends_of(text(&bundle, "/data/bundle.pem").as_bytes()));
    let rights = ask.rights().await;
    facts.rights = facts.take("rights", rights).unwrap_or_default();
    let census = ask.census().await;
    if let Some(census) = facts.take("pods", census) {
        (facts.pods, facts.odd_labels, facts.unheard_labels) = (census.pods, census.odd, census.unheard);
    }
    facts.trial = Some(ask.trial().await);
    facts
}

impl Facts {
    /// What was answered; what was not is told.
    fn take<T>(&mut self, what: &str, answer: Result<T, String>) -> Option<T> {
        answer.map_err(|error| self.unseen.push(format!("{what}: {error}"))).ok()
    }
}

fn seen<T>(answer: Option<Option<Value>>, read: impl FnOnce(Value) -> T) -> Seen<T> {
    match answer {
        None => Seen::No,
        Some(None) => Seen::Absent,
        Some(Some(object)) => Seen::There(read(object)),
    }
}

struct Ask<'a> {
    client: &'a Client,
    namespace: &'a str,
}

impl Ask<'_> {
    async fn send(&self, request: http::Request<Vec<u8>>) -> Result<Value, kube::Error> {
        match tokio::time::timeout(LIMIT, self.client.request(request)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(kube::Error::Service("no answer in time".into())),
        }
    }

    async fn get(&self, path: &str) -> Result<Value, String> {
        self.send(request(http::Request::get(path), Vec::new())).await.map_err(|error| words(&error))
    }

    /// The object, if it exists.
    async fn find(&self, path: &str) -> Result<Option<Value>, String> {
        match self.send(request(http::Request::get(path), Vec::new())).await {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(words(&error)),
        }
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value, kube::Error> {
        let builder = http::Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
        self.send(request(builder, body.to_string().into_bytes())).await
    }

    /// All objects there, a page at a time; `each` sees every one and keeps what is needed.
    async fn list(&self, path: &str, mut each: impl FnMut(&Value)) -> Result<(), String> {
        let mut next = String::new();
        loop {
            let page = self.get(&format!("{path}?limit={PAGE}{next}")).await?;
            array(&page, "/items").iter().for_each(&mut each);
            match text(&page, "/metadata/continue") {
                "" => return Ok(()),
                more => next = format!("&continue={}", escaped(more)),
            }
        }
    }

    /// Whether each part may do what its roles of this version's manifests say.
    async fn rights(&self) -> Result<Vec<Right>, String> {
        let mut rights = Vec::new();
        for wish in wishes(self.namespace)? {
            let review = json!({
                "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
                "spec": {
                    "user": format!("system:serviceaccount:{}:{}", self.namespace, wish.part),
                    "groups": ["system:serviceaccounts", format!("system:serviceaccounts:{}", self.namespace), "system:authenticated"],
                    "resourceAttributes": {
                        "verb": wish.verb, "group": wish.group, "resource": wish.resource,
                        "namespace": wish.namespace, "name": wish.name,
                    },
                },
            });
            let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
            let answer = self.post(path, &review).await.map_err(|error| words(&error))?;
            let is_allowed = answer.pointer("/status/allowed").and_then(Value::as_bool).unwrap_or(false);
            rights.push(Right { what: wish.in_words(), part: wish.part, is_allowed });
        }
        Ok(rights)
    }

    /// Pods that have a sidecar, or should, and odd labels.
    async fn census(&self) -> Result<Census, String> {
        let mut census = Census::new(self.namespace);
        self.list("/api/v1/namespaces", |namespace| census.namespace(namespace)).await?;
        self.list("/api/v1/pods", |pod| census.pod(pod)).await?;
        Ok(census)
    }

    /// Creates a pod on trial that asks for a sidecar.
    async fn trial(&self) -> Trial {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"generateName": "outrider-check-", "labels": {names::INJECT: "enabled"}},
            "spec": {
                "containers": [{
                    "name": "app", "image": "app",
                    "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}},
                }],
            },
        });
        // Pods of the control plane's namespace get no sidecar.
        let namespace = if self.namespace == "default" { "kube-public" } else { "default" };
        trial::of(self.post(&format!("/api/v1/namespaces/{namespace}/pods?dryRun=All"), &pod).await)
    }
}

/// Something that a part wants to do.
struct Wish {
    part: String,
    verb: String,
    group: String,
    resource: String,
    namespace: String,
    name: String,
}

impl Wish {
    fn in_words(&self) -> String {
        let mut words = format!("{} {}", self.verb, self.resource);
        if !self.name.is_empty() {
            words = format!("{words} {}", self.name);
        }
        if self.namespace.is_empty() { words } else { format!("{words} in {}", self.namespace) }
    }
}

/// What the roles of this version's manifests allow: each is used.
fn wishes(namespace: &str) -> Result<Vec<Wish>, String> {
    let settings = install::Settings { namespace: namespace.to_owned(), ..install::Settings::default() };
    let text_of_all = install::manifests(&settings)?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text_of_all).map_err(|error| error.to_string())?;
    let mut wishes = Vec::new();
    for role in objects.iter().filter(|object| matches!(text(object, "/kind"), "Role" | "ClusterRole")) {
        let strings = |rule: &Value, key: &str| -> Vec<String> {
            let all = array(rule, &format!("/{key}"));
            all.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        };
        for rule in array(role, "/rules") {
            let mut names = strings(rule, "resourceNames");
            if names.is_empty() {
                names.push(String::new());
            }
            for group in strings(rule, "apiGroups") {
                for resource in strings(rule, "resources") {
                    for verb in strings(rule, "verbs") {
                        wishes.extend(names.iter().map(|name| Wish {
                            part: text(role, "/metadata/name").to_owned(),
                            verb: verb.clone(),
                            group: group.clone(),
                            resource: resource.clone(),
                            namespace: text(role, "/metadata/namespace").to_owned(),
                            name: name.clone(),
                        }));
                    }
                }
            }
        }
    }
    Ok(wishes)
}

fn part(name: &'static str, deployment: Option<&Value>) -> Part {
    let number = |pointer: &str| {
        let number = deployment?.pointer(pointer)?.as_i64()?;
        i32::try_from(number).ok()
    };
    let image = deployment.map(|deployment| text(deployment, "/spec/template/spec/containers/0/image"));
    Part {
        name,
        replicas: deployment.map(|_| {
            (number("/spec/replicas").unwrap_or(1), number("/status/availableReplicas").unwrap_or(0))
        }),
        version: image.and_then(|image| image.rsplit_once(':')).map(|(_, tag)| tag.to_owned()),
    }
}

fn webhook_of(object: &Value) -> Webhook {
    let mut webhook = Webhook { lenient: Vec::new(), without_roots: Vec::new(), roots: Vec::new() };
    for entry in array(object, "/webhooks") {
        let name = text(entry, "/name").to_owned();
        if text(entry, "/failurePolicy") != "Fail" {
            webhook.lenient.push(name.clone());
        }
        let roots =
            decoded(text(entry, "/clientConfig/caBundle")).map(|pem| ends_of(&pem)).unwrap_or_default();
        if roots.is_empty() {
            webhook.without_roots.push(name);
        }
        webhook.roots.extend(roots);
    }
    webhook
}

fn version_of(version: &Value) -> Option<(u32, u32)> {
    // Some write "33+".
    let number = |key: &str| text(version, key).trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok();
    Some((number("/major")?, number("/minor")?))
}

/// When each certificate of a bundle ends.
fn ends_of(pem: &[u8]) -> Vec<SystemTime> {
    use rustls_pki_types::{CertificateDer, pem::PemObject as _};

    let ders = CertificateDer::pem_slice_iter(pem).filter_map(Result::ok);
    ders.filter_map(|der| outrider_certs::certificate::not_after(&der).ok()).collect()
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    STANDARD.decode(text).ok()
}

pub(super) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn array<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn request(builder: http::request::Builder, body: Vec<u8>) -> http::Request<Vec<u8>> {
    builder.body(body).expect("paths are made of names that the API server gave, escaped")
}

/// For a query: everything but letters, digits and `-._~` as `%XX` (RFC 3986).
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a string takes everything");
        }
    }
    out
}

/// An error in one line of bounded length.
pub(super) fn words(error: &kube::Error) -> String {
    let mut words = if let kube::Error::Api(status) = error {
        status.message.clone()
    } else {
        let sources = std::iter::successors(std::error::Error::source(error), |error| error.source());
        sources.fold(error.to_string(), |words, source| format!("{words}: {source}"))
    };
    words.retain(|c| !c.is_control());
    if let Some((end, _)) = words.char_indices().nth(MAX_WORDS) {
        words.truncate(end);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_as_clouds_write_it() {
        assert_eq!(version_of(&json!({"major": "1", "minor": "33+"})), Some((1, 33)));
        assert_eq!(version_of(&json!({"major": "1"})), None);
    }

    #[test]
    fn every_right_that_the_manifests_give_is_asked_for() {
        let told: Vec<_> = wishes("mesh")
            .unwrap()
            .iter()
            .map(|wish| format!("{}: {}", wish.part, wish.in_words()))
            .collect();
        for expected in [
            "outrider-ca: create tokenreviews",
            "outrider-ca: delete secrets in mesh",
            "outrider-controller: watch endpointslices",
            "outrider-controller: update leases outrider-controller in mesh",
            "outrider-injector: patch mutatingwebhookconfigurations outrider-injector",
        ] {
            assert!(told.iter().any(|told| told == expected), "{expected}: {told:?}");
        }
    }

    #[test]
    fn what_goes_into_a_query_is_escaped() {
        assert_eq!(escaped("a=b&c/ü~"), "a%3Db%26c%2F%C3%BC~");
    }
}
