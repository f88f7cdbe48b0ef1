//! Templates that would take all memory, or the thread's stack, are refused; others are not touched.

use minijinja::{Environment, context};

use super::super::Template;
use super::*;

fn run(template: &str) -> Result<String, String> {
    let messages: Vec<Value> = ["one", "two", "three"]
        .iter()
        .map(|content| context! { role => "user", content })
        .collect();
    Template::compile(template)
        .map_err(|e| e.to_string())?
        .run(context! { messages, add_generation_prompt => true })
}

/// Each is refused: by a bound, or because its steps were too many before that.
fn refuses(templates: &[&str]) {
    for template in templates {
        let told = run(template).expect_err(template);
        assert!(
            [
                "MiB",
                "without end",
                "cannot be kept",
                "multiplies",
                "fuel",
                "not supported",
                "more than",
                "leaves a loop",
            ]
            .iter()
            .any(|words| told.contains(words)),
            "{template}: {told}"
        );
    }
}

#[test]
fn texts_do_not_double_without_end() {
    refuses(&[
        "{% set ns = namespace(x='abcd') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='abcd') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x='abcd') %}{% for i in range(60) %}\
         {% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}{% endfor %}",
        "{% macro f(x, n) %}{% if n %}{{ f(x ~ x, n - 1) }}{% endif %}{% endmacro %}{{ f('abcd', 60) }}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}some text{% endmacro %}{{ f(25) }}",
        "{% set ns = namespace(x='abcd') %}{% for i in range(60) %}{% set ns.x = ns.x.replace('a', ns.x) %}{% endfor %}",
        "{% set ns = namespace(x='abcd') %}{% for i in range(60) %}{% set ns.x = ns.x|replace('', ns.x) %}{% endfor %}",
        "{% set ns = namespace(x='abcd') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x]|join(ns.x) %}{% endfor %}",
        "{% set ns = namespace(x='abcd') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x]|tojson %}{% endfor %}",
        "{% set ns = namespace(x='<&') %}{% for i in range(60) %}{% set ns.x = ns.x|escape|string|escape %}{% endfor %}\
         {% set x = 'abcdefgh' %}{% for i in range(100000) %}{{ x }}{% for j in range(400) %}{{ x }}{% endfor %}{% endfor %}",
    ]);
}

#[test]
fn what_goes_out_and_what_is_kept_has_an_end() {
    let long = "x".repeat(100_000);
    refuses(&[
        &format!("{{% for i in range(100000) %}}{long}{{% endfor %}}"),
        &format!("{{% set y %}}{{% for i in range(100000) %}}{long}{{% endfor %}}{{% endset %}}"),
        &format!(
            "{{% set x = '{long}' %}}{{% set ns = namespace(l=[]) %}}\
             {{% for i in range(100000) %}}{{% set ns.l = ns.l + [x[1:]] %}}{{% endfor %}}"
        ),
        "{% set ns = namespace(l=[]) %}{% for i in range(100000) %}{% set ns.l = ns.l + [range(100000)|list] %}{% endfor %}",
        "{% set n = 1000000000000 %}{% set l = [0] %}{{ (l * n)|list }}",
        "{% set n = 1000000000000 %}{% set s = 'x' %}{{ s * n }}",
        "{{ 'x'|indent(1000000000000, true) }}",
        "{{ [1]|batch(1000000000000, 0) }}",
        "{{ [1]|slice(1000000000000) }}",
        "{{ '%1000000000000d'|format(1) }}",
        "{{ '%*d'|format(1000000000000, 1) }}",
        "{{ 'x' * 100000000 }}",
        "{{ (('x' ~ 'y') * 100000000) ~ '' }}",
        "{{ 100000000 * 'x' }}",
        "{{ ['x'] * 100000000 ~ '' }}",
        "{{ 'x' * (1000 * 100000) }}",
        "{{ 'x' * 1000 * 1000 }}",
        "{{ ('x' * 1000) * 1000 }}",
        "{{ 1000 * 1000 * 'x' }}",
        "{{ ('x', 'y') * (100000000) ~ '' }}",
        "{% set n = 1000000 %}{% set w = ('x'|string) * n %}{{ range(100000)|list|join(w) }}",
        "{{ (1 + 1) * ('x') }}",
        "{{ ('x' and 'x') * 100000000 }}",
        "{% if 1 == 2 %}{% elif ('x') * 100000000 %}{% endif %}",
    ]);
}

