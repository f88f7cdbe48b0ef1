//! Chains that are torn, full, old and many.

use std::fs::OpenOptions;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use super::*;
use crate::telemetry::writer::files::{files, zero_hash};

fn wall() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000)
}
fn limits() -> Limits {
    Limits {
        max_file_bytes: 1 << 20,
        keep_bytes: 1 << 30,
        keep_days: 30,
    }
}
fn record(id: &str) -> Box<Record> {
    Box::new(Record::open(id, 7, Default::default()))
}

/// One record, and what follows every batch.
fn put(chain: &mut Chain, id: &str) {
    assert_eq!(chain.append([record(id)].into_iter()).unwrap(), 0);
    let untended = chain.tend();
    assert!(
        untended.rotate.is_none() && untended.prune.is_none(),
        "{untended:?}"
    );
}

/// All lines of a folder in the order of its files.
pub fn lines(dir: &Path) -> Vec<String> {
    let mut all = files(dir).unwrap();
    all.sort_by_key(|f| (f.slot, f.number));
    all.iter()
        .flat_map(|f| {
            std::fs::read_to_string(&f.path)
                .unwrap()
                .lines()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Every line names the one before.
pub fn assert_chained(lines: &[String]) {
    let mut prev = zero_hash();
    for line in lines {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(value["prev"], prev, "{line}");
        prev = hash(line.as_bytes());
    }
}

#[test]
fn goes_on_over_files_and_processes() {
    let dir = tempfile::tempdir().unwrap();
    let small = Limits {
        max_file_bytes: 600,
        ..limits()
    };
    for round in 0..3 {
        let (mut chain, opened) = Chain::open(dir.path(), small, wall).unwrap();
        assert_eq!(opened.torn, None);
        for i in 0..5 {
            put(&mut chain, &format!("{round}-{i}"));
        }
    }
    let all = lines(dir.path());
    assert_eq!(all.iter().filter(|l| l.contains(r#""id":""#)).count(), 15);
    assert!(files(dir.path()).unwrap().len() > 3);
    assert_chained(&all);
}

#[test]
fn a_torn_line_is_told_and_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let (mut chain, opened) = Chain::open(dir.path(), limits(), wall).unwrap();
    put(&mut chain, "a");
    drop(chain);
    let mut file = OpenOptions::new().append(true).open(&opened.path).unwrap();
    file.write_all(br#"{"v":1,"id":"to"#).unwrap();
    let (_, again) = Chain::open(dir.path(), limits(), wall).unwrap();
    assert_eq!(again.torn, Some((opened.path.clone(), 15)));
    let whole: Vec<String> = lines(dir.path())
        .into_iter()
        .filter(|l| l.ends_with('}'))
        .collect();
    assert_chained(&whole);
    assert!(whole.last().unwrap().contains(r#""torn_bytes":15"#));
}

#[test]
fn a_second_process_has_its_own_chain() {
    let dir = tempfile::tempdir().unwrap();
    let (_one, a) = Chain::open(dir.path(), limits(), wall).unwrap();
    let (_two, b) = Chain::open(dir.path(), limits(), wall).unwrap();
    assert!(a.path.ends_with("chain-0-00000000.jsonl"));
    assert!(b.path.ends_with("chain-1-00000000.jsonl"));
}

#[test]
fn a_full_disk_loses_records_and_not_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    let (mut chain, _) = Chain::open(dir.path(), limits(), wall).unwrap();
    let good = std::mem::replace(
        &mut chain.file,
        OpenOptions::new().write(true).open("/dev/full").unwrap(),
    );
    let failed = chain.append([record("a"), record("b")].into_iter()).unwrap_err();
    assert_eq!(failed.lost, 2);
    chain.file = good;
    put(&mut chain, "c");
    let all = lines(dir.path());
    assert!(all.last().unwrap().contains(r#""lost_before":2"#), "{all:?}");
    assert_chained(&all);
}

#[test]
fn old_files_go() {
    let dir = tempfile::tempdir().unwrap();
    let tight = Limits {
        max_file_bytes: 300,
        keep_bytes: 1_500,
        keep_days: 30,
    };
    let (mut chain, _) = Chain::open(dir.path(), tight, wall).unwrap();
    for i in 0..20 {
        put(&mut chain, &i.to_string());
    }
    let bytes: u64 = files(dir.path()).unwrap().iter().map(|f| f.bytes).sum();
    assert!(bytes <= 1_500 + 600, "{bytes}");
    assert!(chain.path.exists());
}

/// As if it had last been written `days` ago.
fn age(path: &Path, now: SystemTime, days: u32) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_modified(now - DAY * days).unwrap();
}

#[test]
fn a_file_is_closed_after_a_day_and_goes_when_it_is_old_also_while_nobody_asks() {
    static NOW: AtomicU64 = AtomicU64::new(100 * 86_400);
    fn wall() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(NOW.load(Ordering::Relaxed))
    }
    let later = |days: u64| NOW.fetch_add(days * 86_400, Ordering::Relaxed);
    let dir = tempfile::tempdir().unwrap();
    let (mut chain, first) = Chain::open(dir.path(), limits(), wall).unwrap();
    put(&mut chain, "a");
    age(&first.path, wall(), 0);
    later(1);
    assert!(chain.tend().rotate.is_none());
    assert_ne!(chain.path, first.path, "a day old");
    let bare = chain.path.clone();
    for _ in 0..28 {
        later(1);
        chain.tend();
    }
    assert_eq!(chain.path, bare, "nothing was written: no new file");
    assert!(first.path.exists(), "29 days");
    later(2);
    chain.tend();
    assert!(!first.path.exists(), "31 days");
    put(&mut chain, "b");
    let all = lines(dir.path());
    assert_eq!(all.len(), 2);
    assert!(all[1].contains(r#""id":"b""#), "{all:?}");
}

#[test]
fn the_last_file_of_a_process_that_is_gone_goes_too_and_its_chain_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (mut one, _) = Chain::open(dir.path(), limits(), wall).unwrap();
    let (mut two, left) = Chain::open(dir.path(), limits(), wall).unwrap();
    put(&mut one, "a");
    put(&mut two, "b");
    let now = UNIX_EPOCH + DAY * 1_000;
    age(&left.path, now, 40);
    one.wall = || UNIX_EPOCH + DAY * 1_000;
    one.tend();
    assert!(left.path.exists(), "its process lives");
    let prev = two.prev.clone();
    drop(two);
    one.tended = UNIX_EPOCH;
    one.tend();
    assert!(!left.path.exists());
    let (two, _) = Chain::open(dir.path(), limits(), wall).unwrap();
    let begun = std::fs::read_to_string(dir.path().join("chain-1-00000001.jsonl")).unwrap();
    assert!(begun.contains(&prev), "{begun}");
    assert!(two.path.ends_with("chain-1-00000002.jsonl"));
}

#[test]
fn a_full_disk_at_rotation_neither_loses_nor_breaks_anything() {
    let dir = tempfile::tempdir().unwrap();
    let small = Limits {
        max_file_bytes: 300,
        ..limits()
    };
    let (mut chain, opened) = Chain::open(dir.path(), small, wall).unwrap();
    // No name is free: as good as a disk that takes no new file.
    let taken: Vec<PathBuf> = (1..=64)
        .map(|n| dir.path().join(format!("chain-0-{n:08}.jsonl")))
        .collect();
    taken.iter().for_each(|path| std::fs::write(path, "").unwrap());
    chain.append([record("a")].into_iter()).unwrap();
    assert!(chain.tend().rotate.is_some());
    chain.append([record("b")].into_iter()).unwrap();
    assert!(chain.tend().rotate.is_none(), "not tried again and again");
    taken.iter().for_each(|path| std::fs::remove_file(path).unwrap());
    chain.tended = UNIX_EPOCH;
    put(&mut chain, "c");
    assert_ne!(chain.path, opened.path);
    let all = lines(dir.path());
    assert_eq!(all.iter().filter(|l| l.contains(r#""id":""#)).count(), 3);
    assert_chained(&all);
}

#[test]
fn what_a_full_disk_left_behind_does_not_begin_the_chain_anew() {
    let dir = tempfile::tempdir().unwrap();
    let (mut chain, _) = Chain::open(dir.path(), limits(), wall).unwrap();
    put(&mut chain, "a");
    drop(chain);
    std::fs::write(dir.path().join("chain-0-00000001.jsonl"), "").unwrap();
    std::fs::write(dir.path().join("chain-0-00000002.jsonl"), "{\"v\":1").unwrap();
    let (mut chain, opened) = Chain::open(dir.path(), limits(), wall).unwrap();
    assert_eq!(opened.torn.unwrap().1, 6);
    put(&mut chain, "b");
    let whole: Vec<String> = lines(dir.path())
        .into_iter()
        .filter(|l| l.ends_with('}'))
        .collect();
    assert_eq!(whole.len(), 4);
    assert_chained(&whole);
}

#[test]
fn a_line_that_cannot_be_taken_back_ends_its_file() {
    let dir = tempfile::tempdir().unwrap();
    let (mut chain, opened) = Chain::open(dir.path(), limits(), wall).unwrap();
    put(&mut chain, "a");
    // Half a line is there, and the file takes nothing more, nor can it be cut.
    let half = br#"{"v":1,"id":"ha"#;
    let mut torn = OpenOptions::new().append(true).open(&opened.path).unwrap();
    torn.write_all(half).unwrap();
    chain.file = File::open(&opened.path).unwrap();
    let failed = chain.append([record("b")].into_iter()).unwrap_err();
    assert_eq!((failed.lost, chain.torn), (1, true));
    put(&mut chain, "c");
    assert_ne!(chain.path, opened.path);
    let whole: Vec<String> = lines(dir.path())
        .into_iter()
        .filter(|l| l.ends_with('}'))
        .collect();
    assert_chained(&whole);
    assert!(whole[2].contains(r#""torn_bytes":15"#), "{}", whole[2]);
    assert!(whole[3].contains(r#""lost_before":1"#), "{}", whole[3]);
}

#[test]
fn lines_that_a_failing_disk_kept_are_left_out_and_break_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut chain, opened) = Chain::open(dir.path(), limits(), wall).unwrap();
    put(&mut chain, "a");
    // A line and a half are there of a batch that counts as lost.
    let line = Line {
        record: &record("b"),
        lost_before: 0,
        prev: &chain.prev,
    };
    let mut part = serde_json::to_vec(&line).unwrap();
    part.extend_from_slice(b"\n{\"v\":1");
    let mut file = OpenOptions::new().append(true).open(&opened.path).unwrap();
    file.write_all(&part).unwrap();
    chain.file = File::open(&opened.path).unwrap();
    chain.append([record("b"), record("c")].into_iter()).unwrap_err();
    put(&mut chain, "d");
    let report = crate::telemetry::audit::verify(dir.path(), &mut |_, _| {}).unwrap();
    assert!(report.whole, "{report}");
    assert_eq!(report.chains[0].records, 2);
    let told = report.to_string();
    assert!(
        told.contains(&format!("{} bytes at its end", part.len())),
        "{told}"
    );
    assert!(told.contains("2 records were lost"), "{told}");
}
