//! A copy of the source in which things are switched off, so that nobody's working copy nor build is touched.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::list::Mutation;

/// The copy.
pub struct Tree {
    at: PathBuf,
}

/// A file that holds a mutation; it is itself again when this is dropped.
pub struct Mutated {
    path: PathBuf,
    original: String,
}

impl Tree {
    /// Brings a copy of `root` up to date: what git tracks, and what it does not ignore. What is the same is not written,
    /// so that cargo need not build it again.
    ///
    /// # Errors
    /// A sentence.
    pub fn prepare(root: &Path, at: &Path) -> Result<Self, String> {
        let files = files(root)?;
        let failed = |path: &Path, e: io::Error| format!("{}: {e}", path.display());
        for file in &files {
            let (from, to) = (root.join(file), at.join(file));
            // Deleted, and not committed yet.
            let Ok(bytes) = std::fs::read(&from) else { continue };
            if std::fs::read(&to).is_ok_and(|there| there == bytes) {
                continue;
            }
            if let Some(folder) = to.parent() {
                std::fs::create_dir_all(folder).map_err(|e| failed(folder, e))?;
            }
            std::fs::write(&to, bytes).map_err(|e| failed(&to, e))?;
        }
        let kept: HashSet<PathBuf> = files
            .iter()
            .filter(|f| root.join(f).exists())
            .map(|f| at.join(f))
            .collect();
        remove_others(at, &kept).map_err(|e| failed(at, e))?;
        Ok(Self { at: at.to_owned() })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Switches one thing off.
    ///
    /// # Errors
    /// A sentence: the text does not stand there exactly once, or the file cannot be written.
    pub fn mutate(&self, m: &Mutation) -> Result<Mutated, String> {
        let path = self.at.join(&m.file);
        let failed = |e: io::Error| format!("{}: {e}", path.display());
        let original = std::fs::read_to_string(&path).map_err(failed)?;
        let count = original.matches(&m.find).count();
        if count != 1 {
            return Err(format!("its text stands {count} times in {}, not once", m.file));
        }
        std::fs::write(&path, original.replacen(&m.find, &m.replace, 1)).map_err(failed)?;
        Ok(Mutated { path, original })
    }
}

impl Drop for Mutated {
    fn drop(&mut self) {
        // Should it fail, the next copy is brought up to date again.
        let _ = std::fs::write(&self.path, &self.original);
    }
}

fn files(root: &Path) -> Result<Vec<PathBuf>, String> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .map_err(|e| format!("git cannot be run: {e}"))?;
    if !listed.status.success() {
        return Err(String::from_utf8_lossy(&listed.stderr).into_owned());
    }
    let names = String::from_utf8_lossy(&listed.stdout);
    Ok(names
        .split('\0')
        .filter(|n| !n.is_empty())
        .map(PathBuf::from)
        .collect())
}

/// What was deleted since the last copy.
fn remove_others(at: &Path, kept: &HashSet<PathBuf>) -> io::Result<()> {
    for entry in std::fs::read_dir(at)? {
        let path = entry?.path();
        if path.is_dir() {
            remove_others(&path, kept)?;
        } else if !kept.contains(&path) {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}
