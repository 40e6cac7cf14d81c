//! The configuration files of `bench/chaos/`, with words between `@` to be filled in.

use std::{fs, net::SocketAddr, path::Path};

use anyhow::{Context, bail};

use super::super::plan::{Host, Plan};

/// Fills the words in and writes the file.
///
/// # Errors
/// If a word is left, or the file can't be written.
pub(super) fn write(template: &str, plan: &Plan, host: &Host, to: &Path) -> anyhow::Result<()> {
    let text = fill(template, plan, host, to.parent().unwrap_or(to))?;
    fs::write(to, text).with_context(|| format!("writing {}", to.display()))
}

fn fill(template: &str, plan: &Plan, host: &Host, folder: &Path) -> anyhow::Result<String> {
    let mut words = vec![("FOLDER".to_owned(), folder.display().to_string())];
    let mut address = |name: &str, address: SocketAddr| {
        words.push((name.to_owned(), address.to_string()));
        words.push((format!("{name}_IP"), address.ip().to_string()));
        words.push((format!("{name}_PORT"), address.port().to_string()));
    };
    address("CA", plan.ca);
    address("APP", host.app);
    address("OUTBOUND", host.outbound);
    address("INBOUND", host.inbound);
    address("HEALTH", host.health);
    for (number, replica) in plan.replicas.iter().enumerate() {
        address(&format!("REPLICA_{}", number + 1), replica.inbound);
    }
    let filled = words
        .iter()
        .fold(template.to_owned(), |text, (word, value)| text.replace(&format!("@{word}@"), value));
    let left =
        filled.lines().find(|line| !line.trim_start().starts_with('#') && line.matches('@').count() > 1);
    match left {
        Some(line) => bail!("nobody knows what to fill in: {line}"),
        None => Ok(filled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_committed_files_is_known() {
        let plan = Plan::new(Path::new("/run"), true).expect("a plan");
        for template in [
            include_str!("../../../../bench/chaos/outrider-caller.yaml"),
            include_str!("../../../../bench/chaos/outrider-replica.yaml"),
            include_str!("../../../../bench/chaos/envoy-caller.yaml"),
            include_str!("../../../../bench/chaos/envoy-replica.yaml"),
        ] {
            let text = fill(template, &plan, &plan.caller, Path::new("/run/web")).expect("filled");
            assert!(text.contains("127.64.0."), "{text}");
        }
    }

    #[test]
    fn an_unknown_word_is_named() {
        let plan = Plan::new(Path::new("/run"), true).expect("a plan");
        let error = fill("a: @NOBODY@", &plan, &plan.caller, Path::new("/run")).expect_err("unknown");
        assert!(error.to_string().contains("@NOBODY@"), "{error}");
    }
}
