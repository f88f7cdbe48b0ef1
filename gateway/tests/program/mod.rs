//! The program itself in front of an upstream, and clients of plain bytes.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "tests"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};

/// A running gateway.
pub struct Weir {
    pub child: Child,
    pub address: String,
    pub admin: String,
    pub logged: BufReader<ChildStderr>,
    home: PathBuf,
}

impl Weir {
    /// Starts in `home` in front of `upstream` (`HOST:PORT`) and waits until it is ready.
    pub fn start(home: &Path, upstream: impl std::fmt::Display, drain_delay_ms: u32) -> Self {
        Self::with_plan(
            home,
            &format!(
                "version = 1\n[server]\ndrain_delay_ms = {drain_delay_ms}\n[providers.p]\nkind = \"openai\"\n\
                 base_url = \"http://{upstream}/v1\"\n[targets.one]\nprovider = \"p\"\nmodel = \"m\"\nprice = \"unmetered\"\n\
                 [routes.auto]\ntiers = [[\"one\"]]\n"
            ),
            &[],
        )
    }

    /// Starts in `home` with this plan and environment, and waits until it is ready.
    pub fn with_plan(home: &Path, text: &str, env: &[(&str, &str)]) -> Self {
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
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let logged = BufReader::new(child.stderr.take().unwrap());
        let ready = until(&mut said, "weir is ready: http://");
        let mut addresses = ready.split("http://").skip(1).map(|rest| {
            let end = rest.find(['/', ')']).unwrap();
            rest[..end].to_owned()
        });
        Self {
            child,
            address: addresses.next().unwrap(),
            admin: addresses.next().unwrap(),
            logged,
            home: home.to_owned(),
        }
    }

    /// Sends a question with these header lines; status and body of its answer.
    pub fn chat(&self, headers: &str) -> (u16, String) {
        let body = r#"{"model":"auto","messages":[{"role":"user","content":"hello"}]}"#;
        self.chat_with(headers, body)
    }

    /// The same, with this body.
    pub fn chat_with(&self, headers: &str, body: &str) -> (u16, String) {
        exchange(
            &self.address,
            &request(&format!("connection: close\r\n{headers}"), body),
        )
    }

    /// Asks the admin plane; `headers`: header lines.
    pub fn admin_get(&self, path: &str, headers: &str) -> (u16, String) {
        let text = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n");
        exchange(&self.admin, &text)
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

/// Sends bytes and reads to the end: status and body of the answer. Chunks are left as they are.
pub fn exchange(address: &str, request: &str) -> (u16, String) {
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {answer}"));
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// Looks again and again until it is so, for a while; how long that took.
pub fn soon(what: &str, within: std::time::Duration, mut is: impl FnMut() -> bool) -> std::time::Duration {
    let clock = gateway::clock::Clock::system();
    let begin = clock.now();
    // Nobody ever sends: what comes is the time to look again.
    let (_quiet, looks) = std::sync::mpsc::channel::<()>();
    loop {
        let looked = clock.now().since(begin);
        if is() {
            return looked;
        }
        assert!(looked < within, "not within {within:?}: {what}");
        let _ = looks.recv_timeout(std::time::Duration::from_millis(5));
    }
}

/// Runs `weir` in a home.
pub fn weir(home: &Path, args: &[&str]) -> Output {
    let mut weir = Command::new(env!("CARGO_BIN_EXE_weir"));
    weir.args(args)
        .current_dir(home)
        .env("WEIR_HOME", home)
        .output()
        .unwrap()
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
