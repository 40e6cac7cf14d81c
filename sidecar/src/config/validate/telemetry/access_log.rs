//! `telemetry.access_log`: of which requests there is a record, where, and what is in it.

use std::path::Path;

use http::HeaderName;
use serde_saphyr::Spanned;

use super::of_million;
use crate::{
    config::{
        defaults::telemetry as defaults,
        raw,
        value::{choice, path},
    },
    model::{
        file::{Faults, Place, quoted, report_odd_keys},
        telemetry::{AccessLogSettings, LogFormat},
    },
    telemetry::access_log::{check_template, is_redacted, template_headers},
};

/// Fields of a request, or of an answer.
const MAX_FIELDS: usize = 32;

/// `None` where there is no such section: no record is written.
pub(super) fn access_log(
    raw: Option<&Spanned<raw::AccessLog>>,
    folder: &Path,
    place: &Place,
    faults: &mut Faults,
) -> Option<AccessLogSettings> {
    let place = place.key("access_log").at(raw?);
    let raw = &raw?.value;
    report_odd_keys(&raw.odd_keys, raw::AccessLog::KEYS, &place, faults);
    let mut settings = AccessLogSettings {
        of: choice(raw.of.as_ref(), &defaults::LOGGED, &place, faults),
        sampled_of_million: of_million(
            raw.sample_percent.as_ref(),
            &defaults::LOGGED_PERCENT,
            &place,
            faults,
        ),
        path: raw.path.as_ref().map(|text| path(text, folder, &place.key("path"), faults)),
        format: format(raw, &place, faults),
        request_headers: fields(raw.request_headers.as_ref(), &place.key("request_headers"), faults),
        response_headers: fields(raw.response_headers.as_ref(), &place.key("response_headers"), faults),
    };
    if let LogFormat::Template(text) = &settings.format {
        let (of_request, of_response) = template_headers(text);
        for (listed, named) in
            [(&mut settings.request_headers, of_request), (&mut settings.response_headers, of_response)]
        {
            listed.extend(named.into_iter().filter(|name| !listed.contains(name)).collect::<Vec<_>>());
        }
    }
    Some(settings)
}

fn format(raw: &raw::AccessLog, place: &Place, faults: &mut Faults) -> LogFormat {
    let is_template = choice(raw.format.as_ref(), &defaults::LOG_FORMAT, place, faults);
    let key = place.key("template");
    match (&raw.template, is_template) {
        (Some(text), true) => template(text, &key.at(text), faults),
        (Some(text), false) => {
            faults.add(&key.at(text), "is for format: template only", "leave it out, or choose that format");
            LogFormat::Json
        }
        (None, true) => {
            let remedy = "give the line's text, as '{method} {path} {status}'";
            faults.add(&key, "is missing", remedy);
            LogFormat::Json
        }
        (None, false) => LogFormat::Json,
    }
}

/// One line of text.
fn template(text: &Spanned<String>, place: &Place, faults: &mut Faults) -> LogFormat {
    if let Err(problem) = check_template(&text.value) {
        faults.add(place, problem, "correct it, as '{method} {path} {status}'");
    }
    LogFormat::Template(text.value.clone())
}

fn fields(list: Option<&Spanned<raw::Texts>>, place: &Place, faults: &mut Faults) -> Vec<HeaderName> {
    let Some(list) = list else { return Vec::new() };
    let place = place.at(list);
    if list.value.len() > MAX_FIELDS {
        faults.add(&place, format!("has {} items", list.value.len()), format!("keep to {MAX_FIELDS}"));
        return Vec::new();
    }
    let mut names = Vec::new();
    for (index, text) in list.value.iter().enumerate() {
        let place = place.item(index).at(text);
        let name = HeaderName::from_bytes(text.value.as_bytes()).ok();
        match name {
            None => faults.add(
                &place,
                format!("{} is not the name of a field", quoted(&text.value)),
                "write it as x-tenant",
            ),
            Some(name) if is_redacted(&name) => {
                faults.add(&place, format!("{name} holds secrets"), "leave it out: no log has it");
            }
            Some(name) if names.contains(&name) => {
                faults.add(&place, format!("{name} stands here twice"), "list each once");
            }
            Some(name) => names.push(name),
        }
    }
    names
}
