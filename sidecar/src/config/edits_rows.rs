//! The keys of what routes change, as `docs/config.md` shows them.

use super::{
    defaults::{REDIRECT_PORT, REDIRECT_SCHEMES, REDIRECT_STATUS},
    row::{Row, plain},
};

/// What `clusters[].routes[]` change.
pub(super) fn edits_rows() -> Vec<Row> {
    let fields = |section, each: [&'static str; 2]| {
        let mut rows = vec![
            plain(section, "set", "list of sections", ""),
            plain(section, "add", "list of sections", ""),
            plain(section, "remove", "list of names of fields", ""),
        ];
        for section in each {
            rows.push(plain(section, "name", "name of a field", "required"));
            rows.push(plain(section, "value", "value of a field", "required"));
        }
        rows
    };
    let schemes: Vec<String> = REDIRECT_SCHEMES.iter().map(|(word, _)| format!("`{word}`")).collect();
    let (rewrite, redirect) = ("clusters[].routes[].rewrite", "clusters[].routes[].redirect");
    [
        fields(
            "clusters[].routes[].request_headers",
            ["clusters[].routes[].request_headers.set[]", "clusters[].routes[].request_headers.add[]"],
        ),
        fields(
            "clusters[].routes[].response_headers",
            ["clusters[].routes[].response_headers.set[]", "clusters[].routes[].response_headers.add[]"],
        ),
        vec![
            plain(rewrite, "host", "`host` or `host:port`", ""),
            plain(rewrite, "path", "path", ""),
            plain(rewrite, "path_prefix", "path", ""),
            plain(redirect, "scheme", &schemes.join(" or "), ""),
            plain(redirect, "host", "host", ""),
            Row { default: "as asked".to_owned(), ..REDIRECT_PORT.row(redirect) },
            plain(redirect, "path", "path", ""),
            plain(redirect, "path_prefix", "path", ""),
            REDIRECT_STATUS.row(redirect),
        ],
    ]
    .concat()
}
