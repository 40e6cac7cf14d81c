//! An app in a process of its own that can be made to fail: the one of the chaos run.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    process::{Process, program},
    until,
};

/// The app of one replica.
#[derive(Debug)]
pub(super) struct AilingApp {
    name: String,
    listen: SocketAddr,
    folder: PathBuf,
    pub(super) process: Process,
}

impl AilingApp {
    /// Starts it, and waits until it listens. Its folder is made if it isn't there.
    pub(super) async fn start(name: &str, listen: SocketAddr, folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).expect("a folder");
        let process = Self::process(name, listen, &folder).await;
        Self { name: name.to_owned(), listen, folder, process }
    }

    async fn process(name: &str, listen: SocketAddr, folder: &Path) -> Process {
        let listen_at = listen.to_string();
        let flags = ["app", "--name", name, "--listen", &listen_at, "--dir"].map(Into::into);
        let arguments = flags.into_iter().chain([folder.as_os_str().to_owned()]);
        let mut process = Process::start(&format!("app-{name}"), &program("chaos"), arguments, folder);
        until("the app listens", async || {
            assert!(!process.has_ended(), "{}", process.log());
            tokio::net::TcpStream::connect(listen).await.is_ok()
        })
        .await;
        process
    }

    /// Starts it again, after it was killed or told to stop.
    pub(super) async fn start_again(&mut self) {
        self.process = Self::process(&self.name, self.listen, &self.folder).await;
    }

    /// Stops it in order, and starts it again.
    pub(super) async fn restart(&mut self) {
        self.process.terminate();
        let status = self.process.exited(super::DEADLINE).await;
        assert!(status.success(), "{status}");
        self.start_again().await;
    }

    /// Has it answer so many of a hundred requests with that status; 0: it is well.
    pub(super) fn fail(&self, status: u16, percent: u8) {
        let fault = format!("{{\"status\": {status}, \"percent\": {percent}, \"delay_ms\": 0}}");
        fs::write(self.folder.join("fault.json"), fault).expect("written");
        self.process.hang_up();
    }

    /// Requests that it has seen, in all its lives.
    pub(super) fn seen(&self) -> u64 {
        let bytes = fs::read(self.folder.join("seen")).unwrap_or_default();
        bytes.try_into().map_or(0, u64::from_le_bytes)
    }
}
