//! What the answer to a pod on trial tells of the webhook.

use serde_json::Value;

use super::{
    Trial,
    gather::{array, text, words},
};
use crate::names::{INIT, SIDECAR};

/// What our webhooks' names end with, in the words of an API server that could not call one, or was told no.
const OURS: &str = "injector.outrider.io";

/// Reads the answer.
pub(super) fn of(answer: Result<Value, kube::Error>) -> Trial {
    let error = match answer {
        Ok(pod) => {
            let inits = array(&pod, "/spec/initContainers");
            let has = inits.iter().any(|one| text(one, "/name") == SIDECAR);
            return if has { Trial::Injected } else { Trial::NotInjected };
        }
        Err(error) => error,
    };
    let kube::Error::Api(status) = &error else { return Trial::Unknown(words(&error)) };
    let says = |text: &str| status.message.contains(text);
    if says(OURS) {
        Trial::Refused(words(&error))
    } else if says("PodSecurity") && says(INIT) {
        // It looks at pods when all webhooks have: what it refuses is what we have put there.
        Trial::Barred(words(&error))
    } else if status.code == 403 && says("cannot create resource") {
        Trial::Forbidden
    } else {
        Trial::Unknown(words(&error))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(code: u16, message: &str) -> Trial {
        let status = json!({"status": "Failure", "message": message, "reason": "Forbidden", "code": code});
        of(Err(kube::Error::Api(serde_json::from_value(status).unwrap())))
    }

    #[test]
    fn only_words_that_name_our_webhook_are_about_it() {
        let away = "Internal error occurred: failed calling webhook \"pod.injector.outrider.io\": connection refused";
        assert_eq!(refused(500, away), Trial::Refused(away.to_owned()));
        let denied = "admission webhook \"namespace.injector.outrider.io\" denied the request: no sidecar";
        assert_eq!(refused(422, denied), Trial::Refused(denied.to_owned()));
        for other in [
            "admission webhook \"validate.kyverno.svc-fail\" denied the request: no image of app",
            "failed calling webhook \"validation.gatekeeper.sh\": timeout",
            "pods \"outrider-check-x\" is forbidden: exceeded quota: pods",
            "pods \"outrider-check-x\" is forbidden: violates PodSecurity \"restricted:latest\": container \"app\"",
        ] {
            assert_eq!(refused(403, other), Trial::Unknown(other.to_owned()));
        }
    }

    #[test]
    fn what_pod_security_has_against_our_container_shows_that_it_was_there() {
        let told = "pods \"outrider-check-x\" is forbidden: violates PodSecurity \"baseline:latest\": non-default \
                    capabilities (container \"outrider-init\" must not include \"NET_ADMIN\" in \
                    securityContext.capabilities.add)";
        assert_eq!(refused(403, told), Trial::Barred(told.to_owned()));
    }

    #[test]
    fn who_may_not_create_pods_learns_nothing() {
        let told = "pods is forbidden: User \"eve\" cannot create resource \"pods\" in API group \"\" in the namespace \"default\"";
        assert_eq!(refused(403, told), Trial::Forbidden);
    }
}
