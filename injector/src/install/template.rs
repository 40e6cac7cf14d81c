//! The chart's templates, rendered without Helm: the small part of its language that they use.
//!
//! | in a template | becomes |
//! |---|---|
//! | `{{ .Values.a.b }}`, `{{ .Release.Namespace }}` | the value; a string must be one that YAML reads as such between other words |
//! | `{{ … \| quote }}` | the value in double quotes |
//! | `{{- toYaml .Values.a \| nindent 8 }}`, alone on its line | the value in YAML, on lines of its own |
//! | `{{- if .Values.a }}` … `{{- end }}`, each alone on its line | what is between, unless the value is false, 0 or empty |
//!
//! A test renders the same chart by Helm itself and compares what comes out.

use serde_json::Value;

/// Why a template cannot be rendered: a mistake in the chart, or a value that does not fit where it stands.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{template}, line {line}: {problem}")]
pub(super) struct Error {
    template: &'static str,
    line: usize,
    problem: String,
}

/// Renders the template called `name`. `scope` holds `Values` and `Release`.
///
/// # Errors
/// [`Error`], with the line.
pub(super) fn render(name: &'static str, text: &str, scope: &Value) -> Result<String, Error> {
    let mut out = String::with_capacity(text.len());
    // Whether each `if` around the line holds.
    let mut holds: Vec<bool> = Vec::new();
    let mut line_number = 0;
    let at = |line, problem: String| Error { template: name, line, problem };
    for line in text.lines() {
        line_number += 1;
        let fail = |problem| at(line_number, problem);
        match action(line) {
            Some(action) if action.starts_with("if ") => {
                holds.push(is_true(lookup(scope, action.trim_start_matches("if ")).map_err(fail)?));
            }
            Some("end") => drop(holds.pop().ok_or_else(|| fail("`end` without `if`".to_owned()))?),
            _ if holds.contains(&false) => {}
            Some(action) => block(action, scope, &mut out).map_err(fail)?,
            None => {
                inline(line, scope, &mut out).map_err(fail)?;
                out.push('\n');
            }
        }
    }
    if !holds.is_empty() {
        return Err(at(line_number, "`if` without `end`".to_owned()));
    }
    Ok(out)
}

/// What stands in `{{- … }}`, if nothing else is on the line.
fn action(line: &str) -> Option<&str> {
    let inside = line.trim().strip_prefix("{{- ")?.strip_suffix(" }}")?;
    (!inside.contains("}}")).then_some(inside)
}

/// `toYaml .Values.a | nindent 8`.
fn block(action: &str, scope: &Value, out: &mut String) -> Result<(), String> {
    let unknown = || format!("{action:?} is not understood");
    let (path, indent) =
        action.strip_prefix("toYaml ").and_then(|rest| rest.split_once(" | nindent ")).ok_or_else(unknown)?;
    let indent: usize = indent.trim().parse().map_err(|_not_a_number| unknown())?;
    let text = serde_saphyr::to_string(lookup(scope, path)?).map_err(|error| error.to_string())?;
    for line in text.lines() {
        out.extend(std::iter::repeat_n(' ', indent));
        out.push_str(line);
        out.push('\n');
    }
    Ok(())
}

/// A line with `{{ … }}` in it.
fn inline(line: &str, scope: &Value, out: &mut String) -> Result<(), String> {
    let mut rest = line;
    while let Some((before, more)) = rest.split_once("{{") {
        let (inside, after) = more.split_once("}}").ok_or("`{{` without `}}`")?;
        out.push_str(before);
        let inside = inside.trim();
        match inside.split_once('|') {
            None => out.push_str(&plain(inside, lookup(scope, inside)?)?),
            Some((path, filter)) if filter.trim() == "quote" => {
                let value = lookup(scope, path.trim())?;
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                // JSON's strings are YAML's, too.
                out.push_str(&Value::String(text).to_string());
            }
            Some((_, filter)) => return Err(format!("the filter {:?} is not understood", filter.trim())),
        }
        rest = after;
    }
    out.push_str(rest);
    Ok(())
}

/// A value as it stands between other words of YAML.
fn plain(path: &str, value: &Value) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/@=,+-[]".contains(&byte);
    match value {
        Value::String(text) if text.bytes().all(allowed) && !text.ends_with(':') => Ok(text.clone()),
        Value::Bool(_) | Value::Number(_) => Ok(value.to_string()),
        Value::String(text) => {
            Err(format!("{path}: {text:?} must be of letters, digits and ._:/@=,+-[] alone"))
        }
        Value::Null | Value::Array(_) | Value::Object(_) => {
            Err(format!("{path}: a single value must stand here"))
        }
    }
}

/// The value at `.Values.a.b`.
fn lookup<'a>(scope: &'a Value, path: &str) -> Result<&'a Value, String> {
    let pointer = path.trim().replace('.', "/");
    scope.pointer(&pointer).ok_or_else(|| format!("{} is not known", path.trim()))
}

/// As Go's templates see it.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rendered(text: &str) -> Result<String, String> {
        let values = json!({"name": "shop", "number": 3, "list": [], "map": {"a": {"b": 1}}, "odd": "a: b", "no": false});
        render("t", text, &json!({"Values": values})).map_err(|error| error.to_string())
    }

    #[test]
    fn values_stand_in_their_places() {
        let text = "x: {{ .Values.name }}-{{ .Values.number }}\ny: {{ .Values.odd | quote }}\nz:\n  {{- toYaml .Values.map | nindent 2 }}\n";
        assert_eq!(rendered(text).unwrap(), "x: shop-3\ny: \"a: b\"\nz:\n  a:\n    b: 1\n");
        assert_eq!(rendered("l:\n  {{- toYaml .Values.list | nindent 2 }}\n").unwrap(), "l:\n  []\n");
    }

    #[test]
    fn what_is_off_is_left_out_with_all_that_is_in_it() {
        let text = "{{- if .Values.no }}\na\n{{- if .Values.name }}\nb\n{{- end }}\nc\n{{- end }}\nd\n{{- if .Values.map }}\ne\n{{- end }}\n";
        assert_eq!(rendered(text).unwrap(), "d\ne\n");
    }

    #[test]
    fn mistakes_are_told_with_their_line() {
        for (text, problem) in [
            ("\n{{ .Values.nme }}", "t, line 2: .Values.nme is not known"),
            ("{{ .Values.odd }}", "t, line 1: .Values.odd: \"a: b\" must be of letters"),
            ("{{ .Values.map }}", "t, line 1: .Values.map: a single value"),
            ("{{ .Values.name | upper }}", "t, line 1: the filter \"upper\""),
            ("{{- range .Values.list }}", "t, line 1: \"range .Values.list\" is not understood"),
            ("{{- end }}", "t, line 1: `end` without `if`"),
            ("{{- if .Values.name }}", "t, line 1: `if` without `end`"),
            ("{{ .Values.name", "t, line 1: `{{` without `}}`"),
        ] {
            let told = rendered(text).unwrap_err();
            assert!(told.starts_with(problem), "{told}");
        }
    }
}
