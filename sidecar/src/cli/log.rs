//! `outrider log`: shows what a running sidecar logs, or changes it.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::{Context, bail};
use hyper::Method;
use outrider::admin;
use serde_json::Value;

pub(super) fn log(socket: &Path, level: Option<&str>) -> anyhow::Result<ExitCode> {
    let (method, target) = match level {
        Some(level) => (Method::POST, format!("/log?level={}", encoded(level))),
        None => (Method::GET, "/log".to_owned()),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime
        .block_on(admin::call(socket, method, &target))
        .with_context(|| format!("no answer from the sidecar at {}", socket.display()))?;
    let text = |key: &str| answer.body.get(key).and_then(Value::as_str);
    let Some(now) = text("level").filter(|_| answer.status == 200) else {
        match text("error") {
            Some(error) => bail!("the sidecar refused: {error}"),
            None => bail!("the sidecar refused: {}", answer.body),
        }
    };
    match text("was") {
        Some(was) => writeln!(io::stdout(), "the log level is {now}; it was {was}")?,
        None => writeln!(io::stdout(), "the log level is {now}")?,
    }
    Ok(ExitCode::SUCCESS)
}

/// As a value of a query.
fn encoded(level: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.,:=".contains(&byte);
    let encode = |byte: u8| {
        if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
    };
    level.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_fits_into_a_query() {
        assert_eq!(encoded("warn,outrider::a_b=debug"), "warn,outrider::a_b=debug");
        assert_eq!(encoded("a b&c\né"), "a%20b%26c%0A%C3%A9");
    }
}
