//! One pull, under the artifact's lock: look what is there, fetch what is not, prove it, put it in its place.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::error::StoreError;
use super::manifest::{Artifact, Member};
use super::progress::{Phase, Progress, Reporter};
use super::source::{self, Fetch};
use super::{Located, Store, files};

/// Left free on the disk beyond what a pull itself needs.
const HEADROOM: u64 = 32 << 20;

/// Pulls one artifact; see [`Store::pull`].
pub(super) fn pull(
    store: &Store,
    artifact: &Artifact,
    progress: &dyn Progress,
) -> Result<Located, StoreError> {
    store.check_supported(artifact)?;
    let reporter = Reporter {
        artifact: &artifact.name,
        to: progress,
    };
    let _lock = lock(store, artifact, reporter)?;
    let work = WorkRoom::open(store, artifact)?;
    let mut missing = Vec::new();
    for member in &artifact.members {
        if !in_place(store, artifact, member, reporter)? {
            missing.push(member);
        }
    }
    if !missing.is_empty() {
        check_room(store, artifact, &missing)?;
        let fetch = Fetch {
            artifact,
            members: &missing,
            work: &work.0,
            settings: &store.settings,
            reporter,
        };
        source::fetch(&fetch, &mut |member, file, hash| {
            install(store, artifact, member, file, &hash, progress)
        })?;
    }
    work.clear();
    let bytes = artifact
        .members
        .iter()
        .filter_map(|m| store.member_path(artifact, m).metadata().ok());
    let bytes = bytes.map(|m| m.len()).sum();
    reporter.at(Phase::Done, bytes, Some(bytes));
    Ok(store.located(artifact))
}

/// The artifact's lock; the system gives it back when the process ends, however it ends.
fn lock(store: &Store, artifact: &Artifact, reporter: Reporter) -> Result<File, StoreError> {
    let folder = store.root.join("locks");
    files::make_folder(&folder)?;
    let path = folder.join(format!("{}.lock", artifact.name));
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|e| StoreError::io("opening", &path, e))?;
    if file.try_lock().is_err() {
        reporter.at(Phase::Waiting, 0, None);
        file.lock().map_err(|e| StoreError::io("locking", &path, e))?;
    }
    Ok(file)
}

/// The folder a pull works in. What a killed pull left is taken away first, except what this one can use (the part of a
/// download that can go on, a wheel that is whole), so the room that leftovers take is bounded by one pull.
struct WorkRoom(PathBuf);

impl WorkRoom {
    fn open(store: &Store, artifact: &Artifact) -> Result<WorkRoom, StoreError> {
        let folder = store.root.join("tmp").join(&artifact.name);
        files::make_folder(&folder)?;
        let entries = fs::read_dir(&folder).map_err(|e| StoreError::io("reading the folder", &folder, e))?;
        for entry in entries.flatten().filter(|e| !source::can_resume(&e.path())) {
            let path = entry.path();
            let gone = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            gone.map_err(|e| StoreError::io("removing", &path, e))?;
        }
        Ok(WorkRoom(folder))
    }

    fn clear(&self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Is the right file in its place? Mends what can be mended without the source: a link that is gone while its blob is
/// there, a damaged file (taken away, so that it is fetched again).
fn in_place(
    store: &Store,
    artifact: &Artifact,
    member: &Member,
    reporter: Reporter,
) -> Result<bool, StoreError> {
    let pinned = store.pins(artifact)?.remove(&member.file);
    let Some(expected) = member.sha256.clone().or(pinned) else {
        return Ok(false);
    };
    let (blob, place) = (store.blob_path(&expected), store.member_path(artifact, member));
    let right = |path: &Path| -> Result<bool, StoreError> {
        if !path.exists() {
            return Ok(false);
        }
        let found = files::hash_file(path, &mut |n| reporter.at(Phase::Verifying, n, member.bytes))?;
        if found != expected {
            tracing::warn!(file = %path.display(), expected, found, "damaged on disk, fetching it again");
            files::remove_file(path)?;
        }
        Ok(found == expected)
    };
    if right(&place)? {
        return Ok(true);
    }
    if right(&blob)? {
        files::link_or_copy(&blob, &place)?;
        return Ok(true);
    }
    Ok(false)
}

/// Refuses at once what cannot fit: the download, and the file taken out of it.
fn check_room(store: &Store, artifact: &Artifact, missing: &[&Member]) -> Result<(), StoreError> {
    let members: u64 = missing.iter().filter_map(|m| m.bytes).sum();
    // What came before, and can be used, is there already.
    let folder = store.root.join("tmp").join(&artifact.name);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let there: u64 = entries
        .filter(|entry| source::can_resume(&entry.path()))
        .filter_map(|entry| Some(entry.metadata().ok()?.len()))
        .sum();
    let download = artifact.download_bytes.unwrap_or(members).saturating_sub(there);
    let need = members + download + HEADROOM;
    match (store.settings.free_bytes)(&store.root) {
        Some(free) if free < need => Err(StoreError::DiskFull {
            folder: store.root.clone(),
            need: Some(need),
            free: Some(free),
        }),
        _ => Ok(()),
    }
}

/// Takes one fetched file in: proves it (or records it, at first use), stores it under its hash, links it.
fn install(
    store: &Store,
    artifact: &Artifact,
    member: &Member,
    file: &Path,
    found: &str,
    progress: &dyn Progress,
) -> Result<(), StoreError> {
    let mut pins = store.pins(artifact)?;
    match member.sha256.as_ref().or_else(|| pins.get(&member.file)) {
        Some(expected) if expected != found => {
            let expected = expected.clone();
            files::remove_file(file)?;
            let (name, file) = (artifact.name.clone(), member.file.clone());
            return Err(StoreError::Mismatch {
                name,
                file,
                expected,
                found: found.to_owned(),
                on_disk: false,
            });
        }
        Some(_) => {}
        None => {
            pins.insert(member.file.clone(), found.to_owned());
            let path = store.pins_path(artifact);
            files::make_folder(path.parent().unwrap_or(&store.root))?;
            let text = serde_json::to_vec_pretty(&pins).unwrap_or_default();
            files::write_whole(&path, &text)?;
            let note = format!(
                "{} had no known hash: trusted on first use, sha256 {found} recorded; from now on only this file is taken",
                member.file
            );
            tracing::warn!(
                artifact = artifact.name,
                file = member.file,
                sha256 = found,
                "trusted on first use"
            );
            progress.note(&artifact.name, &note);
        }
    }
    let blob = store.blob_path(found);
    files::move_into_place(file, &blob)?;
    files::link_or_copy(&blob, &store.member_path(artifact, member))
}
