//! `GET /admin/usage`: who spends what.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use super::{json, of};
use crate::usage::{ALLOWED, Asker, Format, MOST_ROWS, Query, Unanswered};

/// Answers a query string.
pub async fn answer(asker: Option<&Asker>, query: &str) -> Response<Full<Bytes>> {
    let wrong = |what: &str| {
        json(
            StatusCode::BAD_REQUEST,
            &json!({ "error": what, "allowed": ALLOWED }),
        )
    };
    let not_now = |why: &str| {
        let body = json!({ "error": format!("usage cannot be read now: {why}") });
        json(StatusCode::SERVICE_UNAVAILABLE, &body)
    };
    let query = match Query::parse(query) {
        Ok(query) => query,
        Err(what) => return wrong(&what),
    };
    let Some(asker) = asker else {
        return not_now("this gateway does not keep it");
    };
    let kind = match query.format {
        Format::Json => "application/json",
        Format::Csv => "text/csv; charset=utf-8",
    };
    match asker.ask(query).await {
        Ok(page) => of(StatusCode::OK, kind, page),
        Err(Unanswered::TooMany) => wrong(&format!(
            "this has more than {MOST_ROWS} rows: tell fewer things apart, or ask for fewer days"
        )),
        Err(Unanswered::NotNow(why)) => not_now(&why),
    }
}
