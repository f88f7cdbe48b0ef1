//! Chains that were meddled with, and those that only look so.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::telemetry::record::Record;
use crate::telemetry::writer::Limits;
use crate::telemetry::writer::chain::Chain as Writing;
use crate::telemetry::writer::files::hash;

fn wall() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_000)
}

/// As one process writes them: `ids` in files of a few records each.
fn write(dir: &Path, ids: &[&str]) {
    let limits = Limits {
        max_file_bytes: 850,
        keep_bytes: 1 << 30,
        keep_days: 30,
    };
    let (mut chain, _) = Writing::open(dir, limits, wall).unwrap();
    for id in ids {
        let record = Box::new(Record::open(id, 7, Default::default()));
        chain.append([record].into_iter()).unwrap();
        chain.tend();
    }
}

/// Three files: two that are full and one that is not.
fn three() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &["a", "b", "c", "d", "e", "f", "g", "h"]);
    assert_eq!(files::files(dir.path()).unwrap().len(), 3);
    dir
}

fn path(dir: &tempfile::TempDir, number: u64) -> PathBuf {
    dir.path().join(format!("chain-0-{number:08}.jsonl"))
}

fn look(at: &Path) -> Report {
    verify(at, &mut |_, _| {}).unwrap()
}

/// What was found: number of the file, line, what.
fn breaks(report: &Report) -> Vec<(u64, Option<u64>, What)> {
    let place = |told: &Told| files::place_of(&told.file).unwrap().1;
    let listed = &report.breaks.listed;
    listed
        .iter()
        .map(|told| (place(told), told.line, told.what.clone()))
        .collect()
}

fn notes(report: &Report) -> Vec<What> {
    report.notes.listed.iter().map(|told| told.what.clone()).collect()
}

/// Makes other lines of a file's lines.
fn edit(path: &Path, change: impl FnOnce(&mut Vec<String>)) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    change(&mut lines);
    let text: String = lines.into_iter().map(|line| line + "\n").collect();
    std::fs::write(path, text).unwrap();
}

fn append(path: &Path, bytes: &[u8]) {
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn what_was_written_is_whole() {
    let dir = three();
    write(dir.path(), &["i"]);
    let mut seen = Vec::new();
    let report = verify(dir.path(), &mut |done, all| seen.push((done, all))).unwrap();
    assert!(report.whole && report.notes.count == 0, "{report}");
    let [chain] = report.chains.as_slice() else {
        panic!("{report}")
    };
    assert_eq!((chain.files, chain.records, chain.from_start), (4, 9, true));
    let last = std::fs::read_to_string(path(&dir, 3)).unwrap();
    assert_eq!(
        chain.last_hash.as_deref(),
        Some(&*hash(last.lines().last().unwrap().as_bytes()))
    );
    let end = seen.last().unwrap();
    assert_eq!((end.0, end.0), (end.1, chain.bytes), "all of it was looked at");
    assert!(report.to_string().ends_with("\nwhole"), "{report}");
}

#[test]
fn one_file_may_begin_anywhere() {
    let dir = three();
    let first = look(&path(&dir, 0));
    assert!(first.whole && first.notes.count == 0);
    let second = look(&path(&dir, 1));
    assert!(second.whole);
    let after = Some("chain-0-00000000.jsonl".to_owned());
    assert_eq!(notes(&second), [What::BeginsInTheMiddle { after }]);
}

#[test]
fn two_slots_are_two_chains() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits {
        max_file_bytes: 1 << 20,
        keep_bytes: 1 << 30,
        keep_days: 30,
    };
    let _held = Writing::open(dir.path(), limits, wall).unwrap();
    write(dir.path(), &["a", "b"]);
    let report = look(dir.path());
    let counts: Vec<_> = report.chains.iter().map(|c| (c.slot, c.records)).collect();
    assert_eq!((report.whole, counts), (true, vec![(0, 0), (1, 2)]));
}

