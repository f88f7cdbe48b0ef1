//! The artifact store: fetches what the manifest names, proves it by hash at pull and at load, and keeps it so that a
//! process that is killed, or two that pull at once, never leave anything half done in sight.
//!
//! ```text
//! CACHE/blobs/sha256/ab/ab12...       every file once, under its own hash, read-only
//! CACHE/artifacts/NAME/VERSION/FILE   a hard link to it (a copy where links do not work)
//! CACHE/pins/NAME-VERSION.json        hashes recorded at first use, for artifacts that are pinned no other way
//! CACHE/locks/NAME.lock               held while NAME is pulled
//! CACHE/tmp/NAME/                     one pull's working room; the next pull of NAME takes away what it cannot use
//! ```

mod error;
pub(crate) mod files;
mod manifest;
mod progress;
mod pull;
mod source;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

pub use error::{StoreError, human_bytes};
pub use manifest::{Artifact, Kind, Manifest, Member, Source, platform};
use progress::Reporter;
pub use progress::{Phase, Progress, Silent, Update};
use serde::Serialize;

/// Artifacts of this machine. Cheap to clone; holds no open files.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    manifest: Manifest,
    settings: Settings,
}

/// What pulls need to know of the surroundings. Read from the environment once, by the caller, never in the middle.
#[derive(Clone)]
pub struct Settings {
    /// The pip to use, instead of looking for one (`WEIR_PIP`).
    pub pip: Option<OsString>,
    /// Address of the model hub (`HF_ENDPOINT`).
    pub hub: String,
    /// Token for the model hub (`HF_TOKEN`), sent to it alone.
    pub hub_token: Option<String>,
    /// How to learn the free bytes of a folder.
    free_bytes: fn(&Path) -> Option<u64>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = if self.hub_token.is_some() {
            "a token"
        } else {
            "no token"
        };
        write!(f, "Settings(pip {:?}, hub {:?} with {token})", self.pip, self.hub)
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            pip: None,
            hub: "https://huggingface.co".to_owned(),
            hub_token: None,
            free_bytes: files::free_bytes,
        }
    }
}

impl Settings {
    /// Settings from environment variables: `WEIR_PIP`, `HF_ENDPOINT`, `HF_TOKEN`.
    pub fn from_env() -> Settings {
        let text = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let standard = Settings::default();
        Settings {
            pip: std::env::var_os("WEIR_PIP").filter(|v| !v.is_empty()),
            hub: text("HF_ENDPOINT").map_or(standard.hub, |hub| hub.trim_end_matches('/').to_owned()),
            hub_token: text("HF_TOKEN"),
            free_bytes: standard.free_bytes,
        }
    }
}

/// An artifact on this machine, complete.
#[derive(Clone, Debug, PartialEq)]
pub struct Located {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its folder; all members lie in it.
    pub dir: PathBuf,
    /// Members by file name.
    pub files: BTreeMap<String, PathBuf>,
}

impl Located {
    /// The path of one member.
    ///
    /// # Errors
    /// When the manifest gives this artifact no such file.
    pub fn file(&self, name: &str) -> Result<&Path, StoreError> {
        self.files
            .get(name)
            .map(PathBuf::as_path)
            .ok_or_else(|| StoreError::MemberMissing {
                source: format!("artifact {}", self.name),
                path: name.to_owned(),
                near: self.files.keys().cloned().collect(),
            })
    }
}

/// One line of `weir models list`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it is for.
    pub kind: Kind,
    /// SPDX name of its licence.
    pub licence: String,
    /// One line for people.
    pub about: String,
    /// Where it comes from.
    pub source: String,
    /// Bytes on disk; absent when neither the manifest nor the disk knows.
    pub bytes: Option<u64>,
    /// All its files are there, with the right sizes. Says nothing about their contents: that is `verify`.
    pub present: bool,
    /// Part of the built-in plan.
    pub default: bool,
    /// There are files for this kind of machine.
    pub supported: bool,
    /// Every file has a hash, by the manifest or by an earlier pull.
    pub pinned: bool,
}

