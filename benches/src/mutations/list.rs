//! The list, and whether it still speaks of the source that is there.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Where it lies, from the root of the project.
pub const FILE: &str = "tests/mutations.toml";

/// One thing that is switched off.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mutation {
    /// A short name, unlike all others.
    pub name: String,
    /// The file, from the root.
    pub file: String,
    /// A text that stands there exactly once.
    pub find: String,
    /// What stands there instead.
    pub replace: String,
    /// The crate whose tests are run.
    pub package: String,
    /// An integration test of that crate; absent: its unit tests.
    pub target: Option<String>,
    /// The tests that must turn red, each of them, by their whole names.
    pub tests: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    mutation: Vec<Mutation>,
}

/// Reads the list of a project.
///
/// # Errors
/// A sentence, when there is none or it cannot be read.
pub fn read(root: &Path) -> Result<Vec<Mutation>, String> {
    let path = root.join(FILE);
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let list: List = toml::from_str(&text).map_err(|e| format!("{FILE}: {e}"))?;
    Ok(list.mutation)
}

/// What no longer holds, one sentence each.
pub fn problems(root: &Path, list: &[Mutation]) -> Vec<String> {
    let mut problems = Vec::new();
    let (mut names, mut sources) = (HashSet::new(), HashMap::new());
    for m in list {
        let mut wrong = |what: String| problems.push(format!("{}: {what}", m.name));
        if !names.insert(&m.name) {
            wrong("the name stands twice".into());
        }
        match std::fs::read_to_string(root.join(&m.file)) {
            Ok(text) => match text.matches(&m.find).count() {
                1 => {}
                n => wrong(format!("its text stands {n} times in {}, not once", m.file)),
            },
            Err(e) => wrong(format!("{}: {e}", m.file)),
        }
        if m.find == m.replace {
            wrong("it changes nothing".into());
        }
        if m.tests.is_empty() {
            wrong("it names no test".into());
        }
        let source = sources
            .entry(m.package.clone())
            .or_insert_with(|| source_of(&root.join(&m.package)));
        for test in &m.tests {
            let function = test.rsplit("::").next().unwrap_or(test);
            // Some tests are named in a macro.
            if !source.contains(function) {
                wrong(format!("{} has no test {function}", m.package));
            }
        }
    }
    problems
}

/// All Rust source of a crate in one text.
fn source_of(package: &Path) -> String {
    let mut text = String::new();
    let mut folders: Vec<PathBuf> = ["src", "tests"].iter().map(|f| package.join(f)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                text += &std::fs::read_to_string(path).unwrap_or_default();
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
    }

    #[test]
    fn the_list_speaks_of_the_source_that_is_there() {
        let list = read(&root()).unwrap();
        assert_eq!(problems(&root(), &list), Vec::<String>::new());
    }

    #[test]
    fn what_no_longer_holds_is_told() {
        let good = Mutation {
            name: "one".into(),
            file: "benches/src/mutations/list.rs".into(),
            find: ["Where it ", "lies"].concat(),
            replace: "x".into(),
            package: "benches".into(),
            target: None,
            tests: vec!["mutations::list::tests::what_no_longer_holds_is_told".into()],
        };
        let told = |m: Mutation| problems(&root(), &[m]).join("; ");
        assert_eq!(told(good.clone()), "");
        let with = |change: fn(&mut Mutation)| {
            let mut m = good.clone();
            change(&mut m);
            told(m)
        };
        assert!(with(|m| m.find = "fn ".into()).contains("times in"));
        assert!(with(|m| m.find = ["not ", "there"].concat() + "!").contains("stands 0 times"));
        assert!(with(|m| m.file = "no.rs".into()).contains("no.rs"));
        assert!(with(|m| m.replace = m.find.clone()).contains("changes nothing"));
        assert!(with(|m| m.tests = vec![["a::no_", "such_test"].concat()]).contains("has no test"));
        assert!(with(|m| m.tests.clear()).contains("names no test"));
        let twice = problems(&root(), &[good.clone(), good]).join("; ");
        assert!(twice.contains("stands twice"), "{twice}");
    }
}
