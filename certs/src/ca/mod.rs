//! The CA: signs SVIDs for one trust domain and publishes its bundle.
//!
//! ```text
//!  server    accept, TLS 1.3, connection caps
//!    │
//!  service   CreateCertificate, GET /bundle
//!    │        who asks (join token, SVID or service account) · limits · what is refused
//!  issuer    CSR + proof ─▶ token used up ─▶ signed ─▶ logged ─▶ sent
//!    │
//!  state     the folder: ca.json · tokens/ · issued.jsonl
//!            or Kubernetes: a Secret · a Secret each · standard output
//! ```
//!
//! # Invariants
//! - The names in a certificate come from the proof, never from the request.
//! - A join token is used up, where it is kept, before its certificate is signed.
//! - A service account's token is reviewed for each certificate, and no
//!   earlier certificate stands in for it.
//! - A certificate that is not in the log, on disk, does not leave the CA.
//! - Keys and secrets are in no log, and in no file others can read.

mod acknowledgements;
mod csr;
mod issue;
mod issuer;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod limits;
mod log;
mod metrics;
mod operations;
mod refusal;
pub mod review;
mod server;
mod service;
mod state;
mod tls;
mod tokens;

pub use issue::{BACKDATE, MAX_VALIDITY, ServerSan};
pub use issuer::{NamesOf, Validity};
pub use limits::{Limits, Rate};
pub use operations::{IssuedByHand, OperatorError};
pub use server::{Options, ServeError, serve, serve_newest};
pub use service::States;
pub use state::{CaState, Error, NewCa};
