//! What is the same for all pods that one injector serves.

use std::collections::{BTreeMap, BTreeSet};

use outrider_certs::{SpiffeId, TrustDomain};

use crate::{
    denial::Denial,
    names::{PREFIX, is_label},
    settings::{self, Settings},
};

/// Where images come from, unless it is said otherwise.
pub const REGISTRY: &str = "ghcr.io/outrider";
/// Namespace of the mesh's own programs, unless it is said otherwise.
pub const NAMESPACE: &str = "outrider";
/// Trust domain in Kubernetes, unless it is said otherwise.
pub const TRUST_DOMAIN: &str = "cluster.local";
/// Port of the CA's Service.
const CA_PORT: u16 = 4350;
/// Port of the controller's Service.
const CONTROLLER_PORT: u16 = 4360;

/// An installation of the mesh in a cluster.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Namespace of CA, controller and injector.
    pub namespace: String,
    /// Trust domain of all pods.
    pub trust_domain: TrustDomain,
    /// Image of the sidecar.
    pub image: String,
    /// Image of the init container: the sidecar's program, and `nft`.
    pub init_image: String,
    /// Texts of annotations that hold where a pod has none, by the annotation's whole name.
    defaults: BTreeMap<String, String>,
    /// Whole names of annotations that no pod may have.
    forbidden: BTreeSet<String>,
}

impl Installation {
    /// An installation with this version's images.
    #[must_use]
    pub fn new(namespace: &str, trust_domain: TrustDomain, registry: &str) -> Self {
        let registry = registry.trim_end_matches('/');
        let version = env!("CARGO_PKG_VERSION");
        Self {
            namespace: namespace.to_owned(),
            trust_domain,
            image: format!("{registry}/outrider:{version}"),
            init_image: format!("{registry}/outrider-init:{version}"),
            defaults: BTreeMap::new(),
            forbidden: BTreeSet::new(),
        }
    }

    /// The same with defaults for annotations: `drain-time` or `outrider.io/drain-time`, and the text.
    ///
    /// # Errors
    /// What a pod would be denied for that had these annotations.
    pub fn with_defaults(
        mut self,
        defaults: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Denial> {
        self.defaults = defaults.into_iter().map(|(name, text)| (whole(name), text)).collect();
        for name in self.defaults.keys() {
            settings::known(name)?;
        }
        Settings::read(&BTreeMap::new(), &self)?;
        Ok(self)
    }

    /// The same for pods that may not have these annotations, named as for [`Self::with_defaults`]. Defaults for them
    /// hold nevertheless.
    ///
    /// # Errors
    /// One of them is not known.
    pub fn with_forbidden(mut self, names: impl IntoIterator<Item = String>) -> Result<Self, Denial> {
        self.forbidden = names.into_iter().map(whole).collect();
        self.forbidden.iter().try_for_each(|name| settings::known(name))?;
        Ok(self)
    }

    /// Whether pods may not have an annotation, by its whole name.
    pub(crate) fn forbids(&self, annotation: &str) -> bool {
        self.forbidden.contains(annotation)
    }

    /// The default text of an annotation, by its whole name.
    pub(crate) fn default_of(&self, annotation: &str) -> Option<&str> {
        self.defaults.get(annotation).map(String::as_str)
    }

    /// `host:port` of the CA.
    #[must_use]
    pub fn ca_address(&self) -> String {
        format!("outrider-ca.{}.svc:{CA_PORT}", self.namespace)
    }

    /// `host:port` of the controller.
    #[must_use]
    pub fn controller_address(&self) -> String {
        format!("outrider-controller.{}.svc:{CONTROLLER_PORT}", self.namespace)
    }

    /// Who the controller is.
    #[must_use]
    pub fn controller_id(&self) -> String {
        format!("spiffe://{}/ns/{}/sa/outrider-controller", self.trust_domain, self.namespace)
    }

    /// Checks what flags may have got wrong.
    ///
    /// # Errors
    /// The namespace is none.
    pub fn checked(self) -> Result<Self, Denial> {
        let name = &self.namespace;
        if !is_label(name) || SpiffeId::parse(&self.controller_id()).is_err() {
            let problem = format!("{} is no namespace", crate::denial::quoted(name));
            return Err(Denial::of("--namespace", &problem, "use lower-case letters, digits and '-'"));
        }
        Ok(self)
    }
}

/// The whole name of an annotation of ours.
fn whole(name: String) -> String {
    if name.starts_with(PREFIX) { name } else { format!("{PREFIX}{name}") }
}
