//! `[targets.NAME]`.

use std::sync::Arc;

use toml::de::DeValue;

use super::super::operation::Timeouts;
use super::super::problem::Weight;
use super::super::target::{Params, Price, ProviderConfig, ProviderKind, TargetConfig};
use super::limits::{Whose, limits};
use super::names::Names;
use super::operation::timeouts;
use super::table::{Table, short};
use super::value::Value;
use crate::facts::{CallKind, Needs};
use crate::ids::{Fingerprint, ProviderId};
use crate::units::PricePerToken;

/// Dearest price that makes sense, USD per million tokens.
const MAX_PRICE: f64 = 1e6;
/// Longest context that makes sense.
const MAX_CONTEXT: u32 = 100_000_000;

/// What every remote target is taken to do, whatever `capabilities` lists: the provider itself refuses what it cannot,
/// and its refusal sends a request that we placed to another target.
const REMOTE_ANYWAY: Needs = Needs(Needs::LOGPROBS.0 | Needs::PROVIDER_FIELDS.0 | Needs::EFFECTS.0);
/// What Anthropic's Messages API has no words for.
const ANTHROPIC_CANNOT: Needs = Needs(Needs::LOGPROBS.0 | Needs::PROVIDER_FIELDS.0 | Needs::AUDIO.0);
/// What the engine in this process does beyond text. (Effects forbid a second try; no target lacks them.)
const LOCAL_ANYWAY: Needs = Needs(Needs::LOGPROBS.0 | Needs::EFFECTS.0);

/// `serves` in the file.
const KINDS: [(&str, CallKind); 3] = [
    ("chat", CallKind::Chat),
    ("completions", CallKind::Completion),
    ("embeddings", CallKind::Embeddings),
];

/// `capabilities` in the file: what a target may lack.
const CAPABILITIES: [(&str, Needs); 9] = [
    ("tools", Needs::TOOLS),
    ("json_schema", Needs::JSON_SCHEMA),
    ("json_mode", Needs::JSON_MODE),
    ("vision", Needs::VISION),
    ("audio", Needs::AUDIO),
    ("files", Needs::FILES),
    ("prefill", Needs::PREFILL),
    ("logprobs", Needs::LOGPROBS),
    ("provider_fields", Needs::PROVIDER_FIELDS),
];

/// All targets in order of name. One that is wrong in itself keeps its place, so that the rest can be read.
pub(super) fn targets(
    t: &Table<'_, '_>,
    names: &Names,
    providers: &[ProviderConfig],
    clocks: &Timeouts,
) -> Vec<TargetConfig> {
    let typed = t.names();
    let one = |(name, _, value): &(Arc<str>, _, Value<'_, '_>)| {
        let table = value.table().unwrap_or_else(|| Table::absent(t.source));
        target(name, table, names, providers, clocks)
    };
    typed.iter().take(names.targets.len()).map(one).collect()
}

fn target(
    name: &Arc<str>,
    t: Table<'_, '_>,
    names: &Names,
    providers: &[ProviderConfig],
    clocks: &Timeouts,
) -> TargetConfig {
    let provider = t.get("provider");
    if provider.is_none() && t.is_present() {
        t.missing(
            "provider",
            "who serves it: provider = \"local\", or the NAME of a [providers.NAME]",
        );
    }
    let provider = provider.and_then(|v| names.provider(&v));
    let kind = provider.and_then(|id| providers.get(id.index())).map(|p| p.kind);
    let (model, artifact) = model(&t, kind);
    let context = t.opt_u32("context", 1..=MAX_CONTEXT);
    let max_output = t.opt_u32("max_output", 1..=MAX_CONTEXT);
    if let (Some(context), Some(max)) = (context, max_output)
        && max > context
    {
        t.problem(
            "max_output",
            "the longest answer is longer than the context",
            "context is prompt and answer together",
        );
    }
    let kind = kind.unwrap_or(ProviderKind::Openai);
    let whose = if kind == ProviderKind::Local {
        Whose::LocalTarget
    } else {
        Whose::Other
    };
    let config = TargetConfig {
        name: name.clone(),
        provider: provider.unwrap_or(ProviderId(0)),
        kind,
        model,
        artifact,
        context,
        max_output,
        price: price(&t, kind),
        capabilities: capabilities(&t, kind),
        serves: serves(&t, kind),
        weight: t.u32("weight", 1, 1..=1_000),
        embedding_space: t.text("embedding_space"),
        limits: limits(&t, "limits", whose),
        timeouts: timeouts(&t.table("timeouts"), clocks),
        params: params(&t, kind),
        fingerprint: Fingerprint::default(),
    };
    t.finish();
    config
}

