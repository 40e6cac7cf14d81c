//! Endpoints from a file that something else writes.
//!
//! The file is looked at every second, by content: editors and Kubernetes volumes replace files in ways that a
//! notification may miss. A file that cannot be read or understood changes nothing.

use std::{
    fs::File,
    io::{self, Read},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use super::{Feed, Parse, Running, Source};
use crate::model::{file::MAX_FILE_BYTES, transport::ExpectedIds};

/// Time between two looks.
const POLL: Duration = Duration::from_secs(1);

/// A watched endpoints file.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    expected: ExpectedIds,
    parse: Parse,
}

impl FileSource {
    /// Watches `path`, reading it with `parse`.
    #[must_use]
    pub fn new(path: PathBuf, expected: ExpectedIds, parse: Parse) -> Self {
        Self { path, expected, parse }
    }

    fn read(&self) -> io::Result<String> {
        let bound = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX);
        let mut text = String::new();
        File::open(&self.path)?.take(bound.saturating_add(1)).read_to_string(&mut text)?;
        if text.len() > MAX_FILE_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                format!("larger than {MAX_FILE_BYTES} bytes"),
            ));
        }
        Ok(text)
    }
}

impl Source for FileSource {
    fn start(self: Box<Self>, feed: Feed) -> Option<Running> {
        let mut watched = Watched { source: *self, feed, seen: Seen::Nothing };
        watched.look();
        Some(Box::pin(async move {
            loop {
                tokio::time::sleep(POLL).await;
                watched.look();
            }
        }))
    }
}

/// The file, and what was made of its content at the last look.
struct Watched {
    source: FileSource,
    feed: Feed,
    seen: Seen,
}

/// What the last look saw.
enum Seen {
    /// There was none.
    Nothing,
    /// This text, with these endpoints.
    Good(String, super::EndpointList),
    /// This text, which cannot be used; `None` if not even read.
    Bad(Option<String>),
}

impl Watched {
    fn look(&mut self) {
        let text = match self.source.read() {
            Ok(text) => text,
            Err(error) => return self.refuse(None, error.to_string()),
        };
        match &self.seen {
            Seen::Good(seen, endpoints) if *seen == text => return self.feed.confirm(Arc::clone(endpoints)),
            Seen::Bad(Some(seen)) if *seen == text => return,
            Seen::Nothing | Seen::Good(..) | Seen::Bad(_) => {}
        }
        match (self.source.parse)(&text, &self.source.expected) {
            Ok(endpoints) => {
                let endpoints: super::EndpointList = endpoints.into();
                let (cluster, count) = (self.feed.cluster(), endpoints.len());
                tracing::info!(%cluster, file = %self.source.path.display(), count, "endpoints read");
                self.feed.confirm(Arc::clone(&endpoints));
                self.seen = Seen::Good(text, endpoints);
            }
            Err(fault) => self.refuse(Some(text), fault),
        }
    }

    /// Keeps the last good list. Logged when the file becomes bad or is bad in a new way, not at every look.
    fn refuse(&mut self, text: Option<String>, error: String) {
        let is_known = matches!((&self.seen, &text), (Seen::Bad(None), None));
        if !is_known {
            let (cluster, file) = (self.feed.cluster(), self.source.path.display());
            tracing::warn!(%cluster, %file, error, "the endpoints file cannot be used; the last good list stays");
        }
        self.feed.fail(error);
        self.seen = Seen::Bad(text);
    }
}
