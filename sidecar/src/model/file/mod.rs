//! Files that operators write: where a fault is, and what can be done about it.
//!
//! Both the configuration and watched endpoints files are YAML that is read in two steps: `section!` mirrors the
//! file without judging it, and validation then collects *every* fault with its place. What both need is here, because
//! `config` and `discovery` may not import each other.
//!
//! # Invariants
//! - Input is bounded before it is parsed ([`MAX_FILE_BYTES`]) and while it is parsed (nodes, depth, aliases).
//! - Text from a file reaches a message only quoted and cut ([`quoted`]).

mod endpoints;
mod fault;
mod section;
mod yaml;

pub use endpoints::{
    MAX_ENDPOINTS, RawEndpoint, parse_endpoints, validate_endpoints, validate_spiffe_ids, validate_zone,
};
pub use fault::{Fault, Faults, Place, lines, quoted, similar};
pub(crate) use section::section;
pub use section::{OddKey, read_field, read_unknown, report_odd_keys};
pub use yaml::{MAX_FILE_BYTES, read};
