//! How many sockets and files the process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit of open descriptors in force (`RLIMIT_NOFILE`, soft).
#[must_use]
pub fn descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    // `None` stands for no limit.
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// Raises the limit as far as an ordinary process may: to the hard limit. The soft one is 1024 on most hosts, for the
/// sake of programs that use `select`, of which we are none.
///
/// # Errors
/// As the operating system reports them; the limit is then as before.
pub fn raise_descriptor_limit() -> std::io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}
