//! What is printed: tables for people, JSON and YAML for programs.

use clap::ValueEnum;
use serde_json::Value;

use crate::failure::Failure;

/// How to print.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum, Debug)]
pub enum Format {
    /// For people.
    Table,
    /// For programs.
    Json,
    /// For programs and for editing.
    Yaml,
}

/// Prints a value for programs, or calls `table` for people.
///
/// # Errors
/// A value that cannot be written as YAML.
pub fn print(format: Format, value: &Value, table: impl FnOnce(&Value) -> Table) -> Result<(), Failure> {
    match format {
        Format::Table => print!("{}", table(value).render()),
        Format::Json => println!("{value:#}"),
        Format::Yaml => print!("{}", yaml(value)?),
    }
    Ok(())
}

/// YAML of a value, ending with a line break.
///
/// # Errors
/// A value that cannot be written.
pub fn yaml(value: &Value) -> Result<String, Failure> {
    let mut text =
        serde_saphyr::to_string(value).map_err(|error| Failure::Other(format!("yaml: {error}")))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

/// Rows under headings; columns as wide as their widest cell.
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these headings.
    pub fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The table as text. Without rows it says so.
    pub fn render(&self) -> String {
        if self.rows.is_empty() {
            return "nothing found\n".to_owned();
        }
        let heading: Vec<String> = self.headings.iter().map(|&text| text.to_owned()).collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&heading).chain(&self.rows).collect();
        let width = |column: usize| {
            lines
                .iter()
                .filter_map(|line| line.get(column))
                .map(|cell| cell.chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.headings.len()).map(width).collect();
        let mut text = String::new();
        for line in lines {
            let cells: Vec<String> = line
                .iter()
                .zip(&widths)
                .map(|(cell, width)| {
                    format!("{cell}{}", " ".repeat(width.saturating_sub(cell.chars().count())))
                })
                .collect();
            text.push_str(cells.join("   ").trim_end());
            text.push('\n');
        }
        text
    }
}

/// A field as a cell; `-` when it is absent or empty. What a terminal would act on is left out.
pub fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => value.to_string(),
    };
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    if text.is_empty() { "-".to_owned() } else { text }
}

/// A cell cut to a width.
pub fn short(value: &Value, width: usize) -> String {
    let text = cell(value);
    if text.chars().count() <= width {
        return text;
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// How long ago a time was, as `3m`, `5h`, `2d`.
pub fn age(value: &Value, now: jiff::Timestamp) -> String {
    let Some(then) = value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok()) else {
        return "-".to_owned();
    };
    let seconds = (now.as_second() - then.as_second()).max(0);
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// The items of a list answer.
pub fn items(value: &Value) -> &[Value] {
    value["items"].as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn table_is_aligned_and_has_no_trailing_blanks() {
        let mut table = Table::new(&["NAME", "STATE"]);
        table.row(vec!["b-1".to_owned(), "SYNCED".to_owned()]);
        table.row(vec!["gateway".to_owned(), cell(&Value::Null)]);
        assert_eq!(table.render(), "NAME      STATE\nb-1       SYNCED\ngateway   -\n");
        assert_eq!(Table::new(&["NAME"]).render(), "nothing found\n");
    }

    #[test]
    fn cell_cannot_steer_the_terminal() {
        assert_eq!(cell(&json!("a\u{1b}[2Jb\n")), "a[2Jb");
        assert_eq!(cell(&json!(["a", "b"])), "a,b");
        assert_eq!(short(&json!("abcdef"), 4), "abc…");
    }

    #[test]
    fn age_is_told_in_the_unit_that_says_most() {
        let now: jiff::Timestamp = "2026-01-02T00:00:00Z".parse().unwrap();
        for (then, told) in [
            ("2026-01-01T23:59:30Z", "30s"),
            ("2026-01-01T23:00:00Z", "60m"),
            ("2026-01-01T00:00:00Z", "24h"),
            ("2025-12-01T00:00:00Z", "32d"),
            ("2027-01-01T00:00:00Z", "0s"),
            ("yesterday", "-"),
        ] {
            assert_eq!(age(&json!(then), now), told);
        }
    }

    #[test]
    fn yaml_reads_back_as_the_same_value() {
        let value =
            json!({"a": "yes", "b": [1, {"c": null}], "d": "multi\nline", "e": "0x10", "f": 1.5, "g": ""});
        let text = yaml(&value).unwrap();
        assert_eq!(serde_saphyr::from_str::<Value>(&text).unwrap(), value, "{text}");
    }
}
