//! Endpoints that the configuration itself names.

use super::{EndpointList, Feed, Running, Source};
use crate::model::EndpointSettings;

/// A list that never changes.
#[derive(Clone, Debug)]
pub struct FixedSource {
    endpoints: EndpointList,
}

impl FixedSource {
    /// Always gives `endpoints`.
    #[must_use]
    pub fn new(endpoints: &[EndpointSettings]) -> Self {
        Self { endpoints: endpoints.into() }
    }
}

impl Source for FixedSource {
    fn start(self: Box<Self>, feed: Feed) -> Option<Running> {
        feed.confirm_constant(self.endpoints);
        None
    }
}