#[test]
fn a_changed_line_is_found_at_the_line_behind_it() {
    let dir = three();
    edit(&path(&dir, 1), |lines| {
        lines[1] = lines[1].replace("499", "200");
    });
    assert_eq!(breaks(&look(dir.path())), [(1, Some(3), What::Unchained)]);
    // In a file by itself too.
    assert_eq!(breaks(&look(&path(&dir, 1))), [(1, Some(3), What::Unchained)]);
}

#[test]
fn a_changed_last_line_of_a_file_is_found_at_the_next_file() {
    let dir = three();
    edit(&path(&dir, 0), |lines| {
        let last = lines.last_mut().unwrap();
        *last = last.replace("499", "200");
    });
    assert_eq!(breaks(&look(dir.path())), [(1, Some(1), What::Detached)]);
}

#[test]
fn lines_that_are_gone_put_in_or_moved_are_found() {
    let gone = three();
    edit(&path(&gone, 0), |lines| {
        lines.remove(1);
    });
    assert_eq!(breaks(&look(gone.path())), [(0, Some(2), What::Unchained)]);

    let put_in = three();
    edit(&path(&put_in, 0), |lines| {
        // With the right `prev`: as good as it can be made without writing all that follows anew.
        let forged = lines[2].replace("\"b\"", "\"x\"");
        lines.insert(2, forged);
    });
    assert_eq!(breaks(&look(put_in.path())), [(0, Some(4), What::Unchained)]);

    let moved = three();
    edit(&path(&moved, 0), |lines| lines.swap(1, 2));
    let found = breaks(&look(moved.path()));
    assert_eq!(
        found[..2],
        [(0, Some(2), What::Unchained), (0, Some(3), What::Unchained)]
    );

    let no_record = three();
    edit(&path(&no_record, 0), |lines| lines.insert(2, "[1, 2]".into()));
    let found = breaks(&look(no_record.path()));
    assert_eq!(
        found,
        [(0, Some(3), What::Unreadable), (0, Some(4), What::Unchained)]
    );
}

#[test]
fn a_first_line_is_found_out_too() {
    for number in [0, 1] {
        let dir = three();
        edit(&path(&dir, number), |lines| {
            lines.remove(0);
        });
        let found = breaks(&look(dir.path()));
        assert!(
            matches!(found[..], [(n, Some(1), What::Head { .. }), ..] if n == number),
            "{found:?}"
        );
    }
    let joined = three();
    let second = std::fs::read(path(&joined, 1)).unwrap();
    append(&path(&joined, 0), &second);
    std::fs::remove_file(path(&joined, 1)).unwrap();
    let found = breaks(&look(joined.path()));
    assert!(
        matches!(found[..], [(0, Some(_), What::Head { .. }), ..]),
        "{found:?}"
    );
}

#[test]
fn a_missing_file_in_the_middle_is_a_break_and_one_at_the_beginning_is_not() {
    let dir = three();
    write(dir.path(), &["i"]);
    std::fs::remove_file(path(&dir, 0)).unwrap();
    let report = look(dir.path());
    let after = "chain-0-00000000.jsonl".to_owned();
    let begins = What::BeginsInTheMiddle { after: Some(after) };
    assert_eq!((report.whole, notes(&report)), (true, vec![begins]));
    assert!(!report.chains[0].from_start);
    std::fs::remove_file(path(&dir, 2)).unwrap();
    let after = "chain-0-00000002.jsonl".to_owned();
    assert_eq!(breaks(&look(dir.path())), [(3, Some(1), What::Missing { after })]);
}

#[test]
fn files_that_changed_their_names_are_found() {
    let dir = three();
    let aside = dir.path().join("aside");
    std::fs::rename(path(&dir, 0), &aside).unwrap();
    std::fs::rename(path(&dir, 1), path(&dir, 0)).unwrap();
    std::fs::rename(&aside, path(&dir, 1)).unwrap();
    let found = breaks(&look(dir.path()));
    let heads = |n| {
        let of = |(number, line, what): &(u64, Option<u64>, What)| {
            (*number, *line) == (n, Some(1)) && matches!(what, What::Head { .. })
        };
        found.iter().any(of)
    };
    assert!(heads(0) && heads(1), "{found:?}");
}

