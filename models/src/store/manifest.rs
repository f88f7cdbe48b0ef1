//! The manifest: which artifacts exist, where each comes from, and the hashes that prove what came. Read from text;
//! every rule is checked here, so that the rest of the store may rely on it.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The manifest in this crate.
const BUILTIN: &str = include_str!("../../manifest.toml");

/// All artifacts known, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The artifacts.
    pub artifacts: Vec<Artifact>,
}

/// One versioned thing that can be fetched and verified.
#[derive(Clone, Debug, PartialEq)]
pub struct Artifact {
    /// Its name in plans and on the command line.
    pub name: String,
    /// Version, part of its folder's name.
    pub version: String,
    /// What it is for.
    pub kind: Kind,
    /// SPDX name of its licence.
    pub licence: String,
    /// One line for people.
    pub about: String,
    /// Where it comes from.
    pub source: Source,
    /// Bytes that travel over the network, where that is the same for everyone.
    pub download_bytes: Option<u64>,
    /// Part of what a fresh machine needs for the built-in plan.
    pub default: bool,
    /// Members without a hash are allowed; the first pull records theirs.
    pub trust_on_first_use: bool,
    /// Files of this machine's platform.
    pub members: Vec<Member>,
}

/// What an artifact is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A shared library.
    Runtime,
    /// A sentence encoder: safetensors and a tokenizer.
    Encoder,
    /// A language model: GGUF.
    Llm,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Runtime => "runtime",
            Kind::Encoder => "encoder",
            Kind::Llm => "llm",
        })
    }
}

/// One file of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its name in the artifact's folder.
    pub file: String,
    /// Its path in the source.
    pub path: String,
    /// Hash of the file, 64 lower-case hex digits.
    pub sha256: Option<String>,
    /// Its size.
    pub bytes: Option<u64>,
    /// `linux-x86_64` and the like; absent: every machine.
    pub platform: Option<String>,
}

/// Where an artifact comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A wheel by the machine's own pip: `PACKAGE==VERSION`.
    Pip(String),
    /// A repository of a model hub.
    Hub {
        /// `OWNER/REPO`.
        repo: String,
        /// Branch, tag or commit.
        revision: String,
    },
    /// Files below this address. Plain `http:` only to loopback.
    Web(String),
    /// A folder, or an archive (`.whl`, `.zip`), on this machine.
    File(PathBuf),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Pip(what) => write!(f, "pip:{what}"),
            Source::Hub { repo, revision } => write!(f, "hf:{repo}@{revision}"),
            Source::Web(url) => f.write_str(url),
            Source::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

impl Source {
    fn parse(text: &str) -> Result<Source, String> {
        if let Some(what) = text.strip_prefix("pip:") {
            let exact = what
                .split_once("==")
                .is_some_and(|(name, version)| !name.is_empty() && !version.is_empty());
            // A leading dash would be read by pip as an option.
            if !exact || what.starts_with('-') || what.contains(char::is_whitespace) {
                return Err(format!(
                    "source {text:?}: write pip:PACKAGE==VERSION, an exact version"
                ));
            }
            return Ok(Source::Pip(what.to_owned()));
        }
        if let Some(what) = text.strip_prefix("hf:") {
            let (repo, revision) = what.split_once('@').unwrap_or((what, "main"));
            if repo.split('/').count() != 2 || repo.split('/').any(str::is_empty) || revision.is_empty() {
                return Err(format!("source {text:?}: write hf:OWNER/REPO@REVISION"));
            }
            return Ok(Source::Hub {
                repo: repo.to_owned(),
                revision: revision.to_owned(),
            });
        }
        if let Some(path) = text.strip_prefix("file:") {
            return Ok(Source::File(PathBuf::from(path)));
        }
        let loopback = ["http://127.0.0.1", "http://localhost", "http://[::1]"];
        if text.starts_with("https://") || loopback.iter().any(|l| is_host_prefix(text, l)) {
            return Ok(Source::Web(text.to_owned()));
        }
        Err(format!(
            "source {text:?}: must begin with pip:, hf:, https:// or file:"
        ))
    }
}

