//! Text to the model's tokens and back, from what the model's own file says.

use std::collections::HashMap;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

use super::gguf::Header;
use super::load::{LoadError, unsupported};

const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;
/// How the families cut text before merging; the file names one in `tokenizer.ggml.pre`.
const KNOWN_CUTS: &[&str] = &["smollm", "qwen2", "llama-bpe", "gpt-2"];
/// Names under which models end a turn, beside the ids that the file gives.
const ENDS: &[&str] = &[
    "<|im_end|>",
    "<|endoftext|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "</s>",
];

/// A model's tokenizer.
pub(super) struct Tokenizer {
    plain: tokenizers::Tokenizer,
    bytes: Vec<Box<[u8]>>,
    control: Names,
    /// Matched in every text, as the model's makers had it.
    defined: Names,
    ends: Vec<u32>,
    /// Put before bare text.
    begin: Option<u32>,
    begin_id: Option<u32>,
    end_id: Option<u32>,
    longest: usize,
}

/// Texts that stand for one token each.
#[derive(Default)]
struct Names {
    by_first: HashMap<u8, Vec<(String, u32)>>,
}

impl Names {
    fn add(&mut self, name: &str, id: u32) {
        let Some(first) = name.bytes().next() else { return };
        let all = self.by_first.entry(first).or_default();
        all.push((name.to_owned(), id));
    }

    /// Longest first, as [`Names::at`] looks. Once, when all are there: a file may name a million.
    fn sort(&mut self) {
        for all in self.by_first.values_mut() {
            all.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        }
    }

    /// The longest name that `text` begins with.
    fn at(&self, text: &[u8]) -> Option<(usize, u32)> {
        let all = self.by_first.get(text.first()?)?;
        all.iter()
            .find(|(name, _)| text.starts_with(name.as_bytes()))
            .map(|(name, id)| (name.len(), *id))
    }

    fn all(&self) -> impl Iterator<Item = &str> {
        self.by_first.values().flatten().map(|(name, _)| name.as_str())
    }
}

impl Tokenizer {
    pub fn read(header: &Header) -> Result<Tokenizer, LoadError> {
        let model = header.text("tokenizer.ggml.model").unwrap_or("none");
        if model != "gpt2" {
            return unsupported(format!(
                "its tokenizer is of the kind {model:?}; the engine knows \"gpt2\" (byte-level BPE)"
            ));
        }
        let Some(tokens) = header.texts("tokenizer.ggml.tokens") else {
            return unsupported("the file has no vocabulary");
        };
        let kinds = header.ints("tokenizer.ggml.token_type").unwrap_or_default();
        let (mut control, mut defined) = (Names::default(), Names::default());
        let mut bytes = Vec::with_capacity(tokens.len());
        let alphabet = alphabet();
        for (id, token) in tokens.iter().enumerate() {
            let id = u32::try_from(id).or_else(|_| unsupported("its vocabulary is too large"))?;
            match kinds.get(id as usize) {
                Some(&CONTROL) => control.add(token, id),
                Some(&USER_DEFINED) => defined.add(token, id),
                _ => {
                    bytes.push(unmapped(token, &alphabet));
                    continue;
                }
            }
            bytes.push(token.as_bytes().into());
        }
        control.sort();
        defined.sort();
        let id = |key: &str| {
            header
                .size(&format!("tokenizer.ggml.{key}"))
                .filter(|id| *id < tokens.len())
                .and_then(|id| u32::try_from(id).ok())
        };
        let mut ends: Vec<u32> = ["eos_token_id", "eot_token_id", "eom_token_id"]
            .into_iter()
            .filter_map(id)
            .collect();
        ends.extend(
            ENDS.iter()
                .filter_map(|name| control.at(name.as_bytes()))
                .map(|(_, id)| id),
        );
        ends.sort_unstable();
        ends.dedup();
        let begin_id = id("bos_token_id");
        Ok(Tokenizer {
            plain: plain(header, tokens)?,
            longest: bytes.iter().map(|token| token.len()).max().unwrap_or(1).max(1),
            bytes,
            control,
            defined,
            ends,
            begin: begin_id.filter(|_| header.flag("tokenizer.ggml.add_bos_token") == Some(true)),
            begin_id,
            end_id: id("eos_token_id"),
        })
    }

