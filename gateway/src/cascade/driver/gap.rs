//! A committed stream broke: carries out who goes on with it, and how.

use std::sync::Arc;

use routing::cascade::{Event, Refusal, StartKind, TryId};
use routing::continuation::{Way, Ways};
use routing::facts::Needs;
use routing::ids::TargetId;
use routing::outcome::Graded;
use routing::units::Time;

use super::super::joining::{Joining, Received};
use super::super::piece::Piece;
use super::super::running::Running;
use super::super::watch::Watch;
use super::super::{Work, attempt};
use super::{Driver, Said};
use crate::call::CallKind;
use crate::providers::event::{self as said, Frame};
use crate::providers::failure::{AttemptError, Fault};
use crate::providers::render::DONE;

/// What of a request forbids to go on with its answer, beyond what the machine knows: sound cannot be joined, and the
/// older form of tool calls is not written here.
pub(super) fn may_go_on(work: &Work) -> bool {
    work.call.stream
        && !work.facts.needs.contains(Needs::AUDIO)
        && work.call.value("functions").is_none_or(|v| v == b"null")
}

/// The answer is to be one JSON value.
fn json(work: &Work) -> bool {
    work.facts.needs.contains(Needs::JSON_SCHEMA) || work.facts.needs.contains(Needs::JSON_MODE)
}

impl Driver {
    /// A stream broke behind its last finish reason: it is whole all the same.
    pub(super) fn is_whole_anyway(&mut self, id: TryId, now: Time) -> bool {
        let stream = self.work.call.stream;
        let run = self.tries.iter_mut().find(|r| r.id == id);
        let Some(run) = run.filter(|r| stream && r.watch.has_ended()) else {
            return false;
        };
        run.close();
        let done = Frame {
            wire: Some(DONE),
            ..Frame::silent(said::Event::Done)
        };
        self.heard(id, Said::Whole(done), now);
        true
    }

    /// What the machine is told of a committed stream that broke, and what is kept to go on from.
    pub(super) fn cut(&mut self, mut run: Running, end: Graded, may_repeat: bool) -> Event {
        let local = self.work.plan.target(run.target).is_local();
        let usage = run.watch.usage(local, self.work.facts.prompt_tokens);
        let received = match (run.joining.take(), run.sent.take()) {
            (Some(joining), _) => Some(joining.received(&run.watch, usage)),
            (None, Some(sent)) => run.meta.take().map(|meta| Received {
                sent,
                meta,
                usage,
                prompt_told: run.watch.told_prompt(),
            }),
            (None, None) => None,
        };
        let ways = received.as_ref().map_or(Ways::NONE, |r| self.ways(r));
        self.received = received;
        Event::Cut {
            try_: run.id,
            end,
            may_repeat,
            ways,
        }
    }

    /// The ways that there are, and that this call can be asked in.
    fn ways(&self, received: &Received) -> Ways {
        let call = &self.work.call;
        let ways = received.sent.ways(call.kind == CallKind::Chat, json(&self.work));
        let can = |way: &Way| ways.has(*way) && call.to_go_on(*way, &received.sent, 0).is_some();
        Way::ALL.into_iter().filter(can).fold(Ways::NONE, Ways::with)
    }

    /// Starts a try that goes on.
    pub(super) fn go_on(&mut self, id: TryId, target: TargetId, tier: u8, way: Way, now: Time) {
        // The same target again is a repeat, and draws on the ratio budget like one.
        let name = &self.work.plan.target(target).name;
        let again = self.account.attempts.iter().any(|a| a.target == *name);
        let kind = if again {
            StartKind::Retry
        } else {
            StartKind::Continue
        };
        let asked = self.received.as_ref().and_then(|received| {
            let call = &self.work.call;
            let joining = Joining::new(received, way, json(&self.work), call.kind, call.include_usage);
            Some((call.to_go_on(way, &received.sent, received.delivered())?, joining))
        });
        let Some((call, joining)) = asked else {
            let (why, until) = (Refusal::Off, None);
            return self.events.push_back(Event::Refused { try_: id, why, until });
        };
        let (client, leave, means) = match attempt::admit(&self.work, target, kind, None, now) {
            Ok(admitted) => admitted,
            Err((why, until)) => {
                return self.events.push_back(Event::Refused { try_: id, why, until });
            }
        };
        let left = self.work.plan.target(target).timeouts.continue_within;
        let calling = self.calling(client, Arc::new(call), target, left);
        self.starts = self.starts.saturating_add(1);
        let watch = Watch::new(&[], None, None, 1);
        let kind = StartKind::Continue;
        let mut run = Running::new(id, target, tier, kind, now, watch, calling, leave);
        run.joining = Some(Box::new(joining));
        run.means = means;
        self.tries.push(run);
    }

    /// A frame of a continuation. `false`: it is over because of it.
    pub(super) fn goes_on(&mut self, id: TryId, frame: &Frame, now: Time) -> bool {
        let run = self.tries.iter_mut().find(|r| r.id == id);
        let Some(joining) = run.and_then(|r| r.joining.as_mut()) else {
            return false;
        };
        match joining.take(frame) {
            Ok(true) => self.events.push_back(Event::Joined { try_: id }),
            Ok(false) if joining.adopted => {
                let piece = joining.release().and_then(|f| Piece::of(f, self.work.shared));
                self.out.extend(piece);
            }
            Ok(false) => {}
            Err(why) if joining.adopted => {
                let detail = format!(
                    "what the answer went on with does not belong to it ({})",
                    why.label()
                );
                self.broke(id, AttemptError::new(Fault::BadAnswer, detail).sent(), now);
                return false;
            }
            Err(_) => {
                self.events.push_back(Event::Unfit { try_: id });
                return false;
            }
        }
        true
    }

    /// Figures of the whole answer that a continuation ended.
    pub(super) fn told_usage(&self, run: &Running) -> Option<said::Usage> {
        let local = self.work.plan.target(run.target).is_local();
        let own = run.watch.usage(local, self.work.facts.prompt_tokens);
        let (usage, _) = run.joining.as_ref()?.usage(own)?;
        Some(usage)
    }

    /// The machine has taken a continuation for the answer.
    pub(super) fn adopt(&mut self, id: TryId) {
        self.committed = Some(id);
        let run = self.tries.iter_mut().find(|r| r.id == id);
        if let Some(joining) = run.and_then(|r| r.joining.as_mut()) {
            joining.adopted = true;
            let piece = joining.release().and_then(|f| Piece::of(f, self.work.shared));
            self.out.extend(piece);
        }
    }
}