#[test]
fn a_torn_line_is_told_and_breaks_nothing() {
    let dir = three();
    append(&path(&dir, 2), br#"{"v":1,"id":"to"#);
    let report = look(dir.path());
    let torn = |told| What::Torn { bytes: 15, told };
    assert_eq!((report.whole, notes(&report)), (true, vec![torn(false)]));
    assert_eq!(notes(&look(&path(&dir, 2)))[1..], [torn(false)]);
    write(dir.path(), &["i"]);
    let report = look(dir.path());
    assert_eq!((report.whole, notes(&report)), (true, vec![torn(true)]));
    assert_eq!(report.chains[0].records, 9);
    // Bytes that the chain leaves out are counted all the same.
    append(&path(&dir, 2), b"!");
    let (bytes, said) = (16, 15);
    let other = What::TornOtherwise { bytes, said };
    assert_eq!(breaks(&look(dir.path())), [(3, Some(1), other)]);
}

#[test]
fn files_that_a_full_disk_left_behind_break_nothing() {
    let dir = three();
    std::fs::write(path(&dir, 3), "").unwrap();
    std::fs::write(path(&dir, 4), "{\"v\":1").unwrap();
    append(&path(&dir, 2), b"{}");
    write(dir.path(), &["i"]);
    let report = look(dir.path());
    let torn = |bytes| What::Torn { bytes, told: true };
    assert_eq!(
        (report.whole, notes(&report)),
        (true, vec![torn(2), torn(6)]),
        "{report}"
    );
    assert_eq!(report.chains[0].records, 9);
}

#[test]
fn a_chain_may_begin_behind_a_file_without_a_line() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(path(&dir, 0), "{\"v\":1").unwrap();
    write(dir.path(), &["a"]);
    let report = look(dir.path());
    assert!(report.whole && report.chains[0].from_start, "{report}");
}

/// A line with the right `prev`, as the writer would have written it.
fn forge(path: &Path, line: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    let prev = hash(text.lines().last().unwrap().as_bytes());
    let line = line.replace("PREV", &prev);
    append(path, format!("{line}\n").as_bytes());
}

#[test]
fn records_that_were_lost_are_told() {
    let dir = three();
    forge(
        &path(&dir, 2),
        r#"{"v":1,"id":"i","lost_before":3,"prev":"PREV"}"#,
    );
    let report = look(dir.path());
    assert_eq!(
        (report.whole, notes(&report)),
        (true, vec![What::Lost { records: 3 }])
    );
    assert_eq!(report.notes.listed[0].line, Some(4));
}

#[test]
fn a_second_record_of_a_request_is_found() {
    let dir = three();
    forge(&path(&dir, 2), r#"{"v":1,"id":"b","prev":"PREV"}"#);
    let report = look(dir.path());
    let (id, first) = ("b".to_owned(), "chain-0-00000000.jsonl:3".to_owned());
    assert_eq!(breaks(&report), [(2, Some(4), What::Twice { id, first })]);
    assert_eq!(report.chains[0].breaks, 1);
}

#[test]
fn what_cannot_be_read_is_a_finding() {
    let dir = three();
    std::fs::remove_file(path(&dir, 1)).unwrap();
    std::fs::create_dir(path(&dir, 1)).unwrap();
    let found = breaks(&look(dir.path()));
    assert!(matches!(found[..], [(1, None, What::Unread { .. })]), "{found:?}");
}

#[test]
fn so_many_findings_are_counted_and_not_kept() {
    let dir = three();
    append(&path(&dir, 2), "no record\n".repeat(10_000).as_bytes());
    let report = look(dir.path());
    assert_eq!(
        (report.breaks.count, report.breaks.listed.len()),
        (10_000, LISTED)
    );
    assert!(report.to_string().contains("and 9900 more breaks"));
}

#[test]
fn nothing_to_look_at_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let nothing = |at: &Path| verify(at, &mut |_, _| {}).unwrap_err();
    assert!(matches!(nothing(dir.path()), Nothing::Empty(_)));
    assert!(matches!(nothing(&dir.path().join("no")), Nothing::Absent(..)));
    let other = dir.path().join("routing.toml");
    std::fs::write(&other, "").unwrap();
    assert!(matches!(nothing(&other), Nothing::NotOurs(_)));
}

