//! The admin socket's file: private, taken over without a gap, removed only by its owner.

use std::{fs, os::unix::fs::PermissionsExt};

use hyper::Method;
use outrider::admin;

use crate::process::state;

#[tokio::test]
async fn socket_and_folder_are_private() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run/outrider/admin.sock");
    let bound = admin::bind_socket(&path).unwrap();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    drop(bound);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_new_process_takes_over_and_the_old_one_leaves_the_file_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let old = admin::bind_socket(&path).unwrap();
    let new = admin::bind_socket(&path).unwrap();
    drop(old);
    assert!(path.exists());
    tokio::spawn(admin::serve_socket(new, state(None), std::future::pending()));
    assert_eq!(admin::call(&path, Method::GET, "/live").await.unwrap().status, 200);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn a_dead_processs_socket_is_replaced_and_anything_else_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    // Dropping std's listener leaves the file, as a killed process does.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    drop(admin::bind_socket(&path).unwrap());
    fs::write(&path, "precious").unwrap();
    assert!(admin::bind_socket(&path).is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn the_end_of_serving_removes_the_socket() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let bound = admin::bind_socket(&path).unwrap();
    admin::serve_socket(bound, state(None), std::future::ready(())).await;
    assert!(!path.exists());
    let error = admin::call(&path, Method::GET, "/live").await.unwrap_err();
    assert!(error.is_gone(), "{error}");
}
