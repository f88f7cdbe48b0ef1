//! Manifests of artifacts: what is taken can neither leave its folder nor come without proof.
#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use models::store::{Manifest, Source};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let manifest = match Manifest::parse(text, "linux-x86_64") {
        Ok(manifest) => manifest,
        Err(why) => {
            assert!(!why.is_empty());
            return;
        }
    };
    for artifact in &manifest.artifacts {
        stays(&artifact.name);
        stays(&artifact.version);
        let _ = (artifact.bytes(), artifact.source.to_string());
        match &artifact.source {
            Source::Web(url) => assert!(
                url.starts_with("https://")
                    || ["http://127.0.0.1", "http://localhost", "http://[::1]"]
                        .iter()
                        .any(|l| url.starts_with(l))
            ),
            Source::Pip(what) => assert!(!what.starts_with('-') && !what.contains(char::is_whitespace)),
            Source::Hub { repo, .. } => assert_eq!(repo.split('/').count(), 2),
            Source::File(_) => {}
        }
        for member in &artifact.members {
            stays(&member.file);
            assert!(member.platform.as_deref().is_none_or(|p| p == "linux-x86_64"));
            match &member.sha256 {
                Some(hash) => assert!(hash.len() == 64 && hash.bytes().all(|b| b.is_ascii_hexdigit())),
                None => assert!(artifact.trust_on_first_use),
            }
        }
    }
    let builtin = Manifest::builtin().expect("the built-in manifest");
    let both = builtin.clone().overlay(manifest.clone());
    for artifact in &manifest.artifacts {
        assert_eq!(both.get(&artifact.name), Some(artifact));
    }
    assert!(both.artifacts.len() <= builtin.artifacts.len() + manifest.artifacts.len());
});

/// A name is one plain step below its folder.
fn stays(name: &str) {
    let mut steps = Path::new(name).components();
    assert!(
        matches!((steps.next(), steps.next()), (Some(Component::Normal(_)), None)),
        "{name:?}"
    );
}
