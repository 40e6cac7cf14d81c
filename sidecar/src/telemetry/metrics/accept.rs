//! Which format a scraper is given, by its `Accept` (RFC 9110 §12.5.1).

/// A format of the answer to `GET /metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// `Content-Type` of an answer in this format.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What the scraper likes best of what is here, by the values of its `Accept` fields in their order; of two that
    /// it likes alike, what it names first. As Prometheus' own libraries do: text for whoever says nothing, or
    /// nothing that we understand.
    #[must_use]
    pub fn accepted<'a>(fields: impl IntoIterator<Item = &'a str>) -> Self {
        let ranges = fields.into_iter().flat_map(|field| field.split(','));
        let mut best = (0, Self::Text);
        for (format, quality) in ranges.filter_map(understood) {
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }
}

/// One media range: what of ours it means, and how it is liked, 0 to 1000.
fn understood(range: &str) -> Option<(Format, u16)> {
    let mut parts = range.split(';').map(str::trim);
    let kind = parts.next()?;
    let (mut version, mut quality) = (None, 1000);
    for part in parts {
        let (name, value) = part.split_once('=')?;
        let value = value.trim().trim_matches('"');
        if name.trim().eq_ignore_ascii_case("q") {
            quality = thousandths(value)?;
        } else if name.trim().eq_ignore_ascii_case("version") {
            version = Some(value);
        }
    }
    let is = |name: &str| kind.eq_ignore_ascii_case(name);
    if is("application/openmetrics-text") && version.is_none_or(|version| version == "1.0.0") {
        Some((Format::OpenMetrics, quality))
    } else if is("*/*")
        || is("text/*")
        || is("text/plain") && version.is_none_or(|version| version == "0.0.4")
    {
        Some((Format::Text, quality))
    } else {
        None
    }
}

/// A quality value (RFC 9110 §12.4.2) in thousandths.
fn thousandths(value: &str) -> Option<u16> {
    let quality: f32 = value.parse().ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0.0 to 1000.0")]
    (0.0..=1.0).contains(&quality).then_some((quality * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::{Format::*, *};

    #[test]
    fn a_scraper_is_given_what_it_likes_best() {
        for (accept, format) in [
            // Prometheus 2.42 and 3.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                 application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,\
                 text/plain;version=0.0.4;q=0.2,/;q=0.1",
                OpenMetrics,
            ),
            // Where it is told to scrape text only.
            ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", Text),
            ("application/openmetrics-text", OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\" ; Q=0.7, text/plain;q=0.6", OpenMetrics),
            ("application/openmetrics-text;q=0.3, text/plain;q=0.31", Text),
            ("text/plain, application/openmetrics-text", Text),
            ("application/openmetrics-text, text/plain", OpenMetrics),
            ("application/openmetrics-text;q=0", Text),
            ("application/openmetrics-text;q=1e9", Text),
            ("application/openmetrics-text;q=NaN", Text),
            ("application/openmetrics-text;version=0.0.1", Text),
            ("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily", Text),
            ("*/*", Text),
            ("text/html", Text),
            (";;,,=;q=", Text),
            ("", Text),
        ] {
            assert_eq!(Format::accepted([accept]), format, "{accept}");
        }
        assert_eq!(Format::accepted([]), Text);
        assert_eq!(Format::accepted(["text/plain;q=0.5", "application/openmetrics-text"]), OpenMetrics);
    }
}
