//! Whether this process is the one that the kernel's rules were made for, and may do what interception takes.

use anyhow::ensure;

use crate::{
    model::intercept::{APP_DSCP, InterceptSettings, Mode, Own},
    net::{self, Forbidden, Marks},
};

/// How the kernel's rules tell our connections apart.
///
/// # Errors
/// If they would not: what we send would be brought back to us. Or if something is forbidden that every connection takes;
/// better to hear of it now than with the first request.
pub(super) fn marks(intercept: Option<&InterceptSettings>) -> anyhow::Result<Marks> {
    let Some(intercept) = intercept else { return Ok(Marks::default()) };
    let own = rustix::process::geteuid().as_raw();
    let marks = wanted(intercept, own)?;
    marks.check().map_err(explained)?;
    if let Some(setting) = net::nonlocal_bind() {
        anyhow::bail!(
            "{setting} is not 0, so that the host's own addresses cannot be told from others, and connections of peers \
             could be carried to anywhere: set it to 0 in this network namespace, or leave intercept out"
        );
    }
    Ok(marks)
}

/// The same as the settings have it, for a process of the user `own`.
fn wanted(intercept: &InterceptSettings, own: u32) -> anyhow::Result<Marks> {
    if let Own::Uid(uid) = intercept.own {
        ensure!(
            own == uid,
            "intercept.uid is {uid} and this process runs as user {own}: its own connections would be \
             intercepted; run it as {uid}, or set intercept.uid"
        );
    }
    let transparent_port = (intercept.mode == Mode::Tproxy).then_some(intercept.inbound.port);
    Ok(Marks { mark: intercept.own.mark(), app_dscp: Some(APP_DSCP), transparent_port })
}

fn explained(forbidden: Forbidden) -> anyhow::Error {
    let (key, instead) = match &forbidden {
        Forbidden::Mark(_) => ("intercept.own: mark", "intercept.own: uid"),
        Forbidden::Transparent(_) => ("intercept.mode: tproxy", "intercept.mode: redirect"),
    };
    anyhow::anyhow!(
        "{key}: {forbidden}; give it that capability (docs/intercept.md#rights), or set {instead}"
    )
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::model::fixture;

    #[test]
    fn a_process_of_another_user_than_the_rules_leave_alone_does_not_start() {
        let by_uid = fixture::intercept(Mode::Redirect, Own::Uid(4343));
        let marks = wanted(&by_uid, 4343).unwrap();
        assert_eq!(marks, Marks { mark: None, app_dscp: Some(APP_DSCP), transparent_port: None });
        let error = wanted(&by_uid, 0).unwrap_err().to_string();
        assert!(error.contains("intercept.uid is 4343") && error.contains("runs as user 0"), "{error}");
        let by_mark = wanted(&fixture::intercept(Mode::Tproxy, Own::Mark(7)), 0).unwrap();
        assert_eq!((by_mark.mark, by_mark.transparent_port), (Some(7), Some(4343)));
    }

    #[test]
    fn what_is_forbidden_is_told_with_its_key_the_capability_and_the_way_around() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let mark = explained(Forbidden::Mark(denied())).to_string();
        let transparent = explained(Forbidden::Transparent(denied())).to_string();
        for (text, key, instead) in [
            (mark, "intercept.own: mark: ", "set intercept.own: uid"),
            (transparent, "intercept.mode: tproxy: ", "set intercept.mode: redirect"),
        ] {
            assert!(text.starts_with(key) && text.ends_with(instead), "{text}");
            assert!(text.contains("CAP_NET_ADMIN"), "{text}");
        }
    }
}
