//! One request, answered: who asks, whether they may, and what the store says.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{
    accounts::{Account, Act},
    admission,
    failure::Failure,
    kinds,
    patch::{self, PatchKind},
    request::{Call, Form, Query, Target},
    shared::Shared,
    store::{Part, Preconditions, Store},
    watching::Watch,
};

/// Largest body of a request, as the real server's.
const MAX_BODY: usize = 3 * 1024 * 1024;

/// A body of any kind.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What a request is answered with.
enum Answer {
    Object(u16, Value),
    Watch(Box<Watch>),
}

/// A request that has been read and understood.
struct Asked {
    target: Target,
    verb: &'static str,
    query: Query,
    form: Form,
    content_type: String,
    body: Bytes,
}

/// Answers one request.
pub(super) async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Response<Body> {
    shared.begun.fetch_add(1, Ordering::Relaxed);
    let delay = shared.controls.borrow().delay;
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    match answered(&shared, request).await {
        Ok(Answer::Object(code, object)) => of_object(code, &object),
        Ok(Answer::Watch(watch)) => {
            let body = StreamBody::new(watch.frames()).boxed_unsync();
            let builder = Response::builder().header(header::CONTENT_TYPE, "application/json");
            builder.body(body).expect("a good answer")
        }
        Err(failure) => {
            let mut response = of_object(failure.code, &failure.status());
            if let Some(seconds) = failure.retry_after {
                response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            }
            response
        }
    }
}

fn of_object(code: u16, object: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(object.to_string())).map_err(|never| match never {}).boxed_unsync();
    let builder = Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
    builder.body(body).expect("a good answer")
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

async fn answered(shared: &Arc<Shared>, request: Request<Incoming>) -> Result<Answer, Failure> {
    let (head, body) = request.into_parts();
    let account = caller(shared, &head.headers);
    let segments: Vec<_> = head.uri.path().split('/').filter(|part| !part.is_empty()).collect();
    let query = Query::parse(head.uri.query().unwrap_or_default());
    if let ["version"] | ["readyz" | "livez" | "healthz", ..] = segments.as_slice() {
        shared.refused(None)?;
        let version = kinds::version(&shared.controls.borrow().version);
        return Ok(Answer::Object(200, version));
    }
    let found = {
        let store = shared.store.lock().unwrap();
        match kinds::discovery(&store.kinds, &segments) {
            Some(document) => Err(document),
            None => Ok(Target::find(&store, &segments)?),
        }
    };
    let target = match found {
        Ok(target) => target,
        Err(document) => {
            shared.refused(None)?;
            account.ok_or_else(Failure::unauthorized)?;
            return Ok(Answer::Object(200, document));
        }
    };
    let verb = verb(&head.method, &target, &query)?;
    let call = Call {
        verb: verb.to_owned(),
        resource: target.kind.resource(),
        subresource: target.subresource.clone(),
        namespace: target.namespace.clone(),
        name: target.name.clone(),
        user: account.as_ref().map_or_else(|| "anonymous".to_owned(), |account| account.username.clone()),
        user_agent: text(&head.headers, header::USER_AGENT),
    };
    shared.count(&call);
    shared.refused(Some(&call))?;
    let account = account.ok_or_else(Failure::unauthorized)?;
    let form = Form::of(&text(&head.headers, header::ACCEPT));
    let content_type = text(&head.headers, header::CONTENT_TYPE);
    authorize(shared, &account, &target, verb, &query)?;
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_error| {
        Failure::new(413, "RequestEntityTooLarge", format!("Request entity too large: limit is {MAX_BODY}"))
    })?;
    let mut asked = Asked { target, verb, query, form, content_type, body: body.to_bytes() };
    if asked.verb == "create" && asked.target.kind.kind == "Pod" && asked.target.subresource.is_empty() {
        let about = (&asked.target, &account, asked.is_dry());
        let object = admission::admitted(shared, about, asked.object()?).await?;
        asked.body = Bytes::from(object.to_string());
    }
    asked.perform(shared, &account)
}

fn caller(shared: &Shared, headers: &HeaderMap) -> Option<Account> {
    let value = text(headers, header::AUTHORIZATION);
    let token = value.strip_prefix("Bearer ")?;
    let (accounts, store) = (shared.accounts.lock().unwrap(), shared.store.lock().unwrap());
    accounts.caller(&store, token).cloned()
}

fn verb(method: &Method, target: &Target, query: &Query) -> Result<&'static str, Failure> {
    let is_named = !target.name.is_empty();
    Ok(match (method.as_str(), is_named) {
        ("GET", true) => "get",
        ("GET", false) if query.is_set("watch") => "watch",
        ("GET", false) => "list",
        ("POST", false) => "create",
        ("POST", true) if target.subresource == "token" => "create",
        ("PUT", true) => "update",
        ("PATCH", true) => "patch",
        ("DELETE", true) => "delete",
        ("DELETE", false) => "deletecollection",
        _ => {
            let message = "the server does not allow this method on the requested resource";
            return Err(Failure::new(405, "MethodNotAllowed", message));
        }
    })
}