/// What somebody, or something, does to a file's bytes.
#[derive(Clone, Debug)]
enum Harm {
    Set(usize, u8),
    Cut(usize),
    Put(usize, Vec<u8>),
    Take(usize, usize),
    Double(usize, usize),
}

fn harm() -> impl Strategy<Value = Harm> {
    let at = any::<usize>;
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Harm::Set(at, byte)),
        at().prop_map(Harm::Cut),
        (at(), proptest::collection::vec(any::<u8>(), 0..40)).prop_map(|(at, bytes)| Harm::Put(at, bytes)),
        (at(), 0..400_usize).prop_map(|(at, n)| Harm::Take(at, n)),
        (at(), 0..400_usize).prop_map(|(at, n)| Harm::Double(at, n)),
    ]
}

impl Harm {
    fn to(&self, bytes: &mut Vec<u8>) {
        let within = |at: usize| at % (bytes.len() + 1);
        match self {
            Self::Set(at, byte) => {
                let at = within(*at);
                if let Some(there) = bytes.get_mut(at) {
                    *there = *byte;
                }
            }
            Self::Cut(at) => bytes.truncate(within(*at)),
            Self::Put(at, more) => {
                let at = within(*at);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Take(at, n) => {
                let at = within(*at);
                let end = bytes.len().min(at + n);
                bytes.drain(at..end);
            }
            Self::Double(at, n) => {
                let at = within(*at);
                let end = bytes.len().min(at + n);
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is done to the files, it says something and ends.
    #[test]
    fn no_bytes_make_it_panic(harms in proptest::collection::vec((0..4_u64, harm()), 1..8)) {
        let dir = three();
        append(&path(&dir, 2), b"{\"v\":1");
        write(dir.path(), &["i"]);
        for (file, harm) in harms {
            let mut bytes = std::fs::read(path(&dir, file)).unwrap();
            harm.to(&mut bytes);
            std::fs::write(path(&dir, file), bytes).unwrap();
        }
        let report = look(dir.path());
        prop_assert_eq!(report.whole, report.breaks.count == 0);
        prop_assert!(!report.to_string().is_empty());
    }

    /// A byte inside a line that another line follows, in whichever file, cannot become another one.
    #[test]
    fn every_changed_byte_is_found(file in 0..4_u64, at in any::<usize>(), byte in any::<u8>()) {
        let dir = three();
        append(&path(&dir, 2), b"{\"v\":1");
        write(dir.path(), &["i", "j"]);
        prop_assert!(look(dir.path()).whole);
        let path = path(&dir, file);
        let mut bytes = std::fs::read(&path).unwrap();
        let mut lines = Vec::new();
        let mut begin = 0;
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            if line.ends_with(b"\n") {
                lines.push(begin..begin + line.len() - 1);
            }
            begin += line.len();
        }
        if file == 3 {
            lines.pop();
        }
        let places: Vec<usize> = lines.into_iter().flatten().collect();
        let at = places[at % places.len()];
        prop_assume!(bytes[at] != byte);
        bytes[at] = byte;
        std::fs::write(&path, bytes).unwrap();
        let report = look(dir.path());
        prop_assert!(!report.whole, "{}", report);
    }
}
