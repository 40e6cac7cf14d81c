//! The one reader of the process's environment: for the variables that OpenTelemetry has given names to, and the name and UID of our pod.

use std::{collections::BTreeMap, fmt};

/// Bytes of one variable; what is longer is left out, as if it were not there.
const MAX_BYTES: usize = 16 * 1024;

/// The pod that this is; its host's name is another where the pod's specification says so.
pub(super) const POD: &str = "OUTRIDER_POD_NAME";

/// Which one of that name: the pod's UID.
pub(super) const POD_UID: &str = "OUTRIDER_POD_UID";

/// Variables that begin with `OTEL_`, `OUTRIDER_POD_NAME` and `OUTRIDER_POD_UID`. Values may be secrets: they are not shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// That of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::new(std::env::vars_os().filter_map(text))
    }

    /// These variables. Others than those are left out; so are empty ones, which count as not set (OpenTelemetry,
    /// Environment Variable Specification).
    pub fn new(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let counts = |(name, value): &(String, String)| {
            (name.starts_with("OTEL_") || name == POD || name == POD_UID)
                && !value.trim().is_empty()
                && value.len() <= MAX_BYTES
        };
        Self(
            variables
                .into_iter()
                .filter(counts)
                .map(|(name, value)| (name, value.trim().to_owned()))
                .collect(),
        )
    }

    /// A variable's value, without spaces around it.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}
