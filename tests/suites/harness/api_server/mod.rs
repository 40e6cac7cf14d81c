//! An API server of Kubernetes, as far as a mesh leans on one: real HTTPS, bearer tokens and roles, objects with versions,
//! watches with everything that happens to them.
//!
//! ```text
//!   kube client ──HTTPS──▶ answer ──▶ accounts   who asks, and whether RBAC allows it; TokenReview
//!                            │  ├───▶ admission  mutating webhooks, for pods
//!                            │  └───▶ store      objects, versions, history
//!                            └─stream─ watching  ADDED MODIFIED DELETED BOOKMARK ERROR
//! ```
//! Nobody acts here but its callers: no kubelet, no controllers, no garbage collection of what has an owner.
//! A resource is named as in RBAC: `pods`, `discovery.k8s.io/endpointslices`.

mod accounts;
mod admission;
mod answer;
mod failure;
mod kinds;
mod patch;
mod replacing;
mod request;
mod selectors;
mod shared;
mod store;
#[cfg(test)]
mod tests;
mod watching;

use std::{
    convert::Infallible,
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls::{ServerConfig, version::TLS13};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

pub(crate) use accounts::{API_AUDIENCE, Account};
pub(crate) use kinds::Kind;
pub(crate) use request::Call;

use super::{TestCa, eventually};
use shared::{Controls, Refusal, Shared};
use store::{Part, Preconditions, Store};

/// A server on a loopback address of its own; it is gone when this is dropped.
pub(crate) struct ApiServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    ca: TestCa,
    tls: Arc<ServerConfig>,
    admin: String,
    serving: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiServer").field("address", &self.address).finish_non_exhaustive()
    }
}

impl ApiServer {
    /// A new one, with the namespaces `default` and `kube-system`.
    pub(crate) async fn start() -> Self {
        // An address of its own, so that nobody takes the port while it is stopped.
        Self::start_at(&format!("127.{}.{}.1", fastrand::u8(16..=250), fastrand::u8(..))).await
    }

