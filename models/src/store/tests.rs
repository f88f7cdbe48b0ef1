use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use super::*;

/// Remembers what it was told.
#[derive(Default)]
struct Seen {
    updates: Mutex<Vec<(Phase, u64, Option<u64>)>>,
    notes: Mutex<Vec<String>>,
}

impl Progress for Seen {
    fn update(&self, u: Update<'_>) {
        self.updates.lock().unwrap().push((u.phase, u.done, u.total));
    }
    fn note(&self, _: &str, text: &str) {
        self.notes.lock().unwrap().push(text.to_owned());
    }
}

impl Seen {
    fn count(&self, phase: Phase) -> usize {
        self.updates
            .lock()
            .unwrap()
            .iter()
            .filter(|u| u.0 == phase)
            .count()
    }
}

struct Room {
    dir: tempfile::TempDir,
}

impl Room {
    fn new() -> Room {
        Room {
            dir: tempfile::tempdir().unwrap(),
        }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        path
    }
    /// A store with the artifact `thing`, its one member `m/data.bin` at `source`.
    fn store(&self, source: &str, content: Option<&[u8]>) -> Store {
        self.store_of(source, content.map(files::hash_bytes))
    }
    fn store_of(&self, source: &str, hash: Option<String>) -> Store {
        let pin = match hash {
            Some(hash) => format!("sha256 = \"{hash}\""),
            None => String::new(),
        };
        let trust = pin.is_empty();
        let text = format!(
            "version = 1\n[[artifact]]\nname = \"thing\"\nversion = \"1\"\nkind = \"llm\"\nlicence = \"MIT\"\n\
             source = \"{source}\"\ntrust_on_first_use = {trust}\n[[artifact.member]]\nfile = \"data.bin\"\n\
             path = \"m/data.bin\"\n{pin}\n"
        );
        let manifest = Manifest::parse(&text, "linux-x86_64").unwrap();
        Store::open(self.path("cache")).unwrap().with_manifest(manifest)
    }
    fn file_source(&self) -> String {
        format!("file:{}", self.path("src").display())
    }
    /// An executable script. Written by a shell, so that this process never holds it open for writing while another
    /// test's thread forks.
    fn script(&self, name: &str, body: &str) -> OsString {
        let path = self.path(name);
        let wrote = Command::new("sh")
            .args(["-c", "printf '%s' \"$2\" > \"$1\" && chmod +x \"$1\"", "sh"])
            .arg(&path)
            .arg(format!(
                "#!/bin/sh\nif [ \"$1\" = --version ]; then exit 0; fi\n{body}\n"
            ))
            .status()
            .unwrap();
        assert!(wrote.success());
        path.into()
    }
    fn zip(&self, name: &str, members: &[(&str, &[u8])]) -> PathBuf {
        let path = self.path(name);
        let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
        for (name, bytes) in members {
            zip.start_file(*name, zip::write::SimpleFileOptions::default())
                .unwrap();
            zip.write_all(bytes).unwrap();
        }
        zip.finish().unwrap();
        path
    }
}

#[test]
fn a_pull_puts_verified_read_only_files_in_one_folder_and_cleans_up() {
    let room = Room::new();
    room.write("src/m/data.bin", b"hello");
    let store = room.store(&room.file_source(), Some(b"hello"));
    assert!(!store.status("thing").unwrap().present);
    assert!(matches!(
        store.locate_verified("thing"),
        Err(StoreError::Absent { .. })
    ));
    let seen = Seen::default();
    let located = store.pull("thing", &seen).unwrap();
    let file = located.file("data.bin").unwrap();
    assert_eq!(std::fs::read(file).unwrap(), b"hello");
    assert_eq!(file.parent().unwrap(), located.dir);
    assert!(!std::fs::symlink_metadata(file).unwrap().is_symlink());
    assert!(file.metadata().unwrap().permissions().readonly());
    assert!(!room.path("cache/tmp/thing").exists());
    assert_eq!(
        seen.updates.lock().unwrap().last(),
        Some(&(Phase::Done, 5, Some(5)))
    );
    assert!(store.status("thing").unwrap().present);
    assert_eq!(store.locate_verified("thing").unwrap(), located);
    assert!(matches!(
        located.file("other"),
        Err(StoreError::MemberMissing { .. })
    ));
}

