//! The guards that keep the layout true: who may import whom, how large things may grow, what the tree may hold.
//!
//! They read the source as text. That is exact enough, because the house style is narrow (`rustfmt` has been over every
//! file), and it keeps the guards short enough to be read by whoever they stop.

mod dependencies;
mod imports;
mod sizes;
mod source;
mod tree;

use std::path::{Path, PathBuf};

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Fails with all faults at once, one a line.
fn assert_none(rule: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{rule}\n  {}\n", faults.join("\n  "));
}
