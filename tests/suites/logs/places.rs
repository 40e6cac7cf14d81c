//! Where records go, and what may become of that place meanwhile.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{app, records, web};
use crate::harness::{Client, TestMesh, body, eventually};

async fn call(client: &mut Client, times: usize) {
    for _ in 0..times {
        let response = client.get("/ok").await.unwrap();
        assert_eq!(response.status(), 200);
        body::text(response.into_body()).await;
    }
}

#[tokio::test]
async fn a_file_that_is_moved_away_is_made_anew_and_no_record_is_lost() {
    let (mesh, app) = (TestMesh::new(), app().await);
    let (path, old) = (mesh.dir().join("web.log"), mesh.dir().join("web.log.1"));
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = mesh.start("web", &web(orders.address(), "of: all, path: web.log")).await;
    let mut client = Client::http1(web.address()).await;
    call(&mut client, 10).await;
    eventually("the file is there", || records(&path).len() == 10).await;
    fs::rename(&path, &old).unwrap();
    let mut sent = 10;
    while records(&path).is_empty() {
        call(&mut client, 1).await;
        sent += 1;
        assert!(sent < 100_000, "the file is not made anew");
    }
    eventually("all are in the one or the other", || records(&path).len() + records(&old).len() == sent)
        .await;
}

/// A small file system of its own; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where nothing may be mounted.
    fn mount(folder: &Path) -> Option<Self> {
        fs::create_dir(folder).unwrap();
        let options = ["-t", "tmpfs", "-o", "size=64k", "tmpfs"];
        let status = Command::new("mount").args(options).arg(folder).status().ok()?;
        status.success().then(|| Self(folder.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the sidecar's thread may have its file open still.
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[tokio::test]
async fn a_full_disk_stops_the_log_and_nothing_else_until_there_is_room() {
    let (mesh, app) = (TestMesh::new(), app().await);
    let Some(disk) = SmallDisk::mount(&mesh.dir().join("disk")) else {
        println!("skipped: nothing may be mounted here");
        return;
    };
    let (path, ballast) = (disk.0.join("web.log"), disk.0.join("ballast"));
    fs::write(&ballast, vec![0; 48 * 1024]).unwrap();
    let orders = mesh.callee("orders", app.address(), "").await;
    let web = mesh.start("web", &web(orders.address(), "of: all, path: disk/web.log")).await;
    let mut client = Client::http1(web.address()).await;
    // More than the 16 KiB that are left, and less than there will be: a record has about 400 bytes.
    call(&mut client, 60).await;
    let size = || fs::metadata(&path).map_or(0, |file| file.len());
    eventually("the disk is full", || size() == 16 * 1024).await;
    call(&mut client, 20).await;
    fs::remove_file(&ballast).unwrap();
    // Each is whole, the one included that the disk's end cut in two.
    eventually("the log goes on where it stopped", || records(&path).len() == 80).await;
}
