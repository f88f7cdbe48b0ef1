//! The forward pass: rows of several sequences at once, each sequence with a cache of its own.

use std::path::Path;

use super::config::Config;
use super::kernel::{self, Isa, PAGE, Packed, Rows};
use super::kv::{PageId, Pool};
use super::load::{LoadError, ModelFile, unsupported};

/// Rows of one sequence whose attention is computed together: their scores stay in the second-level cache.
const ATTENTION_ROWS: usize = 16;

struct Layer {
    attention_norm: Vec<f32>,
    /// Queries, keys and values, one below the other.
    qkv: Packed,
    qkv_bias: Option<Vec<f32>>,
    query_norm: Option<Vec<f32>>,
    key_norm: Option<Vec<f32>>,
    output: Packed,
    inner_norm: Vec<f32>,
    /// Gate and up, one below the other.
    gate_up: Packed,
    down: Packed,
}

/// A model's weights. Never changes once loaded.
pub(super) struct Weights {
    pub config: Config,
    isa: Isa,
    embedding: Packed,
    layers: Vec<Layer>,
    output_norm: Vec<f32>,
    /// `None`: the embedding table serves.
    output: Option<Packed>,
    /// Inverse frequencies of the turned pairs.
    frequencies: Vec<f64>,
}

/// Some consecutive tokens of one sequence.
#[derive(Clone, Copy)]
pub(super) struct Span<'a> {
    /// Position of the first one.
    pub first: usize,
    pub tokens: &'a [u32],
    /// The sequence's pages, enough for all positions up to the last one here.
    pub pages: &'a [PageId],
    pub logits: Wanted,
}

/// Which rows' logits are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Nothing,
    Last,
    All,
}

/// Room for intermediate results, kept from step to step.
#[derive(Default)]
pub(super) struct Scratch {
    x: Vec<f32>,
    normed: Vec<f32>,
    rows: Rows,
    qkv: Vec<f32>,
    queries: Vec<f32>,
    attended: Vec<f32>,
    mixed: Vec<f32>,
    gate_up: Vec<f32>,
    inner: Vec<f32>,
    turns: Vec<(f32, f32)>,
    attention: Vec<f32>,
    block_out: Vec<f32>,
}

impl Weights {
    pub fn load(file: &mut ModelFile, isa: Isa) -> Result<Weights, LoadError> {
        let config = Config::read(&file.header)?;
        let width = config.width;
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let mut layers = Vec::new();
        for layer in 0..config.layers {
            let name = |part: &str| format!("blk.{layer}.{part}");
            let head_norm = |file: &mut ModelFile, part: &str| -> Result<_, LoadError> {
                let norm = file.vector(&name(part), config.head_dim)?;
                if norm.is_some() == config.norms_heads {
                    Ok(norm)
                } else {
                    unsupported(format!("{} does not fit {}", name(part), config.architecture))
                }
            };
            layers.push(Layer {
                attention_norm: file.need_vector(&name("attn_norm.weight"), width)?,
                qkv: file.matrix(
                    &[
                        (name("attn_q.weight"), q),
                        (name("attn_k.weight"), kv),
                        (name("attn_v.weight"), kv),
                    ],
                    width,
                )?,
                qkv_bias: qkv_bias(file, &name, q, kv)?,
                query_norm: head_norm(file, "attn_q_norm.weight")?,
                key_norm: head_norm(file, "attn_k_norm.weight")?,
                output: file.matrix(&[(name("attn_output.weight"), width)], q)?,
                inner_norm: file.need_vector(&name("ffn_norm.weight"), width)?,
                gate_up: file.matrix(
                    &[
                        (name("ffn_gate.weight"), config.inner),
                        (name("ffn_up.weight"), config.inner),
                    ],
                    width,
                )?,
                down: file.matrix(&[(name("ffn_down.weight"), width)], config.inner)?,
            });
        }
        let embedding = file.matrix(&[("token_embd.weight".to_owned(), config.vocabulary)], width)?;
        let output = if file.has("output.weight") {
            Some(file.matrix(&[("output.weight".to_owned(), config.vocabulary)], width)?)
        } else {
            None
        };
        let output_norm = file.need_vector("output_norm.weight", width)?;
        let factors = file.vector("rope_freqs.weight", config.rope.dims / 2)?;
        if let Some(name) = file.untaken() {
            return unsupported(format!(
                "it has a part that this engine does not know, tensor {name}"
            ));
        }
        let frequencies = frequencies(&config, factors.as_deref());
        Ok(Weights {
            config,
            isa,
            embedding,
            layers,
            output_norm,
            output,
            frequencies,
        })
    }