/// The folder for artifacts: below `weir_home` when that is set, else the platform's own cache folder.
pub fn cache_dir(weir_home: Option<&Path>) -> PathBuf {
    match weir_home {
        Some(home) => home.join("cache"),
        None => directories::ProjectDirs::from("", "", "weir").map_or_else(
            || PathBuf::from(".weir/cache"),
            |dirs| dirs.cache_dir().to_owned(),
        ),
    }
}

/// `$WEIR_HOME`, when it is set to something.
pub fn weir_home() -> Option<PathBuf> {
    std::env::var_os("WEIR_HOME")
        .filter(|v| !v.is_empty())
        .map(PathBuf::from)
}

impl Store {
    /// The store in `root` with the built-in manifest. Nothing is created before the first pull.
    ///
    /// # Errors
    /// Only when the built-in manifest is broken, which a test rules out.
    pub fn open(root: impl Into<PathBuf>) -> Result<Store, StoreError> {
        let manifest = Manifest::builtin().map_err(|what| StoreError::Manifest {
            file: "built in".to_owned(),
            what,
        })?;
        Ok(Store {
            root: root.into(),
            manifest,
            settings: Settings::default(),
        })
    }

    /// The store that the environment names: `WEIR_HOME` (with its `manifest.toml`, if there is one), or the
    /// platform's cache folder.
    ///
    /// # Errors
    /// When the overlay manifest cannot be read or used.
    pub fn from_env() -> Result<Store, StoreError> {
        let home = weir_home();
        let mut store = Store::open(cache_dir(home.as_deref()))?.with_settings(Settings::from_env());
        if let Some(file) = home.map(|h| h.join("manifest.toml")).filter(|f| f.exists()) {
            let text = std::fs::read_to_string(&file).map_err(|e| StoreError::io("reading", &file, e))?;
            let overlay = Manifest::parse(&text, &platform()).map_err(|what| StoreError::Manifest {
                file: file.display().to_string(),
                what,
            })?;
            store.manifest = store.manifest.overlay(overlay);
        }
        Ok(store)
    }

    /// The same store with another manifest.
    pub fn with_manifest(mut self, manifest: Manifest) -> Store {
        self.manifest = manifest;
        self
    }

    /// The same store with other settings.
    pub fn with_settings(mut self, settings: Settings) -> Store {
        self.settings = settings;
        self
    }

    /// Where it keeps things.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What it knows of.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// All artifacts, in the manifest's order.
    pub fn list(&self) -> Vec<Status> {
        self.manifest
            .artifacts
            .iter()
            .map(|a| self.status_of(a))
            .collect()
    }

    /// One artifact. Looks at names and sizes only.
    ///
    /// # Errors
    /// [`StoreError::Unknown`].
    pub fn status(&self, name: &str) -> Result<Status, StoreError> {
        Ok(self.status_of(self.artifact(name)?))
    }

    /// Fetches what is missing or damaged, and answers when all of it is there and verified. Blocks; run it on a
    /// thread of its own. Any number of processes and threads may do so at once: one works, the others wait.
    ///
    /// # Errors
    /// Any [`StoreError`]; nothing half done is left in sight.
    pub fn pull(&self, name: &str, progress: &dyn Progress) -> Result<Located, StoreError> {
        pull::pull(self, self.artifact(name)?, progress)
    }

    /// Hashes every file of an artifact and answers where they are. This is what every load goes through.
    ///
    /// # Errors
    /// [`StoreError::Absent`], [`StoreError::Mismatch`], or the file system's.
    pub fn verify(&self, name: &str, progress: &dyn Progress) -> Result<Located, StoreError> {
        let artifact = self.artifact(name)?;
        let pins = self.pins(artifact)?;
        let reporter = Reporter {
            artifact: name,
            to: progress,
        };
        self.check_supported(artifact)?;
        let mut before = 0;
        for member in &artifact.members {
            let path = self.member_path(artifact, member);
            let Ok(meta) = path.metadata() else {
                return Err(StoreError::Absent {
                    name: name.to_owned(),
                });
            };
            let expected = member.sha256.clone().or_else(|| pins.get(&member.file).cloned());
            let expected = expected.ok_or_else(|| StoreError::Absent {
                name: name.to_owned(),
            })?;
            let found = files::hash_file(&path, &mut |n| {
                reporter.at(Phase::Verifying, before + n, artifact.bytes())
            })?;
            before += meta.len();
            if found != expected {
                let (name, file) = (name.to_owned(), path.display().to_string());
                return Err(StoreError::Mismatch {
                    name,
                    file,
                    expected,
                    found,
                    on_disk: true,
                });
            }
        }
        reporter.at(Phase::Done, before, Some(before));
        Ok(self.located(artifact))
    }