#[test]
fn lists_in_lists_have_an_end() {
    refuses(&[
        "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}",
        "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = {'x': ns.x} %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace() %}{% set ns.x = ns %}{{ ns }}",
        "{% set ns = namespace() %}{% set ns.x = [ns] %}{{ ns }}",
        "{% set a = namespace() %}{% set b = namespace(x=a) %}{% set a.x = b %}{{ a }}",
    ]);
}

#[test]
fn what_the_compiler_would_follow_by_calling_itself_is_refused_before() {
    let long = |head: &str, piece: &str, tail: &str| format!("{head}{}{tail}", piece.repeat(100_000));
    refuses(&[
        &long("{{ messages", " + a", " }}"),
        &long("{{", " not", " a }}"),
        &long("{{", " -", " a }}"),
        &long("{{ messages", "|list", " }}"),
        &long("{{ messages", ".a", " }}"),
        &long("{% if a %}", "{% elif a %}", "{% endif %}"),
        &long("{% for ", "(", "a in b %}"),
        &format!(
            "{{% for i in range(100000) %}}{{% macro f() %}}{{{{ {} }}}}{{% endmacro %}}{{% endfor %}}",
            "x".repeat(100_000)
        ),
    ]);
}

#[test]
fn nothing_is_kept_out_of_sight() {
    refuses(&[
        "{% set ns = namespace(p=1) %}{% for i in range(100000) %}{% for y in [1] %}\
         {% set c = loop.changed(ns.p) %}{% set ns.p = loop %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(p=1) %}{% for i in range(100000) %}{% for y in [ns.p] %}{% set ns.p = loop %}{% break %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(p=1) %}{% for i in range(100000) %}{% set c = ns.p %}{% macro f() %}{{ c }}{% endmacro %}\
         {% set ns.p = f %}{% endfor %}",
        "{% for x in [1] %}{{ [loop] }}{% endfor %}",
        "{{ range(*range(3)) }}",
        "{% autoescape true %}x{% endautoescape %}",
        "{% block a %}x{% endblock %}",
        "{{ range(100001)|length }}",
    ]);
    // Many large things in one namespace are a large namespace.
    let large = "{% set n = 60000000 %}{% set s = ('c'|string) * n %}{% set ns = namespace() %}";
    let sets: String = (0..60).map(|i| format!("{{% set ns.a{i} = s %}}")).collect();
    refuses(&[&format!("{large}{sets}{{% set y = ns ~ '' %}}")]);
    for filter in ["map('list')|length", "groupby('x')", "list", "sort"] {
        refuses(&[&format!("{large}{{{{ s|{filter} }}}}")]);
    }
    refuses(&[
        &format!("{large}{{{{ s.split('') }}}}"),
        &format!("{large}{{{{ s[::-1] }}}}"),
    ]);
}

#[test]
fn what_is_made_anew_at_each_look_does_not_nest() {
    for template in [
        "{% set ns = namespace(d={'a': 1}) %}{% for i in range(20000) %}{% set ns.d = ns.d|chain({'a': 1}) %}{% endfor %}{{ ns.d.b }}",
        "{% set ns = namespace(d=[1]) %}{% for i in range(20000) %}{% set ns.d = ([ns.d]|map('chain', {}))[0] %}{% endfor %}{{ ns.d }}",
    ] {
        let told = run(template).unwrap_err();
        assert!(told.contains("unknown"), "{told}");
    }
    for template in [
        "{% set ns = namespace(d=[1]) %}{% for i in range(20000) %}{% set ns.d = ([ns.d]|map('reverse'))|list|first %}{% endfor %}{{ ns.d }}",
        "{% set ns = namespace(d=[1]) %}{% for i in range(20000) %}{% set ns.d = ns.d + [] %}{% endfor %}{{ ns.d }}",
    ] {
        assert_eq!(run(template).unwrap(), "[1]");
    }
}

