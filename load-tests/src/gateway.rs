//! Starting the real gateway for a demo, a soak or a test, as its user would: the program, a plan, an environment. Nothing
//! of the gateway's code is used here.

use std::collections::VecDeque;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::client::Client;
use crate::clock::now;

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The plan; `{listen}` and `{admin}` are filled in.
    pub plan: String,
    /// Where it keeps its things.
    pub home: Home,
    /// Further environment.
    pub env: Vec<(String, String)>,
    /// Print the gateway's own lines while it starts.
    pub echo: bool,
    /// How long it may take to be ready; a first start downloads its models.
    pub ready_within: Duration,
}

impl Options {
    /// A gateway without models, in a folder of its own, with this plan and environment.
    pub fn fresh(plan: String, env: Vec<(String, String)>) -> Self {
        Self {
            plan,
            home: Home::Fresh,
            env,
            echo: false,
            ready_within: Duration::from_secs(60),
        }
    }
}

/// Where a started gateway keeps its things. Its records always go to a folder of its own that is removed at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// Everything in that folder: it starts with no models.
    Fresh,
    /// The models of the user's own installation are used, and what is fetched is kept there for later.
    UsersModels,
}

/// A running gateway. Dropping it ends it at once; [`Gateway::stop`] lets it drain.
pub struct Gateway {
    child: Child,
    url: String,
    admin: String,
    lines: Lines,
    echo: Arc<AtomicBool>,
    dir: TempDir,
}

/// Why there is no gateway, or how it ended.
#[derive(Debug)]
pub struct GatewayError(pub String);

impl fmt::Display for GatewayError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for GatewayError {}

impl From<std::io::Error> for GatewayError {
    fn from(e: std::io::Error) -> Self {
        Self(e.to_string())
    }
}

/// The last lines that the gateway printed.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<VecDeque<String>>>);

impl Lines {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= 400 {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn all(&self) -> Vec<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    fn follow(&self, from: impl Read + Send + 'static, echo: Arc<AtomicBool>) {
        let lines = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                if echo.load(Ordering::Relaxed) {
                    eprintln!("  | {line}");
                }
                lines.push(line);
            }
        });
    }
}

/// The `weir` program: `$WEIR_BIN`, else the one of this build. Run by cargo, the build is brought up to date first, with
/// cargo's own progress on stderr; otherwise the program must lie beside this one.
pub fn binary() -> Result<PathBuf, GatewayError> {
    if let Some(named) = std::env::var_os("WEIR_BIN") {
        return existing(PathBuf::from(named));
    }
    let me = std::env::current_exe()?;
    let folder = me.parent().unwrap_or(Path::new("."));
    // Tests and examples run one folder below the programs.
    let folder = match folder.file_name().and_then(|n| n.to_str()) {
        Some("deps" | "examples") => folder.parent().unwrap_or(folder),
        _ => folder,
    };
    let program = folder.join(format!("weir{}", std::env::consts::EXE_SUFFIX));
    if let Some(cargo) = std::env::var_os("CARGO") {
        let mut build = Command::new(cargo);
        build
            .args(["build", "-p", "gateway", "--bin", "weir"])
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        if !program.exists() {
            eprintln!("Building the gateway (once; a few minutes on a small machine) ...");
        }
        let built = build.stdout(Stdio::null()).status()?;
        if !built.success() {
            return Err(GatewayError(
                "the gateway could not be built; cargo's words are above".into(),
            ));
        }
    }
    existing(program)
}

fn existing(program: PathBuf) -> Result<PathBuf, GatewayError> {
    if program.is_file() {
        return Ok(program);
    }
    let profile = if cfg!(debug_assertions) { "" } else { " --release" };
    let hint = format!("build it with: cargo build{profile} -p gateway, or name it in WEIR_BIN");
    Err(GatewayError(format!(
        "there is no gateway at {}; {hint}",
        program.display()
    )))
}

