//! Where the official clients live: a virtual environment and a folder of Node packages under `target/clients`, made on
//! first use, and how a script runs there.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The root of the repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn workspace() -> PathBuf {
    let dir = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    dir.join("clients")
}

fn run(command: &mut Command) -> Result<String, String> {
    let out = command
        .output()
        .map_err(|e| format!("{:?}: {e}", command.get_program()))?;
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    if out.status.success() { Ok(said) } else { Err(said) }
}

/// A virtual environment with the packages, or why there is none.
fn python() -> Result<PathBuf, String> {
    static READY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    READY
        .get_or_init(|| {
            let venv = workspace().join("venv");
            let python = venv.join("bin/python");
            if !python.exists() {
                run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
            }
            let wanted = root().join("tests/clients/requirements.txt");
            run(Command::new(&python)
                .args(["-m", "pip", "install", "--quiet", "--upgrade", "-r"])
                .arg(wanted))?;
            Ok(python)
        })
        .clone()
}

/// A folder with the packages and the scripts, or why there is none.
fn node() -> Result<PathBuf, String> {
    static READY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    READY
        .get_or_init(|| {
            run(Command::new("node").arg("--version"))?;
            let dir = workspace().join("node");
            std::fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
            let from = root().join("tests/clients/package.json");
            std::fs::copy(from, dir.join("package.json")).map_err(|e| e.to_string())?;
            run(Command::new("npm")
                .args(["update", "--no-audit", "--no-fund", "--silent"])
                .current_dir(&dir))?;
            Ok(dir)
        })
        .clone()
}

/// One script in one language.
#[derive(Clone, Copy)]
pub enum Part {
    /// By its file's name.
    Python(&'static str),
    /// By its file's name.
    Node(&'static str),
}

/// Says that a part does not run, and why; with `WEIR_CLIENTS=required` that is a failure.
pub fn skipped(part: &str, why: &str) {
    assert_ne!(
        std::env::var("WEIR_CLIENTS").as_deref(),
        Ok("required"),
        "{part} cannot run: {why}"
    );
    // Past the harness, which keeps what a passing test prints: a part that did not run must be seen.
    let _ = writeln!(std::io::stderr(), "SKIPPED {part}: {why}");
}

/// Runs a script; `None`: it was skipped, and the reason printed.
pub fn script(part: Part, folder: &str, env: &[(String, String)]) -> Option<Result<String, String>> {
    let (tool, name) = match part {
        Part::Python(name) => (python(), name),
        Part::Node(name) => (node(), name),
    };
    let tool = match tool {
        Ok(t) => t,
        Err(why) => {
            skipped(&format!("{folder}/{name}"), &why);
            return None;
        }
    };
    let path = root().join(folder).join(name);
    let mut command = match part {
        Part::Python(_) => {
            let mut c = Command::new(tool);
            c.arg(path);
            c
        }
        Part::Node(_) => {
            // Modules are looked up from the script's own folder, so it goes where they lie.
            let here = tool.join(format!("{}-{name}", folder.replace('/', "-")));
            std::fs::copy(&path, &here).expect("the script is copied");
            let mut c = Command::new("node");
            c.arg(here);
            c
        }
    };
    command
        .envs(env.iter().map(|(k, v)| (k, v)))
        .env_remove("OPENAI_API_KEY")
        .env_remove("OPENAI_BASE_URL");
    command
        .env("LANGSMITH_TRACING", "false")
        .env("AI_SDK_LOG_WARNINGS", "false");
    Some(run(&mut command))
}
