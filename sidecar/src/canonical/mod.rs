//! One spelling for what may be spelled in many ways: what is judged, matched and sent on is the same text.
//!
//! The rules by which a proxy decides and the app behind it must never see different strings. So a text is brought into one
//! form before anything is decided on it, that form is what the next hop gets, and what has no form that every reader
//! would agree on is refused.

mod authority;
mod path;

pub use authority::{authority, host, port};
pub use path::{Ambiguous, Care, path};