/// Upstream's name and artifact. A local target has an artifact, a remote one a model.
fn model(t: &Table<'_, '_>, kind: Option<ProviderKind>) -> (Arc<str>, Option<Arc<str>>) {
    let (model, artifact) = (t.text("model"), t.text("artifact"));
    let (has_model, has_artifact) = (t.get("model").is_some(), t.get("artifact").is_some());
    match kind {
        Some(ProviderKind::Local) => {
            if has_model {
                t.problem(
                    "model",
                    "a local target has an artifact, not a model",
                    "rename the key: artifact = \"...\"",
                );
            }
            if !has_artifact && !has_model {
                t.missing("artifact", "a name of the manifest, for example artifact = \"smollm2-135m-instruct-q4_1\" (`weir models list`)");
            }
            (artifact.clone().unwrap_or_default(), artifact)
        }
        Some(_) => {
            if has_artifact {
                t.problem(
                    "artifact",
                    "only a local target has an artifact",
                    "rename the key: model = \"...\", or set provider = \"local\"",
                );
            }
            if !has_model && !has_artifact {
                t.missing(
                    "model",
                    "the provider's name for it, for example model = \"gpt-4o-mini\"",
                );
            }
            (model.unwrap_or_default(), None)
        }
        // The provider is unknown, which is told already.
        None => (model.unwrap_or_default(), artifact),
    }
}

fn price(t: &Table<'_, '_>, kind: ProviderKind) -> Price {
    let default = if kind == ProviderKind::Local {
        Price::Unmetered
    } else {
        Price::Unknown
    };
    let Some(value) = t.get("price") else {
        return default;
    };
    match value.raw {
        DeValue::String(_) => value.word(&[("unmetered", Price::Unmetered)]).unwrap_or(default),
        DeValue::Table(_) => value.table().map_or(default, |p| per_token(p).unwrap_or(default)),
        _ => {
            value.problem(
                "a price is a table or \"unmetered\"",
                "USD per million tokens: { input = 0.15, output = 0.60, cached_input = 0.075 }",
            );
            default
        }
    }
}

fn per_token(p: Table<'_, '_>) -> Option<Price> {
    let read = |key| {
        p.opt_number(key, 0.0..=MAX_PRICE)
            .map(PricePerToken::from_usd_per_million)
    };
    let (input, output, cached) = (read("input"), read("output"), read("cached_input"));
    let reasoning = read("reasoning");
    for key in ["input", "output"] {
        if p.get(key).is_none() {
            p.missing(key, "input and output are both needed, in USD per million tokens");
        }
    }
    if let (Some(input), Some(cached)) = (input, cached)
        && cached > input
    {
        p.problem(
            "cached_input",
            "cached input is dearer than input",
            "providers sell it cheaper: look at the two figures again",
        );
    }
    p.finish();
    Some(Price::PerToken {
        input: input?,
        output: output?,
        cached_input: cached.or(input)?,
        reasoning: reasoning.or(output)?,
    })
}

fn capabilities(t: &Table<'_, '_>, kind: ProviderKind) -> Needs {
    let listed = t.list("capabilities").map(|values| {
        values
            .iter()
            .filter_map(|v| v.word(&CAPABILITIES))
            .fold(Needs::default(), Needs::with)
    });
    let all = Needs::NAMES
        .into_iter()
        .fold(Needs::default(), |all, (need, _)| all.with(need));
    let listed = listed.map(|l| {
        if l.contains(Needs::JSON_SCHEMA) {
            l.with(Needs::JSON_MODE)
        } else {
            l
        }
    });
    match kind {
        ProviderKind::Local => listed.unwrap_or_default().with(LOCAL_ANYWAY),
        ProviderKind::Openai => listed.map_or(all.without(Needs::PREFILL), |l| l.with(REMOTE_ANYWAY)),
        ProviderKind::Anthropic => listed
            .unwrap_or(all.without(Needs::PREFILL).without(ANTHROPIC_CANNOT))
            .with(Needs::EFFECTS),
    }
}

