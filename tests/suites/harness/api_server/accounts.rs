//! Who may call this server, and whom TokenReview knows: tokens with their audiences, and roles as RBAC has them.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{store, store::Store};

/// The audience of tokens for this server itself.
pub(crate) const API_AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";

/// Whom a token stands for.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) username: String,
    pub(crate) uid: String,
    pub(crate) groups: Vec<String>,
    /// What the token is good for.
    pub(crate) audiences: Vec<String>,
    pub(crate) extra: BTreeMap<String, Vec<String>>,
    pub(crate) expires: SystemTime,
    /// Namespace, name and UID of the pod the token is bound to: it is no good once that pod is gone.
    pub(crate) pod: Option<(String, String, String)>,
}

impl Account {
    /// A service account's projected token, good for ten minutes and for this audience.
    pub(crate) fn service_account(namespace: &str, name: &str, audience: &str) -> Self {
        Self {
            username: format!("system:serviceaccount:{namespace}:{name}"),
            uid: store::uid(),
            groups: [
                "serviceaccounts".to_owned(),
                format!("serviceaccounts:{namespace}"),
                "authenticated".to_owned(),
            ]
            .map(|group| format!("system:{group}"))
            .to_vec(),
            audiences: vec![audience.to_owned()],
            extra: BTreeMap::from([(
                "authentication.kubernetes.io/credential-id".to_owned(),
                vec![format!("JTI={}", store::uid())],
            )]),
            expires: SystemTime::now() + Duration::from_secs(600),
            pod: None,
        }
    }

    /// The same, bound to a pod, as the kubelet asks for it.
    pub(crate) fn in_pod(mut self, pod: &Value) -> Self {
        let text = |field: &str| pod["metadata"][field].as_str().unwrap_or_default().to_owned();
        let (namespace, name, uid) = (text("namespace"), text("name"), text("uid"));
        self.extra.insert("authentication.kubernetes.io/pod-name".to_owned(), vec![name.clone()]);
        self.extra.insert("authentication.kubernetes.io/pod-uid".to_owned(), vec![uid.clone()]);
        self.pod = Some((namespace, name, uid));
        self
    }

    /// Whoever may do everything.
    pub(super) fn admin() -> Self {
        Self {
            username: "admin".to_owned(),
            groups: vec!["system:masters".to_owned(), "system:authenticated".to_owned()],
            expires: SystemTime::now() + Duration::from_secs(365 * 24 * 3600),
            ..Self::service_account("kube-system", "admin", API_AUDIENCE)
        }
    }

