//! Chat templates: any template ends, and no caller's text becomes a control token.
//!
//! The input is a template, then turns (`role: content`), divided by lines of `---`; a template that is just a digit is
//! one of those that models come with.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use models::llm::fuzzing::{CONTROL, Chat};
use weir_fuzz::parts;

static CHAT: LazyLock<Chat> = LazyLock::new(Chat::new);

/// As they come with models: none of them looks into what is said.
const KNOWN: [&str; 2] = [
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}{% endfor %}\
     {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "{{ bos_token }}{%- for m in messages -%}<|im_start|>{{ m.role }}: {{ m.content }}{{ eos_token }}{%- endfor -%}",
];

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let parts = parts(text);
    let (template, rest) = parts.split_first().expect("at least one part");
    let (begun, turns) = rest.split_last().unwrap_or((&"", &[]));
    let turns: Vec<(&str, &str)> = turns
        .iter()
        .map(|turn| turn.split_once(": ").unwrap_or(("user", turn)))
        .collect();
    let known = template.parse::<usize>().ok().and_then(|n| KNOWN.get(n));
    let Some(rendered) = CHAT.render(known.unwrap_or(template), &turns, begun) else {
        // Only all of the sixteen-odd characters that could mask its text keep a known template from rendering.
        assert!(known.is_none() || ('\u{FDD0}'..='\u{FDEF}').all(|c| text.contains(c)));
        return;
    };
    // Nothing is lost on the way to tokens.
    assert_eq!(rendered.bytes, rendered.text.as_bytes());
    if let Some(template) = known {
        let tame: Vec<(&str, &str)> = turns.iter().map(|_| ("user", "x")).collect();
        let tame = CHAT.render(template, &tame, "").expect("a harmless conversation");
        assert_eq!(
            rendered.control, tame.control,
            "a caller's text became a control token: {:?}",
            rendered.text
        );
        let written = |name: &&str| {
            turns
                .iter()
                .any(|(who, says)| who.contains(*name) || says.contains(*name))
        };
        if let Some(name) = CONTROL.iter().find(|name| written(name)) {
            assert!(rendered.text.contains(name), "a caller's text is unchanged");
        }
    }
});
