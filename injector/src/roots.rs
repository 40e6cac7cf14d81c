//! Roots that were written somewhere, beside ours.

/// Whether two PEM texts have a certificate in common. Roots of one CA do, from one change to the next; those of a CA that was
/// made anew have none in common with the former ones, and their sequence begins anew.
pub(crate) fn have_one_in_common(ours: &str, theirs: &str) -> bool {
    certificates(ours).any(|certificate| theirs.contains(certificate))
}

/// The bodies of the certificates of a PEM text.
fn certificates(pem: &str) -> impl Iterator<Item = &str> {
    let begins = pem.split("-----BEGIN CERTIFICATE-----").skip(1);
    begins.filter_map(|rest| rest.split("-----END").next()).map(str::trim).filter(|body| !body.is_empty())
}

/// A PEM text with these bodies.
#[cfg(test)]
pub(crate) fn pem(bodies: &[&str]) -> String {
    let one = |body: &&str| format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
    bodies.iter().map(one).collect()
}