/// `http://localhost.example.com` begins with `http://localhost` but is somebody else's machine.
fn is_host_prefix(url: &str, prefix: &str) -> bool {
    url.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || rest.starts_with(':'))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawManifest {
    version: u32,
    #[serde(default)]
    artifact: Vec<RawArtifact>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawArtifact {
    name: String,
    version: String,
    kind: Kind,
    licence: String,
    #[serde(default)]
    about: String,
    source: String,
    download_bytes: Option<u64>,
    #[serde(default)]
    default: bool,
    #[serde(default)]
    trust_on_first_use: bool,
    member: Vec<Member>,
}

impl Manifest {
    /// The manifest that this crate carries.
    ///
    /// # Errors
    /// Never for a released build: a test reads it.
    pub fn builtin() -> Result<Manifest, String> {
        Manifest::parse(BUILTIN, &platform())
    }

    /// Reads a manifest for one platform (`linux-x86_64`); members of other platforms are left out.
    ///
    /// # Errors
    /// The first thing that is wrong, with the artifact's name.
    pub fn parse(text: &str, platform: &str) -> Result<Manifest, String> {
        let raw: RawManifest = toml::from_str(text).map_err(|e| e.to_string())?;
        if raw.version != 1 {
            return Err(format!(
                "manifest version {} is not known here; this build reads version 1",
                raw.version
            ));
        }
        let mut artifacts: Vec<Artifact> = Vec::with_capacity(raw.artifact.len());
        for raw in raw.artifact {
            let artifact = check(raw, platform)?;
            if artifacts.iter().any(|a| a.name == artifact.name) {
                return Err(format!("artifact {:?} is there twice", artifact.name));
            }
            artifacts.push(artifact);
        }
        Ok(Manifest { artifacts })
    }

    /// Adds what `other` has; where both have a name, `other` wins.
    pub fn overlay(mut self, other: Manifest) -> Manifest {
        for artifact in other.artifacts {
            match self.artifacts.iter_mut().find(|a| a.name == artifact.name) {
                Some(old) => *old = artifact,
                None => self.artifacts.push(artifact),
            }
        }
        self
    }

    /// The artifact of that name.
    pub fn get(&self, name: &str) -> Option<&Artifact> {
        self.artifacts.iter().find(|a| a.name == name)
    }
}

impl Artifact {
    /// Bytes on disk, where every member's size is known, and all of them together are a number.
    pub fn bytes(&self) -> Option<u64> {
        self.members
            .iter()
            .try_fold(0_u64, |sum, m| sum.checked_add(m.bytes?))
    }
}

/// This machine as the manifest names it, for example `linux-x86_64`.
pub fn platform() -> String {
    format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH)
}

fn check(raw: RawArtifact, platform: &str) -> Result<Artifact, String> {
    let name = raw.name;
    let wrong = |what: String| format!("artifact {name:?}: {what}");
    for part in [&name, &raw.version] {
        if !is_plain(part) {
            return Err(wrong(format!(
                "{part:?} must be letters, digits, '.', '_' and '-', and begin with a letter or digit"
            )));
        }
    }
    for member in &raw.member {
        if !is_plain(&member.file) {
            return Err(wrong(format!(
                "member file {:?} must be a plain file name",
                member.file
            )));
        }
        match &member.sha256 {
            Some(hash)
                if hash.len() != 64 || !hash.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) =>
            {
                return Err(wrong(format!(
                    "sha256 of {:?} must be 64 lower-case hex digits",
                    member.file
                )));
            }
            None if !raw.trust_on_first_use => {
                return Err(wrong(format!(
                    "member {:?} has no sha256; give it, or set trust_on_first_use = true to record it at the first pull",
                    member.file
                )));
            }
            _ => {}
        }
    }
    let source = Source::parse(&raw.source).map_err(wrong)?;
    let members: Vec<Member> = raw
        .member
        .into_iter()
        .filter(|m| m.platform.as_deref().is_none_or(|p| p == platform))
        .collect();
    for (i, member) in members.iter().enumerate() {
        if members.iter().take(i).any(|m| m.file == member.file) {
            return Err(wrong(format!("member file {:?} is there twice", member.file)));
        }
    }
    Ok(Artifact {
        version: raw.version,
        kind: raw.kind,
        licence: raw.licence,
        about: raw.about,
        source,
        download_bytes: raw.download_bytes,
        default: raw.default,
        trust_on_first_use: raw.trust_on_first_use,
        members,
        name,
    })
}

