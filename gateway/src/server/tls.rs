//! TLS of the data plane: 1.2 and 1.3 by rustls, certificate and key from files that are read again when they change.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use routing::plan::TlsConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::runtime::secrets::Seen;

/// A handshake must be over within so long.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// First byte of every TLS connection: a handshake record.
pub const HANDSHAKE: u8 = 0x16;

/// What connections are served with, and the files it came from.
pub struct Loaded {
    /// For new connections.
    pub config: Arc<ServerConfig>,
    seen: Vec<Seen>,
}

impl Loaded {
    /// Reads the files.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it; never what is in it.
    pub fn new(tls: &TlsConfig) -> Result<Self, String> {
        // Looked at before they are read: what changes in between is seen the next time.
        let seen = seen(tls);
        let chain = certificates(&tls.cert_file, "cert_file")?;
        let key = PrivateKeyDer::from_pem_file(Path::new(&*tls.key_file))
            .map_err(|e| format!("server.tls.key_file `{}` holds no private key: {e}", tls.key_file))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("TLS cannot be set up: {e}"))?;
        let clients = match &tls.client_ca_file {
            None => versions.with_no_client_auth(),
            Some(file) => {
                let mut roots = RootCertStore::empty();
                for cert in certificates(file, "client_ca_file")? {
                    roots.add(cert).map_err(|e| {
                        format!(
                            "server.tls.client_ca_file `{file}` holds a certificate that cannot be used: {e}"
                        )
                    })?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                    .build()
                    .map_err(|e| format!("server.tls.client_ca_file `{file}` cannot be used: {e}"))?;
                versions.with_client_cert_verifier(verifier)
            }
        };
        let mut config = clients.with_single_cert(chain, key).map_err(|e| {
            format!(
                "server.tls: `{}` and `{}` do not belong together, or cannot be used: {e}",
                tls.cert_file, tls.key_file
            )
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            config: Arc::new(config),
            seen,
        })
    }

    /// One of the files has changed since.
    pub fn is_stale(&self) -> bool {
        self.seen.iter().any(Seen::is_stale)
    }

    /// Read anew; where that fails, the same as before until the files change again, and why.
    pub fn again(&self, tls: &TlsConfig) -> (Self, Option<String>) {
        let seen = seen(tls);
        match Self::new(tls) {
            Ok(loaded) => (loaded, None),
            Err(why) => {
                let config = Arc::clone(&self.config);
                (Self { config, seen }, Some(why))
            }
        }
    }
}

fn seen(tls: &TlsConfig) -> Vec<Seen> {
    [
        Some(&tls.cert_file),
        Some(&tls.key_file),
        tls.client_ca_file.as_ref(),
    ]
    .into_iter()
    .flatten()
    .map(|path| Seen::at(&**path))
    .collect()
}

fn certificates(path: &str, key: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong =
        |e: &dyn std::fmt::Display| format!("server.tls.{key} `{path}` is no PEM file of certificates: {e}");
    let found = CertificateDer::pem_file_iter(Path::new(path)).map_err(|e| wrong(&e))?;
    let certs = found.collect::<Result<Vec<_>, _>>().map_err(|e| wrong(&e))?;
    if certs.is_empty() {
        return Err(wrong(&"there is none in it"));
    }
    Ok(certs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAF: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/providers/pool/testdata/test-leaf.pem"
    );
    const KEY: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/providers/pool/testdata/test-leaf.key.pem"
    );
    const CA: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src/providers/pool/testdata/test-ca.pem"
    );

    fn config(cert: &str, key: &str, ca: Option<&str>) -> TlsConfig {
        TlsConfig {
            cert_file: cert.into(),
            key_file: key.into(),
            client_ca_file: ca.map(Into::into),
        }
    }

    #[test]
    fn files_that_are_none_are_named_and_never_quoted() {
        assert!(Loaded::new(&config(LEAF, KEY, Some(CA))).is_ok());
        for (tls, part) in [
            (config("/nowhere.pem", KEY, None), "cert_file `/nowhere.pem`"),
            (config(LEAF, "/nowhere.key", None), "key_file `/nowhere.key`"),
            (config(KEY, KEY, None), "cert_file"),
            (config(LEAF, LEAF, None), "key_file"),
            (config(CA, KEY, None), "do not belong together"),
            (config(LEAF, KEY, Some(KEY)), "client_ca_file"),
        ] {
            let why = Loaded::new(&tls).err().unwrap();
            assert!(why.contains(part), "{why}");
            assert!(!why.contains("PRIVATE"), "{why}");
        }
    }

    #[test]
    fn a_change_that_cannot_be_read_leaves_what_was() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = (dir.path().join("c.pem"), dir.path().join("k.pem"));
        std::fs::copy(LEAF, &cert).unwrap();
        std::fs::copy(KEY, &key).unwrap();
        let tls = config(cert.to_str().unwrap(), key.to_str().unwrap(), None);
        let loaded = Loaded::new(&tls).unwrap();
        assert!(!loaded.is_stale());
        std::fs::remove_file(&key).unwrap();
        assert!(loaded.is_stale());
        let (same, why) = loaded.again(&tls);
        assert!(why.unwrap().contains("key_file") && Arc::ptr_eq(&same.config, &loaded.config));
        assert!(!same.is_stale(), "told once");
        std::fs::copy(KEY, &key).unwrap();
        let (new, why) = same.again(&tls);
        assert!(why.is_none() && !Arc::ptr_eq(&new.config, &loaded.config));
    }
}
