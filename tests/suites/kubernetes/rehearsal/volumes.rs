//! Volumes: folders on the node, filled as the kubelet fills them.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::Path,
};

use serde_json::Value;

use super::fields::{field, list, number, text};
use crate::harness::{
    api_server::{API_AUDIENCE, Account, ApiServer},
    eventually,
};

/// Where containers find a token for the API server, unless they have something else there.
pub(super) const API_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Makes a volume of a pod in an empty folder. One of a `ConfigMap` waits until that is there.
pub(super) async fn fill(folder: &Path, volume: &Value, pod: &Value, api: &ApiServer) {
    fs::create_dir_all(folder).expect("a folder");
    let files = Files { folder, pod, api };
    if volume.get("emptyDir").is_some() {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).expect("it is ours");
    } else if let Some(projected) = volume.get("projected") {
        for source in list(projected, "/sources") {
            files.source(source).await;
        }
    } else {
        files.source(volume).await;
    }
}

/// The token that the API server takes, with its root, as a pod has them that says nothing of it.
pub(super) fn fill_api_token(folder: &Path, pod: &Value, api: &ApiServer) {
    let files = Files { folder, pod, api };
    let token = files.token(API_AUDIENCE);
    api.service_account_folder(folder, text(pod, "/metadata/namespace"), &token);
    for name in ["token", "ca.crt", "namespace"] {
        files.hand_over(name);
    }
}

struct Files<'a> {
    folder: &'a Path,
    pod: &'a Value,
    api: &'a ApiServer,
}

impl Files<'_> {
    async fn source(&self, source: &Value) {
        if let Some(token) = source.get("serviceAccountToken") {
            self.write(text(token, "/path"), &self.token(text(token, "/audience")));
        } else if let Some(downward) = source.get("downwardAPI") {
            for item in list(downward, "/items") {
                self.write(text(item, "/path"), &field(self.pod, text(item, "/fieldRef/fieldPath")));
            }
        } else if let Some(map) = source.get("configMap") {
            let (namespace, name) = (text(self.pod, "/metadata/namespace"), text(map, "/name"));
            let found = || self.api.object("configmaps", namespace, name);
            eventually(&format!("there is a ConfigMap {namespace}/{name}"), || found().is_some()).await;
            let found = found().expect("it is there");
            for (key, value) in found["data"].as_object().into_iter().flatten() {
                let item = list(map, "/items").iter().find(|item| text(item, "/key") == key);
                self.write(item.map_or(key, |item| text(item, "/path")), value.as_str().unwrap_or_default());
            }
        } else {
            panic!("no kind of volume: {source}");
        }
    }

    /// A token of the pod's service account, bound to the pod.
    fn token(&self, audience: &str) -> String {
        let pod = self.pod;
        let account = Account::service_account(
            text(pod, "/metadata/namespace"),
            text(pod, "/spec/serviceAccountName"),
            audience,
        );
        self.api.token(account.in_pod(pod))
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.folder.join(name), content).expect("written");
        self.hand_over(name);
    }

    /// Who may read it: the group of all volumes, or everybody.
    fn hand_over(&self, name: &str) {
        let path = self.folder.join(name);
        let group = number(self.pod, "/spec/securityContext/fsGroup");
        chown(&path, None, group).expect("we are root");
        let mode = if group.is_some() { 0o640 } else { 0o644 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    }
}
