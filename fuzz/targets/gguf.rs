//! Headers of model files: sizes, tokenizer and template are refused or sound (`models::llm::fuzzing`).
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| models::llm::fuzzing::header(data));