fn serves(t: &Table<'_, '_>, kind: ProviderKind) -> Vec<CallKind> {
    let default: &[CallKind] = match kind {
        ProviderKind::Openai => &[CallKind::Chat, CallKind::Completion, CallKind::Embeddings],
        ProviderKind::Anthropic => &[CallKind::Chat],
        ProviderKind::Local => &[CallKind::Chat, CallKind::Completion],
    };
    let Some(values) = t.list("serves") else {
        return default.to_vec();
    };
    if values.is_empty() {
        t.problem(
            "serves",
            "this target serves nothing",
            "one or more of \"chat\", \"completions\", \"embeddings\"",
        );
    }
    let mut kinds: Vec<CallKind> = values.iter().filter_map(|v| v.word(&KINDS)).collect();
    kinds.sort_by_key(|kind| KINDS.iter().position(|(_, k)| k == kind));
    kinds.dedup();
    for kind in kinds.iter().filter(|kind| cannot(**kind, default)) {
        let word = KINDS.iter().find(|(_, k)| k == kind).map_or("", |(word, _)| word);
        t.problem(
            "serves",
            format!("kind \"anthropic\" has no {word}"),
            "leave it out",
        );
    }
    kinds
}

/// The Messages API answers chats only.
fn cannot(kind: CallKind, default: &[CallKind]) -> bool {
    default == [CallKind::Chat] && kind != CallKind::Chat
}

/// Fields that are the gateway's own.
const OWN_FIELDS: [&str; 4] = ["model", "messages", "stream", "stream_options"];

fn params(t: &Table<'_, '_>, kind: ProviderKind) -> Params {
    let table = t.table("params");
    if table.is_present() && kind == ProviderKind::Local {
        table.source.note(
            &table.at,
            Weight::Plain,
            "the local engine reads its own fields; params have no effect here",
        );
    }
    let rename = table.table("rename");
    let default = table.table("default");
    let params = Params {
        rename: rename
            .names()
            .into_iter()
            .filter_map(|(from, _, to)| {
                own_field(&from, &to).then(|| to.text().map(|to| (from, Arc::from(to))))?
            })
            .collect(),
        drop: table
            .list("drop")
            .unwrap_or_default()
            .iter()
            .filter_map(|v| v.text().filter(|name| own_field(name, v)).map(Arc::from))
            .collect(),
        default: default
            .names()
            .into_iter()
            .filter_map(|(name, _, value)| {
                own_field(&name, &value).then(|| json(&value).map(|j| (name, j)))?
            })
            .collect(),
    };
    table.finish();
    params
}

fn own_field(name: &str, value: &Value<'_, '_>) -> bool {
    let own = OWN_FIELDS.contains(&name);
    if own {
        value.problem(
            format!("`{}` is the gateway's own field", short(name)),
            "params bend the other fields",
        );
    }
    !own
}

/// A TOML value as the JSON text that is put into a request.
fn json(value: &Value<'_, '_>) -> Option<Arc<str>> {
    let json = to_json(value.raw);
    if json.is_none() {
        value.problem(
            "this has no JSON form",
            "dates, infinities and not-a-number cannot be sent: write a text",
        );
    }
    json.map(|json| Arc::from(json.to_string()))
}

fn to_json(value: &DeValue<'_>) -> Option<serde_json::Value> {
    Some(match value {
        DeValue::String(s) => serde_json::Value::from(s.as_ref()),
        DeValue::Integer(i) => serde_json::Value::from(i64::from_str_radix(i.as_str(), i.radix()).ok()?),
        DeValue::Float(f) => serde_json::Value::from(serde_json::Number::from_f64(f.as_str().parse().ok()?)?),
        DeValue::Boolean(b) => serde_json::Value::from(*b),
        DeValue::Datetime(_) => return None,
        DeValue::Array(items) => items
            .iter()
            .map(|i| to_json(i.get_ref()))
            .collect::<Option<Vec<_>>>()?
            .into(),
        DeValue::Table(entries) => entries
            .iter()
            .map(|(key, value)| to_json(value.get_ref()).map(|v| (key.get_ref().to_string(), v)))
            .collect::<Option<serde_json::Map<_, _>>>()?
            .into(),
    })
}
