//! Answers of the Messages API, streamed and whole: the same however they are cut, and a caller who reads them in
//! OpenAI's dialect reads what the gateway read.
#![no_main]

use gateway::providers::anthropic::decode::{StreamDecoder, WholeDecoder};
use gateway::providers::openai::stream;
use libfuzzer_sys::fuzz_target;
use weir_fuzz::answer::{Decoder, Told, call, drive, is_sound};
use weir_fuzz::two_places;

fuzz_target!(|data: &[u8]| {
    for usage in [false, true] {
        let call = call(Some(usage));
        let decoder = || Decoder::AnthropicStream(StreamDecoder::new(&call, "t (http://x)", 1));
        let told = drive(decoder(), &[data], false);
        for [a, b] in two_places(data) {
            let cut = drive(decoder(), &[&data[..a], &data[a..b], &data[b..]], false);
            assert_eq!(cut, told, "cut at {a} and {b}");
        }
        read(&told, usage);
        let broken = drive(decoder(), &[data], true);
        assert!(broken.done || broken.fault.is_some());
        read(
            &drive(
                Decoder::AnthropicWhole(WholeDecoder::new(&call, "t", 1)),
                &[data],
                false,
            ),
            usage,
        );
    }
    let call = call(None);
    let decoder = || Decoder::AnthropicWhole(WholeDecoder::new(&call, "t (http://x)", 1));
    let told = drive(decoder(), &[data], false);
    if told.done {
        let body: serde_json::Value = serde_json::from_slice(&told.wire).expect("JSON");
        assert_eq!(body["object"], "chat.completion");
        assert_eq!(body["choices"].as_array().map(Vec::len), Some(1));
    }
    for [a, b] in two_places(data) {
        assert_eq!(
            drive(decoder(), &[&data[..a], &data[a..b], &data[b..]], false),
            told
        );
    }
    assert!(!drive(decoder(), &[data], true).done);
});

/// A caller in OpenAI's dialect reads the same answer.
fn read(told: &Told, usage: bool) {
    if !told.done {
        return;
    }
    is_sound(told);
    let call = call(Some(usage));
    let decoder = Decoder::OpenaiStream(stream::StreamDecoder::new(&call, "t", 1));
    let again = drive(decoder, &[&told.wire], false);
    assert!(again.done, "{again:?} of {told:?}");
    assert_eq!((&again.content, &again.ends), (&told.content, &told.ends));
}
