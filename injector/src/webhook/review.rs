//! One question of the API server's and its answer: pure, from bytes to bytes (`AdmissionReview` of
//! `admission.k8s.io/v1`).
//!
//! The pod stays JSON, so that fields of later versions of Kubernetes are kept; the answer has its own types, because
//! `kube`'s would write the patch as a list of numbers where `[]byte` of Go is base64.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::nodes::{MAX_REVIEW_NODES, Nodes};
use crate::{
    denial::{Denial, cut, quoted},
    installation::Installation,
    json::{items, text},
    patch,
    pod::{self, Context, Existing, Outcome},
};

/// Largest review. The API server takes objects of 3 MiB; a review has something around it.
pub const MAX_REVIEW_BYTES: usize = 3 * 1024 * 1024 + 512 * 1024;
/// What is spoken.
const API_VERSION: &str = "admission.k8s.io/v1";
/// What is spoken of.
const KIND: &str = "AdmissionReview";
/// HTTP status of a denial, for whoever asked for the pod: it makes no sense as it is (as the API server's own
/// validation answers).
const DENIED: u16 = 422;
/// Longest warning, in bytes; the API server cuts longer ones.
const MAX_WARNING: usize = 256;
/// Most warnings; the API server keeps 4096 bytes of them.
const MAX_WARNINGS: usize = 16;

/// Why a question cannot be answered at all.
#[derive(Debug, thiserror::Error)]
pub enum BadReview {
    /// It is no JSON.
    #[error("the review is no JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// It is another object, or of another version.
    #[error("{0} is no {KIND} of {API_VERSION}")]
    Other(String),
    /// It has no `request` with a `uid`.
    #[error("the review has no request with a uid")]
    NoRequest,
}

/// What became of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It got a sidecar, or the one it has was brought up to date.
    Injected,
    /// It is as it should be already.
    Unchanged,
    /// It is left alone, for this reason.
    Left(&'static str),
    /// It was denied, for these reasons.
    Denied(Vec<String>),
}

/// Whom a question was about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Its namespace, as the API server says.
    pub namespace: String,
    /// The pod's name, or what it will begin with.
    pub name: String,
    /// What owns the pod and exists: version, kind, name and uid.
    pub owner: Option<[String; 4]>,
    /// Whether nothing will come of it.
    pub is_dry_run: bool,
}

/// An answer.
#[derive(Debug)]
pub struct Answered {
    /// The review that is sent back.
    pub body: Vec<u8>,
    /// What became of the pod.
    pub verdict: Verdict,
    /// Which pod.
    pub subject: Subject,
    /// What its owner is warned of.
    pub warnings: Vec<String>,
}

/// What is read of a review whose pod is not: memory for its values is not taken.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Unread {
    api_version: Option<String>,
    kind: Option<String>,
    request: Option<UnreadRequest>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UnreadRequest {
    uid: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
    dry_run: Option<bool>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: &'static str,
    kind: &'static str,
    response: Response<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    uid: &'a str,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    /// Base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    warnings: &'a [String],
}

#[derive(Serialize)]
struct Status {
    status: &'static str,
    code: u16,
    reason: &'static str,
    message: String,
}

/// Answers a review.
///
/// # Errors
/// It is none.
pub fn answer(review: &[u8], installation: &Installation) -> Result<Answered, BadReview> {
    if Nodes::of(review) > MAX_REVIEW_NODES {
        return deny_unread(review);
    }
    let review: Value = serde_json::from_slice(review)?;
    check_kind(text(&review, "/apiVersion"), text(&review, "/kind"))?;
    let request = review.get("request").unwrap_or(&Value::Null);
    let uid = text(request, "/uid").ok_or(BadReview::NoRequest)?;
    let subject = subject(request);
    let (verdict, patch, warnings) = match judge(request, installation) {
        Ok((verdict, patch, warnings)) => (verdict, patch, warnings),
        Err(denial) => (Verdict::Denied(denial.reasons().to_vec()), None, Vec::new()),
    };
    let warnings: Vec<String> =
        warnings.iter().take(MAX_WARNINGS).map(|text| cut(text, MAX_WARNING)).collect();
    let body = written(uid, &verdict, patch, &warnings)?;
    Ok(Answered { body, verdict, subject, warnings })
}

fn check_kind(version: Option<&str>, kind: Option<&str>) -> Result<(), BadReview> {
    if (version, kind) == (Some(API_VERSION), Some(KIND)) {
        return Ok(());
    }
    let found = format!("{} {}", quoted(version.unwrap_or_default()), quoted(kind.unwrap_or_default()));
    Err(BadReview::Other(found))
}

