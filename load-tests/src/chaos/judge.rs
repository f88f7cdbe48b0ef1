//! What one caller got, judged by itself: exactly one end, and nothing lost, doubled, mixed up or silently cut. Whether an
//! error had to be is another question: see [`super::ways`].

use std::time::Duration;

use super::call::{Call, DEADLINE};
use super::house::{TARGETS, Target};
use crate::caller::{Got, lacking_keys};

/// An end may come so much after the deadline: the machine is shared.
const GRACE: Duration = Duration::from_millis(1_500);

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum End {
    /// One whole right answer.
    Whole,
    /// A stream's beginning, and an error event.
    InBand,
    /// An error, before anything of an answer.
    Error,
    /// The caller left.
    Left,
    /// None of these.
    Lost,
}

impl End {
    /// One word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::InBand => "in_band",
            Self::Error => "error",
            Self::Left => "left",
            Self::Lost => "lost",
        }
    }
}

/// Judges it: its end, and one sentence for each thing that is wrong.
pub fn judge(call: &Call, got: &Got) -> (End, Vec<String>) {
    let mut wrong = Vec::new();
    if let Some(what) = &got.nonsense {
        wrong.push(what.clone());
    }
    if got.left {
        beginning(call, got, &mut wrong);
        return (End::Left, wrong);
    }
    if let Some(how) = &got.broken {
        wrong.push(format!("lost: {how}"));
        return (End::Lost, wrong);
    }
    if got.took > DEADLINE + GRACE {
        wrong.push(format!(
            "it took {} ms, the deadline is {}",
            got.took.as_millis(),
            DEADLINE.as_millis()
        ));
    }
    if got.id.is_empty() {
        wrong.push("no x-request-id".to_owned());
    }
    let end = match (&got.error, got.status) {
        (None, 200) => {
            whole(call, got, &mut wrong);
            End::Whole
        }
        (Some(_), 200) if call.stream => {
            in_band(call, got, &mut wrong);
            End::InBand
        }
        (Some(error), 400..600) => {
            let lacks = lacking_keys(error);
            if !lacks.is_empty() {
                wrong.push(format!("the error lacks {}", lacks.join(", ")));
            }
            if !got.text.is_empty() || !got.arguments.is_empty() {
                wrong.push("parts of an answer beside an error".to_owned());
            }
            End::Error
        }
        (error, status) => {
            wrong.push(format!(
                "status {status} with {}",
                if error.is_some() {
                    "an error"
                } else {
                    "no error object"
                }
            ));
            End::Lost
        }
    };
    (end, wrong)
}

fn whole(call: &Call, got: &Got, wrong: &mut Vec<String>) {
    let (text, arguments) = call.answer();
    wrong.extend(differs("answer", text, &got.text));
    wrong.extend(differs("arguments", arguments, &got.arguments));
    if got.finishes != [call.finish()] {
        wrong.push(format!(
            "finish reasons {:?}, not one {}",
            got.finishes,
            call.finish()
        ));
    }
    if got.ids.len() != 1 {
        wrong.push(format!("{} ids of one answer", got.ids.len()));
    }
    if call.stream {
        match got.done {
            Some(0) => {}
            Some(n) => wrong.push(format!("{n} events after [DONE]")),
            None => wrong.push("a silent cut: no [DONE] and no error".to_owned()),
        }
        if got.roles != 1 {
            wrong.push(format!("{} role chunks", got.roles));
        }
        // A provider may tell none.
        if got.usage.0 > usize::from(call.usage) {
            wrong.push(format!("usage told {} times", got.usage.0));
        }
    }
    names(call, got, wrong);
}

/// Who says to have answered can have.
fn names(call: &Call, got: &Got, wrong: &mut Vec<String>) {
    let route = call.route();
    let by = Target::named(&got.answered_by).filter(|at| route.targets().any(|t| t == *at));
    let Some(by) = by else {
        wrong.push(format!("x-weir-model is {:?}", got.answered_by));
        return;
    };
    let may = |model: &String| {
        route
            .targets()
            .any(|t| TARGETS.get(t).is_some_and(|t| t.model() == *model))
    };
    let first = TARGETS.get(by).map(Target::model);
    if got.models.first() != first.as_ref() || !got.models.iter().all(may) {
        wrong.push(format!(
            "{} answered, and the body says {:?}",
            got.answered_by, got.models
        ));
    }
    // A stream that nobody may go on with has one author, and so has a whole answer.
    if got.models.len() > 1 && !(call.stream && route.goes_on) {
        wrong.push(format!("{} models in one answer", got.models.len()));
    }
    if !is_weaker(call, by) && !got.degraded.is_empty() {
        wrong.push(format!(
            "{} answered, and x-weir-degraded is {:?}",
            got.answered_by, got.degraded
        ));
    }
}

