//! The program itself in front of an upstream, and clients of plain bytes.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests"
)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

/// A running gateway.
pub struct Weir {
    pub child: Child,
    pub address: String,
    pub logged: BufReader<ChildStderr>,
    home: PathBuf,
}

impl Weir {
    /// Starts in `home` in front of `upstream` (`HOST:PORT`) and waits until it is ready.
    pub fn start(home: &Path, upstream: impl std::fmt::Display, drain_delay_ms: u32) -> Self {
        let text = format!(
            "version = 1\n[server]\ndrain_delay_ms = {drain_delay_ms}\n[providers.p]\nkind = \"openai\"\n\
             base_url = \"http://{upstream}/v1\"\n[targets.one]\nprovider = \"p\"\nmodel = \"m\"\nprice = \"unmetered\"\n\
             [routes.auto]\ntiers = [[\"one\"]]\n"
        );
        Self::with(home, &text)
    }

    /// Starts in `home` with this plan and waits until it is ready.
    pub fn with(home: &Path, text: &str) -> Self {
        let plan = home.join("plan.toml");
        std::fs::write(&plan, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "localhost:0",
                "--config",
            ])
            .arg(&plan)
            .env("WEIR_HOME", home)
            .env_remove("WEIR_LOG")
            .env("NO_PROXY", "127.0.0.1")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let logged = BufReader::new(child.stderr.take().unwrap());
        let ready = until(&mut said, "weir is ready: http://");
        let address = ready.split("http://").nth(1).unwrap().split('/').next().unwrap();
        Self {
            child,
            address: address.to_owned(),
            logged,
            home: home.to_owned(),
        }
    }

    /// Sends a question.
    pub fn ask(&self) -> TcpStream {
        let body = r#"{"model":"auto","messages":[{"role":"user","content":"hello"}]}"#;
        let mut client = TcpStream::connect(&self.address).unwrap();
        client.write_all(request("", body).as_bytes()).unwrap();
        client
    }

    /// Sends a body on a connection that ends with its answer.
    pub fn send(&self, body: &str) -> TcpStream {
        let mut client = TcpStream::connect(&self.address).unwrap();
        let request = request("connection: close\r\n", body);
        client.write_all(request.as_bytes()).unwrap();
        client
    }

    /// The records that it has written.
    pub fn records(&self) -> Vec<String> {
        records(&self.home)
    }

    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let told = Command::new("kill").args([name, &pid]).status().unwrap();
        assert!(told.success());
    }

    pub fn terminate(&self) {
        self.signal("-TERM");
    }
}

impl Drop for Weir {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request's bytes; `more`: header lines.
pub fn request(more: &str, body: &str) -> String {
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n{more}content-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The whole lines of all records in a home; what a file begins with is none.
pub fn records(home: &Path) -> Vec<String> {
    let mut records = Vec::new();
    for entry in std::fs::read_dir(home.join("records")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let whole = text.split_inclusive('\n').filter(|l| l.ends_with('\n'));
        records.extend(whole.filter(|l| l.contains("\"id\":")).map(str::to_owned));
    }
    records
}

/// `weir audit verify` with these arguments.
pub fn audit(args: &[&str]) -> Output {
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    weir.args(["audit", "verify"]).args(args).output().unwrap()
}

/// Reads lines until one holds `text`.
pub fn until(lines: &mut impl BufRead, text: &str) -> String {
    let mut line = String::new();
    while lines.read_line(&mut line).unwrap() > 0 {
        if line.contains(text) {
            return line;
        }
        line.clear();
    }
    panic!("it ended before it said `{text}`");
}
