//! Who certifies: a root without a process for certificates in files, and `outrider-ca` as a process.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use outrider_certs::{
    SpiffeId, TrustDomain, X509Svid,
    ca::{CaState, NewCa},
    files::write_atomically,
    request::KeyPairAndCsr,
};
use rcgen::{Issuer, KeyPair};
use serde_json::Value;
use tokio::net::TcpStream;

use super::{
    process::{Process, program},
    until,
};

/// The trust domain of every mesh here.
pub(crate) const DOMAIN: &str = "test.outrider";

/// The SPIFFE ID of a service.
pub(crate) fn id(service: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://{DOMAIN}/{service}")).expect("a good name")
}

/// A root in a folder; certificates are made by hand.
#[derive(Clone, Debug)]
pub(crate) struct Authority {
    folder: PathBuf,
    state: Arc<CaState>,
}

impl Authority {
    pub(crate) fn new(folder: &Path) -> Self {
        let domain = TrustDomain::parse(DOMAIN).expect("a good name");
        let new = NewCa { trust_domain: domain, root_lifetime: Duration::from_secs(3600) };
        let state = CaState::init(folder, &new, SystemTime::now()).expect("a new CA");
        Self { folder: folder.to_owned(), state: Arc::new(state) }
    }

    /// Its root in PEM.
    pub(crate) fn bundle(&self) -> String {
        self.state.bundle().to_pem()
    }

    pub(crate) fn domain(&self) -> TrustDomain {
        self.state.trust_domain().clone()
    }

    /// Its key, for what the CA itself would never sign.
    pub(crate) fn issuer(&self) -> Issuer<'static, KeyPair> {
        let state = fs::read(self.folder.join("ca.json")).expect("the CA's state");
        let state: Value = serde_json::from_slice(&state).expect("JSON");
        let text = |name: &str| state["roots"][0][name].as_str().expect("a text").to_owned();
        let key = KeyPair::from_pem(&text("key")).expect("a key");
        Issuer::from_ca_cert_pem(&text("certificate"), key).expect("a root")
    }

    fn svid(&self, service: &str, validity: Duration) -> X509Svid {
        let id = id(service);
        let pair = KeyPairAndCsr::generate(&id).expect("a key");
        let issued = self.state.issue_by_hand(&id, pair.csr_pem(), validity, SystemTime::now());
        X509Svid::from_parts(issued.expect("a certificate").chain, pair.key().clone_key()).expect("they fit")
    }

    /// Writes a new certificate for `service` with its key, as `identity.file` reads them.
    pub(crate) fn certify(&self, service: &str, folder: &Path) {
        let svid = self.svid(service, Duration::from_secs(1800));
        write(folder, "svid_key.pem", &svid.key_pem());
        write(folder, "svid.pem", &svid.chain_pem());
    }

    /// A one-time token for `service`, in a file.
    pub(crate) fn write_token(&self, service: &str, file: &Path) {
        let token = self.state.new_token(&id(service), Duration::from_secs(600), SystemTime::now());
        write_atomically(file, token.expect("a token").to_string().as_bytes()).expect("written");
    }

    /// Starts the CA's server on this folder and waits until it listens.
    pub(crate) async fn serve(&self, listen: SocketAddr, extra: &[&str], logs: &Path) -> Process {
        let metrics = SocketAddr::new(listen.ip(), listen.port() + 1);
        let mut arguments = vec!["serve".to_owned(), "--dir".to_owned(), self.folder.display().to_string()];
        arguments.extend(["--listen".to_owned(), listen.to_string()]);
        arguments.extend(["--metrics-listen".to_owned(), metrics.to_string()]);
        arguments.extend(extra.iter().map(|&argument| argument.to_owned()));
        let mut process = Process::start("ca", &program("outrider-ca"), arguments, logs);
        until("the CA listens", async || {
            assert!(!process.has_ended(), "the CA ended while starting");
            TcpStream::connect(listen).await.is_ok()
        })
        .await;
        process
    }
}

/// Replaces a file as a whole.
pub(crate) fn write(folder: &Path, name: &str, text: &str) {
    fs::create_dir_all(folder).expect("a folder");
    write_atomically(&folder.join(name), text.as_bytes()).expect("written");
}