    /// A token of the form of a JWT; its signature is random.
    pub(super) fn token(&self) -> String {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let seconds =
            |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let head = part(json!({"alg": "RS256", "kid": "test"}));
        let claims = part(json!({
            "iss": API_AUDIENCE, "sub": self.username, "aud": self.audiences, "exp": seconds(self.expires),
        }));
        let signature: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(48).collect();
        format!("{head}.{claims}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Why the token is not good, if it is not.
    fn fault(&self, store: &Store, audiences: &[String]) -> Option<String> {
        if SystemTime::now() >= self.expires {
            return Some("[invalid bearer token, service account token has expired]".to_owned());
        }
        if !self.audiences.iter().any(|audience| audiences.contains(audience)) {
            let (had, wanted) = (&self.audiences, audiences);
            return Some(format!(
                "[invalid bearer token, token audiences {had:?} is invalid for the target audiences {wanted:?}]"
            ));
        }
        let (namespace, name, uid) = self.pod.as_ref()?;
        let is_there = store.find("pods", namespace, name).is_some_and(|pod| pod["metadata"]["uid"] == **uid);
        (!is_there).then(|| "[invalid bearer token, service account token has been invalidated]".to_owned())
    }

    /// What `kubectl auth can-i` would say.
    pub(super) fn may(&self, store: &Store, act: &Act<'_>) -> bool {
        if self.groups.iter().any(|group| group == "system:masters") {
            return true;
        }
        let bindings = "rbac.authorization.k8s.io/clusterrolebindings";
        let everywhere = store.list(bindings, None, store.revision()).unwrap_or_default();
        let here = if act.namespace.is_empty() {
            Vec::new()
        } else {
            let bindings = "rbac.authorization.k8s.io/rolebindings";
            store.list(bindings, Some(act.namespace), store.revision()).unwrap_or_default()
        };
        everywhere.iter().chain(&here).filter(|binding| self.is_subject_of(binding)).any(|binding| {
            let (kind, name) =
                (&binding["roleRef"]["kind"], binding["roleRef"]["name"].as_str().unwrap_or_default());
            let role = if kind == "ClusterRole" {
                store.find("rbac.authorization.k8s.io/clusterroles", "", name)
            } else {
                store.find("rbac.authorization.k8s.io/roles", act.namespace, name)
            };
            let rules = role.and_then(|role| role["rules"].as_array().cloned()).unwrap_or_default();
            rules.iter().any(|rule| act.is_allowed_by(rule))
        })
    }

    fn is_subject_of(&self, binding: &Value) -> bool {
        let subjects = binding["subjects"].as_array().cloned().unwrap_or_default();
        subjects.iter().any(|subject| {
            let text = |field: &str| subject[field].as_str().unwrap_or_default();
            match text("kind") {
                "ServiceAccount" => {
                    self.username == format!("system:serviceaccount:{}:{}", text("namespace"), text("name"))
                }
                "User" => self.username == text("name"),
                "Group" => self.groups.iter().any(|group| group == text("name")),
                _ => false,
            }
        })
    }
}

/// What somebody wants to do, in the words of RBAC.
#[derive(Clone, Copy, Debug)]
pub(super) struct Act<'a> {
    pub(super) verb: &'a str,
    pub(super) group: &'a str,
    /// With the subresource: `pods/status`.
    pub(super) resource: &'a str,
    /// Empty: all of them, or none.
    pub(super) namespace: &'a str,
    /// Empty: no certain one.
    pub(super) name: &'a str,
}

impl Act<'_> {
    fn is_allowed_by(&self, rule: &Value) -> bool {
        let lists = |field: &str, wanted: &str| {
            let list = rule[field].as_array();
            list.is_some_and(|list| list.iter().any(|one| one == "*" || one == wanted))
        };
        let names = rule["resourceNames"].as_array().filter(|names| !names.is_empty());
        lists("verbs", self.verb)
            && lists("apiGroups", self.group)
            && lists("resources", self.resource)
            && names.is_none_or(|names| names.iter().any(|name| *name == *self.name))
    }
}

/// All tokens.
#[derive(Debug, Default)]
pub(super) struct Accounts(BTreeMap<String, Account>);

impl Accounts {
    pub(super) fn add(&mut self, token: String, account: Account) {
        self.0.insert(token, account);
    }

    pub(super) fn remove(&mut self, token: &str) {
        self.0.remove(token);
    }

    /// Whom a token for this server stands for.
    pub(super) fn caller(&self, store: &Store, token: &str) -> Option<&Account> {
        let account = self.0.get(token)?;
        account.fault(store, &[API_AUDIENCE.to_owned()]).is_none().then_some(account)
    }

    /// `status` of a TokenReview.
    pub(super) fn review(&self, store: &Store, spec: &Value) -> Value {
        let asked: Vec<String> = serde_json::from_value(spec["audiences"].clone()).unwrap_or_default();
        let asked = if asked.is_empty() { vec![API_AUDIENCE.to_owned()] } else { asked };
        let Some(account) = spec["token"].as_str().and_then(|token| self.0.get(token)) else {
            return json!({"user": {}, "error": "[invalid bearer token, token lookup failed]"});
        };
        if let Some(error) = account.fault(store, &asked) {
            return json!({"user": {}, "error": error});
        }
        let audiences: Vec<_> =
            asked.into_iter().filter(|audience| account.audiences.contains(audience)).collect();
        json!({
            "authenticated": true, "audiences": audiences,
            "user": {
                "username": account.username, "uid": account.uid, "groups": account.groups, "extra": account.extra,
            },
        })
    }
}
