//! The command line of `outrider-ca`.

mod place;
mod serve;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Parser, Subcommand, ValueEnum};

use self::place::Place;
use crate::ca::{CaState, MAX_VALIDITY, NewCa};
use crate::clock::{SystemWallClock, WallClock as _};
use crate::files::write_atomically;
use crate::pem;
use crate::request::KeyPairAndCsr;
use crate::spiffe_id::{SpiffeId, TrustDomain};
use crate::svid::X509Svid;

/// Largest certificate request that is read from a file.
const MAX_CSR_FILE_BYTES: u64 = 64 * 1024;

/// A small certificate authority for SPIFFE identities.
///
/// It signs short-lived certificates (X.509-SVIDs) for the workloads of one
/// trust domain. A workload proves itself once with a join token and then
/// renews with the certificate it has.
///
/// First steps:
///   outrider-ca init  --dir /var/lib/outrider-ca --trust-domain example.org
///   outrider-ca serve --dir /var/lib/outrider-ca
///   outrider-ca token --dir /var/lib/outrider-ca --spiffe-id spiffe://example.org/shop/cart
#[derive(Debug, Parser)]
#[command(name = "outrider-ca", version, verbatim_doc_comment)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a new CA: a root key and certificate in a folder of their own.
    Init(Init),
    /// Run the CA: certificates over gRPC, the trust bundle over HTTPS.
    Serve(Box<serve::Serve>),
    /// Make a join token, with which one workload gets its first certificate.
    Token(Token),
    /// Sign a certificate by hand, for tests and machines without a sidecar.
    Issue(Issue),
    /// Print the trust bundle: the roots that vouch for the trust domain.
    Bundle(Bundle),
}

/// Where a new CA is made.
#[derive(Debug, Args)]
struct Folder {
    /// The CA's state folder. Keys are in it: it must be open to its owner
    /// alone (chmod 700).
    #[arg(long, value_name = "FOLDER", env = "OUTRIDER_CA_DIR")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
struct Init {
    #[command(flatten)]
    place: Folder,
    /// The trust domain to sign for: lower-case letters, digits, '.', '-', '_'.
    #[arg(long, value_name = "NAME")]
    trust_domain: TrustDomain,
    /// How long the root is valid.
    #[arg(long, value_name = "TIME", default_value = "3650days", value_parser = humantime::parse_duration)]
    root_lifetime: Duration,
}

#[derive(Debug, Args)]
struct Token {
    #[command(flatten)]
    place: Place,
    /// The one SPIFFE ID the token is good for.
    #[arg(long, value_name = "ID")]
    spiffe_id: SpiffeId,
    /// How long the token is good for.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// Write the token to this file (mode 0600) instead of standard output.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Issue {
    #[command(flatten)]
    place: Place,
    /// The SPIFFE ID to certify.
    #[arg(long, value_name = "ID")]
    spiffe_id: SpiffeId,
    /// How long the certificate is valid, at most 90days.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// Folder for svid.pem, svid_key.pem and bundle.pem (mode 0600 each); made if missing.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Certify the key of this request (PEM) instead of making a new key.
    #[arg(long, value_name = "FILE")]
    csr: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct Bundle {
    #[command(flatten)]
    place: Place,
    /// The form to print it in.
    #[arg(long, value_enum, default_value_t = Format::Pem)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// Certificates in PEM.
    Pem,
    /// The SPIFFE bundle document (JSON Web Key Set).
    Jwks,
}

impl Cli {
    /// Does what the command line says.
    ///
    /// # Errors
    /// What went wrong, where, and what to do about it.
    pub fn run(self) -> Result<()> {
        let now = SystemWallClock.now();
        match self.command {
            Command::Init(init) => init.run(now),
            Command::Serve(serve) => serve.run(),
            Command::Token(token) => token.run(now),
            Command::Issue(issue) => issue.run(now),
            Command::Bundle(bundle) => bundle.run(),
        }
    }
}

impl Init {
    fn run(self, now: SystemTime) -> Result<()> {
        let new = NewCa { trust_domain: self.trust_domain, root_lifetime: self.root_lifetime };
        let state = CaState::init(&self.place.dir, &new, now).context("no CA was made")?;
        print(&format!(
            "a CA for spiffe://{} is in {}; its root is valid until {}\n",
            state.trust_domain(),
            self.place.dir.display(),
            humantime::format_rfc3339_seconds(state.root_not_after()),
        ))
    }
}

impl Token {
    fn run(self, now: SystemTime) -> Result<()> {
        let opened = self.place.open().context("no token was made")?;
        let state = &opened.state;
        let token = state.new_token(&self.spiffe_id, self.ttl, now).context("no token was made")?;
        let text = zeroize::Zeroizing::new(format!("{token}\n"));
        match &self.out {
            Some(file) => write(file, text.as_bytes()),
            None => print(&text),
        }
    }
}

impl Issue {
    fn run(self, now: SystemTime) -> Result<()> {
        if self.ttl > MAX_VALIDITY {
            bail!("--ttl is more than {} days, the longest a certificate may be valid", days(MAX_VALIDITY));
        }
        let opened = self.place.open().context("no certificate was issued")?;
        let state = &opened.state;
        make_folder(&self.out)?;
        match &self.csr {
            Some(file) => {
                let csr = read_csr(file)?;
                let issued = state.issue_by_hand(&self.spiffe_id, &csr, self.ttl, now)?;
                let text: String = issued.chain.iter().map(pem::certificate).collect();
                write(&self.out.join("svid.pem"), text.as_bytes())?;
            }
            None => {
                let pair = KeyPairAndCsr::generate(&self.spiffe_id)?;
                let issued = state.issue_by_hand(&self.spiffe_id, pair.csr_pem(), self.ttl, now)?;
                let svid = X509Svid::from_parts(issued.chain, pair.key().clone_key())?;
                // The key first: who sees the certificate finds its key.
                write(&self.out.join("svid_key.pem"), svid.key_pem().as_bytes())?;
                write(&self.out.join("svid.pem"), svid.chain_pem().as_bytes())?;
            }
        }
        write(&self.out.join("bundle.pem"), state.bundle().to_pem().as_bytes())
    }
}

impl Bundle {
    fn run(self) -> Result<()> {
        let opened = self.place.open()?;
        let state = &opened.state;
        match self.format {
            Format::Pem => print(&state.bundle().to_pem()),
            Format::Jwks => print(&format!("{}\n", state.bundle().to_jwks())),
        }
    }
}

/// Whole days of a time.
fn days(time: Duration) -> u64 {
    time.as_secs() / (24 * 3600)
}

fn read_csr(file: &Path) -> Result<String> {
    let place = || format!("{}: the certificate request cannot be read", file.display());
    let size = std::fs::metadata(file).with_context(place)?.len();
    if size > MAX_CSR_FILE_BYTES {
        bail!("{}: {size} bytes are too many for a certificate request", file.display());
    }
    std::fs::read_to_string(file).with_context(place)
}

fn make_folder(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).with_context(|| format!("{}: the folder cannot be made", path.display()))
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    write_atomically(path, content).with_context(|| format!("{}: the file cannot be written", path.display()))
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("standard output cannot be written")
}