/// Makes `home` use the models that the user has, or will have.
fn link_models(home: &Path) -> std::io::Result<()> {
    let users = std::env::var_os("WEIR_HOME")
        .filter(|v| !v.is_empty())
        .map(PathBuf::from);
    let cache = match &users {
        Some(users) => users.join("cache"),
        None => match directories::ProjectDirs::from("", "", "weir") {
            Some(dirs) => dirs.cache_dir().to_owned(),
            None => return Ok(()),
        },
    };
    std::fs::create_dir_all(&cache)?;
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(std::fs::canonicalize(cache)?, home.join("cache"))?;
        if let Some(manifest) = users.map(|u| u.join("manifest.toml")).filter(|m| m.exists()) {
            std::os::unix::fs::symlink(std::fs::canonicalize(manifest)?, home.join("manifest.toml"))?;
        }
    }
    Ok(())
}

fn filled(plan: &str, listen: &str, admin: &str) -> String {
    plan.replace("{listen}", listen).replace("{admin}", admin)
}

/// Two ports that were free a moment ago.
fn free_ports() -> std::io::Result<(u16, u16)> {
    let a = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let b = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok((a.local_addr()?.port(), b.local_addr()?.port()))
}

impl Gateway {
    /// Starts and waits until it is ready.
    pub async fn start(program: &Path, options: &Options) -> Result<Self, GatewayError> {
        // Between looking for a free port and taking it somebody else may be quicker.
        for _ in 0..3 {
            let mut g = Self::launch(program, options)?;
            match g.wait_ready(options.ready_within).await {
                Ok(()) => return Ok(g),
                Err(_) if g.lines.all().iter().any(|l| l.to_lowercase().contains("in use")) => {}
                Err(e) => return Err(e),
            }
        }
        Err(GatewayError("no free port was found three times in a row".into()))
    }

    fn launch(program: &Path, options: &Options) -> Result<Self, GatewayError> {
        let dir = tempfile::Builder::new().prefix("weir-lab-").tempdir()?;
        let (port, admin_port) = free_ports()?;
        let (listen, admin) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{admin_port}"));
        let plan = filled(&options.plan, &listen, &admin);
        let home = dir.path().join("home");
        std::fs::create_dir(&home)?;
        if options.home == Home::UsersModels {
            link_models(&home)?;
        }
        let path = dir.path().join("routing.toml");
        std::fs::write(&path, plan)?;
        let mut command = Command::new(program);
        command
            .args(["serve", "--config"])
            .arg(&path)
            .env("WEIR_HOME", &home)
            .envs(options.env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|e| GatewayError(format!("{} could not be started: {e}", program.display())))?;
        let lines = Lines::default();
        let echo = Arc::new(AtomicBool::new(options.echo));
        if let Some(out) = child.stdout.take() {
            lines.follow(out, echo.clone());
        }
        if let Some(err) = child.stderr.take() {
            lines.follow(err, echo.clone());
        }
        Ok(Self {
            child,
            url: format!("http://{listen}"),
            admin: format!("http://{admin}"),
            lines,
            echo,
            dir,
        })
    }

