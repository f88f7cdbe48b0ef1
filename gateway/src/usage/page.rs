//! Answers as they are read: JSON for programs, CSV for tables.

use std::sync::Arc;

use routing::units::NanoUsd;
use serde_json::{Map, Value, json};

use super::book::Answer;
use super::query::{Format, Query};
use super::sums::{MEASURES, Measure, Sums};
use crate::civil;

/// What stands behind the measures.
const USD: &str = "cost_usd";

/// In the form that was asked for. `lost`: requests since the start that are not counted.
pub fn render(query: &Query, answer: &Answer, lost: u64) -> String {
    match query.format {
        Format::Json => serde_json::to_string_pretty(&json(query, answer, lost)).unwrap_or_default(),
        Format::Csv => csv(query, answer),
    }
}

fn json(query: &Query, answer: &Answer, lost: u64) -> Value {
    let rows = answer.rows.iter().map(|(names, sums)| {
        let mut row = Map::new();
        for (by, name) in query.by.iter().zip(names) {
            row.insert(by.as_str().to_owned(), json!(name));
        }
        figures(sums, &mut row);
        Value::Object(row)
    });
    let mut total = Map::new();
    figures(&answer.total, &mut total);
    json!({
        "by": query.by.iter().map(|by| by.as_str()).collect::<Vec<_>>(),
        "from": query.from.map(civil::date),
        "to": query.to.map(civil::date),
        "rows": rows.collect::<Vec<_>>(),
        "total": total,
        "lost_requests": lost,
    })
}

fn figures(sums: &Sums, row: &mut Map<String, Value>) {
    for (name, figure) in MEASURES.iter().zip(sums.figures()) {
        row.insert((*name).to_owned(), json!(figure));
    }
    row.insert(USD.to_owned(), json!(NanoUsd(sums.get(Measure::Cost)).usd()));
}

/// As CSV: a line of names, then one for each row; no sum, so that columns can be added up.
fn csv(query: &Query, answer: &Answer) -> String {
    let names = query.by.iter().map(|by| by.as_str());
    let head: Vec<&str> = names.chain(MEASURES).chain([USD]).collect();
    let mut text = head.join(",") + "\r\n";
    for (names, sums) in &answer.rows {
        let mut cells: Vec<String> = names.iter().map(cell).collect();
        cells.extend(sums.figures().map(|figure| figure.to_string()));
        cells.push(NanoUsd(sums.get(Measure::Cost)).to_string());
        text.push_str(&cells.join(","));
        text.push_str("\r\n");
    }
    text
}

/// Quoted as RFC 4180 has it. A name that a spreadsheet would take for a formula has an apostrophe before it: tags come
/// from callers.
fn cell(name: &Arc<str>) -> String {
    let formula = name.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    let name = if formula {
        format!("'{name}")
    } else {
        name.to_string()
    };
    if formula || name.contains([',', '"', '\r', '\n']) || name.trim() != name {
        return format!("\"{}\"", name.replace('"', "\"\""));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(names: &[&[&str]]) -> Answer {
        let mut sums = Sums::default();
        sums.more(Measure::Requests, 2);
        sums.more(Measure::Cost, 1_500_000_001);
        let rows = names
            .iter()
            .map(|names| (names.iter().map(|n| Arc::from(*n)).collect(), sums));
        Answer {
            rows: rows.collect(),
            total: sums,
        }
    }

    #[test]
    fn csv_is_quoted_where_it_has_to_be() {
        let query = Query::parse("by=tenant,tag").unwrap();
        let names: [&[&str]; 5] = [
            &["team-a", "plain=1"],
            &["", "say=\"a, b\""],
            &["t", "=HYPERLINK(\"http://evil\")=1"],
            &["t", "two\nlines=1\r"],
            &["t", " space=1"],
        ];
        let text = csv(&query, &answer(&names));
        let figures = "2,0,0,0,0,0,0,0,1500000001,0,1.500000001";
        let lines = [
            "tenant,tag,requests,errors,gone,tries,input_tokens,cached_tokens,output_tokens,reasoning_tokens,cost_nano_usd,unpriced_tries,cost_usd".to_owned(),
            format!("team-a,plain=1,{figures}"),
            format!(",\"say=\"\"a, b\"\"\",{figures}"),
            format!("t,\"'=HYPERLINK(\"\"http://evil\"\")=1\",{figures}"),
            format!("t,\"two\nlines=1\r\",{figures}"),
            format!("t,\" space=1\",{figures}"),
        ];
        assert_eq!(text, lines.join("\r\n") + "\r\n");
    }

    #[test]
    fn json_has_rows_and_their_sum() {
        let query = Query::parse("by=day,model&from=2026-11-01").unwrap();
        let value = json(&query, &answer(&[&["2026-11-02", "small"]]), 3);
        assert_eq!(value["from"], "2026-11-01");
        assert_eq!(value["to"], Value::Null);
        let row = &value["rows"][0];
        assert_eq!(
            (&row["day"], &row["model"]),
            (&json!("2026-11-02"), &json!("small"))
        );
        assert_eq!(
            (&row["requests"], &row["cost_nano_usd"]),
            (&json!(2), &json!(1_500_000_001_u64))
        );
        assert_eq!(value["total"]["cost_usd"], json!(1.500000001));
        assert_eq!(value["lost_requests"], 3);
    }
}
