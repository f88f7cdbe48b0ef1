//! `GET /admin/usage`: who spends what.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::json;

use super::{json, of};
use crate::usage::{self, ALLOWED, Asker, Format, MOST_ROWS, Query, Unanswered};

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
    let answer = match asker.ask(query.clone()).await {
        Ok(answer) => answer,
        Err(Unanswered::TooMany) => {
            let what = format!(
                "this has more than {MOST_ROWS} rows: tell fewer things apart, or ask for fewer days"
            );
            return wrong(&what);
        }
        Err(Unanswered::NotNow(why)) => return not_now(&why),
    };
    match query.format {
        Format::Json => json(StatusCode::OK, &usage::json(&query, &answer, asker.lost())),
        Format::Csv => of(
            StatusCode::OK,
            "text/csv; charset=utf-8",
            usage::csv(&query, &answer),
        ),
    }
}
