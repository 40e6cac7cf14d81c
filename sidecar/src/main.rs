//! Sidecar.
fn main() {}