    /// The same at this address.
    pub(crate) async fn start_at(host: &str) -> Self {
        let controls = Controls {
            drops: 0,
            bookmarks: 0,
            is_stalled: false,
            delay: Duration::ZERO,
            refusal: None,
            version: "v1.33.0".to_owned(),
        };
        let shared = Arc::new(Shared {
            accounts: Mutex::default(),
            store: Mutex::new(Store::new()),
            controls: watch::channel(controls).0,
            calls: Mutex::default(),
            begun: AtomicUsize::new(0),
            services: Mutex::default(),
            watches: Mutex::default(),
        });
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let (ca, address) = (TestCa::new(), listener.local_addr().unwrap());
        let leaf = ca.web_leaf(host);
        let provider = outrider_certs::rustls_verify::provider();
        let mut tls = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der.clone()], leaf.key_der())
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let tls = Arc::new(tls);
        let serving = serve(Arc::clone(&shared), listener, Arc::clone(&tls));
        let mut server =
            Self { shared, address, ca, tls, admin: String::new(), serving: Mutex::new(Some(serving)) };
        server.admin = server.token(Account::admin());
        server
    }

    /// Ends every connection and listens no more; what is stored stays.
    pub(crate) async fn stop(&self) {
        let serving = self.serving.lock().unwrap().take();
        if let Some(serving) = serving {
            serving.abort();
            let _ended = serving.await;
        }
    }

    /// Listens again, on the same address.
    pub(crate) async fn start_again(&self) {
        let listener = TcpListener::bind(self.address).await.expect("the address is still ours");
        let serving = serve(Arc::clone(&self.shared), listener, Arc::clone(&self.tls));
        *self.serving.lock().unwrap() = Some(serving);
    }

    // --- how to reach it ---

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The root that its certificate is of, in PEM.
    pub(crate) fn root_pem(&self) -> String {
        outrider_certs::pem::certificate(&self.ca.root())
    }

    /// A token with which everything may be done.
    pub(crate) fn admin_token(&self) -> &str {
        &self.admin
    }

    /// A kubeconfig as JSON, which is YAML.
    fn config(&self, user: &Value) -> Value {
        let root = STANDARD.encode(self.root_pem());
        let server = format!("https://{}", self.address);
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority-data": root}}],
            "users": [{"name": "test", "user": user}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "default"}}],
        })
    }

    /// Writes a kubeconfig with this token, for a process with `KUBECONFIG`.
    pub(crate) fn kubeconfig(&self, folder: &Path, token: &str) -> PathBuf {
        let place = folder.join("kubeconfig");
        fs::write(&place, self.config(&json!({"token": token})).to_string()).unwrap();
        place
    }

    /// The same with a token that is read from a file again and again, as in a pod.
    pub(crate) fn kubeconfig_by_file(&self, folder: &Path, token_file: &Path) -> PathBuf {
        let place = folder.join("kubeconfig");
        fs::write(&place, self.config(&json!({"tokenFile": token_file})).to_string()).unwrap();
        place
    }

    /// Writes `token`, `ca.crt` and `namespace`, as a pod finds them in its folder of the service account.
    pub(crate) fn service_account_folder(&self, folder: &Path, namespace: &str, token: &str) {
        fs::create_dir_all(folder).unwrap();
        for (name, text) in [("token", token), ("ca.crt", &self.root_pem()), ("namespace", namespace)] {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    /// A client that may do everything.
    pub(crate) async fn client(&self) -> kube::Client {
        self.client_as(&self.admin).await
    }

    /// A client with this token.
    pub(crate) async fn client_as(&self, token: &str) -> kube::Client {
        let config: Kubeconfig = serde_json::from_value(self.config(&json!({"token": token}))).unwrap();
        let config =
            kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }

    // --- who there is ---

    /// A new token of an account, for TokenReview, and for this server if its audience is [`API_AUDIENCE`].
    pub(crate) fn token(&self, account: Account) -> String {
        let token = account.token();
        self.shared.accounts.lock().unwrap().add(token.clone(), account);
        token
    }

    /// A token for this server. What it may do is up to the roles and bindings that are stored.
    pub(crate) fn service_account_token(&self, namespace: &str, name: &str) -> String {
        self.token(Account::service_account(namespace, name, API_AUDIENCE))
    }

    /// The token is known no more.
    pub(crate) fn revoke(&self, token: &str) {
        self.shared.accounts.lock().unwrap().remove(token);
    }

    // --- what there is ---

    /// One more kind, as a CustomResourceDefinition would define it. An object of that kind does so, too.
    pub(crate) fn define(&self, kind: Kind) {
        self.store(|store| store.kinds.push(kind));
    }

    /// Creates or replaces an object as a whole, status included, whatever its version; its namespace is made if it is
    /// missing. Returns it as stored.
    pub(crate) fn put(&self, mut object: Value) -> Value {
        self.store(|store| {
            let kind = store.kind_of(&object).unwrap_or_else(|| panic!("of no kind known here: {object}"));
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
            let (mut namespace, name) = (text("namespace"), text("name"));
            if kind.is_namespaced {
                namespace = if namespace.is_empty() { "default".to_owned() } else { namespace };
                store.ensure_namespace(&namespace);
            }
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.shift_remove("resourceVersion");
                metadata.shift_remove("uid");
            }
            let stored = if store.get(&kind, &namespace, &name).is_ok() {
                store.replace(&kind, (&namespace, &name), object, Part::All)
            } else {
                store.create(&kind, &namespace, object)
            };
            (*stored.unwrap_or_else(|failure| panic!("{failure:?}"))).clone()
        })
    }

    /// Has webhooks of this Service called there.
    pub(crate) fn route_service(&self, namespace: &str, name: &str, address: SocketAddr) {
        self.shared.services.lock().unwrap().insert((namespace.to_owned(), name.to_owned()), address);
    }

    /// Deletes an object at once, finalizers or not.
    pub(crate) fn remove(&self, resource: &str, namespace: &str, name: &str) {
        self.store(|store| {
            let kind = store.kinds.iter().find(|kind| kind.resource() == resource).cloned();
            let kind = kind.unwrap_or_else(|| panic!("no resource {resource}"));
            let mut object = (*store.get(&kind, namespace, name).unwrap()).clone();
            object["metadata"]["finalizers"] = json!([]);
            store.replace(&kind, (namespace, name), object, Part::All).unwrap();
            store.delete(&kind, (namespace, name), &Preconditions::default()).unwrap();
        });
    }

    /// One object; the namespace of what has none is empty.
    pub(crate) fn object(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.store(|store| store.find(resource, namespace, name).map(|object| (*object).clone()))
    }

    /// All objects of a resource, in all namespaces.
    pub(crate) fn objects(&self, resource: &str) -> Vec<Value> {
        self.store(|store| {
            let found = store.list(resource, None, store.revision()).unwrap();
            found.iter().map(|object| (**object).clone()).collect()
        })
    }

    fn store<T>(&self, act: impl FnOnce(&mut Store) -> T) -> T {
        act(&mut self.shared.store.lock().unwrap())
    }

    // --- what happens to it ---

    /// Forgets all changes so far: a watch from before ends with 410.
    pub(crate) fn forget_history(&self) {
        self.store(Store::forget_history);
    }

    /// Cuts the connections of all watches.
    pub(crate) fn drop_watches(&self) {
        self.shared.controls.send_modify(|controls| controls.drops += 1);
    }

    /// Watches, new ones too, say nothing until this is taken back.
    pub(crate) fn stall_watches(&self, is_stalled: bool) {
        self.shared.controls.send_modify(|controls| controls.is_stalled = is_stalled);
    }

    /// All watches that want bookmarks get one.
    pub(crate) fn send_bookmarks(&self) {
        self.shared.controls.send_modify(|controls| controls.bookmarks += 1);
    }

    /// Every answer is that slow. Watches are slow to begin, not to go on.
    pub(crate) fn delay(&self, delay: Duration) {
        self.shared.controls.send_modify(|controls| controls.delay = delay);
    }

    /// Everything is refused with this status, and perhaps `Retry-After` in seconds; `None`: nothing any more.
    pub(crate) fn refuse(&self, with: Option<(u16, Option<u32>)>) {
        let refusal = with.map(|with| -> Refusal { Arc::new(move |_call| Some(with)) });
        self.shared.controls.send_modify(|controls| controls.refusal = refusal);
    }

    /// What `refusal` has a status for is refused with it.
    pub(crate) fn refuse_if(&self, refusal: impl Fn(&Call) -> Option<u16> + Send + Sync + 'static) {
        let refusal: Refusal = Arc::new(move |call| Some((refusal(call?)?, None)));
        self.shared.controls.send_modify(|controls| controls.refusal = Some(refusal));
    }

    /// What `/version` says: `v1.28.0`.
    pub(crate) fn set_version(&self, version: &str) {
        self.shared.controls.send_modify(|controls| version.clone_into(&mut controls.version));
    }

    // --- what was asked of it ---

    /// All calls so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }

    /// Calls of that verb for that resource so far.
    pub(crate) fn count(&self, verb: &str, resource: &str) -> usize {
        let calls = self.shared.calls.lock().unwrap();
        calls.iter().filter(|call| call.verb == verb && call.resource == resource).count()
    }

    /// How many requests have come in so far, those among them that are not answered yet.
    pub(crate) fn begun(&self) -> usize {
        self.shared.begun.load(Ordering::Relaxed)
    }

    /// Watches of that resource under way.
    pub(crate) fn watches(&self, resource: &str) -> usize {
        self.shared.watches.lock().unwrap().get(resource).map_or(0, |counted| Arc::strong_count(counted) - 1)
    }

    /// Waits until so many watches of that resource are under way.
    pub(crate) async fn watched(&self, resource: &str, times: usize) {
        eventually(&format!("{resource} is watched {times} times"), || self.watches(resource) == times).await;
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if let Some(serving) = self.serving.lock().unwrap().take() {
            serving.abort();
        }
    }
}

fn serve(shared: Arc<Shared>, listener: TcpListener, tls: Arc<ServerConfig>) -> JoinHandle<()> {
    let acceptor = TlsAcceptor::from(tls);
    tokio::spawn(async move {
        // Dropped with this task, and every connection with it.
        let mut connections = JoinSet::new();
        loop {
            let Ok((stream, _peer)) = listener.accept().await else { continue };
            let (shared, acceptor) = (Arc::clone(&shared), acceptor.clone());
            connections.spawn(async move {
                // A caller that does not trust us is its own affair.
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request| {
                    let shared = Arc::clone(&shared);
                    async move { Ok::<_, Infallible>(answer::answer(shared, request).await) }
                });
                let io = TokioIo::new(stream);
                let _ended = auto::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
            });
            while connections.try_join_next().is_some() {}
        }
    })
}