/// Denies what is about a pod of too many parts, of which no more is read than whom to tell.
fn deny_unread(review: &[u8]) -> Result<Answered, BadReview> {
    let review: Unread = serde_json::from_slice(review)?;
    check_kind(review.api_version.as_deref(), review.kind.as_deref())?;
    let request = review.request.ok_or(BadReview::NoRequest)?;
    let uid = request.uid.ok_or(BadReview::NoRequest)?;
    let reason = format!(
        "the pod has more than {MAX_REVIEW_NODES} values (fields and items of lists); make it smaller"
    );
    let verdict = Verdict::Denied(vec![reason]);
    let body = written(&uid, &verdict, None, &[])?;
    let subject = Subject {
        namespace: request.namespace.unwrap_or_default(),
        name: request.name.unwrap_or_default(),
        owner: None,
        is_dry_run: request.dry_run == Some(true),
    };
    Ok(Answered { body, verdict, subject, warnings: Vec::new() })
}

/// The review that is sent back.
fn written(
    uid: &str,
    verdict: &Verdict,
    patch: Option<Vec<u8>>,
    warnings: &[String],
) -> Result<Vec<u8>, BadReview> {
    let status = match verdict {
        Verdict::Denied(reasons) => Some(Status {
            status: "Failure",
            code: DENIED,
            reason: "Invalid",
            message: format!("no sidecar, and so no pod: {}", reasons.join("; ")),
        }),
        Verdict::Injected | Verdict::Unchanged | Verdict::Left(_) => None,
    };
    let response = Response {
        uid,
        allowed: status.is_none(),
        status,
        patch_type: patch.as_ref().map(|_| "JSONPatch"),
        patch: patch.map(|patch| STANDARD.encode(patch)),
        warnings,
    };
    Ok(serde_json::to_vec(&Review { api_version: API_VERSION, kind: KIND, response })?)
}

/// What became of a pod, the patch that does it, and what its owner is warned of.
type Judged = (Verdict, Option<Vec<u8>>, Vec<String>);

/// What becomes of the request's object: the verdict, the patch if there is anything to change, and warnings.
fn judge(request: &Value, installation: &Installation) -> Result<Judged, Denial> {
    if let Some(reason) = not_ours(request) {
        return Ok((Verdict::Left(reason), None, Vec::new()));
    }
    let pod = request.get("object").unwrap_or(&Value::Null);
    let context = Context { owner: None, existing: Existing::Keep, installation };
    match pod::inject(pod, &context)? {
        Outcome::Left(reason) => Ok((Verdict::Left(reason), None, Vec::new())),
        Outcome::Injected { pod: injected, warnings } => {
            let patch = patch::diff(pod, &injected);
            if patch.0.is_empty() {
                return Ok((Verdict::Unchanged, None, warnings));
            }
            let patch = serde_json::to_vec(&patch).expect("a patch of JSON can be written as JSON");
            Ok((Verdict::Injected, Some(patch), warnings))
        }
    }
}

/// Why a request is none that injection is for. The webhook's rules do not bring such; were they changed, no harm is
/// done.
fn not_ours(request: &Value) -> Option<&'static str> {
    let has = |pointer: &str, wanted: &str| text(request, pointer).unwrap_or_default() == wanted;
    if !(has("/kind/group", "") && has("/kind/version", "v1") && has("/kind/kind", "Pod")) {
        return Some("it is no pod of v1");
    }
    if !has("/subResource", "") {
        return Some("it is a part of a pod that exists");
    }
    // The containers of a pod that exists cannot be changed.
    (!has("/operation", "CREATE")).then_some("it exists already")
}

