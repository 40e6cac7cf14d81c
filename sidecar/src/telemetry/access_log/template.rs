//! A record in the operator's own words: `{method} {path} {status}`.

use http::HeaderName;

use super::{
    field::{FIELDS, Field, TEMPLATE_FIELDS},
    secrets,
};
use crate::telemetry::escape::Style;

/// Longest template, in bytes.
const MAX_TEMPLATE_BYTES: usize = 4096;
/// Placeholders for fields of request and answer.
const MAX_HEADERS: usize = 32;
/// Prefixes of placeholders for fields of request and answer.
const REQUEST_HEADER: &str = "request_header.";
const RESPONSE_HEADER: &str = "response_header.";

/// A template that is sound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Template(pub(super) Vec<Piece>);

/// One part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(String),
    /// A fact, and what must be escaped in it there.
    Fact(Fact, Style),
}

/// What a placeholder names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    Field(Field),
    RequestHeader(HeaderName),
    ResponseHeader(HeaderName),
}

impl Template {
    /// Takes a template apart.
    ///
    /// # Errors
    /// What is wrong with it, in words for an operator.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_TEMPLATE_BYTES {
            return Err(format!("it has {} bytes, at most {MAX_TEMPLATE_BYTES}", text.len()));
        }
        if text.chars().any(char::is_control) {
            return Err("it has a line end or another control character: a record is one line".to_owned());
        }
        let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), text);
        let mut is_quoted = false;
        while let Some(c) = rest.chars().next() {
            rest = rest.get(c.len_utf8()..).unwrap_or_default();
            if matches!(c, '{' | '}') && rest.starts_with(c) {
                rest = rest.get(1..).unwrap_or_default();
                literal.push(c);
            } else if c == '{' {
                let (name, after) =
                    rest.split_once('}').ok_or("a `{` has no `}`; write `{{` for the sign itself")?;
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal)));
                }
                let style = Style::Place { is_quoted, until: after.chars().next() };
                pieces.push(Piece::Fact(fact(name)?, style));
                rest = after;
            } else if c == '}' {
                return Err("a `}` has no `{`; write `}}` for the sign itself".to_owned());
            } else {
                is_quoted ^= c == '"';
                literal.push(c);
            }
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal));
        }
        if !pieces.iter().any(|piece| matches!(piece, Piece::Fact(..))) {
            return Err(format!("it names no fact of a request; known are {}", known()));
        }
        let template = Self(pieces);
        let (request, response) = template.headers();
        if request.len() + response.len() > MAX_HEADERS {
            return Err(format!("it names more than {MAX_HEADERS} header fields"));
        }
        Ok(template)
    }

    /// The fields of request and answer that it names, each once.
    pub(super) fn headers(&self) -> (Vec<HeaderName>, Vec<HeaderName>) {
        let (mut request, mut response) = (Vec::new(), Vec::new());
        for piece in &self.0 {
            let (list, name) = match piece {
                Piece::Fact(Fact::RequestHeader(name), _) => (&mut request, name),
                Piece::Fact(Fact::ResponseHeader(name), _) => (&mut response, name),
                Piece::Fact(Fact::Field(_), _) | Piece::Literal(_) => continue,
            };
            if !list.contains(name) {
                list.push(name.clone());
            }
        }
        (request, response)
    }
}

fn fact(name: &str) -> Result<Fact, String> {
    let known_name = FIELDS.iter().chain(&TEMPLATE_FIELDS).find(|(known, _)| *known == name);
    if let Some((_, field)) = known_name {
        return Ok(Fact::Field(*field));
    }
    if let Some(header) = name.strip_prefix(REQUEST_HEADER) {
        return Ok(Fact::RequestHeader(header_name(name, header)?));
    }
    if let Some(header) = name.strip_prefix(RESPONSE_HEADER) {
        return Ok(Fact::ResponseHeader(header_name(name, header)?));
    }
    let name: String = name.chars().take(64).collect();
    Err(format!("`{{{name}}}` is no fact of a request; known are {}", known()))
}

fn header_name(placeholder: &str, name: &str) -> Result<HeaderName, String> {
    let name = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_invalid| format!("`{{{placeholder}}}` names no header field"))?;
    if secrets::is_redacted(&name) {
        return Err(format!("`{{{placeholder}}}`: values of `{name}` are secrets and never written down"));
    }
    Ok(name)
}

/// All placeholders, for messages.
fn known() -> String {
    let names = FIELDS.iter().chain(&TEMPLATE_FIELDS).map(|(name, _)| format!("`{{{name}}}`"));
    let headers = [REQUEST_HEADER, RESPONSE_HEADER].map(|prefix| format!("`{{{prefix}NAME}}`"));
    names.chain(headers).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_checked_and_braces_are_escaped() {
        let template = Template::parse("{{{method}}} \"{path}\"|{request_header.user-agent}|x").unwrap();
        let place = |is_quoted, until| Style::Place { is_quoted, until };
        let user_agent = Fact::RequestHeader(HeaderName::from_static("user-agent"));
        assert_eq!(
            template.0,
            [
                Piece::Literal("{".to_owned()),
                Piece::Fact(Fact::Field(Field::Method), place(false, Some('}'))),
                Piece::Literal("} \"".to_owned()),
                Piece::Fact(Fact::Field(Field::Path), place(true, Some('"'))),
                Piece::Literal("\"|".to_owned()),
                Piece::Fact(user_agent, place(false, Some('|'))),
                Piece::Literal("|x".to_owned()),
            ]
        );
    }

    #[test]
    fn a_fault_is_named_with_what_is_known() {
        let fault = |text: &str| Template::parse(text).unwrap_err();
        let unknown = fault("{method} {pth}");
        assert!(unknown.contains("`{pth}`") && unknown.contains("`{path}`"), "{unknown}");
        assert!(unknown.contains("`{request_header.NAME}`"), "{unknown}");
        assert!(fault("{method").contains("`{{`"));
        assert!(fault("method}").contains("`}}`"));
        assert!(fault("{path}\n").contains("one line"));
        assert!(fault("nothing").contains("no fact"));
        assert!(fault("").contains("no fact"));
        assert!(fault("{request_header.a b}").contains("no header field"));
        assert!(fault("{request_header.Authorization}").contains("secrets"));
        assert!(fault(&"{path}".repeat(1000)).contains("bytes"));
        let many: String = (0..33).map(|number| format!("{{request_header.x-{number}}}")).collect();
        assert!(fault(&many).contains("more than 32"));
    }
}
