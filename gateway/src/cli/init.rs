//! `weir init`: writes the built-in plan.

use std::io::Write;

use super::{Exit, Init};

/// Runs it.
pub fn run(args: &Init) -> Exit {
    let mut options = std::fs::OpenOptions::new();
    options.write(true);
    if args.force {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let written = options
        .open(&args.file)
        .and_then(|mut file| file.write_all(routing::plan::BUILTIN.as_bytes()));
    let path = args.file.display();
    match written {
        Ok(()) => {
            out!("{path} is written. `weir check {path}` reads it; `weir` uses it from this folder.");
            Exit::Fine
        }
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            eprintln!("{path} is there already; `weir init --force {path}` replaces it");
            Exit::Finding
        }
        Err(e) => {
            eprintln!("{path} cannot be written: {e}");
            Exit::Finding
        }
    }
}
