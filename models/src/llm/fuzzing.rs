//! What the fuzz targets (folder `fuzz`) check of model files: everything that is read of one before its tensors. Built
//! with `--cfg fuzzing` only, because all of it is private.

use std::collections::HashMap;

use super::api::ChatMessage;
use super::config::Config;
use super::gguf::{Header, Value};
use super::template::{Template, unbounded};
use super::tokenizer::Tokenizer;

/// Names of the control tokens that [`Chat`] knows.
pub const CONTROL: [&str; 3] = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"];

/// Reads the header of a model file, and from it the sizes, the tokenizer and the chat template.
///
/// # Panics
/// When what was read contradicts itself, or the file that it was read from.
pub fn header(file: &[u8]) {
    let len = file.len() as u64;
    let Ok(header) = Header::read(file, len) else {
        return;
    };
    for (name, info) in &header.tensors {
        let end = info.offset.checked_add(info.bytes);
        assert!(end.is_some_and(|end| end <= len), "{name} lies beyond the file");
        let rows = info.elements() / info.dtype.block_size();
        assert_eq!(rows * info.dtype.type_size(), info.bytes as usize, "{name}");
    }
    if let Ok(config) = Config::read(&header) {
        assert!(config.kv_heads <= config.heads && config.rope.dims <= config.head_dim);
        assert!(config.width * config.vocabulary <= header.tensors.values().map(|t| t.elements()).sum());
    }
    let Ok(tokenizer) = Tokenizer::read(&header) else {
        return;
    };
    let vocabulary = header.texts("tokenizer.ggml.tokens").map_or(0, <[String]>::len);
    for id in tokenizer.encode("a <|im_start|>\u{e9}\n 12") {
        assert!((id as usize) < vocabulary, "token {id} of {vocabulary}");
        assert!(tokenizer.bytes(id).len() <= tokenizer.longest());
    }
    let Some(Ok(template)) = header.text("tokenizer.chat_template").map(Template::compile) else {
        return;
    };
    let turn = ChatMessage::new("user", "hello");
    let _ = template.render(&[turn], "", &tokenizer);
}

/// A tokenizer of bytes and three control tokens, for templates without a model.
pub struct Chat {
    tokenizer: Tokenizer,
}

/// A conversation as a model would read it.
#[derive(Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Its text.
    pub text: String,
    /// Names of the control tokens in it, in order.
    pub control: Vec<String>,
    /// What all its tokens stand for.
    pub bytes: Vec<u8>,
}

impl Default for Chat {
    fn default() -> Self {
        Self::new()
    }
}

impl Chat {
    /// # Panics
    /// Never: the vocabulary is a whole one.
    pub fn new() -> Self {
        // Printable bytes stand for themselves, the others for characters from U+0100 on.
        let mut odd = 0x100;
        let byte = |b: u8| {
            if matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff) {
                return char::from(b).to_string();
            }
            odd += 1;
            char::from_u32(odd - 1).map_or_else(String::new, String::from)
        };
        let mut tokens: Vec<String> = (0..=u8::MAX).map(byte).collect();
        let mut kinds = vec![1; tokens.len()];
        tokens.extend(CONTROL.map(str::to_owned));
        kinds.resize(tokens.len(), 3);
        let text = |s: &str| Value::Text(s.to_owned());
        let metadata = HashMap::from([
            ("tokenizer.ggml.model".to_owned(), text("gpt2")),
            ("tokenizer.ggml.pre".to_owned(), text("smollm")),
            ("tokenizer.ggml.bos_token_id".to_owned(), Value::Int(256)),
            ("tokenizer.ggml.eos_token_id".to_owned(), Value::Int(257)),
            ("tokenizer.ggml.tokens".to_owned(), Value::Texts(tokens)),
            ("tokenizer.ggml.token_type".to_owned(), Value::Ints(kinds)),
        ]);
        let header = Header {
            metadata,
            tensors: HashMap::new(),
        };
        match Tokenizer::read(&header) {
            Ok(tokenizer) => Self { tokenizer },
            Err(e) => unreachable!("{e}"),
        }
    }

    /// Renders a conversation with a template; `None`: one of the two does not take the other, or it became longer than 64 KiB.
    ///
    /// # Panics
    /// When the template makes something else of it without its bounds.
    pub fn render(&self, text: &str, turns: &[(&str, &str)], begun: &str) -> Option<Rendered> {
        let template = Template::compile(text).ok()?;
        let turns: Vec<ChatMessage> = turns
            .iter()
            .map(|(who, says)| ChatMessage::new(*who, *says))
            .collect();
        let (masked, mask) = template.render(&turns, begun, &self.tokenizer).ok()?;
        // Where both stand on the same ground: the engine's own slices and remainders overflow.
        let slices = text
            .split('[')
            .any(|rest| rest.split(']').next().is_some_and(|place| place.contains(':')));
        if !slices && !text.contains("divisibleby") {
            let free = unbounded(text, &turns, begun, &self.tokenizer);
            assert_eq!(free.as_ref(), Some(&masked), "bounds change what is made");
        }
        // Megabytes of tokens take an instrumented build longer than it has.
        if masked.len() > 1 << 16 {
            return None;
        }
        let tokens = self.tokenizer.encode_template(&masked, mask);
        let name = |id: &u32| {
            CONTROL
                .get((*id as usize).checked_sub(256)?)
                .map(|name| (*name).to_owned())
        };
        Some(Rendered {
            text: masked.replace(mask, ""),
            control: tokens.iter().filter_map(name).collect(),
            bytes: tokens
                .iter()
                .flat_map(|id| self.tokenizer.bytes(*id))
                .copied()
                .collect(),
        })
    }
}
