//! A provider's key that lies in a file, and is replaced there while the process runs.

use std::path::Path;
use std::time::Duration;

use crate::program::{Weir, soon, until};
use crate::upstream::{Upstream, fine};

/// Upkeep looks at the files every two seconds.
const SOON: Duration = Duration::from_secs(20);

fn plan(at: &str, key: &Path) -> String {
    format!(
        "version = 1\n[server]\ndrain_delay_ms = 0\n[providers.p]\nkind = \"openai\"\nbase_url = \"http://{at}/v1\"\n\
         api_key = \"file:{}\"\n[targets.one]\nprovider = \"p\"\nmodel = \"m\"\nprice = \"unmetered\"\n\
         [routes.auto]\ntiers = [[\"one\"]]\n",
        key.display()
    )
}

/// Puts a text in a file's place, in one step.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, file).unwrap();
}

/// Asks one question; what its provider was sent as a key.
fn sent(weir: &Weir, upstream: &Upstream) -> String {
    let (status, body) = weir.chat("");
    assert_eq!(status, 200, "{body}");
    let seen = upstream.seen();
    seen.last().unwrap().header("authorization").unwrap().to_owned()
}

#[test]
fn a_key_that_changes_in_its_file_is_what_the_provider_is_sent() {
    let home = tempfile::tempdir().unwrap();
    let key = home.path().join("provider.key");
    replace(&key, "sk-first\n");
    let upstream = Upstream::start(|asked| fine(asked, ""));
    let weir = Weir::with_plan(home.path(), &plan(&upstream.address.to_string(), &key), &[]);
    assert_eq!(sent(&weir, &upstream), "Bearer sk-first");
    replace(&key, "sk-second\n");
    soon("the new key is sent", SOON, || {
        sent(&weir, &upstream) == "Bearer sk-second"
    });
    let before = upstream.seen().len();
    assert_eq!(sent(&weir, &upstream), "Bearer sk-second", "and stays");
    assert_eq!(upstream.seen().len(), before + 1);
}

#[test]
fn a_key_file_that_cannot_be_read_leaves_the_old_key() {
    let home = tempfile::tempdir().unwrap();
    let key = home.path().join("provider.key");
    replace(&key, "sk-first\n");
    let upstream = Upstream::start(|asked| fine(asked, ""));
    let mut weir = Weir::with_plan(home.path(), &plan(&upstream.address.to_string(), &key), &[]);
    assert_eq!(sent(&weir, &upstream), "Bearer sk-first");
    let ways: [fn(&Path); 2] = [
        |key| replace(key, " \n"),
        |key| std::fs::remove_file(key).unwrap(),
    ];
    for break_it in ways {
        break_it(&key);
        until(
            &mut weir.logged,
            "the secret that was read there before stays in use",
        );
        assert_eq!(sent(&weir, &upstream), "Bearer sk-first");
    }
    replace(&key, "sk-second\n");
    soon("the new key is sent", SOON, || {
        sent(&weir, &upstream) == "Bearer sk-second"
    });
}
