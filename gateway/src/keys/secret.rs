//! Keys as they are made, and the keyed hash that is all that is kept of them.
//!
//! The hash is HMAC-SHA-256 (RFC 2104) under a secret of this home, in a file of its own that only its owner reads: whoever
//! has the database without that file can neither recognise a key nor put in one of his own.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rand::TryRng;
use rand::rngs::SysRng;
use sha2::{Digest, Sha256};

/// What every stored key begins with, so that people and scanners of source code know one when they see it.
pub const PREFIX: &str = "weir_sk_";
/// Characters behind it: 238 bits.
const LENGTH: usize = 40;
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const BLOCK: usize = 64;

/// A hash of a key.
pub type Hash = [u8; 32];

/// The keyed hash, with its secret already taken in.
#[derive(Clone)]
pub struct Mac {
    inner: Sha256,
    outer: Sha256,
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mac")
    }
}

impl Mac {
    /// Under this secret.
    pub fn new(secret: &[u8; 32]) -> Self {
        let padded = |with: u8| {
            let mut block = [with; BLOCK];
            for (byte, secret) in block.iter_mut().zip(secret) {
                *byte ^= secret;
            }
            Sha256::new().chain_update(block)
        };
        Self {
            inner: padded(0x36),
            outer: padded(0x5c),
        }
    }

    /// The hash of a key.
    pub fn of(&self, key: &[u8]) -> Hash {
        let inner = self.inner.clone().chain_update(key).finalize();
        self.outer.clone().chain_update(inner).finalize().into()
    }

    /// Tells a secret from another one, and says nothing about either.
    pub fn check(&self) -> Hash {
        self.of(b"weir: the secret of these keys")
    }
}

/// A new key, from the operating system's random numbers.
///
/// # Errors
/// It gives none.
pub fn new_key() -> io::Result<String> {
    let mut key = String::with_capacity(PREFIX.len() + LENGTH);
    key.push_str(PREFIX);
    let mut bytes = [0_u8; LENGTH];
    while key.len() < PREFIX.len() + LENGTH {
        SysRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
        for byte in bytes {
            // Four times 62: each character as likely as any other.
            let drawn = (byte < 248).then(|| ALPHABET.get(usize::from(byte) % ALPHABET.len()));
            if let Some(Some(c)) = drawn
                && key.len() < PREFIX.len() + LENGTH
            {
                key.push(char::from(*c));
            }
        }
    }
    Ok(key)
}

/// Why there is no secret.
#[derive(Debug)]
pub enum NoSecret {
    /// The file is not there.
    Absent,
    /// It cannot be read, or what it holds is none. For people.
    Unfit(String),
}

/// Reads the secret.
///
/// # Errors
/// See [`NoSecret`].
pub fn read(path: &Path) -> Result<[u8; 32], NoSecret> {
    let text = std::fs::read_to_string(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => NoSecret::Absent,
        _ => NoSecret::Unfit(format!("{} cannot be read: {e}", path.display())),
    })?;
    let unfit = || NoSecret::Unfit(format!("{} does not hold 64 hexadecimal digits", path.display()));
    let text = text.trim().as_bytes();
    if text.len() != 64 {
        return Err(unfit());
    }
    let mut secret = [0_u8; 32];
    for (byte, digits) in secret.iter_mut().zip(text.chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| unfit())?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| unfit())?;
    }
    Ok(secret)
}

/// Reads the secret; made on first use, readable for its owner alone.
///
/// # Errors
/// It can be neither read nor made. For people.
pub fn read_or_make(path: &Path) -> Result<[u8; 32], String> {
    match read(path) {
        Ok(secret) => return Ok(secret),
        Err(NoSecret::Unfit(why)) => return Err(why),
        Err(NoSecret::Absent) => {}
    }
    let made = make(path);
    made.map_err(|e| format!("{} cannot be made: {e}", path.display()))?;
    read(path).map_err(|e| match e {
        NoSecret::Absent => format!("{} was made and is gone again", path.display()),
        NoSecret::Unfit(why) => why,
    })
}

/// Written whole beside its place and then put there, unless another process was quicker: then that one's counts.
fn make(path: &Path) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut secret = [0_u8; 32];
    SysRng.try_fill_bytes(&mut secret).map_err(io::Error::other)?;
    let beside = beside(path);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&beside)?;
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let written = writeln!(file, "{hex}").and_then(|()| file.sync_all());
    let placed = written.and_then(|()| match std::fs::hard_link(&beside, path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        placed => placed,
    });
    let _ = std::fs::remove_file(&beside);
    placed
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}-{:08x}", std::process::id(), rand::random::<u32>()));
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_hmac_sha_256() {
        // RFC 4231, cases 1 and 2: a short key is one with zeros behind it.
        let padded = |key: &[u8]| {
            let mut secret = [0_u8; 32];
            secret[..key.len()].copy_from_slice(key);
            Mac::new(&secret)
        };
        let hex = |hash: Hash| hash.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(
            hex(padded(&[0x0b; 20]).of(b"Hi There")),
            "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
        );
        assert_eq!(
            hex(padded(b"Jefe").of(b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn keys_differ_and_have_every_character() {
        let keys: Vec<String> = (0..200).map(|_| new_key().unwrap()).collect();
        let mut seen = std::collections::BTreeSet::new();
        for key in &keys {
            let rest = key.strip_prefix(PREFIX).unwrap();
            assert!(
                rest.len() == LENGTH && rest.bytes().all(|b| ALPHABET.contains(&b)),
                "{key}"
            );
            seen.extend(rest.bytes());
        }
        assert_eq!(seen.len(), ALPHABET.len());
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
        assert!((LENGTH as f64) * (ALPHABET.len() as f64).log2() >= 192.0);
    }

    #[test]
    fn the_secret_is_made_once_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("home/keys.secret");
        assert!(matches!(read(&path), Err(NoSecret::Absent)));
        let secret = read_or_make(&path).unwrap();
        assert_eq!(read_or_make(&path).unwrap(), secret);
        // One that was made meanwhile is kept.
        make(&path).unwrap();
        assert_eq!(read(&path).unwrap(), secret);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(
                std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        std::fs::write(&path, "zz".repeat(32)).unwrap();
        assert!(read_or_make(&path).unwrap_err().contains("hexadecimal"));
    }
}
