//! What is known of one answer as it comes: its checks, its token counts, how much of each choice has been seen.

use std::sync::Arc;

use routing::cascade::Judged;
use routing::plan::{Check, HoldBack};
use routing::verify::{self, Checker, Question, TokenSignal};
use smallvec::SmallVec;

use crate::call::estimate;
use crate::providers::event::{Event, FinishReason, Frame, Text, Usage};

/// One answer, watched.
#[derive(Debug)]
pub struct Watch {
    checker: Option<Box<Checker>>,
    hold: Option<HoldBack>,
    choices: u16,
    /// Tokens (content events, for remotes) seen of each choice, and whether it has ended.
    seen: SmallVec<[Seen; 1]>,
    told: Option<Usage>,
    /// The target has begun to answer: it has worked on the prompt.
    begun: bool,
    judged: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    choice: u16,
    /// Of the answer itself: what a hold-back counts.
    tokens: u32,
    ended: bool,
    /// Each token was told by itself: `tokens` is exact.
    exact: bool,
    /// Bytes of text, arguments and thinking: ASCII, and others.
    plain: u64,
    wide: u64,
    /// Pieces of thinking, and their bytes.
    thoughts: u32,
    thought_plain: u64,
    thought_wide: u64,
}

impl Seen {
    fn text(&mut self, text: &Text) {
        let (plain, wide) = text.plain_and_wide();
        self.plain += plain;
        self.wide += wide;
    }

    fn thought(&mut self, text: &Text) {
        let (plain, wide) = text.plain_and_wide();
        self.thoughts += 1;
        self.thought_plain += plain;
        self.thought_wide += wide;
    }

    /// Tokens of thinking. Most servers send one a piece; those that send more at once are measured by their bytes.
    fn thinking(&self) -> u64 {
        u64::from(self.thoughts).max(estimate::tokens(self.thought_plain, self.thought_wide))
    }

    /// All tokens of the choice.
    fn completion(&self) -> u64 {
        let said = u64::from(self.tokens);
        if self.exact {
            return said.saturating_add(self.thinking());
        }
        said.max(estimate::tokens(self.plain, self.wide))
            .saturating_add(self.thinking())
    }
}

impl Watch {
    /// For these checks (none: nothing is judged) and this hold-back.
    pub fn new(
        checks: &[Check],
        question: Option<&Arc<Question>>,
        hold: Option<HoldBack>,
        choices: u16,
    ) -> Self {
        let checker = question
            .filter(|_| !checks.is_empty())
            .map(|q| Box::new(Checker::new(checks, Arc::clone(q))));
        Self {
            checker,
            hold,
            choices: choices.max(1),
            seen: SmallVec::new(),
            told: None,
            begun: false,
            judged: false,
        }
    }

    /// Takes in one frame. Once an answer is committed only its usage and counts matter, and the text is left alone.
    pub fn see(&mut self, frame: &Frame, committed: bool) {
        let signals = frame.events.iter().any(|e| matches!(e, Event::Signal { .. }));
        for event in &frame.events {
            self.count(event, signals);
            if !committed && let Some(checker) = &mut self.checker {
                feed(checker, event, signals);
            }
        }
    }

    /// A token signal is one token; content without signals counts one token an event.
    fn count(&mut self, event: &Event, signals: bool) {
        self.begun |= !matches!(event, Event::Ping);
        match event {
            Event::Usage(usage) => self.told = Some(*usage),
            Event::Signal { choice, .. } => {
                let seen = self.choice(*choice);
                seen.tokens += 1;
                seen.exact = true;
            }
            Event::Text { choice, text } | Event::Refusal { choice, text } if !text.is_empty() => {
                let seen = self.choice(*choice);
                seen.tokens += u32::from(!signals);
                seen.text(text);
            }
            Event::Reasoning { choice, text } => self.choice(*choice).thought(text),
            Event::Tool(delta) => {
                let seen = self.choice(delta.choice);
                seen.tokens += 1;
                delta.name.iter().for_each(|name| seen.text(name));
                seen.text(&delta.arguments);
            }
            Event::Finish { choice, .. } => self.choice(*choice).ended = true,
            _ => {}
        }
    }

    fn choice(&mut self, choice: u16) -> &mut Seen {
        let at = match self.seen.iter().position(|s| s.choice == choice) {
            Some(at) => at,
            None => {
                self.seen.push(Seen {
                    choice,
                    ..Seen::default()
                });
                self.seen.len() - 1
            }
        };
        &mut self.seen[at]
    }

    /// Every choice that was asked for has its finish reason.
    pub fn has_ended(&self) -> bool {
        self.seen.len() >= usize::from(self.choices) && self.seen.iter().all(|s| s.ended)
    }

    /// The provider has said how long the prompt is.
    pub fn told_prompt(&self) -> bool {
        self.told.is_some_and(|told| told.prompt > 0)
    }