    /// [`Store::verify`] with nobody watching.
    ///
    /// # Errors
    /// As there.
    pub fn locate_verified(&self, name: &str) -> Result<Located, StoreError> {
        self.verify(name, &Silent)
    }

    fn artifact(&self, name: &str) -> Result<&Artifact, StoreError> {
        self.manifest.get(name).ok_or_else(|| StoreError::Unknown {
            name: name.to_owned(),
            known: self.manifest.artifacts.iter().map(|a| a.name.clone()).collect(),
        })
    }

    fn check_supported(&self, artifact: &Artifact) -> Result<(), StoreError> {
        if artifact.members.is_empty() {
            return Err(StoreError::Platform {
                name: artifact.name.clone(),
                platform: platform(),
            });
        }
        Ok(())
    }

    fn status_of(&self, artifact: &Artifact) -> Status {
        let sizes: Vec<Option<u64>> = artifact
            .members
            .iter()
            .map(|m| {
                let bytes = self.member_path(artifact, m).metadata().ok()?.len();
                m.bytes.is_none_or(|b| b == bytes).then_some(bytes)
            })
            .collect();
        let present = !sizes.is_empty() && sizes.iter().all(Option::is_some);
        let pins = self.pins(artifact).unwrap_or_default();
        Status {
            name: artifact.name.clone(),
            version: artifact.version.clone(),
            kind: artifact.kind,
            licence: artifact.licence.clone(),
            about: artifact.about.clone(),
            source: artifact.source.to_string(),
            bytes: if present {
                sizes.into_iter().sum()
            } else {
                artifact.bytes().filter(|b| *b > 0)
            },
            present,
            default: artifact.default,
            supported: !artifact.members.is_empty(),
            pinned: artifact
                .members
                .iter()
                .all(|m| m.sha256.is_some() || pins.contains_key(&m.file)),
        }
    }

    fn located(&self, artifact: &Artifact) -> Located {
        Located {
            name: artifact.name.clone(),
            version: artifact.version.clone(),
            dir: self.artifact_dir(artifact),
            files: artifact
                .members
                .iter()
                .map(|m| (m.file.clone(), self.member_path(artifact, m)))
                .collect(),
        }
    }

    fn artifact_dir(&self, artifact: &Artifact) -> PathBuf {
        self.root
            .join("artifacts")
            .join(&artifact.name)
            .join(&artifact.version)
    }
    fn member_path(&self, artifact: &Artifact, member: &Member) -> PathBuf {
        self.artifact_dir(artifact).join(&member.file)
    }
    fn blob_path(&self, sha256: &str) -> PathBuf {
        self.root
            .join("blobs")
            .join("sha256")
            .join(sha256.get(..2).unwrap_or("00"))
            .join(sha256)
    }
    fn pins_path(&self, artifact: &Artifact) -> PathBuf {
        self.root
            .join("pins")
            .join(format!("{}-{}.json", artifact.name, artifact.version))
    }

    /// Hashes recorded by an earlier pull, by file name.
    fn pins(&self, artifact: &Artifact) -> Result<BTreeMap<String, String>, StoreError> {
        let path = self.pins_path(artifact);
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|e| StoreError::Manifest {
                file: path.display().to_string(),
                what: e.to_string(),
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(BTreeMap::new()),
            Err(e) => Err(StoreError::io("reading", &path, e)),
        }
    }
}

#[cfg(test)]
mod tests;
