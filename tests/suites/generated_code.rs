//! The checked-in gRPC code of the CA is what its `.proto` file gives.
//!
//! Building needs no protoc and runs no build script; this test is the price:
//! whoever changes the `.proto` runs it once and copies the file it names.

use std::path::Path;

/// Compiles the CA's `.proto` as the checked-in file was compiled.
fn generate(out: &Path) {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../certs/proto");
    let files = protox::compile(["istio_ca.proto"], [proto]).expect("the .proto file compiles");
    tonic_prost_build::configure().out_dir(out).compile_fds(files).expect("code is generated");
}

#[test]
fn the_generated_code_of_the_ca_is_up_to_date() {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("generated-ca");
    std::fs::create_dir_all(&out).unwrap();
    generate(&out);
    let fresh = out.join("istio.v1.auth.rs");
    let checked_in = Path::new(env!("CARGO_MANIFEST_DIR")).join("../certs/src/api/istio_v1_auth.rs");
    let same = std::fs::read_to_string(&fresh).unwrap() == std::fs::read_to_string(&checked_in).unwrap();
    assert!(same, "out of date, run: cp {} {}", fresh.display(), checked_in.display());
}