    /// Halves of one page of the cache: keys and values of 32 positions in all layers.
    pub fn page_len(&self) -> usize {
        self.config.layers * self.config.kv_heads * 2 * self.config.head_dim * PAGE
    }

    pub fn bytes(&self) -> usize {
        let layers = self
            .layers
            .iter()
            .map(|l| l.qkv.bytes() + l.output.bytes() + l.gate_up.bytes() + l.down.bytes());
        layers.sum::<usize>() + self.embedding.bytes() + self.output.as_ref().map_or(0, Packed::bytes)
    }

    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Computes all spans in one pass, puts their keys and values into their pages, and writes the wanted rows' logits
    /// to `logits`, in order.
    ///
    /// # Panics
    /// When a token is not in the vocabulary or a span has too few pages. The scheduler takes care of both.
    pub fn forward(&self, pool: &mut Pool, spans: &[Span<'_>], scratch: &mut Scratch, logits: &mut Vec<f32>) {
        let (c, isa) = (&self.config, self.isa);
        let rows: usize = spans.iter().map(|span| span.tokens.len()).sum();
        self.begin(spans, rows, scratch);
        let q = c.heads * c.head_dim;
        let kv = c.kv_heads * c.head_dim;
        let s = scratch;
        for (number, layer) in self.layers.iter().enumerate() {
            s.normed.resize(rows * c.width, 0.0);
            kernel::rms_norm(isa, &s.x, &layer.attention_norm, c.epsilon, &mut s.normed);
            s.rows.quantise(isa, &s.normed, c.width);
            s.qkv.resize(rows * (q + 2 * kv), 0.0);
            kernel::multiply(isa, &layer.qkv, &s.rows, &mut s.qkv);
            self.prepare_heads(layer, s);
            store(c, number, pool, spans, &s.qkv);
            self.attend(number, pool, spans, s);
            s.rows.quantise(isa, &s.attended, q);
            s.mixed.resize(rows * c.width, 0.0);
            kernel::multiply(isa, &layer.output, &s.rows, &mut s.mixed);
            add(&mut s.x, &s.mixed);

            kernel::rms_norm(isa, &s.x, &layer.inner_norm, c.epsilon, &mut s.normed);
            s.rows.quantise(isa, &s.normed, c.width);
            s.gate_up.resize(rows * 2 * c.inner, 0.0);
            kernel::multiply(isa, &layer.gate_up, &s.rows, &mut s.gate_up);
            s.inner.resize(rows * c.inner, 0.0);
            for (both, inner) in s
                .gate_up
                .chunks_exact(2 * c.inner)
                .zip(s.inner.chunks_exact_mut(c.inner))
            {
                let (gate, up) = both.split_at(c.inner);
                inner.copy_from_slice(gate);
                kernel::silu_times(isa, inner, up);
            }
            s.rows.quantise(isa, &s.inner, c.inner);
            kernel::multiply(isa, &layer.down, &s.rows, &mut s.mixed);
            add(&mut s.x, &s.mixed);
        }
        self.finish(spans, s, logits);
    }

    /// Embeds the tokens and works out how far each row's heads are turned.
    fn begin(&self, spans: &[Span<'_>], rows: usize, s: &mut Scratch) {
        let c = &self.config;
        s.x.resize(rows * c.width, 0.0);
        s.turns.clear();
        let mut out = s.x.chunks_exact_mut(c.width);
        for span in spans {
            for (i, token) in span.tokens.iter().enumerate() {
                if let Some(out) = out.next() {
                    self.embedding.row(*token as usize, out);
                }
                let position = (span.first + i) as f64 / f64::from(c.rope.stretch);
                s.turns.extend(self.frequencies.iter().map(|f| {
                    let (sin, cos) = (position * f).sin_cos();
                    (sin as f32, cos as f32)
                }));
            }
        }
    }

    /// Bias, norm and turn of queries and keys, in place.
    fn prepare_heads(&self, layer: &Layer, s: &mut Scratch) {
        let c = &self.config;
        let pairs = self.frequencies.len();
        let row_len = (c.heads + 2 * c.kv_heads) * c.head_dim;
        let mut head_in = vec![0.0; c.head_dim];
        for (row, turns) in s.qkv.chunks_exact_mut(row_len).zip(s.turns.chunks_exact(pairs)) {
            if let Some(bias) = &layer.qkv_bias {
                add(row, bias);
            }
            for (n, head) in row
                .chunks_exact_mut(c.head_dim)
                .take(c.heads + c.kv_heads)
                .enumerate()
            {
                let norm = if n < c.heads {
                    &layer.query_norm
                } else {
                    &layer.key_norm
                };
                if let Some(norm) = norm {
                    head_in.copy_from_slice(head);
                    kernel::rms_norm(self.isa, &head_in, norm, c.epsilon, head);
                }
                turn(head, turns, c.rope.halves);
            }
        }
    }

    fn attend(&self, number: usize, pool: &Pool, spans: &[Span<'_>], s: &mut Scratch) {
        let c = &self.config;
        let (dim, shared) = (c.head_dim, c.heads / c.kv_heads);
        let (q, row_len) = (c.heads * dim, (c.heads + 2 * c.kv_heads) * dim);
        s.attended.resize(s.qkv.len() / row_len * q, 0.0);
        let mut at = 0;
        for span in spans {
            let mut done = 0;
            while done < span.tokens.len() {
                let n = ATTENTION_ROWS.min(span.tokens.len() - done);
                let first = span.first + done;
                let pages: Vec<&[u16]> = span.pages[..(first + n).div_ceil(PAGE)]
                    .iter()
                    .map(|id| pool.get(*id))
                    .collect();
                for head in 0..c.kv_heads {
                    let part = head * shared * dim..(head + 1) * shared * dim;
                    s.queries.clear();
                    for row in s.qkv[(at + done) * row_len..].chunks_exact(row_len).take(n) {
                        s.queries.extend_from_slice(&row[part.clone()]);
                    }
                    s.block_out.resize(s.queries.len(), 0.0);
                    let look = kernel::Look {
                        queries: &s.queries,
                        per_row: shared,
                        dim,
                        first,
                        pages: &pages,
                        head: head_place(c, number, head),
                    };
                    kernel::attend(self.isa, &look, &mut s.attention, &mut s.block_out);
                    let rows = s.attended[(at + done) * q..].chunks_exact_mut(q);
                    for (row, out) in rows.zip(s.block_out.chunks_exact(shared * dim)) {
                        row[part.clone()].copy_from_slice(out);
                    }
                }
                done += n;
            }
            at += span.tokens.len();
        }
    }

    /// Norms the wanted rows and multiplies them by the output matrix.
    fn finish(&self, spans: &[Span<'_>], s: &mut Scratch, logits: &mut Vec<f32>) {
        let width = self.config.width;
        s.mixed.clear();
        let mut at = 0;
        for span in spans {
            let n = span.tokens.len();
            let rows = match span.logits {
                Wanted::Nothing => at..at,
                Wanted::Last => at + n - 1..at + n,
                Wanted::All => at..at + n,
            };
            s.mixed
                .extend_from_slice(&s.x[rows.start * width..rows.end * width]);
            at += n;
        }
        let rows = s.mixed.len() / width;
        logits.resize(rows * self.config.vocabulary, 0.0);
        if rows == 0 {
            return;
        }
        s.normed.resize(rows * width, 0.0);
        kernel::rms_norm(
            self.isa,
            &s.mixed,
            &self.output_norm,
            self.config.epsilon,
            &mut s.normed,
        );
        s.rows.quantise(self.isa, &s.normed, width);
        kernel::multiply(
            self.isa,
            self.output.as_ref().unwrap_or(&self.embedding),
            &s.rows,
            logits,
        );
    }
}

/// Opens a file and loads its weights.
pub(super) fn load(path: &Path, isa: Isa) -> Result<(ModelFile, Weights), LoadError> {
    let mut file = ModelFile::open(path)?;
    let weights = Weights::load(&mut file, isa)?;
    Ok((file, weights))
}

fn qkv_bias(
    file: &mut ModelFile,
    name: &impl Fn(&str) -> String,
    q: usize,
    kv: usize,
) -> Result<Option<Vec<f32>>, LoadError> {
    let mut all = Vec::new();
    for (part, len) in [("attn_q.bias", q), ("attn_k.bias", kv), ("attn_v.bias", kv)] {
        all.extend(file.vector(&name(part), len)?.unwrap_or_default());
    }
    match all.len() {
        0 => Ok(None),
        n if n == q + 2 * kv => Ok(Some(all)),
        _ => unsupported(format!("{} and its kind are not all there", name("attn_q.bias"))),
    }
}

fn frequencies(config: &Config, factors: Option<&[f32]>) -> Vec<f64> {
    let dims = config.rope.dims;
    (0..dims / 2)
        .map(|i| {
            let plain = f64::from(config.rope.base).powf(-2.0 * i as f64 / dims as f64);
            plain / factors.and_then(|f| f.get(i)).map_or(1.0, |f| f64::from(*f))
        })
        .collect()
}

fn head_place(c: &Config, layer: usize, head: usize) -> usize {
    (layer * c.kv_heads + head) * 2 * c.head_dim * PAGE
}

/// Puts the new keys (column by column) and values (row by row) into the pages.
fn store(c: &Config, layer: usize, pool: &mut Pool, spans: &[Span<'_>], qkv: &[f32]) {
    let dim = c.head_dim;
    let row_len = (c.heads + 2 * c.kv_heads) * dim;
    let mut rows = qkv.chunks_exact(row_len);
    for span in spans {
        for (i, row) in rows.by_ref().take(span.tokens.len()).enumerate() {
            let position = span.first + i;
            let page = pool.get_mut(span.pages[position / PAGE]);
            let (keys, values) = row[c.heads * dim..].split_at(c.kv_heads * dim);
            for head in 0..c.kv_heads {
                let place = &mut page[head_place(c, layer, head)..][..2 * dim * PAGE];
                let (key_part, value_part) = place.split_at_mut(dim * PAGE);
                let columns = key_part.chunks_exact_mut(PAGE);
                for (column, key) in columns.zip(&keys[head * dim..][..dim]) {
                    column[position % PAGE] = kernel::to_f16(*key);
                }
                let to = &mut value_part[position % PAGE * dim..][..dim];
                for (to, value) in to.iter_mut().zip(&values[head * dim..][..dim]) {
                    *to = kernel::to_f16(*value);
                }
            }
        }
    }
}

fn turn(head: &mut [f32], turns: &[(f32, f32)], halves: bool) {
    let n = turns.len();
    for (i, (sin, cos)) in turns.iter().enumerate() {
        let (a, b) = if halves { (i, i + n) } else { (2 * i, 2 * i + 1) };
        let (x, y) = (head[a], head[b]);
        head[a] = x * cos - y * sin;
        head[b] = x * sin + y * cos;
    }
}

fn add(to: &mut [f32], what: &[f32]) {
    for (to, what) in to.iter_mut().zip(what) {
        *to += what;
    }
}
