//! The programs that the demo starts, built first so that they are never older than the source.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use tokio::process::Command;

use super::progress::Console;

/// The programs' files.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `outrider`.
    pub sidecar: PathBuf,
    /// `outrider-ca`.
    pub ca: PathBuf,
    /// `service`.
    pub service: PathBuf,
}

impl Programs {
    /// Builds them with this program's own profile, unless told not to, and finds them beside it.
    ///
    /// # Errors
    /// If the build fails, or one of them is not there.
    pub async fn find(build: bool, console: &Console) -> anyhow::Result<Self> {
        let own = env::current_exe().context("finding this program's own file")?;
        let folder = own.parent().context("this program's file is in no folder")?;
        if build {
            build_all(folder, console).await?;
        }
        Ok(Self {
            sidecar: existing(folder, "outrider")?,
            ca: existing(folder, "outrider-ca")?,
            service: existing(folder, "service")?,
        })
    }
}

fn existing(folder: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let path = folder.join(name);
    if !path.is_file() {
        bail!(
            "there is no {}; build it with `cargo build --workspace --bins`, or start the demo with `cargo demo`",
            path.display()
        );
    }
    Ok(path)
}

async fn build_all(folder: &Path, console: &Console) -> anyhow::Result<()> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    // Cargo tells where it is when it starts us; started by hand, the one on the path will do.
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let profile = profile(folder)?;
    console.line(&format!("Building: cargo build --profile {profile} --workspace --bins"));
    let status = Command::new(&cargo)
        .args(["build", "--profile", &profile, "--workspace", "--bins", "--manifest-path"])
        .arg(&manifest)
        .kill_on_drop(true)
        .status()
        .await
        .with_context(|| format!("starting {}; --no-build uses the programs as they are", cargo.display()))?;
    if !status.success() {
        bail!("the build failed ({status}); --no-build uses the programs as they are");
    }
    Ok(())
}

/// The profile that this program was built with, told by its folder: `target/<profile>/demo`, but `debug` for `dev`.
fn profile(folder: &Path) -> anyhow::Result<String> {
    let name =
        folder.file_name().and_then(|name| name.to_str()).context("this program's folder has no name")?;
    Ok(if name == "debug" { "dev" } else { name }.to_owned())
}