    /// Enough of every choice is held to judge the prefix. Said once.
    pub fn is_enough(&mut self) -> bool {
        let Some(HoldBack::Tokens(k)) = self.hold else {
            return false;
        };
        let all_begun = self.seen.len() >= usize::from(self.choices);
        if self.judged || !all_begun || !self.seen.iter().all(|s| s.ended || s.tokens >= k.max(1)) {
            return false;
        }
        self.judged = true;
        true
    }

    /// A check failed that no further text can mend. Said once.
    pub fn fails_already(&mut self) -> bool {
        if self.judged || !self.checker.as_ref().is_some_and(|c| c.failed()) {
            return false;
        }
        self.judged = true;
        true
    }

    /// Judging the whole would take more than about a millisecond of CPU.
    pub fn heavy(&self) -> bool {
        self.checker.as_ref().is_some_and(|c| c.heavy())
    }

    /// What the checks say: of the whole, or of what is here so far.
    pub fn judge(&self, complete: bool) -> Judged {
        match &self.checker {
            None => Judged::unchecked(),
            Some(checker) if complete => judge_whole(checker),
            Some(checker) => Judged::from(&checker.verdict_so_far()),
        }
    }

    /// Takes the checks out, to judge the whole of the answer elsewhere; the counts stay.
    pub fn checks(&mut self) -> Option<Box<Checker>> {
        self.checker.take()
    }

    /// Token counts and who counted them. `prompt` is our own estimate of the prompt.
    ///
    /// The provider's figures hold once the answer has ended. Where there are none, or what there is was told in the
    /// middle of an answer that was cut, what was seen is counted, and the prompt estimated: a try that was accepted and
    /// began to answer is paid for, whoever ended it.
    pub fn usage(&self, local: bool, prompt: u32) -> Option<(Usage, &'static str)> {
        let ended = self.seen.iter().all(|s| s.ended);
        let completion = self.seen.iter().map(Seen::completion).sum::<u64>();
        let reasoning = self.seen.iter().map(Seen::thinking).sum::<u64>();
        // Servers that do not count may say zero.
        match self.told.filter(|told| told.total() > 0) {
            Some(told) if ended => Some((told, if local { "local" } else { "provider" })),
            Some(told) if local => {
                let completion = told.completion.max(completion);
                Some((Usage { completion, ..told }, "local"))
            }
            Some(told) => {
                let usage = Usage {
                    prompt: if told.prompt == 0 {
                        u64::from(prompt)
                    } else {
                        told.prompt
                    },
                    completion: told.completion.max(completion),
                    reasoning: told.reasoning.max(reasoning),
                    ..told
                };
                Some((usage, "counted"))
            }
            None if self.begun => {
                let usage = Usage {
                    prompt: u64::from(prompt),
                    completion,
                    reasoning,
                    ..Usage::default()
                };
                Some((usage, "counted"))
            }
            None => None,
        }
    }
}

/// What the checks say of a whole answer.
pub fn judge_whole(checker: &Checker) -> Judged {
    Judged::from(&checker.verdict())
}

/// What the checks say of an answer that is whole and was shown before that was known. Large ones are judged on a thread for
/// such work.
pub async fn judged_whole<'a>(
    checks: &[Check],
    question: &Arc<Question>,
    frames: impl IntoIterator<Item = &'a Frame>,
) -> Judged {
    let mut watch = Watch::new(checks, Some(question), None, 1);
    for frame in frames {
        watch.see(frame, false);
    }
    if !watch.heavy() {
        return watch.judge(true);
    }
    let checks = watch.checks();
    let judging = tokio::task::spawn_blocking(move || checks.as_deref().map(judge_whole));
    judging.await.ok().flatten().unwrap_or_else(Judged::unchecked)
}

fn feed(checker: &mut Checker, event: &Event, signals: bool) {
    match event {
        Event::Text { choice, text } => {
            checker.text(*choice, &text.as_str());
            if !signals && !text.is_empty() {
                checker.tokens(*choice, 1);
            }
        }
        Event::Refusal { choice, text } => {
            checker.refusal(*choice, &text.as_str());
            checker.tokens(*choice, 1);
        }
        Event::Tool(delta) => {
            let name = delta.name.as_ref().map(|n| n.as_str());
            checker.tool(
                delta.choice,
                u32::from(delta.index),
                name.as_deref(),
                &delta.arguments.as_str(),
            );
            checker.tokens(delta.choice, 1);
        }
        Event::Signal { choice, signal } => {
            checker.signal(
                *choice,
                TokenSignal {
                    logprob: signal.logprob,
                    entropy: signal.entropy,
                    margin: signal.margin,
                },
            );
            checker.tokens(*choice, 1);
        }
        Event::Finish { choice, reason } => checker.finish(
            *choice,
            match reason {
                FinishReason::Stop => verify::FinishReason::Stop,
                FinishReason::Length => verify::FinishReason::Length,
                FinishReason::ToolCalls => verify::FinishReason::ToolCalls,
                FinishReason::ContentFilter => verify::FinishReason::ContentFilter,
                FinishReason::Other(_) => verify::FinishReason::Other,
            },
        ),
        _ => {}
    }
}
