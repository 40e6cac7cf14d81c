//! What is read from files for a collector: roots, our certificate, values of fields. Read anew now and then, so that all of
//! it can be renewed under way.

use std::{
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::Arc,
};

use http::{HeaderMap, HeaderValue};
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, pem::PemObject},
};
use zeroize::Zeroizing;

use crate::{
    clock::Clock,
    model::telemetry::{Export, ExportProtocol, FieldValue},
};

/// Bytes of a PEM file; a distribution's whole list of roots is about 220 KiB.
const MAX_PEM_BYTES: u64 = 1024 * 1024;
/// Bytes of a file with a field's value.
const MAX_VALUE_BYTES: u64 = 8192;

/// What files hold.
pub(super) struct Material {
    /// Fields of every message.
    pub(super) headers: HeaderMap,
    /// With `https://`.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// Of the contents.
    pub(super) fingerprint: u64,
}

impl Material {
    /// Reads all that `export` names. Blocks on file I/O.
    ///
    /// # Errors
    /// Which file is wrong, and why; never what is in it.
    pub(super) fn read(export: &Export, clock: &Clock) -> Result<Self, String> {
        let mut hasher = DefaultHasher::new();
        let mut headers = HeaderMap::new();
        for (name, value) in &export.headers {
            let value = match value {
                FieldValue::Given(value) => value.clone(),
                FieldValue::File(path) => field(path)?,
            };
            value.as_bytes().hash(&mut hasher);
            headers.insert(name.clone(), value);
        }
        let tls =
            if export.endpoint.is_tls { Some(Arc::new(tls(export, clock, &mut hasher)?)) } else { None };
        Ok(Self { headers, tls, fingerprint: hasher.finish() })
    }
}

fn read(path: &Path, bound: u64) -> Result<(Zeroizing<Vec<u8>>, u32), String> {
    let read = || {
        let file = File::open(path)?;
        let mode = file.metadata()?.mode();
        let mut content = Zeroizing::new(Vec::new());
        file.take(bound + 1).read_to_end(&mut content)?;
        if content.len() as u64 > bound {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {bound} bytes")));
        }
        Ok((content, mode))
    };
    read().map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// A file's first line, which must be its only one.
fn field(path: &Path) -> Result<HeaderValue, String> {
    let (content, _) = read(path, MAX_VALUE_BYTES)?;
    let mut value = HeaderValue::from_bytes(content.trim_ascii())
        .ok()
        .filter(|value| !value.is_empty())
        .ok_or_else(|| format!("{} does not hold the value of a field", path.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn tls(export: &Export, clock: &Clock, hasher: &mut DefaultHasher) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    match &export.roots {
        Some(path) => {
            let (content, _) = read(path, MAX_PEM_BYTES)?;
            content.as_slice().hash(hasher);
            let unusable = |problem: &str| format!("{} holds no usable root: {problem}", path.display());
            for root in certificates(&content).map_err(|problem| unusable(&problem))? {
                roots.add(root).map_err(|error| unusable(&error.to_string()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err("the system has no roots: install ca-certificates, or give roots".to_owned());
            }
        }
    }
    let builder =
        ClientConfig::builder_with_details(Arc::new(aws_lc_rs::default_provider()), Arc::new(clock.clone()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots);
    let mut config = match &export.certificate {
        Some((certificate, key)) => {
            let (chain, _) = read(certificate, MAX_PEM_BYTES)?;
            let (private, mode) = read(key, MAX_PEM_BYTES)?;
            if mode & 0o007 != 0 {
                return Err(format!("{} is open to everybody: close it with `chmod o-rwx`", key.display()));
            }
            (chain.as_slice(), private.as_slice()).hash(hasher);
            let unusable =
                |path: &Path, problem: &str| format!("{} cannot be used: {problem}", path.display());
            let chain = certificates(&chain).map_err(|problem| unusable(certificate, &problem))?;
            let private = PrivatePkcs8KeyDer::from_pem_slice(&private)
                .map_err(|_not_pem| unusable(key, "it is not a private key in PKCS#8 PEM"))?;
            builder
                .with_client_auth_cert(chain, private.into())
                .map_err(|error| unusable(certificate, &error.to_string()))?
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = match export.protocol {
        ExportProtocol::Grpc => vec![b"h2".to_vec()],
        ExportProtocol::HttpProtobuf => vec![b"http/1.1".to_vec()],
    };
    Ok(config)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| error.to_string())?;
    if found.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(found) }
}