#[test]
fn what_panics_in_the_engine_is_refused_or_right() {
    for (template, made) in [
        ("{{ [][::-1] }}", "[]"),
        ("{{ ''[::-1] }}", ""),
        ("{{ messages[0:2:-1] }}", "[]"),
        ("{{ 'abc'[::-9223372036854775808] }}", "c"),
        ("{{ 1 is divisibleby(0) }}", "False"),
        ("{{ 6 is divisibleby(3) }}", "True"),
        ("{{ (messages|length > 2) * 3 }}", "3"),
        (
            "{{ range(9223372036854775807, -5, -9223372036854775807) }}",
            "[9223372036854775807, 0]",
        ),
        (
            "{{ range(1, 8, 3) }}{{ range(3, -2, -2) }}{{ range(-1) }}",
            "[1, 4, 7][3, 1, -1][]",
        ),
    ] {
        assert_eq!(run(template).as_deref(), Ok(made), "{template}");
    }
    refuses(&[
        "{% for x in [1] %}{% with %}{% break %}{% endwith %}{% endfor %}",
        "{% for x in [1] %}{% set y %}{% break %}{% endset %}{% endfor %}",
        "{% for x in [1] %}{{ loop.cycle() }}{% endfor %}",
    ]);
}

/// `'abcd'[start:stop]` and `[start:stop:2]` for every stop, then `[start::-1]` and `[:start:-2]`, as Python has them.
#[test]
fn slices_are_those_of_python() {
    let places = ["", "-9", "-3", "-1", "0", "1", "2", "3", "9"];
    let python = [
        "abcd,ac;,;a,a;abc,ac;,;a,a;ab,a;abc,ac;abcd,ac;dcba,db",
        "abcd,ac;,;a,a;abc,ac;,;a,a;ab,a;abc,ac;abcd,ac;,db",
        "bcd,bd;,;,;bc,b;,;,;b,b;bc,b;bcd,bd;ba,d",
        "d,d;,;,;,;,;,;,;,;d,d;dcba,",
        "abcd,ac;,;a,a;abc,ac;,;a,a;ab,a;abc,ac;abcd,ac;a,db",
        "bcd,bd;,;,;bc,b;,;,;b,b;bc,b;bcd,bd;ba,d",
        "cd,c;,;,;c,c;,;,;,;c,c;cd,c;cba,d",
        "d,d;,;,;,;,;,;,;,;d,d;dcba,",
        ",;,;,;,;,;,;,;,;,;dcba,",
    ];
    for (start, python) in places.iter().zip(python) {
        let of = |what: &str| {
            let stops = places
                .iter()
                .map(|stop| format!("{{{{ {what}[{start}:{stop}] }}}},{{{{ {what}[{start}:{stop}:2] }}}};"));
            let back = format!("{{{{ {what}[{start}::-1] }}}},{{{{ {what}[:{start}:-2] }}}}");
            run(&(stops.collect::<String>() + &back)).unwrap()
        };
        assert_eq!(of("'abcd'"), python, "{start}");
        let list = of("['a', 'b', 'c', 'd']")
            .replace(['[', ']', '"', '\''], "")
            .replace(", ", "");
        assert_eq!(list, python, "{start}");
    }
}

/// What is left of the conversation, looked at in each of its turns.
#[test]
fn a_long_conversation_is_no_hostile_one() {
    let messages: Vec<Value> = (0..2_500)
        .map(|i| context! { role => "user", content => format!("what was said in turn {i}") })
        .collect();
    let template =
        "{% for m in messages %}{% set left = messages[loop.index:] %}{{ left|length }} {% endfor %}";
    let made = Template::compile(template)
        .unwrap()
        .run(context! { messages })
        .unwrap();
    assert!(
        made.starts_with("2499 2498 ") && made.ends_with(" 1 0 "),
        "{made}"
    );
}

#[test]
fn a_slice_of_a_slice_is_a_list() {
    let template = "{% set ns = namespace(x=[1, 2, 3]) %}\
                    {% for i in range(20000) %}{% set ns.x = ns.x[0:] %}{% endfor %}{{ ns.x }}";
    assert_eq!(run(template).unwrap(), "[1, 2, 3]");
}

#[test]
fn a_template_cannot_shadow_what_counts() {
    let template = "{% macro weir_made(x) %}no{% endmacro %}{% set weir_joined = 1 %}{{ 'a' ~ 'b' }}";
    assert_eq!(run(template).unwrap(), "ab");
    assert!(run("{{ debug() }}").is_err());
    assert!(run("{% include 'chat' %}").is_err());
}

