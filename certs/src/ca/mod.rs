//! The CA: signs SVIDs for one trust domain and publishes its bundle.
//!
//! ```text
//!  server    accept, TLS 1.3, connection caps
//!    │
//!  service   CreateCertificate, GET /bundle
//!    │        who asks (join token or SVID) · limits · what is refused
//!  issuer    CSR + proof ─▶ token used up ─▶ signed ─▶ logged ─▶ sent
//!    │
//!  state     the folder: ca.json · tokens/ · issued.jsonl
//! ```
//!
//! # Invariants
//! - The names in a certificate come from the proof, never from the request.
//! - A join token is used up, on disk, before its certificate is signed.
//! - A certificate that is not in the log, on disk, does not leave the CA.
//! - Keys and secrets are in no log, and in no file others can read.

mod acknowledgements;
mod csr;
mod issue;
mod issuer;
mod limits;
mod log;
mod metrics;
mod operations;
mod refusal;
mod server;
mod service;
mod state;
mod tls;
mod tokens;

pub use issue::{BACKDATE, MAX_VALIDITY, ServerSan};
pub use issuer::Validity;
pub use limits::{Limits, Rate};
pub use operations::{IssuedByHand, OperatorError};
pub use server::{Options, ServeError, serve};
pub use state::{CaState, Error, NewCa};