fn authorize(
    shared: &Shared,
    account: &Account,
    target: &Target,
    verb: &str,
    query: &Query,
) -> Result<(), Failure> {
    let kind = &target.kind;
    let selector = query.selector()?;
    let resource = match target.subresource.as_str() {
        "" => kind.plural.clone(),
        subresource => format!("{}/{subresource}", kind.plural),
    };
    let name = if target.name.is_empty() { selector.name().unwrap_or_default() } else { &target.name };
    let act = Act { verb, group: &kind.group, resource: &resource, namespace: &target.namespace, name };
    let store = shared.store.lock().unwrap();
    let is_own_review = kind.kind == "SelfSubjectAccessReview";
    if is_own_review || account.may(&store, &act) {
        return Ok(());
    }
    let place = match target.namespace() {
        Some(namespace) => format!("in the namespace \"{namespace}\""),
        None => "at the cluster scope".to_owned(),
    };
    let message = format!(
        "{}{} is forbidden: User \"{}\" cannot {verb} resource \"{resource}\" in API group \"{}\" {place}",
        kind.qualified(),
        if name.is_empty() { String::new() } else { format!(" \"{name}\"") },
        account.username,
        kind.group,
    );
    Err(Failure::new(403, "Forbidden", message))
}

impl Asked {
    fn perform(self, shared: &Arc<Shared>, account: &Account) -> Result<Answer, Failure> {
        match (self.verb, self.target.kind.kind.as_str()) {
            ("watch", _) => {
                let watch = Watch::new(Arc::clone(shared), self.target, &self.query, self.form)?;
                return Ok(Answer::Watch(Box::new(watch)));
            }
            ("create", "TokenReview" | "SelfSubjectAccessReview" | "SubjectAccessReview") => {
                return self.review(shared, account);
            }
            ("create", _) if self.target.subresource == "token" => return self.token(shared),
            _ => {}
        }
        let mut store = shared.store.lock().unwrap();
        let (kind, namespace, name) = (&self.target.kind, &self.target.namespace, &self.target.name);
        let is_dry = self.is_dry();
        let one = |code: u16, object: &Value| Ok(Answer::Object(code, self.form.one(object)));
        match self.verb {
            "get" => one(200, &*store.get(kind, namespace, name)?),
            "list" => Ok(Answer::Object(200, self.list(&store)?)),
            "create" if is_dry => one(201, &store.prepared(kind, namespace, self.object()?)?),
            "create" => one(201, &*store.create(kind, namespace, self.object()?)?),
            "update" => {
                let object = self.object()?;
                if object["metadata"]["name"] != **name {
                    return Err(Failure::bad_request(
                        "the name of the object does not match the name on the URL",
                    ));
                }
                one(200, &*store.replace(kind, (namespace, name), object, self.part())?)
            }
            "patch" => {
                let (code, object) = self.patch(&mut store)?;
                one(code, &object)
            }
            "delete" => {
                let deleted = store.delete(kind, (namespace, name), &self.preconditions()?)?;
                Ok(Answer::Object(200, self.success(&deleted)))
            }
            _ => {
                let selector = self.query.selector()?;
                let found = store.list(&kind.resource(), self.target.namespace(), store.revision())?;
                let text =
                    |object: &Value, field| object["metadata"][field].as_str().unwrap_or_default().to_owned();
                for object in found.iter().filter(|object| selector.matches(object)) {
                    let place = (text(object, "namespace"), text(object, "name"));
                    store.delete(kind, (&place.0, &place.1), &Preconditions::default())?;
                }
                Ok(Answer::Object(200, self.success(&Value::Null)))
            }
        }
    }

    fn is_dry(&self) -> bool {
        self.query.text("dryRun") == Some("All")
    }

    fn part(&self) -> Part {
        if self.target.subresource == "status" { Part::Status } else { Part::Main }
    }

    /// The body as an object.
    fn object(&self) -> Result<Value, Failure> {
        serde_json::from_slice(&self.body).map_err(|error| Failure::bad_request(error.to_string()))
    }

    fn preconditions(&self) -> Result<Preconditions, Failure> {
        if self.body.is_empty() {
            return Ok(Preconditions::default());
        }
        let options = self.object()?;
        let wanted = |field: &str| options["preconditions"][field].as_str().map(str::to_owned);
        Ok(Preconditions { uid: wanted("uid"), resource_version: wanted("resourceVersion") })
    }

