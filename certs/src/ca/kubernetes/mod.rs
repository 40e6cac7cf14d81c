//! The CA in Kubernetes: keys in a Secret that all replicas share, join tokens
//! as Secrets, service accounts' tokens reviewed by the API server.
//!
//! Replicas agree by the API server alone: whoever writes the Secret first has
//! made the CA, and the others take what is there; each follows what it
//! becomes. Calls have deadlines, and nothing an API server answers is kept.

mod publish;
mod reviews;
mod secret;
mod tokens;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, Config};
use tokio::runtime::Handle;
use tokio::sync::watch;

use self::reviews::TokenReviews;
use self::tokens::SecretTokens;
use super::log::IssuanceLog;
use super::review::Reviewer;
use super::state::{CaState, Error, NewCa, Stores};

/// Deadline of one call to the API server.
const DEADLINE: Duration = Duration::from_secs(5);
/// How often the watch of the Secret is begun anew, in seconds.
const WATCH_SECONDS: u32 = 60;
/// How long the API server may be silent on a connection on which something is
/// asked: longer than a watch. It ends lists that are never answered.
const SILENCE: Duration = Duration::from_secs(70);

/// Where the CA is kept.
#[derive(Clone, Debug)]
pub struct Place {
    /// The namespace of its Secrets; `None`: the one that the client's
    /// configuration names, in a pod the pod's.
    pub namespace: Option<String>,
    /// The Secret with its roots and keys.
    pub secret: String,
}

/// The API server, as the CA uses it.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    namespace: String,
    secret: String,
    stores: Stores,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster")
            .field("namespace", &self.namespace)
            .field("secret", &self.secret)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Finds the API server as kubectl does: by `KUBECONFIG`, or else by what
    /// is in every pod. Nothing is asked of it yet.
    ///
    /// # Errors
    /// When neither is there.
    pub async fn find(place: Place) -> Result<Self, Error> {
        // Another one may have been installed already; there is one provider in this program anyway.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let unfound = |reason: String| Error::Api { place: PathBuf::from("the API server"), reason };
        let mut config = Config::infer().await.map_err(|e| unfound(e.to_string()))?;
        config.read_timeout = Some(SILENCE);
        // Not since the connection was used last, but since something was asked on it.
        config.reset_reader_on_write = true;
        let namespace = place.namespace.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|e| unfound(e.to_string()))?;
        let tokens = SecretTokens::new(Api::namespaced(client.clone(), &namespace), Handle::current());
        let stores = Stores {
            tokens: Arc::new(tokens),
            log: Arc::new(IssuanceLog::Output),
            has_service_accounts: true,
        };
        Ok(Self { client, namespace, secret: place.secret, stores })
    }

    /// The CA that is kept there.
    ///
    /// # Errors
    /// When there is none, or the API server cannot be asked.
    pub async fn open(&self) -> Result<CaState, Error> {
        secret::read(self).await?.ok_or_else(|| Error::NotInitialised { place: self.place() })
    }

    /// The CA that is kept there, or a new one if there is none yet.
    ///
    /// # Errors
    /// When the API server cannot be asked, or what is there is damaged or of
    /// another trust domain.
    pub async fn open_or_init(&self, new: &NewCa, now: SystemTime) -> Result<CaState, Error> {
        let state = Box::pin(secret::read_or_create(self, new, now)).await?;
        let (found, wanted) = (state.trust_domain().clone(), new.trust_domain.clone());
        if found != wanted {
            return Err(Error::OtherTrustDomain { place: self.place(), found, wanted });
        }
        Ok(state)
    }

    /// Follows what becomes of the CA that is kept there, for ever: whatever
    /// can be used goes to `to`. What cannot leaves the last good in place.
    pub async fn follow(&self, to: &watch::Sender<Arc<CaState>>) {
        secret::follow(self, to).await;
    }

    /// Writes the roots to the ConfigMap `outrider-trust-bundle` of the CA's
    /// namespace, whenever they change or it says something else; for ever.
    pub async fn publish(&self, states: watch::Receiver<Arc<CaState>>) {
        // Boxed: a call to the API server is large, and this lasts.
        Box::pin(publish::publish(self, states)).await;
    }

    /// Reviews of tokens of this audience.
    #[must_use]
    pub fn reviewer(&self, audience: &str, state: &CaState) -> Arc<dyn Reviewer> {
        Arc::new(TokenReviews::new(self.client.clone(), audience, state.trust_domain()))
    }

    fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// For messages.
    fn place(&self) -> PathBuf {
        PathBuf::from(format!("the Secret {}/{}", self.namespace, self.secret))
    }
}

/// What an API server's refusal or silence is told as. Bodies of requests are
/// in none of them.
fn reason(error: &kube::Error) -> String {
    use std::error::Error as _;
    if let kube::Error::Api(status) = error {
        return format!("the API server refused ({}): {}", status.code, status.message);
    }
    let mut text = format!("the API server cannot be reached: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// Runs a call with [`DEADLINE`].
async fn call<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Failed> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(Failed::NotFound),
        Ok(Err(kube::Error::Api(status))) if status.code == 409 => Err(Failed::Conflict),
        Ok(Err(error)) => Err(Failed::Other(reason(&error))),
        Err(_elapsed) => Err(Failed::Other(format!("the API server gave no answer within {DEADLINE:?}"))),
    }
}

/// How a call ended that did not succeed.
#[derive(Debug)]
enum Failed {
    NotFound,
    /// Somebody else was faster.
    Conflict,
    Other(String),
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotFound => f.write_str("it is not there"),
            Self::Conflict => f.write_str("somebody else has changed it"),
            Self::Other(reason) => f.write_str(reason),
        }
    }
}