/// Names become file names: nothing that could leave the folder.
fn is_plain(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by the fuzz target `manifest`.
    #[test]
    fn sizes_that_are_no_number_together_are_unknown() {
        let member = |n: u32| {
            format!("[[artifact.member]]\nfile = \"f{n}\"\npath = \"p\"\nbytes = 9223372036854775807\n")
        };
        let text = format!(
            "version = 1\n[[artifact]]\nname = \"a\"\nversion = \"1\"\nkind = \"llm\"\nlicence = \"MIT\"\n\
             source = \"hf:o/r\"\ntrust_on_first_use = true\n{}{}{}",
            member(1),
            member(2),
            member(3)
        );
        let manifest = Manifest::parse(&text, "linux-x86_64").unwrap();
        assert_eq!(manifest.artifacts[0].bytes(), None);
    }

    const ONE: &str = r#"
version = 1
[[artifact]]
name = "a"
version = "1"
kind = "llm"
licence = "MIT"
source = "SOURCE"
[[artifact.member]]
file = "FILE"
path = "x/y"
HASH
"#;

    fn parse(source: &str, file: &str, hash: &str) -> Result<Manifest, String> {
        Manifest::parse(
            &ONE.replace("SOURCE", source)
                .replace("FILE", file)
                .replace("HASH", hash),
            "linux-x86_64",
        )
    }
    fn hash() -> String {
        format!("sha256 = \"{}\"", "0".repeat(64))
    }

    #[test]
    fn the_built_in_manifest_is_right_on_every_platform_it_names() {
        for platform in ["linux-x86_64", "linux-aarch64", "macos-aarch64"] {
            let manifest = Manifest::parse(BUILTIN, platform).unwrap();
            for name in ["onnxruntime", "smollm2-135m-instruct-q4_1", "all-minilm-l6-v2"] {
                let artifact = manifest.get(name).unwrap();
                assert!(
                    artifact.default && !artifact.members.is_empty(),
                    "{name} on {platform}"
                );
                assert!(
                    artifact.members.iter().all(|m| m.sha256.is_some()),
                    "{name}: every default is pinned"
                );
            }
            assert!(
                manifest
                    .artifacts
                    .iter()
                    .filter(|a| a.trust_on_first_use)
                    .all(|a| !a.default)
            );
        }
    }

    #[test]
    fn an_unknown_platform_leaves_an_artifact_without_members_rather_than_with_wrong_ones() {
        let manifest = Manifest::parse(BUILTIN, "plan9-vax").unwrap();
        assert!(manifest.get("onnxruntime").unwrap().members.is_empty());
    }

    #[test]
    fn a_missing_hash_needs_an_explicit_word() {
        assert!(
            parse("file:/x", "f", "")
                .unwrap_err()
                .contains("trust_on_first_use")
        );
        assert!(
            parse("file:/x", "f", "sha256 = \"abc\"")
                .unwrap_err()
                .contains("64")
        );
        assert!(parse("file:/x", "f", &hash()).is_ok());
    }

    #[test]
    fn a_key_that_nobody_reads_is_told() {
        let text = ONE
            .replace("SOURCE", "file:/x")
            .replace("FILE", "f")
            .replace("HASH", &hash())
            .replace("licence =", "options = { weights = \"q4_0\" }\nlicence =");
        let error = Manifest::parse(&text, "linux-x86_64").unwrap_err();
        assert!(error.contains("options"), "{error}");
    }

    #[test]
    fn names_cannot_leave_the_folder_and_sources_are_exact() {
        for file in ["../f", "a/b", ".hidden", ""] {
            assert!(parse("file:/x", file, &hash()).is_err(), "{file:?}");
        }
        for source in [
            "pip:x",
            "pip:--index==1",
            "hf:only",
            "ftp://x",
            "http://example.com/x",
            "http://localhost.evil/x",
        ] {
            assert!(parse(source, "f", &hash()).is_err(), "{source}");
        }
        for source in [
            "pip:x==1",
            "hf:a/b",
            "hf:a/b@v1",
            "https://h/x",
            "http://127.0.0.1:1/x",
        ] {
            assert!(parse(source, "f", &hash()).is_ok(), "{source}");
        }
    }

    #[test]
    fn an_overlay_replaces_by_name_and_adds() {
        let base = Manifest::builtin().unwrap();
        let count = base.artifacts.len();
        let more = parse("file:/x", "f", &hash()).unwrap();
        let both = base.overlay(more.clone());
        assert_eq!(both.artifacts.len(), count + 1);
        assert_eq!(both.overlay(more).artifacts.len(), count + 1);
    }
}
