//! The roots, for the control plane's own pods: the ConfigMap by which
//! controller and injector believe the CA. The controller takes it to all other
//! namespaces.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use tokio::sync::watch;

use super::{Cluster, Failed, call};
use crate::ca::CaState;

/// The ConfigMap's name.
const CONFIG_MAP: &str = "outrider-trust-bundle";
/// The key in it.
const KEY: &str = "bundle.pem";
/// How often it is looked at: somebody may have changed or removed it.
const LOOK: Duration = Duration::from_secs(30);
/// Pause after it could not be written.
const RETRY: Duration = Duration::from_secs(2);

/// Keeps the ConfigMap current for ever, or until nobody knows the CA's state.
pub(super) async fn publish(cluster: &Cluster, mut states: watch::Receiver<Arc<CaState>>) {
    let maps = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    loop {
        let bundle = states.borrow_and_update().bundle().to_pem();
        let pause = match publish_once(&maps, &bundle).await {
            Ok(()) => LOOK,
            // The other replica writes the same.
            Err(Failed::Conflict) => RETRY,
            Err(error) => {
                tracing::warn!(namespace = cluster.namespace, %error, "the ConfigMap {CONFIG_MAP} cannot be written; trying again");
                RETRY
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = states.changed() => if changed.is_err() { return },
        }
    }
}

/// Writes it if it says something else.
async fn publish_once(maps: &Api<ConfigMap>, bundle: &str) -> Result<(), Failed> {
    match call(maps.get(CONFIG_MAP)).await {
        Err(Failed::NotFound) => {
            let metadata = ObjectMeta { name: Some(CONFIG_MAP.to_owned()), ..ObjectMeta::default() };
            let map = ConfigMap { metadata, data: Some(data(bundle)), ..ConfigMap::default() };
            call(maps.create(&PostParams::default(), &map)).await?;
        }
        Err(error) => return Err(error),
        Ok(map) if map.data.as_ref().and_then(|data| data.get(KEY)).is_some_and(|there| there == bundle) => {
            return Ok(());
        }
        // With its version: what somebody else writes meanwhile is not lost.
        Ok(mut map) => {
            map.data = Some(data(bundle));
            call(maps.replace(CONFIG_MAP, &PostParams::default(), &map)).await?;
        }
    }
    tracing::info!("the roots were written to the ConfigMap {CONFIG_MAP}");
    Ok(())
}

fn data(bundle: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(KEY.to_owned(), bundle.to_owned())])
}