    /// The tokens of bare text; names of control tokens in it are text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut out: Vec<u32> = self.begin.into_iter().collect();
        self.encode_between(text, None, &mut out);
        out
    }

    /// The tokens of a rendered template, in which names of control tokens stand for them, except where `mask` was put
    /// into them (see [`Tokenizer::mask`]).
    pub fn encode_template(&self, text: &str, mask: char) -> Vec<u32> {
        let mut out = Vec::new();
        self.encode_between(text, Some(mask), &mut out);
        out
    }

    fn encode_between(&self, text: &str, mask: Option<char>, out: &mut Vec<u32>) {
        let (mut from, mut at) = (0, 0);
        let bytes = text.as_bytes();
        while at < bytes.len() {
            let rest = &bytes[at..];
            let control = mask.and_then(|_| self.control.at(rest));
            match control.or_else(|| self.defined.at(rest)) {
                Some((len, id)) => {
                    self.encode_plain(&text[from..at], mask, out);
                    out.push(id);
                    at += len;
                    from = at;
                }
                None => at += 1,
            }
        }
        self.encode_plain(&text[from..], mask, out);
    }

    fn encode_plain(&self, text: &str, mask: Option<char>, out: &mut Vec<u32>) {
        if text.is_empty() {
            return;
        }
        let cleaned;
        let text = match mask.filter(|mask| text.contains(*mask)) {
            Some(mask) => {
                cleaned = text.replace(mask, "");
                cleaned.as_str()
            }
            None => text,
        };
        // Byte-level BPE has a token for every byte and cannot fail; if a broken vocabulary makes it, nothing is added.
        if let Ok(encoding) = self.plain.encode_fast(text, false) {
            out.extend_from_slice(encoding.get_ids());
        }
    }

    /// A character that occurs in none of `texts`, for [`Tokenizer::mask`]. `None`: they use every noncharacter.
    pub fn free_mask<'a>(texts: impl Iterator<Item = &'a str> + Clone) -> Option<char> {
        ('\u{FDD0}'..='\u{FDEF}').find(|mask| !texts.clone().any(|text| text.contains(*mask)))
    }

    /// `text` with `mask` inside of everything that would read as a control token, alone or joined with its
    /// surroundings. The mask is taken out again before the text is cut into tokens, so the text itself is unchanged.
    pub fn mask(&self, text: &str, mask: char) -> String {
        let mut out = String::with_capacity(text.len() + 8);
        for (at, c) in text.char_indices() {
            out.push(c);
            let rest = &text.as_bytes()[at..];
            if self.control.by_first.contains_key(&rest[0])
                && self.control.all().any(|name| begins(rest, name))
            {
                out.push(mask);
            }
        }
        // The end of a name at the front could complete one that the template began.
        let completes = |name: &str| {
            (1..name.len()).any(|cut| name.is_char_boundary(cut) && text.starts_with(&name[cut..]))
        };
        if self.control.all().any(completes) {
            out.insert(0, mask);
        }
        out
    }

    /// The bytes that a token stands for.
    pub fn bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], |bytes| bytes)
    }

    /// The token's bytes as they are shown to a reader: control tokens write nothing.
    pub fn shown(&self, id: u32) -> &[u8] {
        if self.is_control(id) { &[] } else { self.bytes(id) }
    }

    fn is_control(&self, id: u32) -> bool {
        self.control
            .at(self.bytes(id))
            .is_some_and(|(_, found)| found == id)
    }

    /// Does this token end a turn?
    pub fn ends(&self, id: u32) -> bool {
        self.ends.contains(&id)
    }

    /// Bytes of the longest token: no text is fewer tokens than its bytes over this.
    pub fn longest(&self) -> usize {
        self.longest
    }

    /// The names that templates know as `bos_token` and `eos_token`.
    pub fn edge_names(&self) -> (String, String) {
        let name = |id: Option<u32>| {
            id.map_or(String::new(), |id| {
                String::from_utf8_lossy(self.bytes(id)).into_owned()
            })
        };
        (name(self.begin_id), name(self.end_id))
    }
}