/// The same as the engine alone makes of it: jumps, loops, macros, captures, recursion, blocks, filters.
#[test]
fn what_a_template_makes_is_unchanged() {
    for template in [
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] ~ '<|im_end|>' }}\n{% endfor %}x",
        "{%- set ns = namespace(n=0, all='') -%}\n{% for m in messages[::-1] if m.content != 'two' %}\n  \
         {%- set ns.n = ns.n + 1 %}{% set ns.all = ns.all ~ m.content %}\n{% else %}none{% endfor %}{{ ns.n }}{{ ns.all }}",
        "{% macro turn(m, last=false) %}[{{ m.content }}{% if last %}!{% endif %}]{% endmacro %}\
         {% for m in messages %}{{ turn(m, last=loop.last) }}{% if loop.index0 == 5 %}{% break %}{% endif %}{% endfor %}",
        "{% for x in [1, [2, [3, 4]], 5] recursive %}{% if x is sequence %}({{ loop(x) }}){% else %}{{ x }}{% endif %}{% endfor %}",
        "{% set y %}a{% filter upper %}b{{ messages[0].content }}{% endfilter %}{% endset %}{{ y|length }}{{ y }}",
        "h{{ messages|length }}{{ 3 * messages|length }}{{ messages|map(attribute='content')|join('-') }}",
        "{% set n = 3 %}{{ n * 4 }} {{ n * 1.5 }} {% set s = 'ab' %}{{ s * n }} {{ n * s }} {% set l = [1, 2] %}{{ l * n }}",
        "{% set n = 2 %}{{ '  ' * n }}{{ (n + 1) * 2 }}{{ ((n) - 1) * 'a' }}{{ 2 * 3 }}{{ messages[0].content * 2 }}{{ 'a' * loopless|length }}{% set l = [3] %}{{ l[0] * 2 }}{{ range(4)[1] * (1) }}",
        "{{ 'a' if messages and not false or x.y else 'b' }}{{ messages[1:][0].content[1:] }}{{ 1 < 2 < 3 }}{{ 'n' in 'one' }}",
        "{% with a = 1, b = 'x' %}{{ a }}{{ b|indent(2, true) }}{{ 'a.b'|replace('.', '/') }}{% endwith %}{{ '%3d|%s'|format(7, 'x') }}",
        "{% call(x) wrap() %}{{ x }}{% endcall %}{% macro wrap() %}<{{ caller('in') }}>{% endmacro %}",
        "{% macro wrap() %}<{{ caller('in') }}>{% endmacro %}{% call(x) wrap() %}{{ x }}{{ messages[0] | tojson }}{% endcall %}",
        "{{ [1, 'x', none, 1.0, '<'] }}{{ nothing }}{{ '<b>'|safe }}",
        "{% for i in range(3) %}{% if i == 1 %}{% continue %}{% endif %}{% with x = i %}{{ x }}{% for y in [1, 2] %}{% break %}{% endfor %}{% endwith %}\
         {% set z %}{{ i }}{% endset %}{{ z }}{% if i == 2 %}{% break %}{% endif %}{% endfor %}",
        "{{ '-' * 40 }}{{ 3 * 'ab' }}{{ (1 + 2) * 3 }}{% set n = 1 %}{{ '  ' * (n + 1) }}{{ 2 * (n + 1) }}{{ 'a'|upper * 2 }}{{ 2 * -n }}",
        "{{ [3, 1, 2]|sort|batch(2)|list }}{{ range(5)|slice(2)|list }}{{ range(3) }}{{ {'a': 1}|items|list }}",
    ] {
        let mut plain = Environment::new();
        plain.set_trim_blocks(true);
        plain.set_lstrip_blocks(true);
        plain.add_filter("tojson", super::super::to_json);
        let messages: Vec<Value> = ["one", "two", "three"]
            .iter()
            .map(|content| context! { role => "user", content })
            .collect();
        let theirs = plain
            .render_str(template, context! { messages, add_generation_prompt => true })
            .map_err(|e| e.detail().map_or_else(|| e.to_string(), str::to_owned));
        assert_eq!(run(template), theirs, "{template}");
    }
}
