//! Parts of documents that are made, and compared with what is written there.

use load_tests::faults::{self, Part};

/// Compares a part of a file with what it should be; with `WEIR_WRITE_DOCS=1` it is written anew instead. `test`: where
/// the caller is, for the hint.
pub fn holds(part: Part, made: &str, test: &str) {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let path = root.join(part.file);
    let text = std::fs::read_to_string(&path).unwrap();
    let wanted =
        faults::put(&text, part, made).unwrap_or_else(|| panic!("{} has no part {:?}", part.file, part.name));
    if text == wanted {
        return;
    }
    if std::env::var("WEIR_WRITE_DOCS").as_deref() == Ok("1") {
        return std::fs::write(&path, wanted).unwrap();
    }
    let different = wanted.lines().find(|line| !text.contains(line));
    panic!(
        "{} does not say what is so: {}\nWrite it anew: WEIR_WRITE_DOCS=1 cargo test -p load-tests --test {test}",
        part.file,
        different.unwrap_or("(something is too much)")
    );
}
