//! Where secrets are looked up: `env:NAME` through a function that is handed in (tests have their own environment),
//! `file:PATH` on the disk. Values go to who needs them and nowhere else.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use routing::plan::{SecretOrText, SecretRef};

/// Looks up an environment variable.
pub type Env = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Looks up secrets, and remembers what it read of those that must not go away with their file.
#[derive(Clone)]
pub struct Secrets {
    env: Env,
    /// By file: what was last read there by [`Secrets::keep`].
    kept: Arc<Mutex<HashMap<Arc<str>, String>>>,
}

/// A file that was read, and when it had last changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where.
    pub path: PathBuf,
    /// `None`: it was not there.
    pub changed: Option<SystemTime>,
}

impl Seen {
    /// Looks at a file.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        let changed = std::fs::metadata(&path).and_then(|m| m.modified()).ok();
        Self { path, changed }
    }
    /// It has changed since.
    pub fn is_stale(&self) -> bool {
        Self::at(self.path.clone()).changed != self.changed
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    /// With the environment that is handed in.
    pub fn new(env: Env) -> Self {
        Self {
            env,
            kept: Arc::default(),
        }
    }
    /// With the process's environment.
    pub fn of_process() -> Self {
        Self::new(Arc::new(|name| std::env::var(name).ok()))
    }
    /// An environment variable, when it is there and not empty.
    pub fn var(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|v| !v.trim().is_empty())
    }

    /// The value of a secret.
    ///
    /// # Errors
    /// A sentence for people that says what is missing; never the value.
    pub fn find(&self, secret: &SecretRef) -> Result<String, String> {
        match secret {
            SecretRef::Env(name) => match (self.env)(name) {
                None => Err(format!("{name} is not set")),
                Some(value) if value.trim().is_empty() => Err(format!("{name} is empty")),
                Some(value) => Ok(value.trim().to_owned()),
            },
            SecretRef::File(path) => match std::fs::read_to_string(&**path) {
                Err(e) => Err(format!("{path} cannot be read: {e}")),
                Ok(value) if value.trim().is_empty() => Err(format!("{path} is empty")),
                Ok(value) => Ok(value.trim().to_owned()),
            },
        }
    }

    /// The value of a provider's secret: where its file cannot be read any more, or is empty, what was last read there. A file
    /// that is being replaced must not switch a provider off. Keys of callers are not looked up so: they go with their file.
    ///
    /// # Errors
    /// As [`Secrets::find`], where nothing was ever read there.
    pub fn keep(&self, secret: &SecretRef) -> Result<String, String> {
        let found = self.find(secret);
        let SecretRef::File(path) = secret else {
            return found;
        };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(value) => {
                kept.insert(path.clone(), value.clone());
                Ok(value)
            }
            Err(why) => {
                let old = kept.get(path).cloned().ok_or_else(|| why.clone())?;
                tracing::error!("{why}; the secret that was read there before stays in use");
                Ok(old)
            }
        }
    }

    /// The value of something of a provider that may be a secret.
    ///
    /// # Errors
    /// As [`Secrets::keep`].
    pub fn text(&self, value: &SecretOrText) -> Result<String, String> {
        match value {
            SecretOrText::Text(text) => Ok(text.to_string()),
            SecretOrText::Secret(secret) => self.keep(secret),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_and_empty_are_told_apart_and_never_shown() {
        let secrets = Secrets::new(Arc::new(|name| match name {
            "FULL" => Some(" sk-1\n".into()),
            "EMPTY" => Some(" ".into()),
            _ => None,
        }));
        let find = |name: &str| secrets.find(&SecretRef::Env(name.into()));
        assert_eq!(find("FULL"), Ok("sk-1".into()));
        assert_eq!(find("EMPTY"), Err("EMPTY is empty".into()));
        assert_eq!(find("NONE"), Err("NONE is not set".into()));
    }

    #[test]
    fn a_file_that_changes_is_stale() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let seen = Seen::at(&path);
        assert!(!seen.is_stale());
        std::fs::write(&path, "sk-2\n").unwrap();
        assert!(seen.is_stale());
        let secret = SecretRef::File(path.to_str().unwrap().into());
        assert_eq!(Secrets::of_process().find(&secret), Ok("sk-2".into()));
    }

    #[test]
    fn what_a_provider_was_given_stays_when_its_file_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let secret = SecretRef::File(path.to_str().unwrap().into());
        let secrets = Secrets::of_process();
        assert!(secrets.keep(&secret).unwrap_err().contains("cannot be read"));
        std::fs::write(&path, "sk-1\n").unwrap();
        assert_eq!(secrets.keep(&secret), Ok("sk-1".into()));
        std::fs::write(&path, "").unwrap();
        assert_eq!(secrets.clone().keep(&secret), Ok("sk-1".into()));
        assert_eq!(
            secrets.find(&secret),
            Err(format!("{} is empty", path.display())),
            "a caller's key goes"
        );
        std::fs::remove_file(&path).unwrap();
        assert_eq!(secrets.keep(&secret), Ok("sk-1".into()));
        std::fs::write(&path, "sk-2\n").unwrap();
        assert_eq!(secrets.keep(&secret), Ok("sk-2".into()));
    }
}
