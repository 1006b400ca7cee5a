//! The table, for a terminal and for the documentation.

use std::collections::BTreeMap;

use headroom::capacity::CostFrom;

use super::{Prediction, Row};

const HEAD: [&str; 6] =
    ["limit", "a pod here", "set to", "pods foretold", "where the kernel refused", "difference"];
/// Between these lines of a page the table is.
const BEGIN: &str = "<!-- exhaustion: begin -->";
const END: &str = "<!-- exhaustion: end -->";
/// More numbers of pods than these are not listed one by one.
const LISTED: usize = 4;

/// What a driver came to: a row, or why there is none, with its name.
pub type Result = (&'static str, std::result::Result<Row, String>);

/// For a terminal.
#[must_use]
pub fn text(results: &[Result]) -> String {
    let rows: Vec<[String; 6]> = std::iter::once(HEAD.map(str::to_owned))
        .chain(rows(results).into_iter().map(|cells| cells.map(|cell| cell.replace('`', ""))))
        .collect();
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect::<String>() + &notes(results).replace('`', "")
}

/// For a page: the table and what is to be said of it.
#[must_use]
pub fn markdown(results: &[Result], machine: &str) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut page = format!("Measured on {machine}.\n\n");
    page += &line(&HEAD.map(str::to_owned));
    page += &line(&HEAD.map(|_| "---".to_owned()));
    page += &rows(results).iter().map(|row| line(row)).collect::<String>();
    let notes = notes(results);
    if notes.is_empty() { page } else { page + "\n" + &notes }
}

/// Puts a new table into a page.
pub fn replace(page: &str, table: &str) -> std::result::Result<String, String> {
    let missing = || format!("the page has no lines {BEGIN} and {END}");
    let (before, rest) = page.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    Ok(format!("{before}{BEGIN}\n{table}{END}{after}"))
}

fn rows(results: &[Result]) -> Vec<[String; 6]> {
    results.iter().filter_map(|(_, result)| result.as_ref().ok()).map(cells).collect()
}

/// What a row has to add, and why others are not there.
fn notes(results: &[Result]) -> String {
    let note = |(name, result): &Result| match result {
        Ok(row) => row.note.as_ref().map(|note| format!("- {}: {note}\n", row.limit)),
        Err(why) => Some(format!("- {name} was not run: {why}\n")),
    };
    results.iter().filter_map(note).collect()
}

fn cells(row: &Row) -> [String; 6] {
    let difference = match row.difference() {
        None => "not foretold".to_owned(),
        Some(0) => "0".to_owned(),
        Some(more) => format!("{more:+}"),
    };
    let refused = format!("after {}: {}", row.fact.pods, row.fact.refusal);
    [
        row.limit.to_owned(),
        row.pod.clone(),
        row.set_to.clone(),
        foretold(&row.predictions),
        refused,
        difference,
    ]
}

/// What was said, and with how many pods: `42 (with 10, 21, 31; 3.0 a pod, learned)`.
fn foretold(predictions: &[Prediction]) -> String {
    let mut groups: BTreeMap<Option<u64>, Vec<&Prediction>> = BTreeMap::new();
    for prediction in predictions {
        groups.entry(prediction.total()).or_default().push(prediction);
    }
    let group = |(total, all): (Option<u64>, Vec<&Prediction>)| {
        let total = total.map_or("nothing".to_owned(), |total| total.to_string());
        let pods: Vec<String> = all.iter().map(|one| one.pods.to_string()).collect();
        let with = match &pods[..] {
            [first, second, .., last] if pods.len() > LISTED => {
                format!("{first}, {second} … {last}")
            }
            few => few.join(", "),
        };
        let cost = all.iter().rev().find_map(|one| one.cost).map(|(cost, from)| {
            let from = match from {
                CostFrom::Fixed => "fixed",
                CostFrom::Observed => "learned",
                CostFrom::Share => "their share",
                CostFrom::Floor => "at the least",
                CostFrom::Prior => "assumed",
            };
            format!("; {cost:.1} a pod, {from}")
        });
        format!("{total} (with {with}{})", cost.unwrap_or_default())
    };
    groups.into_iter().map(group).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exhaustion::Fact;

    #[test]
    fn a_table_says_what_was_foretold_and_goes_between_its_marks() {
        let prediction = |pods, remaining| Prediction {
            pods,
            remaining: Some(remaining),
            cost: Some((3.0, CostFrom::Observed)),
        };
        let row = Row {
            limit: "a limit",
            pod: "three of them".to_owned(),
            set_to: "128".to_owned(),
            predictions: vec![prediction(10, 32), prediction(21, 21), prediction(31, 12)],
            fact: Fact { pods: 42, refusal: "EMFILE".to_owned() },
            allowed: 1,
            note: None,
        };
        assert_eq!((row.difference(), row.is_as_foretold()), (Some(1), true));
        let results = [("one", Ok(row)), ("two", Err("no module".to_owned()))];
        let table = markdown(&results, "a machine");
        let line = "| a limit | three of them | 128 | 42 (with 10, 21; 3.0 a pod, learned), 43 (with 31; \
                    3.0 a pod, learned) | after 42: EMFILE | +1 |\n";
        assert!(table.contains(line), "{table}");
        assert!(table.ends_with("\n\n- two was not run: no module\n"), "{table}");
        assert!(text(&results).contains("after 42: EMFILE"));
        let page = format!("before\n\n{BEGIN}\nold\n{END}\n\nafter\n");
        let new = format!("before\n\n{BEGIN}\n{table}{END}\n\nafter\n");
        assert_eq!(replace(&page, &table), Ok(new));
        assert!(replace("no marks", &table).is_err());
    }
}