#[test]
fn a_second_pull_fetches_nothing_even_when_the_source_is_gone() {
    let room = Room::new();
    room.write("src/m/data.bin", b"hello");
    let store = room.store(&room.file_source(), Some(b"hello"));
    let located = store.pull("thing", &Silent).unwrap();
    std::fs::remove_dir_all(room.path("src")).unwrap();
    let seen = Seen::default();
    store.pull("thing", &seen).unwrap();
    assert_eq!(seen.count(Phase::Extracting), 0);
    // The link is gone, the blob is not.
    std::fs::remove_file(located.file("data.bin").unwrap()).unwrap();
    store.pull("thing", &Silent).unwrap();
    store.locate_verified("thing").unwrap();
}

#[test]
fn a_wrong_hash_names_both_and_leaves_nothing_in_sight() {
    let room = Room::new();
    room.write("src/m/data.bin", b"evil");
    let store = room.store(&room.file_source(), Some(b"hello"));
    let error = store.pull("thing", &Silent).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&files::hash_bytes(b"evil")) && text.contains(&files::hash_bytes(b"hello")),
        "{text}"
    );
    assert!(!store.status("thing").unwrap().present);
    assert_eq!(files::bytes_below(&room.path("cache/blobs")), 0);
    // The source was mended: the next pull works.
    room.write("src/m/data.bin", b"hello");
    store.pull("thing", &Silent).unwrap();
}

#[test]
fn damage_on_disk_is_found_at_load_and_mended_by_a_pull() {
    let room = Room::new();
    room.write("src/m/data.bin", b"hello");
    let store = room.store(&room.file_source(), Some(b"hello"));
    let file = store
        .pull("thing", &Silent)
        .unwrap()
        .file("data.bin")
        .unwrap()
        .to_owned();
    std::fs::remove_file(&file).unwrap();
    std::fs::write(&file, b"hellO").unwrap();
    let error = store.locate_verified("thing").unwrap_err();
    assert!(
        matches!(&error, StoreError::Mismatch { on_disk: true, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("weir models pull thing"));
    store.pull("thing", &Silent).unwrap();
    store.locate_verified("thing").unwrap();
}

#[test]
fn first_use_records_the_hash_says_so_and_holds_to_it() {
    let room = Room::new();
    room.write("src/m/data.bin", b"one");
    let store = room.store(&room.file_source(), None);
    assert!(!store.status("thing").unwrap().pinned);
    let seen = Seen::default();
    store.pull("thing", &seen).unwrap();
    assert!(seen.notes.lock().unwrap()[0].contains(&files::hash_bytes(b"one")));
    assert!(store.status("thing").unwrap().pinned);
    store.locate_verified("thing").unwrap();
    // The source changes its mind: no longer trusted.
    std::fs::remove_dir_all(room.path("cache/artifacts")).unwrap();
    std::fs::remove_dir_all(room.path("cache/blobs")).unwrap();
    room.write("src/m/data.bin", b"two");
    assert!(matches!(
        store.pull("thing", &Silent),
        Err(StoreError::Mismatch { .. })
    ));
}

#[test]
fn a_missing_member_is_named_with_what_is_there() {
    let room = Room::new();
    let zip = room.zip("a.whl", &[("n/data.bin", b"x"), ("readme.txt", b"y")]);
    for source in [format!("file:{}", zip.display()), room.file_source()] {
        room.write("src/other.bin", b"x");
        let error = room
            .store(&source, Some(b"x"))
            .pull("thing", &Silent)
            .unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, StoreError::MemberMissing { .. }), "{text}");
        assert!(
            text.contains("m/data.bin") && (text.contains("n/data.bin") || text.contains("other.bin")),
            "{text}"
        );
    }
}

