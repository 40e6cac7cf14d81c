//! The checked-in gRPC code is what its `.proto` files give.
//!
//! Building needs no protoc and runs no build script; these tests are the price: whoever changes a `.proto` runs them
//! once and copies the file they name.

use std::path::Path;

/// Compiles `proto`, a file of the repository, as the checked-in file was compiled; the code of `package` must be what
/// stands in `checked_in`.
fn assert_fresh(proto: &str, package: &str, checked_in: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let proto = root.join(proto);
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("generated-{package}"));
    std::fs::create_dir_all(&out).unwrap();
    let files = protox::compile([proto.file_name().unwrap()], [proto.parent().unwrap()])
        .expect("the .proto file compiles");
    tonic_prost_build::configure().out_dir(&out).compile_fds(files).expect("code is generated");
    let fresh = out.join(format!("{package}.rs"));
    let checked_in = root.join(checked_in);
    let same = std::fs::read_to_string(&fresh).unwrap() == std::fs::read_to_string(&checked_in).unwrap();
    assert!(same, "out of date, run: cp {} {}", fresh.display(), checked_in.display());
}

#[test]
fn the_generated_code_of_the_ca_is_up_to_date() {
    assert_fresh("certs/proto/istio_ca.proto", "istio.v1.auth", "certs/src/api/istio_v1_auth.rs");
}

#[test]
fn the_generated_code_of_discovery_is_up_to_date() {
    assert_fresh(
        "sidecar/proto/discovery.proto",
        "outrider.discovery.v1",
        "sidecar/src/discovery/controller/api/outrider_discovery_v1.rs",
    );
}