/// Does `text` begin with `name`, or end in the middle of it?
fn begins(text: &[u8], name: &str) -> bool {
    let n = text.len().min(name.len());
    text[..n] == name.as_bytes()[..n]
}

fn plain(header: &Header, tokens: &[String]) -> Result<tokenizers::Tokenizer, LoadError> {
    let cut = header.text("tokenizer.ggml.pre").unwrap_or("none");
    let vocabulary: Vocab = (0..).zip(tokens).map(|(id, token)| (token.clone(), id)).collect();
    let mut merges = Vec::new();
    for merge in header.texts("tokenizer.ggml.merges").unwrap_or_default() {
        // A token may itself begin with the mark of a space but never contains a bare one.
        let Some((left, right)) = merge.split_once(' ') else {
            return unsupported(format!("its tokenizer has the broken merge {merge:?}"));
        };
        merges.push((left.to_owned(), right.to_owned()));
    }
    let model = BPE::builder()
        .vocab_and_merges(vocabulary, merges)
        .ignore_merges(cut == "llama-bpe")
        .build()
        .or_else(|error| unsupported(format!("its tokenizer is broken: {error}")))?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_pre_tokenizer(Some(pre_tokenizer(cut)?));
    if cut == "qwen2" {
        let with = tokenizer.with_normalizer(Some(NFC));
        with.or_else(|error| unsupported(format!("its normaliser: {error}")))?;
    }
    Ok(tokenizer)
}

fn pre_tokenizer(cut: &str) -> Result<PreTokenizerWrapper, LoadError> {
    let words = ByteLevel::new(false, false, true);
    let split = |digits: &str| {
        let pattern = format!(
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
        );
        Split::new(
            SplitPattern::Regex(pattern),
            SplitDelimiterBehavior::Isolated,
            false,
        )
        .or_else(|error| unsupported(format!("pre-tokenizer: {error}")))
    };
    let bytes_only = ByteLevel::new(false, false, false);
    let parts: Vec<PreTokenizerWrapper> = match cut {
        "smollm" => vec![Digits::new(true).into(), words.into()],
        "gpt-2" => vec![words.into()],
        "qwen2" => vec![split(r"\p{N}")?.into(), bytes_only.into()],
        "llama-bpe" => vec![split(r"\p{N}{1,3}")?.into(), bytes_only.into()],
        other => {
            return unsupported(format!(
                "its tokenizer cuts text in the way {other:?}; the engine knows {}",
                KNOWN_CUTS.join(", ")
            ));
        }
    };
    Ok(Sequence::new(parts).into())
}

/// The characters in which byte-level vocabularies are written: printable bytes stand for themselves, the others for
/// characters from U+0100 on, in order.
fn alphabet() -> HashMap<char, u8> {
    let mut next = 0x100;
    (0..=u8::MAX)
        .map(|byte| {
            let plain = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
            let c = if plain {
                char::from(byte)
            } else {
                next += 1;
                char::from_u32(next - 1).unwrap_or('\0')
            };
            (c, byte)
        })
        .collect()
}

fn unmapped(token: &str, alphabet: &HashMap<char, u8>) -> Box<[u8]> {
    let mapped: Option<Box<[u8]>> = token.chars().map(|c| alphabet.get(&c).copied()).collect();
    mapped.unwrap_or_else(|| token.as_bytes().into())
}