/// A zip whose one member unpacks to `real` bytes, where the archive claims `claimed`.
fn zip_that_lies(room: &Room, real: usize, claimed: u32) -> PathBuf {
    let path = room.zip("lies.whl", &[("m/data.bin", &vec![0; real])]);
    let mut bytes = std::fs::read(&path).unwrap();
    // The size stands in the member's own header and in the directory at the end.
    let real = u32::try_from(real).unwrap().to_le_bytes();
    let places: Vec<usize> = (0..bytes.len() - 3)
        .filter(|at| bytes[*at..at + 4] == real)
        .collect();
    assert!(places.len() >= 2, "{places:?}");
    for at in places {
        bytes[at..at + 4].copy_from_slice(&claimed.to_le_bytes());
    }
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn an_archive_cannot_unpack_more_than_the_manifest_allows() {
    let room = Room::new();
    let honest = room.zip("a.whl", &[("m/data.bin", &[0; 300_000])]);
    let lying = zip_that_lies(&room, 300_001, 900);
    for (zip, bytes) in [(&honest, Some(1_000)), (&lying, Some(1_000)), (&lying, None)] {
        let mut store = room.store(&format!("file:{}", zip.display()), None);
        store.manifest.artifacts[0].members[0].bytes = bytes;
        let error = store.pull("thing", &Silent).unwrap_err();
        let too_large = matches!(
            error,
            StoreError::TooLarge {
                found: 300_000,
                most: 1_000,
                ..
            }
        );
        assert_eq!(too_large, zip == &honest, "{bytes:?}: {error}");
        let left = files::bytes_below(&room.path("cache"));
        assert!(left <= 1_500, "{left} bytes are left over");
    }
    let store = room.store(&format!("file:{}", honest.display()), None);
    assert!(store.pull("thing", &Silent).is_ok());
}

#[test]
fn a_full_disk_is_refused_before_anything_is_fetched() {
    let room = Room::new();
    room.write("src/m/data.bin", b"hello");
    let mut store = room.store(&room.file_source(), Some(b"hello"));
    store.settings.free_bytes = |_| Some(1_000);
    let seen = Seen::default();
    let error = store.pull("thing", &seen).unwrap_err();
    assert!(
        matches!(
            &error,
            StoreError::DiskFull {
                free: Some(1_000),
                need: Some(_),
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(seen.count(Phase::Extracting), 0);
}

#[test]
fn unknown_names_list_the_known_ones() {
    let room = Room::new();
    let error = room
        .store("file:/x", Some(b"x"))
        .pull("other", &Silent)
        .unwrap_err();
    assert!(error.to_string().contains("thing"));
}

#[test]
fn two_at_once_fetch_once() {
    let room = Room::new();
    room.write("src/m/data.bin", &vec![7; 3 << 20]);
    let store = room.store(&room.file_source(), Some(&vec![7; 3 << 20]));
    let seen = Seen::default();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| store.pull("thing", &seen).unwrap());
        }
    });
    let full = seen
        .updates
        .lock()
        .unwrap()
        .iter()
        .filter(|u| u.0 == Phase::Extracting && u.1 == 3 << 20)
        .count();
    assert_eq!((full, seen.count(Phase::Done)), (1, 4));
}

/// The other process of the test below; does nothing in a run of its own.
#[test]
fn child_that_pulls() {
    if let Some(dir) = std::env::var_os("WEIR_TEST_CHILD") {
        let room = PathBuf::from(dir);
        let text = std::fs::read_to_string(room.join("manifest.toml")).unwrap();
        let manifest = Manifest::parse(&text, "linux-x86_64").unwrap();
        let _ = Store::open(room.join("cache"))
            .unwrap()
            .with_manifest(manifest)
            .pull("thing", &Silent);
    }
}

/// A process is killed in the middle of a pull while another waits for it: the other one takes over.
#[test]
#[cfg(target_os = "linux")]
fn a_killed_process_leaves_a_usable_store_and_frees_its_lock() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let room = Room::new();
    let content = vec![9; 1 << 20];
    let pipe = room.path("src/m/data.bin");
    std::fs::create_dir_all(pipe.parent().unwrap()).unwrap();
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let source = room.file_source();
    let store = room.store(&source, Some(&content));
    let text = format!(
        "version = 1\n[[artifact]]\nname = \"thing\"\nversion = \"1\"\nkind = \"llm\"\nlicence = \"MIT\"\n\
         source = \"{source}\"\n[[artifact.member]]\nfile = \"data.bin\"\npath = \"m/data.bin\"\nsha256 = \"{}\"\n",
        files::hash_bytes(&content)
    );
    room.write("manifest.toml", text.as_bytes());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::child_that_pulls"])
        .env("WEIR_TEST_CHILD", room.dir.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // Opening a pipe waits for its reader, and a megabyte does not fit into it: the child is in the middle now.
    let mut feed = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    feed.write_all(&content[..512 << 10]).unwrap();
    thread::scope(|scope| {
        let (waits, waiting) = std::sync::mpsc::channel();
        struct Tell(Mutex<std::sync::mpsc::Sender<()>>);
        impl Progress for Tell {
            fn update(&self, u: Update<'_>) {
                if u.phase == Phase::Waiting {
                    self.0.lock().unwrap().send(()).unwrap();
                }
            }
        }
        let store = &store;
        let other = scope.spawn(move || store.pull("thing", &Tell(Mutex::new(waits))));
        waiting.recv().unwrap();
        std::fs::remove_file(&pipe).unwrap();
        std::fs::write(&pipe, &content).unwrap();
        assert!(
            room.path("cache/tmp/thing/data.bin").exists(),
            "the child was in the middle"
        );
        assert!(!store.status("thing").unwrap().present);
        child.kill().unwrap();
        child.wait().unwrap();
        other.join().unwrap().unwrap();
    });
    store.locate_verified("thing").unwrap();
    assert!(!room.path("cache/tmp/thing").exists());
}

