//! Answers in OpenAI's dialect, streamed and whole: the same however they are cut, and a caller who gets them reads what
//! the gateway read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_fuzz::answer::{Decoder, Told, call, drive, is_sound};
use weir_fuzz::two_places;

use gateway::providers::openai::{stream::StreamDecoder, whole::WholeDecoder};

fuzz_target!(|data: &[u8]| {
    for usage in [false, true] {
        let call = call(Some(usage));
        let decoder = || Decoder::OpenaiStream(StreamDecoder::new(&call, "t (http://x)", 1));
        let told = drive(decoder(), &[data], false);
        for [a, b] in two_places(data) {
            let cut = drive(decoder(), &[&data[..a], &data[a..b], &data[b..]], false);
            assert_eq!(cut, told, "cut at {a} and {b}");
        }
        is_sound(&told);
        if told.done {
            // Bytes pass as they came: whoever reads them next reads the same.
            let again = drive(decoder(), &[&told.wire], false);
            assert!(again.done, "{again:?}");
            assert_eq!((&again.content, &again.ends), (&told.content, &told.ends));
            if usage {
                assert_eq!(again.usage, told.usage);
            }
        }
        let broken = drive(decoder(), &[data], true);
        assert!(broken.done || broken.fault.is_some());
        as_stream(data, usage);
    }
    let call = call(None);
    let decoder = || Decoder::OpenaiWhole(WholeDecoder::new(&call, "t (http://x)"));
    let told = drive(decoder(), &[data], false);
    if told.done {
        assert_eq!(told.wire, data, "a whole answer passes as it came");
    }
    for [a, b] in two_places(data) {
        assert_eq!(
            drive(decoder(), &[&data[..a], &data[a..b], &data[b..]], false),
            told
        );
    }
    assert!(!drive(decoder(), &[data], true).done);
});

/// A stream that was answered whole becomes one that says the same.
fn as_stream(data: &[u8], usage: bool) {
    let call = call(Some(usage));
    let told = drive(
        Decoder::OpenaiWhole(WholeDecoder::new(&call, "t")),
        &[data],
        false,
    );
    if !told.done {
        return;
    }
    is_sound(&told);
    let again = drive(
        Decoder::OpenaiStream(StreamDecoder::new(&call, "t", 1)),
        &[&told.wire],
        false,
    );
    same(&again, &told);
}

fn same(again: &Told, told: &Told) {
    assert!(again.done, "{again:?} of {told:?}");
    assert_eq!((&again.content, &again.ends), (&told.content, &told.ends));
}
