//! Files over HTTPS, resumed where the last try stopped: the part that has arrived stays in the work room with the
//! validator (ETag or date) that the server gave it, and is continued only for that very file.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use ureq::Agent;
use ureq::http::{HeaderMap, Response, StatusCode, header};

use super::super::error::StoreError;
use super::super::files;
use super::super::manifest::Member;
use super::super::progress::Phase;
use super::{Deliver, Fetch};

const PART: &str = "part";
const NOTE: &str = "part-of";
/// What a try that failed leaves to the next.
const KEPT: &str =
    "what has arrived is kept, and gone on with where the server can say that it is still the same file";

/// Is this file of a work room a download that can go on?
pub(crate) fn can_resume(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == PART || e == NOTE)
}

/// Whose part it is.
#[derive(Serialize, Deserialize, PartialEq)]
struct PartOf {
    url: String,
    validator: Option<String>,
}

/// Downloads each member from below `base`.
pub(super) fn download(
    fetch: &Fetch,
    base: &str,
    token: Option<&str>,
    deliver: &mut Deliver,
) -> Result<(), StoreError> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(Duration::from_secs(15)))
        .timeout_per_read(Some(Duration::from_secs(60)))
        .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
        .build();
    let agent = config.new_agent();
    for member in fetch.members {
        let url = if member.path.is_empty() {
            base.to_owned()
        } else {
            join(base, &member.path)
        };
        let part = fetch.work.join(format!("{}.{PART}", member.file));
        bring(fetch, &agent, &url, token, member, &part)?;
        let total = part.metadata().ok().map(|m| m.len());
        let hash = files::hash_file(&part, &mut |n| fetch.reporter.at(Phase::Verifying, n, total))?;
        files::remove_file(&note_path(&part))?;
        deliver(member, &part, hash)?;
    }
    Ok(())
}

fn join(base: &str, path: &str) -> String {
    format!("{}/{}", base.trim_end_matches('/'), path.trim_start_matches('/'))
}

fn note_path(part: &Path) -> PathBuf {
    part.with_extension(NOTE)
}

/// Completes `part`.
fn bring(
    fetch: &Fetch,
    agent: &Agent,
    url: &str,
    token: Option<&str>,
    member: &Member,
    part: &Path,
) -> Result<(), StoreError> {
    let have = resumable(url, part, member.sha256.is_some());
    let mut answer = ask(agent, url, token, have.as_ref())?;
    // The part is complete already, or longer than the file: from the start.
    if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
        answer = ask(agent, url, token, None)?;
    }
    let start = match answer.status() {
        StatusCode::OK => 0,
        StatusCode::PARTIAL_CONTENT => match (&have, range_start(answer.headers())) {
            (Some(have), Some(start)) if have.bytes == start => start,
            _ => {
                answer = ask(agent, url, token, None)?;
                0
            }
        },
        _ => 0,
    };
    if !answer.status().is_success() {
        return Err(refused(url, answer.status()));
    }
    receive(fetch, url, answer, start, part)
}

fn receive(
    fetch: &Fetch,
    url: &str,
    answer: Response<ureq::Body>,
    start: u64,
    part: &Path,
) -> Result<(), StoreError> {
    let validator = validator(answer.headers());
    let length = answer.body().content_length();
    let note = serde_json::to_vec(&PartOf {
        url: url.to_owned(),
        validator,
    })
    .unwrap_or_default();
    files::write_whole(&note_path(part), &note)?;
    let mut file = if start > 0 {
        File::options().append(true).open(part)
    } else {
        File::create(part)
    }
    .map_err(|e| StoreError::io("opening", part, e))?;
    let mut body = answer.into_body().into_reader();
    let mut buffer = vec![0; 64 * 1024];
    let (mut done, total) = (start, length.map(|l| l + start));
    fetch.reporter.at(Phase::Downloading, done, total);
    loop {
        let lost = |detail: String| StoreError::NoNetwork {
            what: url.to_owned(),
            detail,
            kept: KEPT,
        };
        let n = body.read(&mut buffer).map_err(|e| lost(e.to_string()))?;
        let Some(chunk) = buffer.get(..n).filter(|c| !c.is_empty()) else {
            break;
        };
        file.write_all(chunk)
            .map_err(|e| StoreError::io("writing", part, e))?;
        done += n as u64;
        fetch.reporter.at(Phase::Downloading, done, total);
    }
    if let Some(total) = total.filter(|t| *t != done) {
        let detail = format!("the connection ended after {done} of {total} bytes");
        return Err(StoreError::NoNetwork {
            what: url.to_owned(),
            detail,
            kept: KEPT,
        });
    }
    file.sync_all().map_err(|e| StoreError::io("flushing", part, e))
}

struct Have {
    bytes: u64,
    validator: Option<String>,
}

/// What has arrived of this very file. Without a validator only a known hash can tell whether the halves fit.
fn resumable(url: &str, part: &Path, hash_known: bool) -> Option<Have> {
    let bytes = part.metadata().ok()?.len();
    let note: PartOf = serde_json::from_slice(&std::fs::read(note_path(part)).ok()?).ok()?;
    (bytes > 0 && note.url == url && (hash_known || note.validator.is_some())).then_some(Have {
        bytes,
        validator: note.validator,
    })
}

fn ask(
    agent: &Agent,
    url: &str,
    token: Option<&str>,
    have: Option<&Have>,
) -> Result<Response<ureq::Body>, StoreError> {
    // Bytes as they are: a compressed transfer has no ranges that fit the file.
    let mut request = agent.get(url).header(header::ACCEPT_ENCODING, "identity");
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    if let Some(have) = have {
        request = request.header(header::RANGE, format!("bytes={}-", have.bytes));
        if let Some(validator) = &have.validator {
            request = request.header(header::IF_RANGE, validator);
        }
    }
    request.call().map_err(|e| StoreError::NoNetwork {
        what: url.to_owned(),
        detail: e.to_string(),
        kept: KEPT,
    })
}

/// A strong ETag, else the date of the last change.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    text(header::ETAG)
        .filter(|tag| !tag.starts_with("W/"))
        .or_else(|| text(header::LAST_MODIFIED))
}

/// Start of `content-range: bytes START-END/TOTAL`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(header::CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?
        .split_once('-')?
        .0
        .trim()
        .parse()
        .ok()
}

fn refused(url: &str, status: StatusCode) -> StoreError {
    let (what, detail) = (url.to_owned(), format!("the server answered {status}"));
    if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS {
        StoreError::NotThere { what, detail }
    } else {
        StoreError::NoNetwork {
            what,
            detail,
            kept: KEPT,
        }
    }
}