#[test]
fn pip_brings_a_wheel_and_its_bytes_are_seen() {
    let room = Room::new();
    let wheel = room.zip("thing-1-py3-none-any.whl", &[("m/data.bin", b"hello")]);
    let mut store = room.store("pip:thing==1", Some(b"hello"));
    store.settings.pip = Some(room.script("pip", &bringing(&wheel)));
    let seen = Seen::default();
    let located = store.pull("thing", &seen).unwrap();
    assert_eq!(
        std::fs::read(located.file("data.bin").unwrap()).unwrap(),
        b"hello"
    );
    let bytes = wheel.metadata().unwrap().len();
    assert!(
        seen.updates
            .lock()
            .unwrap()
            .contains(&(Phase::Downloading, bytes, None))
    );
}

/// The body of a pip that brings this file under its own name.
fn bringing(wheel: &Path) -> String {
    format!(
        "while [ $# -gt 0 ]; do [ \"$1\" = --dest ] && dest=$2; shift; done; cp '{}' \"$dest\"",
        wheel.display()
    )
}

/// The body of a pip that reaches no index.
const OFFLINE: &str = "echo \"WARNING: Retrying after connection broken by 'NewConnectionError'\" >&2\n\
                       echo 'ERROR: No matching distribution found for thing==1' >&2\nexit 1";

#[test]
fn a_wheel_that_came_whole_is_not_fetched_twice() {
    let room = Room::new();
    let wheel = room.zip("thing-1-py3-none-any.whl", &[("m/data.bin", b"hello")]);
    let mut store = room.store("pip:thing==1", Some(b"hello"));
    store.settings.pip = Some(room.script("pip", &bringing(&wheel)));
    // Room for the download, none for what is taken out of it.
    store.settings.free_bytes = |folder| Some(if folder.ends_with("thing") { 1 } else { 1 << 40 });
    let error = store.pull("thing", &Silent).unwrap_err();
    assert!(matches!(&error, StoreError::DiskFull { .. }), "{error}");
    store.settings.free_bytes = |_| None;
    store.settings.pip = Some(room.script("offline", OFFLINE));
    let located = store.pull("thing", &Silent).unwrap();
    assert_eq!(
        std::fs::read(located.file("data.bin").unwrap()).unwrap(),
        b"hello"
    );
    assert!(!room.path("cache/tmp/thing").exists());
}

#[test]
fn a_wheel_that_is_wrong_or_not_whole_is_asked_for_again() {
    let room = Room::new();
    let wrong = room.zip("a-thing-1-py3-none-any.whl", &[("m/data.bin", b"evil")]);
    let right = room.zip("thing-1-py3-none-any.whl", &[("m/data.bin", b"hello")]);
    let mut store = room.store("pip:thing==1", Some(b"hello"));
    store.settings.pip = Some(room.script("wrong", &bringing(&wrong)));
    let error = store.pull("thing", &Silent).unwrap_err();
    assert!(matches!(&error, StoreError::Mismatch { .. }), "{error}");
    // The network goes while it writes.
    let half = format!("{}\n{OFFLINE}", bringing(&wrong));
    store.settings.pip = Some(room.script("half", &half));
    let error = store.pull("thing", &Silent).unwrap_err();
    assert!(
        matches!(&error, StoreError::NoNetwork { .. }) && error.to_string().contains("from its beginning"),
        "{error}"
    );
    store.settings.pip = Some(room.script("right", &bringing(&right)));
    store.pull("thing", &Silent).unwrap();
}

#[test]
fn trouble_with_pip_is_told_apart() {
    let room = Room::new();
    let mut store = room.store("pip:thing==1", Some(b"hello"));
    store.settings.pip = Some(room.path("no-such-pip").into());
    let error = store.pull("thing", &Silent).unwrap_err();
    assert!(
        matches!(&error, StoreError::NoPip { .. }) && error.to_string().contains("WEIR_PIP"),
        "{error}"
    );
    store.settings.pip = Some(room.script("offline", OFFLINE));
    let error = store.pull("thing", &Silent).unwrap_err();
    assert!(
        matches!(&error, StoreError::NoNetwork { .. }) && error.absent(),
        "{error}"
    );
    store.settings.pip = Some(room.script("empty", "exit 0"));
    let error = store.pull("thing", &Silent).unwrap_err();
    assert!(matches!(&error, StoreError::Pip { .. }), "{error}");
}

