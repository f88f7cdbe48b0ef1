//! What goes into the machine and what comes out.

use std::time::Duration;

use serde::Serialize;
use smallvec::SmallVec;

use crate::continuation::{Way, Ways};
use crate::ids::TargetId;
use crate::outcome::{CallerFault, Graded, Outcome};
use crate::plan::{Check, DegradeStep, HoldBack};
use crate::units::Time;
use crate::verify::{Coverage, Overall, Verdict};

/// One start of one target. Dense from 0 in the order of [`Action::Start`], refused ones included; unique in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct TryId(pub u16);

/// What happened. Events about a try that has ended are ignored, so a driver need not guard against late ones.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Start the first try. Fed once, first.
    Begin,
    /// Permit, breaker, queue or budget said no before anything was sent. Not an attempt. The try is over.
    Refused {
        /// Which.
        try_: TryId,
        /// Who said no.
        why: Refusal,
        /// When it may be asked again, where that is known.
        until: Option<Time>,
    },
    /// Something that is not content (a reasoning delta): first content's clock starts anew.
    SignOfLife {
        /// Which.
        try_: TryId,
    },
    /// Streams: the first content. A role-only chunk is not content.
    FirstContent {
        /// Which.
        try_: TryId,
    },
    /// What we think of the answer so far, or of the whole of it. Fed (before [`Event::Ended`]) when enough is held in
    /// every choice, when a growing answer fails early, when it is complete ([`Seen::Full`]: the end must follow), and
    /// after [`Action::Judge`].
    Verdict {
        /// Which.
        try_: TryId,
        /// What we think.
        verdict: Judged,
    },
    /// The try is over. `Outcome::Ok` means: the whole answer is here, with a finish reason.
    Ended {
        /// Which.
        try_: TryId,
        /// How, and what the target said about coming back.
        end: Graded,
        /// The ratio budget would cover one repeat on the same target now (it is taken by the step `permit` when a start
        /// with [`StartKind::Retry`] comes; if it is gone by then, answer with [`Refusal::RetryBudget`]).
        may_repeat: bool,
    },
    /// A committed stream broke: it ended without a finish reason, however cleanly, or was cut, or fell silent, or said
    /// what cannot be read. (Fed instead of [`Event::Ended`], which after the commit means that nothing can go on.)
    Cut {
        /// Which.
        try_: TryId,
        /// How, and what the target said about coming back.
        end: Graded,
        /// As in [`Event::Ended`].
        may_repeat: bool,
        /// The ways there are to go on from what the caller has received.
        ways: Ways,
    },
    /// A continuation goes on with what was sent, and has something new to say.
    Joined {
        /// Which.
        try_: TryId,
    },
    /// A continuation does not go on with what was sent. Nothing of it was shown; its try is given up.
    Unfit {
        /// Which.
        try_: TryId,
    },
    /// The time of the last [`Action::ArmTimer`] has come. Too early is harmless.
    Timer,
    /// The caller has left.
    ClientGone,
}

/// Who refused a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The target's concurrency or own rate limit, or a local queue without a place or with too long a wait.
    Permit,
    /// The breaker is open.
    Breaker,
    /// Held back (`retry-after`).
    Held,
    /// The caller's money or tokens do not cover this target.
    Reserve,
    /// No token for a repeat on the same target, or for a hedge.
    RetryBudget,
    /// Off, or gone since the decision was made.
    Off,
}

/// What the machine has to know of a verdict. `verify`'s own type converts into it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Judged {
    /// Passed, failed, or not checked.
    pub grade: Grade,
    /// How much was seen.
    pub seen: Seen,
    /// P(good) after seeing it, where a check can say.
    pub p_good: Option<f32>,
}

/// Outcome of the checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// Every check that ran passed.
    Pass,
    /// This check failed (the first of them).
    Fail(Check),
    /// The provider's content filter ended the answer.
    Filtered,
    /// Nothing was checked.
    Unchecked,
}

/// How much of an answer a verdict is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Seen {
    /// All.
    Full,
    /// The first so many tokens (content events, for remotes).
    Prefix(u32),
    /// Nothing.
    None,
}

impl Judged {
    /// Nobody looked.
    pub fn unchecked() -> Self {
        Self {
            grade: Grade::Unchecked,
            seen: Seen::None,
            p_good: None,
        }
    }
    /// A check failed, or the provider's filter ended it.
    pub fn failed(&self) -> bool {
        matches!(self.grade, Grade::Fail(_) | Grade::Filtered)
    }
}

impl From<&Verdict> for Judged {
    fn from(verdict: &Verdict) -> Self {
        Self {
            grade: match verdict.overall() {
                Overall::Pass => Grade::Pass,
                Overall::Fail(check) => Grade::Fail(check),
                Overall::Unchecked => Grade::Unchecked,
            },
            seen: match verdict.coverage {
                Coverage::Full => Seen::Full,
                Coverage::Prefix(n) => Seen::Prefix(n),
                Coverage::None => Seen::None,
            },
            p_good: verdict.p_good,
        }
    }
}

/// Why a try is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StartKind {
    /// The first.
    First,
    /// The same target again; draws on the ratio budget.
    Retry,
    /// Another target after a fault or a refusal.
    Failover,
    /// A stronger target after a verdict, or after a tier took too long.
    Escalate,
    /// A weaker target after everything stronger failed.
    Degrade,
    /// The target of an answer that failed its checks in mid-stream and was let go: nothing better came.
    Again,
    /// Goes on with a committed stream that broke ([`Action::Continue`]).
    Continue,
    /// Beside a try that is slower than its target usually is; whoever answers first is taken. Draws on the hedge budget.
    Hedge,
}

