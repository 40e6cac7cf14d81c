//! Who a service account's token stands for: asked of the API server for every
//! certificate, so that a pod that is gone gets none.

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus, UserInfo};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::Semaphore;

use super::{DEADLINE, call};
use crate::ca::review::{Error, Pod, Reviewed, Reviewer, Reviewing, id_of};
use crate::spiffe_id::TrustDomain;

/// Reviews under way at a time; more wait.
const MAX_REVIEWS: usize = 64;
/// How long a review waits for its turn.
const MAX_WAIT: Duration = Duration::from_secs(2);
/// What an error of the API server may be long, in characters.
const MAX_REASON: usize = 500;

/// Reviews by the API server.
pub(super) struct TokenReviews {
    reviews: Api<TokenReview>,
    audience: String,
    trust_domain: TrustDomain,
    turns: Semaphore,
}

impl TokenReviews {
    pub(super) fn new(client: Client, audience: &str, trust_domain: &TrustDomain) -> Self {
        Self {
            reviews: Api::all(client),
            audience: audience.to_owned(),
            trust_domain: trust_domain.clone(),
            turns: Semaphore::new(MAX_REVIEWS),
        }
    }

    async fn ask(&self, token: &str) -> Result<Reviewed, Error> {
        let turn = tokio::time::timeout(MAX_WAIT, self.turns.acquire()).await.map_err(|_| Error::Busy)?;
        let spec = TokenReviewSpec { token: token.to_owned(), audiences: Some(vec![self.audience.clone()]) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let answer = call(self.reviews.create(&PostParams::default(), &review)).await;
        drop(turn);
        let answer = answer.map_err(|failed| Error::Unavailable(failed.to_string()))?;
        judge(answer.status.unwrap_or_default(), &self.audience, &self.trust_domain)
    }
}

impl fmt::Debug for TokenReviews {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenReviews")
            .field("audience", &self.audience)
            .field("deadline", &DEADLINE)
            .finish_non_exhaustive()
    }
}

impl Reviewer for TokenReviews {
    fn review<'a>(&'a self, token: &'a str) -> Reviewing<'a> {
        Box::pin(self.ask(token))
    }
}

/// What a review's answer means.
fn judge(status: TokenReviewStatus, audience: &str, trust_domain: &TrustDomain) -> Result<Reviewed, Error> {
    if status.authenticated != Some(true) {
        let reason = status.error.unwrap_or_else(|| "the API server does not know it".to_owned());
        return Err(Error::NotAuthenticated(reason.chars().take(MAX_REASON).collect()));
    }
    // A server that knows nothing of audiences says nothing of them: its word is not for us.
    let audiences = status.audiences.unwrap_or_default();
    if !audiences.iter().any(|one| one == audience) {
        return Err(Error::NotAuthenticated(format!("it is not for the audience {audience}")));
    }
    let user = status.user.unwrap_or_default();
    let id = id_of(user.username.as_deref().unwrap_or_default(), trust_domain)?;
    Ok(Reviewed { id, pod: pod(&user) })
}

fn pod(user: &UserInfo) -> Option<Pod> {
    let extra = |name: &str| {
        let values = user.extra.as_ref()?.get(&format!("authentication.kubernetes.io/{name}"))?;
        values.first().map(|value| value.chars().take(MAX_REASON).collect())
    };
    Some(Pod { pod: extra("pod-name")?, pod_uid: extra("pod-uid")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(change: impl FnOnce(&mut TokenReviewStatus)) -> Result<Reviewed, Error> {
        let user = UserInfo {
            username: Some("system:serviceaccount:shop:orders".to_owned()),
            extra: Some(
                [("pod-name", "orders-1"), ("pod-uid", "7")]
                    .map(|(name, value)| {
                        (format!("authentication.kubernetes.io/{name}"), vec![value.to_owned()])
                    })
                    .into(),
            ),
            ..UserInfo::default()
        };
        let mut status = TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(vec!["outrider-ca".to_owned()]),
            user: Some(user),
            error: None,
        };
        change(&mut status);
        judge(status, "outrider-ca", &TrustDomain::parse("cluster.local").unwrap())
    }

    #[test]
    fn only_a_good_token_for_this_audience_names_a_service_account() {
        let good = judged(|_| {}).unwrap();
        assert_eq!(good.id.as_str(), "spiffe://cluster.local/ns/shop/sa/orders");
        assert_eq!(good.pod.unwrap().pod, "orders-1");
        let without_pod = judged(|status| status.user.as_mut().unwrap().extra = None).unwrap();
        assert_eq!(without_pod.pod, None);
        for unsaid in [None, Some(false)] {
            let answer = judged(|status| status.authenticated = unsaid);
            assert!(matches!(answer, Err(Error::NotAuthenticated(_))));
        }
        for audiences in [None, Some(vec![]), Some(vec!["api".to_owned()])] {
            let answer = judged(|status| status.audiences = audiences);
            assert!(matches!(answer, Err(Error::NotAuthenticated(_))));
        }
        for name in [None, Some("kubernetes-admin".to_owned())] {
            let answer = judged(|status| status.user.as_mut().unwrap().username = name);
            assert!(matches!(answer, Err(Error::NotAServiceAccount(_))));
        }
        assert!(judged(|status| status.user = None).is_err());
    }
}