    fn success(&self, deleted: &Value) -> Value {
        let kind = &self.target.kind;
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": {
                "name": self.target.name, "group": kind.group, "kind": kind.plural, "uid": deleted["metadata"]["uid"],
            },
        })
    }

    fn list(&self, store: &Store) -> Result<Value, Failure> {
        let selector = self.query.selector()?;
        let kind = &self.target.kind;
        let wanted = self.query.number("resourceVersion")?.unwrap_or(0);
        if wanted > store.revision() {
            return Err(Failure::from_the_future(wanted, store.revision()));
        }
        let limit = self.query.number("limit")?.filter(|limit| *limit > 0);
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let (at, skipped) = match self.query.text("continue") {
            Some(token) => {
                continued(token).ok_or_else(|| Failure::bad_request("continue key is not valid"))?
            }
            None if self.query.text("resourceVersionMatch") == Some("Exact") => (wanted, 0),
            None => (store.revision(), 0),
        };
        let mut found = store.list(&kind.resource(), self.target.namespace(), at)?;
        found.retain(|object| selector.matches(object));
        let left = found.len().saturating_sub(skipped);
        let items: Vec<_> = found.into_iter().skip(skipped).take(limit).collect();
        let mut metadata = json!({"resourceVersion": at.to_string()});
        if left > items.len() {
            let next = json!([at, skipped + items.len()]).to_string();
            metadata["continue"] = URL_SAFE_NO_PAD.encode(next).into();
            metadata["remainingItemCount"] = (left - items.len()).into();
        }
        Ok(self.form.list(kind, &metadata, &items))
    }

    fn patch(&self, store: &mut Store) -> Result<(u16, Value), Failure> {
        let how = PatchKind::of(&self.content_type)?;
        let (kind, namespace, name) = (&self.target.kind, &self.target.namespace, &self.target.name);
        let change = self.object()?;
        let manager = self.query.text("fieldManager").unwrap_or_default();
        let key = (
            format!("{manager} {}", self.target.subresource),
            format!("{} {namespace} {name}", kind.resource()),
        );
        if how == PatchKind::Apply && manager.is_empty() {
            return Err(Failure::bad_request(
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value",
            ));
        }
        let old = match store.get(kind, namespace, name) {
            Ok(old) => old,
            Err(_absent) if how == PatchKind::Apply && self.target.subresource.is_empty() => {
                store.applied.insert(key, change.clone());
                return Ok((201, (*store.create(kind, namespace, change)?).clone()));
            }
            Err(absent) => return Err(absent),
        };
        let mut new = patch::patched(how, &old, change.clone(), store.applied.get(&key))?;
        let said = &change["metadata"]["resourceVersion"];
        if how != PatchKind::Json && said.is_null() {
            new["metadata"]["resourceVersion"] = old["metadata"]["resourceVersion"].clone();
        }
        let new = store.replace(kind, (namespace, name), new, self.part())?;
        if how == PatchKind::Apply {
            store.applied.insert(key, change);
        }
        Ok((200, (*new).clone()))
    }

    fn review(&self, shared: &Shared, account: &Account) -> Result<Answer, Failure> {
        let mut object = self.object()?;
        let (accounts, store) = (shared.accounts.lock().unwrap(), shared.store.lock().unwrap());
        object["status"] = if self.target.kind.kind == "TokenReview" {
            accounts.review(&store, &object["spec"])
        } else {
            let wanted = &object["spec"]["resourceAttributes"];
            let text = |field: &str| wanted[field].as_str().unwrap_or_default();
            let resource = match text("subresource") {
                "" => text("resource").to_owned(),
                subresource => format!("{}/{subresource}", text("resource")),
            };
            let act = Act {
                verb: text("verb"),
                group: text("group"),
                resource: &resource,
                namespace: text("namespace"),
                name: text("name"),
            };
            let somebody;
            let whose = if self.target.kind.kind == "SubjectAccessReview" {
                let groups = serde_json::from_value(object["spec"]["groups"].clone()).unwrap_or_default();
                let username = object["spec"]["user"].as_str().unwrap_or_default().to_owned();
                somebody = Account { username, groups, ..account.clone() };
                &somebody
            } else {
                account
            };
            json!({"allowed": whose.may(&store, &act)})
        };
        object["apiVersion"] = self.target.kind.api_version().into();
        object["kind"] = self.target.kind.kind.as_str().into();
        Ok(Answer::Object(201, object))
    }

    /// A TokenRequest for a service account.
    fn token(&self, shared: &Shared) -> Result<Answer, Failure> {
        let (namespace, name) = (&self.target.namespace, &self.target.name);
        shared.store.lock().unwrap().get(&self.target.kind, namespace, name)?;
        let mut object = self.object()?;
        let asked = object["spec"]["audiences"].as_array().cloned().unwrap_or_default();
        let mut made = Account::service_account(namespace, name, super::accounts::API_AUDIENCE);
        if !asked.is_empty() {
            made.audiences = asked.iter().filter_map(|one| Some(one.as_str()?.to_owned())).collect();
        }
        let token = made.token();
        shared.accounts.lock().unwrap().add(token.clone(), made);
        object["status"] = json!({"token": token, "expirationTimestamp": "2099-01-01T00:00:00Z"});
        Ok(Answer::Object(201, object))
    }
}

/// Version and number of items told already.
fn continued(token: &str) -> Option<(u64, usize)> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token).ok()?).ok()
}