fn subject(request: &Value) -> Subject {
    let object = request.get("object").unwrap_or(&Value::Null);
    let own = |pointer: &str| text(object, pointer).filter(|name| !name.is_empty());
    let owners = items(object, "/metadata/ownerReferences");
    let is_controller = |owner: &&Value| owner.get("controller").and_then(Value::as_bool) == Some(true);
    let owner = owners.iter().find(is_controller).and_then(|owner| {
        let part = |pointer: &str| text(owner, pointer).map(str::to_owned);
        Some([part("/apiVersion")?, part("/kind")?, part("/name")?, part("/uid")?])
    });
    let name = own("/metadata/name").or(own("/metadata/generateName")).or(text(request, "/name"));
    Subject {
        namespace: text(request, "/namespace").unwrap_or_default().to_owned(),
        name: name.unwrap_or_default().to_owned(),
        owner,
        is_dry_run: request.get("dryRun").and_then(Value::as_bool) == Some(true),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::installation::{NAMESPACE, REGISTRY, TRUST_DOMAIN};

    fn request(pod: Value) -> Value {
        json!({"apiVersion": API_VERSION, "kind": KIND, "futureField": {"x": 1}, "request": {
            "uid": "u-1", "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"}, "namespace": "shop", "operation": "CREATE",
            "object": pod, "dryRun": false, "futureField": [1],
        }})
    }

    fn answered(review: &Value) -> (Value, Answered) {
        let installation = Installation::new(NAMESPACE, TRUST_DOMAIN.parse().unwrap(), REGISTRY);
        let answered = answer(review.to_string().as_bytes(), &installation).unwrap();
        (serde_json::from_slice(&answered.body).unwrap(), answered)
    }

    fn pod() -> Value {
        json!({"metadata": {"generateName": "web-"}, "spec": {"containers": [{"name": "app"}], "future": 1}})
    }

    #[test]
    fn a_pod_gets_a_patch_in_base64() {
        let (review, answered) = answered(&request(pod()));
        assert_eq!((&review["apiVersion"], &review["kind"]), (&json!(API_VERSION), &json!(KIND)));
        let response = &review["response"];
        assert_eq!((&response["uid"], &response["allowed"]), (&json!("u-1"), &json!(true)));
        assert_eq!(response["patchType"], "JSONPatch");
        let patch = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
        let mut injected = pod();
        json_patch::patch(&mut injected, &patch).unwrap();
        assert_eq!(injected["spec"]["initContainers"][1]["name"], "outrider");
        assert_eq!(injected["spec"]["future"], 1);
        assert_eq!(pod::uninject(&injected).unwrap(), pod());
        assert_eq!(answered.verdict, Verdict::Injected);
        assert_eq!((answered.subject.namespace.as_str(), answered.subject.name.as_str()), ("shop", "web-"));

        let (again, answered) = self::answered(&request(injected));
        assert_eq!((answered.verdict, &again["response"]["allowed"]), (Verdict::Unchanged, &json!(true)));
        assert_eq!(again["response"].get("patch"), None);
    }

    #[test]
    fn a_denial_says_everything_that_is_wrong() {
        let mut pod = pod();
        pod["spec"]["hostNetwork"] = json!(true);
        pod["metadata"]["annotations"] = json!({"outrider.io/drain-time": "soon"});
        let (review, _) = answered(&request(pod));
        assert_eq!(review["response"]["allowed"], false);
        let status = &review["response"]["status"];
        assert_eq!((&status["code"], &status["reason"]), (&json!(422), &json!("Invalid")));
        assert!(status["message"].as_str().unwrap().contains("drain-time"), "{status}");
        assert_eq!(review["response"].get("patch"), None);
    }

    #[test]
    fn a_pod_of_too_many_parts_is_denied_unread() {
        let mut pod = pod();
        pod["spec"]["future"] = vec![0; MAX_REVIEW_NODES].into();
        let (review, answered) = answered(&request(pod.clone()));
        assert_eq!(
            (&review["response"]["uid"], &review["response"]["allowed"]),
            (&json!("u-1"), &json!(false))
        );
        let message = review["response"]["status"]["message"].as_str().unwrap();
        assert!(message.contains("more than 50000 values"), "{message}");
        assert_eq!(answered.subject.namespace, "shop");
        pod["spec"]["future"] = vec![0; MAX_REVIEW_NODES - 100].into();
        assert_eq!(self::answered(&request(pod)).1.verdict, Verdict::Injected);
    }

    #[test]
    fn what_is_not_the_making_of_a_pod_passes() {
        for (pointer, value) in [
            ("/request/operation", json!("UPDATE")),
            ("/request/kind", json!({"group": "apps", "version": "v1", "kind": "Deployment"})),
            ("/request/subResource", json!("ephemeralcontainers")),
        ] {
            let mut review = request(pod());
            match review.pointer_mut(pointer) {
                Some(place) => *place = value,
                None => review["request"]["subResource"] = value,
            }
            let (review, answered) = answered(&review);
            assert_eq!(review["response"]["allowed"], true);
            assert!(matches!(answered.verdict, Verdict::Left(_)), "{pointer}");
        }
    }

    #[test]
    fn what_is_no_review_is_told_apart() {
        let installation = Installation::new(NAMESPACE, TRUST_DOMAIN.parse().unwrap(), REGISTRY);
        let wrong = |body: &str| answer(body.as_bytes(), &installation).unwrap_err().to_string();
        assert!(wrong("{").contains("no JSON"));
        assert!(
            wrong(r#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}"#)
                .contains("v1beta1")
        );
        assert!(wrong(r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#).contains("uid"));
        assert!(wrong("[]").contains("is no AdmissionReview"));
    }

    #[test]
    fn warnings_are_as_short_as_the_api_server_wants_them() {
        assert_eq!(cut(&"ä".repeat(300), MAX_WARNING).len(), 255);
        let mut pod = pod();
        pod["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
        let (review, _) = answered(&request(pod));
        assert!(review["response"]["warnings"][0].as_str().unwrap().contains("privileged"));
    }
}
