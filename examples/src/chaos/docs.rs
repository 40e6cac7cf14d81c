//! Puts a run's table and plot where the documentation shows them.

use std::{fs, path::Path};

use anyhow::Context;

const BEGIN: &str = "<!-- table: written by `chaos --docs` -->";
const END: &str = "<!-- end of the table -->";

/// Replaces what is between the markers of `chaos.md` in that folder, and writes the plot beside it.
///
/// # Errors
/// If the page or its markers are not there, or can't be written.
pub fn write(folder: &Path, table: &str, plot: &str) -> anyhow::Result<()> {
    let page = folder.join("chaos.md");
    let text = fs::read_to_string(&page).with_context(|| format!("reading {}", page.display()))?;
    let text = between_markers(&text, table).with_context(|| format!("{} has no markers", page.display()))?;
    fs::write(&page, text).with_context(|| format!("writing {}", page.display()))?;
    fs::write(folder.join("chaos.svg"), plot).context("writing the plot")
}

fn between_markers(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n\n{}\n\n{END}{after}", table.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes() {
        let page = format!("# Chaos\n{BEGIN}\nold\n{END}\nReasons.\n");
        let text = between_markers(&page, "| new |\n").expect("there are markers");
        assert_eq!(text, format!("# Chaos\n{BEGIN}\n\n| new |\n\n{END}\nReasons.\n"));
        assert_eq!(between_markers(&text, "| new |\n").expect("still there"), text);
        assert_eq!(between_markers("# Chaos\n", "x"), None);
    }
}