/// Serves one answer after the other, each on a connection of its own; gives back the heads of the requests.
fn serve(answers: Vec<Vec<u8>>) -> (String, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("http://{}/files", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let answer = |(stream, bytes): (TcpStream, Vec<u8>)| {
            let mut reader = BufReader::new(stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
            reader.get_mut().write_all(&bytes).unwrap();
            // Until the other side has read all: an early reset would take bytes away.
            let _ = reader.get_mut().shutdown(std::net::Shutdown::Write);
            let _ = reader.read_to_end(&mut Vec::new());
            head.to_ascii_lowercase()
        };
        answers
            .into_iter()
            .map(|bytes| answer((listener.accept().unwrap().0, bytes)))
            .collect()
    });
    (base, server)
}

fn answer(status: &str, headers: &str, length: usize, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n");
    [head.as_bytes(), body].concat()
}

#[test]
fn a_cut_download_goes_on_where_it_stopped() {
    let room = Room::new();
    let (base, server) = serve(vec![
        answer("200 OK", "etag: \"v1\"\r\n", 10, b"01234"),
        answer(
            "206 Partial Content",
            "etag: \"v1\"\r\ncontent-range: bytes 5-9/10\r\n",
            5,
            b"56789",
        ),
    ]);
    let store = room.store(&base, Some(b"0123456789"));
    let error = store.pull("thing", &Silent).unwrap_err();
    assert!(
        matches!(&error, StoreError::NoNetwork { .. })
            && error.to_string().contains("what has arrived is kept"),
        "{error}"
    );
    let seen = Seen::default();
    let located = store.pull("thing", &seen).unwrap();
    assert_eq!(
        std::fs::read(located.file("data.bin").unwrap()).unwrap(),
        b"0123456789"
    );
    assert!(
        seen.updates
            .lock()
            .unwrap()
            .contains(&(Phase::Downloading, 5, Some(10)))
    );
    let heads = server.join().unwrap();
    assert!(heads[0].starts_with("get /files/m/data.bin ") && !heads[0].contains("range:"));
    assert!(
        heads[1].contains("range: bytes=5-") && heads[1].contains("if-range: \"v1\""),
        "{}",
        heads[1]
    );
}

#[test]
fn a_file_that_changed_meanwhile_is_fetched_from_the_start() {
    let room = Room::new();
    let (base, server) = serve(vec![
        answer("200 OK", "etag: \"v1\"\r\n", 10, b"01234"),
        answer("200 OK", "etag: \"v2\"\r\n", 3, b"new"),
    ]);
    let store = room.store(&base, None);
    assert!(store.pull("thing", &Silent).is_err());
    let located = store.pull("thing", &Silent).unwrap();
    assert_eq!(std::fs::read(located.file("data.bin").unwrap()).unwrap(), b"new");
    server.join().unwrap();
}

#[test]
fn a_file_that_is_not_there_is_not_a_network_problem() {
    let room = Room::new();
    let (base, server) = serve(vec![answer("404 Not Found", "", 0, b"")]);
    let error = room.store(&base, Some(b"x")).pull("thing", &Silent).unwrap_err();
    assert!(
        matches!(&error, StoreError::NotThere { .. }) && error.to_string().contains("404"),
        "{error}"
    );
    server.join().unwrap();
    // Nobody listens any more.
    let error = room.store(&base, Some(b"x")).pull("thing", &Silent).unwrap_err();
    assert!(matches!(&error, StoreError::NoNetwork { .. }), "{error}");
}

#[test]
fn a_hub_gets_repository_revision_and_token() {
    let room = Room::new();
    let (base, server) = serve(vec![answer("200 OK", "", 2, b"hi")]);
    let mut store = room.store("hf:some/repo@v2", Some(b"hi"));
    store.settings.hub = base;
    store.settings.hub_token = Some("secret".to_owned());
    store.pull("thing", &Silent).unwrap();
    let head = &server.join().unwrap()[0];
    assert!(
        head.starts_with("get /files/some/repo/resolve/v2/m/data.bin "),
        "{head}"
    );
    assert!(head.contains("authorization: bearer secret"));
}