    async fn wait_ready(&mut self, within: Duration) -> Result<(), GatewayError> {
        let admin = Client::new(&self.admin).map_err(|e| GatewayError(e.to_string()))?;
        let began = now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(GatewayError(format!(
                    "the gateway ended with {status}:\n{}",
                    self.output().join("\n")
                )));
            }
            if let Ok(answer) = admin.get("/readyz").await
                && answer.status() == 200
            {
                self.echo.store(false, Ordering::Relaxed);
                return Ok(());
            }
            if now() - began > within {
                let said = self.output().join("\n");
                return Err(GatewayError(format!(
                    "the gateway was not ready in {} s:\n{said}",
                    within.as_secs()
                )));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The data plane, `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The admin plane.
    pub fn admin(&self) -> &str {
        &self.admin
    }

    /// Waits until every model that the plan can use is loaded: it is ready to answer before that.
    ///
    /// # Errors
    /// One failed, or time is up.
    pub async fn wait_models(&self, within: Duration) -> Result<(), GatewayError> {
        let admin = Client::new(&self.admin).map_err(|e| GatewayError(e.to_string()))?;
        let began = now();
        loop {
            let answer = admin
                .get("/readyz")
                .await
                .map_err(|e| GatewayError(e.to_string()))?;
            let ready: Value = answer.json().await.map_err(|e| GatewayError(e.to_string()))?;
            let artifacts = ready.get("artifacts").and_then(Value::as_array);
            let state = |a: &Value| {
                a.get("state")
                    .and_then(Value::as_str)
                    .unwrap_or("unknown")
                    .to_owned()
            };
            let states: Vec<String> = artifacts.into_iter().flatten().map(state).collect();
            if states.iter().all(|s| s == "ready") {
                return Ok(());
            }
            if states.iter().any(|s| s == "failed") || now() - began > within {
                return Err(GatewayError(format!("its models are not loaded: {ready}")));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// What `weir explain` says of each request, by this plan and with this gateway's models.
    ///
    /// # Errors
    /// It could not be run, or printed something else than a line of JSON for each.
    pub fn explain(&self, program: &Path, plan: &str, bodies: &[String]) -> Result<Vec<Value>, GatewayError> {
        let dir = self.dir.path();
        let (asked, requests) = (dir.join("explain.toml"), dir.join("requests.jsonl"));
        std::fs::write(&asked, filled(plan, "127.0.0.1:0", "localhost:0"))?;
        std::fs::write(&requests, bodies.join("\n"))?;
        let said = Command::new(program)
            .args(["explain", "--lines", "--json", "--config"])
            .arg(&asked)
            .arg("--request")
            .arg(&requests)
            .env("WEIR_HOME", self.home())
            .stdin(Stdio::null())
            .output()?;
        let lines = String::from_utf8_lossy(&said.stdout);
        let parsed: Result<Vec<Value>, _> = lines.lines().map(serde_json::from_str).collect();
        match parsed {
            Ok(values) if values.len() == bodies.len() => Ok(values),
            _ => Err(GatewayError(format!(
                "weir explain ended with {} and printed {} lines for {} requests: {}",
                said.status,
                lines.lines().count(),
                bodies.len(),
                String::from_utf8_lossy(&said.stderr)
            ))),
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its `$WEIR_HOME`; it is removed with the gateway.
    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    /// Writes another plan to its file; `{listen}` and `{admin}` are filled in as they were. It takes at a reload.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn rewrite(&self, plan: &str) -> std::io::Result<()> {
        let bare = |url: &str| url.trim_start_matches("http://").to_owned();
        let plan = filled(plan, &bare(&self.url), &bare(&self.admin));
        std::fs::write(self.dir.path().join("routing.toml"), plan)
    }

    /// Sends SIGHUP: it reads its plan again.
    pub fn hang_up(&self) {
        self.signal(rustix::process::Signal::HUP);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).ok();
        if let Some(pid) = pid.and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// What it printed, the last 400 lines.
    pub fn output(&self) -> Vec<String> {
        self.lines.all()
    }

    /// Asks it to end, waits for its drain, and ends it the hard way when that takes too long.
    ///
    /// # Errors
    /// It did not end of its own accord with exit code 0; how it did, and its last lines.
    pub async fn stop(mut self, within: Duration) -> Result<(), GatewayError> {
        self.signal(rustix::process::Signal::TERM);
        let began = now();
        while now() - began < within {
            match self.child.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(self.ended(&format!("ended with {status}"))),
                Ok(None) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(e) => return Err(self.ended(&format!("could not be waited for: {e}"))),
            }
        }
        Err(self.ended(&format!("had not ended {} s after SIGTERM", within.as_secs())))
    }

    fn ended(&self, how: &str) -> GatewayError {
        let said = self.output();
        let last = said.get(said.len().saturating_sub(12)..).unwrap_or_default();
        GatewayError(format!("the gateway {how}; its last lines:\n{}", last.join("\n")))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
