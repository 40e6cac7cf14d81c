//! Other trust domains: what the file says of them, and how it goes with their bundles.

use serde_json::{Value, json};

use super::{State, progress, time};
use crate::model::{
    federation::{FederatedDomain, Profile},
    settings::Settings,
    transport::Roots,
};

/// `federation` of `/config`: where the bundle of each comes from. Files by name.
pub(super) fn federation(domain: &FederatedDomain) -> Value {
    let endpoint = domain.endpoint.as_ref().map(|endpoint| {
        let (spiffe_id, roots) = match &endpoint.profile {
            Profile::Spiffe(id) => (Some(id.as_str()), None),
            Profile::Web(Roots::System) => (None, Some("system".into())),
            Profile::Web(Roots::File(path)) => (None, Some(path.to_string_lossy())),
        };
        json!({
            "url": endpoint.url.to_string(),
            "profile": endpoint.profile.label(),
            "endpoint_spiffe_id": spiffe_id,
            "roots": roots,
        })
    });
    json!({
        "trust_domain": domain.trust_domain.as_str(),
        "endpoint": endpoint,
        "bundle_file": domain.bundle_file,
    })
}

/// `federation` of `/certs`: what is held of each, and since when.
pub(super) fn bundles(state: &State, settings: &Settings) -> Vec<Value> {
    let now = state.clock.wall();
    let known = state.identity.federation.all();
    let of = |domain: &FederatedDomain| {
        let status = known.iter().find(|(name, _)| *name == domain.trust_domain).map(|(_, status)| status);
        let freshness = status.map(|status| status.freshness());
        json!({
            "trust_domain": domain.trust_domain.as_str(),
            "source": domain.source(),
            "bundle_file": domain.bundle_file,
            "confirmed_at": freshness.and_then(|freshness| freshness.confirmed_at).map(time),
            "age_seconds": freshness.and_then(|freshness| freshness.age(now)).map(|age| age.as_secs()),
            "stale": freshness.is_some_and(|freshness| freshness.is_stale(now)),
            "refresh": status.map(|status| progress(&status.refreshes)),
        })
    };
    settings.federation.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use outrider_certs::TrustDomain;

    use super::*;
    use crate::model::federation::{BundleEndpoint, BundleUrl};

    #[test]
    fn each_domain_says_where_its_bundle_comes_from_and_files_by_name() {
        let shown = |profile: Option<Profile>, bundle_file: Option<&str>| {
            let url = BundleUrl { host: "a.example".into(), port: 443, path: "/b?x=1".into() };
            federation(&FederatedDomain {
                trust_domain: TrustDomain::parse("a.mesh").unwrap(),
                endpoint: profile.map(|profile| BundleEndpoint { url, profile }),
                bundle_file: bundle_file.map(Into::into),
            })
        };
        let web = |roots: &str| json!({"url": "https://a.example/b?x=1", "profile": "https_web", "endpoint_spiffe_id": null, "roots": roots});
        let whole = |endpoint: Value, file: Value| json!({"trust_domain": "a.mesh", "endpoint": endpoint, "bundle_file": file});
        assert_eq!(shown(None, Some("/a.pem")), whole(Value::Null, "/a.pem".into()));
        assert_eq!(shown(Some(Profile::Web(Roots::System)), None), whole(web("system"), Value::Null));
        let roots = Roots::File("/roots.pem".into());
        assert_eq!(shown(Some(Profile::Web(roots)), None), whole(web("/roots.pem"), Value::Null));
        let spiffe = json!({
            "url": "https://a.example/b?x=1",
            "profile": "https_spiffe",
            "endpoint_spiffe_id": "spiffe://a.mesh/ca",
            "roots": null,
        });
        let server = Profile::Spiffe("spiffe://a.mesh/ca".parse().unwrap());
        assert_eq!(shown(Some(server), Some("/a.pem")), whole(spiffe, "/a.pem".into()));
    }
}