/// It answers only as a last resort. Its answer is marked as degraded, unless the one that should have answered is off.
pub fn is_weaker(call: &Call, by: usize) -> bool {
    let route = call.route();
    route.degrades && !route.first.contains(&by)
}

fn in_band(call: &Call, got: &Got, wrong: &mut Vec<String>) {
    beginning(call, got, wrong);
    let lacks = got.error.as_ref().map(lacking_keys).unwrap_or_default();
    if !lacks.is_empty() {
        wrong.push(format!("the error lacks {}", lacks.join(", ")));
    }
    if got.done.is_some() || got.after_error > 0 {
        wrong.push("something comes after the error".to_owned());
    }
    if !got.finishes.is_empty() {
        wrong.push(format!("finish reason {:?} beside an error", got.finishes));
    }
}

/// What has come is the beginning of the right answer.
fn beginning(call: &Call, got: &Got, wrong: &mut Vec<String>) {
    let (text, arguments) = call.answer();
    for (what, right, came) in [
        ("answer", text, &got.text),
        ("arguments", arguments, &got.arguments),
    ] {
        if !right.starts_with(came.as_str()) {
            wrong.extend(differs(what, right, came));
        }
    }
}

/// How a text differs from what it should be, with the place.
fn differs(what: &str, right: &str, came: &str) -> Option<String> {
    if right == came {
        return None;
    }
    if right.starts_with(came) {
        return Some(format!(
            "{what}: {} of {} bytes, sold as whole",
            came.len(),
            right.len()
        ));
    }
    let same = right
        .bytes()
        .zip(came.bytes())
        .take_while(|(a, b)| a == b)
        .count();
    let there = |text: &str| -> String {
        let bytes = text.as_bytes().get(same.saturating_sub(12)..).unwrap_or_default();
        String::from_utf8_lossy(bytes).chars().take(40).collect()
    };
    Some(format!(
        "{what}: wrong from byte {same} on, {:?} and not {:?} ({} and {} bytes)",
        there(came),
        there(right),
        came.len(),
        right.len()
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::house::ROUTES;
    use super::*;

    fn call(route: usize, stream: bool) -> Call {
        let mut call = Call::to(route, 1, 17);
        (call.stream, call.usage) = (stream, false);
        call
    }

    fn right(call: &Call) -> Got {
        let (text, arguments) = call.answer();
        let by = TARGETS[ROUTES[call.route].first[0]];
        Got {
            status: 200,
            id: "r".into(),
            answered_by: by.name.into(),
            models: vec![by.model()],
            ids: vec!["x".into()],
            text: text.into(),
            arguments: arguments.into(),
            roles: 1,
            finishes: vec![call.finish().into()],
            done: call.stream.then_some(0),
            usage: (usize::from(!call.stream), 1, 1),
            ..Got::default()
        }
    }

    fn told(call: &Call, change: impl FnOnce(&mut Got)) -> (End, String) {
        let mut got = right(call);
        change(&mut got);
        let (end, wrong) = judge(call, &got);
        (end, wrong.join("; "))
    }

    #[test]
    fn a_right_answer_of_every_route_in_both_forms_is_right() {
        for route in 0..ROUTES.len() {
            for stream in [true, false] {
                assert_eq!(told(&call(route, stream), |_| {}), (End::Whole, String::new()));
            }
        }
    }

    #[test]
    fn lost_doubled_cut_and_mixed_up_answers_are_noticed() {
        let c = call(0, true);
        let other = Call::to(0, 1, 18).words;
        let half = c.words.len() / 2;
        let whole = c.words.clone();
        type Change<'a> = &'a dyn Fn(&mut Got);
        let cases: [(&str, Change<'_>); 12] = [
            ("lost: nothing ended", &|g| {
                g.broken = Some("nothing ended".into())
            }),
            ("a silent cut", &|g| {
                (g.done, g.finishes) = (None, Vec::new());
                g.text.truncate(half);
            }),
            ("sold as whole", &|g| g.text.truncate(half)),
            ("wrong from byte", &|g| g.text = whole.repeat(2)),
            ("wrong from byte", &|g| g.text = other.clone()),
            ("wrong from byte", &|g| {
                let tail = g.text.split_off(half - 4);
                g.text.push_str(&tail[..8]);
                g.text.push_str(&tail);
            }),
            ("2 role chunks", &|g| g.roles = 2),
            ("2 ids", &|g| g.ids.push("y".into())),
            ("not one stop", &|g| g.finishes.push("stop".into())),
            ("after [DONE]", &|g| g.done = Some(1)),
            ("no x-request-id", &|g| g.id.clear()),
            ("the deadline is", &|g| g.took = Duration::from_secs(40)),
        ];
        for (why, change) in cases {
            let (_, wrong) = told(&c, change);
            assert!(wrong.contains(why), "{why}: {wrong:?}");
        }
    }

    #[test]
    fn an_error_is_honest_or_noticed() {
        let keys = || json!({"message": "m", "type": "t", "param": null, "code": "c"});
        let error = |g: &mut Got| {
            *g = Got {
                status: 503,
                id: "r".into(),
                error: Some(keys()),
                ..Got::default()
            }
        };
        let c = call(0, true);
        assert_eq!(told(&c, error), (End::Error, String::new()));
        let (_, wrong) = told(&c, |g| (error(g), g.error = Some(json!({"message": "m"}))).1);
        assert!(wrong.contains("lacks type, param, code"), "{wrong}");
        let (end, wrong) = told(&c, |g| (error(g), g.error = None).1);
        assert!(end == End::Lost && wrong.contains("no error object"), "{wrong}");
        let in_band = |g: &mut Got| {
            g.text.truncate(9);
            (g.done, g.finishes, g.error) = (None, Vec::new(), Some(keys()));
        };
        assert_eq!(told(&c, in_band), (End::InBand, String::new()));
        let (_, wrong) = told(&c, |g| (in_band(g), g.done = Some(0)).1);
        assert!(wrong.contains("after the error"), "{wrong}");
        let (_, wrong) = told(&c, |g| (in_band(g), g.text.push_str("nonsense")).1);
        assert!(wrong.contains("wrong from byte"), "{wrong}");
        // A whole answer cannot end in band.
        let (end, _) = told(&call(0, false), |g| g.error = Some(keys()));
        assert_eq!(end, End::Lost);
    }

    #[test]
    fn false_names_and_unmarked_degradation_are_noticed() {
        let floor = call(2, false);
        let weak = &TARGETS[ROUTES[2].then[0]];
        let by_weak = |g: &mut Got| (g.answered_by, g.models) = (weak.name.into(), vec![weak.model()]);
        let marked = |g: &mut Got| (by_weak(g), g.degraded = "weaker; reason=failed".into()).1;
        assert_eq!(told(&floor, marked).1, "");
        assert!(
            told(&floor, |g| g.degraded = "x".into())
                .1
                .contains("x-weir-degraded")
        );
        assert!(
            told(&floor, |g| g.answered_by = "pinned".into())
                .1
                .contains("x-weir-model")
        );
        assert!(
            told(&floor, |g| g.models = vec![weak.model()])
                .1
                .contains("the body says")
        );
        let joined = |g: &mut Got| g.models.push(TARGETS[1].model());
        assert_eq!(told(&call(0, true), joined).1, "", "two may write a stream");
        assert!(told(&call(0, false), joined).1.contains("2 models"));
    }

    #[test]
    fn who_leaves_has_got_the_beginning() {
        let c = call(0, true);
        let leave = |g: &mut Got| {
            (g.left, g.done) = (true, None);
            g.text.truncate(20);
        };
        assert_eq!(told(&c, leave), (End::Left, String::new()));
        assert!(
            told(&c, |g| (leave(g), g.text = "else".into()).1)
                .1
                .contains("wrong from byte")
        );
    }
}
