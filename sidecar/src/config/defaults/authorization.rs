//! The keys of `authorization`.

use super::Choice;
use crate::model::authorization::Mode;

/// What becomes of calls that no rule fits.
pub const MODE: Choice<Mode> =
    Choice { name: "mode", default: ("enforce", Mode::Enforce), others: &[("audit", Mode::Audit)] };