impl StartKind {
    /// A short word for records and metrics; a bounded set.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Retry => "retry",
            Self::Failover => "failover",
            Self::Escalate => "escalate",
            Self::Degrade => "degrade",
            Self::Again => "again",
            Self::Continue => "continue",
            Self::Hedge => "hedge",
        }
    }
}

/// What is to be done. Carried out in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Start a try: permit, breaker, clocks, dialect, client.
    Start {
        /// Its name from now on.
        try_: TryId,
        /// Where.
        target: TargetId,
        /// Index of its tier.
        tier: u8,
        /// Why.
        kind: StartKind,
        /// Streams: how much to hold back before a verdict; `None`: hold nothing, the commit comes at first content.
        hold: Option<HoldBack>,
        /// Whether a verdict is wanted at all before the commit (whole answers: when complete and as it grows).
        judge: bool,
    },
    /// End a try now: drop it. It never reports again.
    Cancel {
        /// Which.
        try_: TryId,
        /// For record and metrics.
        why: CancelWhy,
    },
    /// The hold-back's time is up: judge what is there and feed [`Event::Verdict`].
    Judge {
        /// Which.
        try_: TryId,
    },
    /// Release what is held and let the rest flow (streams), or answer with it (whole answers). Once in a request.
    Commit {
        /// Whose answer.
        try_: TryId,
    },
    /// Start a try that goes on with the committed answer, as [`Action::Start`] does; what it says is held until it joins.
    Continue {
        /// Its name from now on.
        try_: TryId,
        /// Where.
        target: TargetId,
        /// Index of its tier.
        tier: u8,
        /// How the rest is asked for.
        way: Way,
    },
    /// This continuation is the committed answer from here on: release what it has new, and let the rest flow.
    Adopt {
        /// Which.
        try_: TryId,
    },
    /// The kept answer of an ended try is not needed any more.
    Forget {
        /// Which.
        try_: TryId,
    },
    /// Set the one timer; replaces the one before. [`Time::NEVER`] unsets it.
    ArmTimer {
        /// When.
        at: Time,
    },
    /// The end. Nothing comes after it, and events after it are ignored.
    Finish(Finish),
}

/// Actions of one step.
pub type Actions = SmallVec<[Action; 4]>;

/// Why a try was ended by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CancelWhy {
    /// Its answer failed a check.
    Verdict,
    /// One of its clocks ran out; the outcome is recorded by the machine and given here.
    Clock(Outcome),
    /// The request's deadline.
    Deadline,
    /// The caller left.
    ClientGone,
    /// A continuation that does not go on with what was sent.
    Unfit,
    /// Another try's answer came first.
    Outrun,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Finish {
    /// The committed answer is whole.
    Answered {
        /// Whose.
        try_: TryId,
        /// What we thought of it.
        verdict: Judged,
        /// Not what would have been chosen with everything healthy.
        degraded: Option<Degraded>,
    },
    /// The provider's own refusal (status, message, type, param, code) of this try is the answer.
    PassOn {
        /// Whose refusal.
        try_: TryId,
        /// Its kind.
        fault: CallerFault,
    },
    /// No answer of a model: the ladder's stale entry or message.
    Instead {
        /// [`DegradeStep::StaleCache`] or [`DegradeStep::Message`].
        step: DegradeStep,
        /// For `x-weir-degraded`.
        reason: DegradeReason,
        /// When it may be worth coming back, where that is known.
        retry_after: Option<Duration>,
    },
    /// No answer at all: an error before the commit.
    Failed(Failed),
    /// The committed stream broke: an in-band error and no `[DONE]`.
    Cut {
        /// Whose.
        try_: TryId,
        /// How.
        outcome: Outcome,
    },
    /// Nobody is there to answer.
    ClientGone,
}

/// An error that stands for the whole cascade.
#[derive(Clone, Debug, PartialEq)]
pub struct Failed {
    /// What it is.
    pub why: FailWhy,
    /// The last outcome of a try, where there was one.
    pub last: Option<(TryId, Outcome)>,
    /// When it may be worth coming back: only where a target said so or a state is known.
    pub retry_after: Option<Duration>,
}

/// Kinds of [`Failed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailWhy {
    /// The deadline passed.
    Deadline,
    /// Targets failed, and nothing is left to try.
    Upstream,
    /// Every target was refused (permits, breakers, holds); nothing was sent.
    NoneCallable,
    /// The best answer failed this check, and the route says `on_fail = "error"`.
    Verdict(Check),
    /// An earlier try may have had effects upstream, so it is not sent again.
    Effects,
}

/// How an answer is less than what would have been chosen with everything healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Degraded {
    /// Which rung.
    pub step: DegradeStep,
    /// Why.
    pub reason: DegradeReason,
}

/// Why an answer is degraded; the word in `x-weir-degraded: <step>; reason=<why>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DegradeReason {
    /// Tries failed.
    Failed,
    /// Held back by `retry-after` or after a 429.
    Held,
    /// Breakers are open.
    Open,
    /// Permits or queue places are taken.
    Full,
    /// A local model is still loading.
    Starting,
    /// The caller's budget does not cover it.
    Budget,
}

impl DegradeReason {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Held => "held",
            Self::Open => "open",
            Self::Full => "full",
            Self::Starting => "starting",
            Self::Budget => "budget",
        }
    }
}
