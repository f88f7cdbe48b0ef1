//! The model's thread: takes work from the queue, computes it step by step, sends what comes of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::answer::Answer;
use super::api::{GenError, GenEvent};
use super::forward::{Scratch, Span, Wanted};
use super::handle::{Fate, Inbox, Job, Shared, Stop, further_pages, has_room, most_pages};
use super::kernel::PAGE;
use super::kv::{PageId, Pool, pages_for};
use super::prefix::Prefixes;
use super::schedule::{self, Ahead, Rates};

/// After so many panics in a row without a request to blame, the engine stays off.
const MOST_IDLE_DEATHS: u32 = 3;
/// Pause after the first such panic; four times as long after each further one.
const IDLE_DEATH_PAUSE: Duration = Duration::from_millis(100);
/// Weight of the newest step in smoothed figures.
const NEWEST: f64 = 0.1;

/// Runs engines until one ends as it was told. One that panics is replaced: its callers see their channels close, which
/// [`super::Generation`] turns into an error; the queue lives on.
pub(super) fn supervise(shared: &Shared) {
    let mut idle_deaths = 0;
    while catch_unwind(AssertUnwindSafe(|| Engine::new(shared).run())).is_err() {
        shared.counters.restarts.fetch_add(1, Ordering::Relaxed);
        tracing::error!(model = %shared.name, "the local model's thread panicked; its requests failed, it starts anew");
        let mut inbox = shared.inbox();
        // Dying over a request is that request's end; dying over nothing would go on for ever.
        idle_deaths = if inbox.ahead.running.is_empty() {
            idle_deaths + 1
        } else {
            0
        };
        inbox.ahead = Ahead {
            slots: shared.slots,
            ..Ahead::default()
        };
        drop(inbox);
        shared.counters.running.store(0, Ordering::Relaxed);
        shared.counters.kv_bytes.store(0, Ordering::Relaxed);
        shared.counters.kv_memory.store(0, Ordering::Relaxed);
        if idle_deaths == MOST_IDLE_DEATHS {
            tracing::error!(model = %shared.name, "it panics without any request: the local model stays off");
            break;
        }
        if idle_deaths > 0 {
            shared.pause(IDLE_DEATH_PAUSE * 4_u32.pow(idle_deaths - 1));
        }
    }
    shared.mark_stopped();
}

/// A request whose prompt is being computed, or whose answers have not all begun.
struct Opening {
    job: Job,
    pages: Vec<PageId>,
    fed: usize,
    /// The logits after the prompt, once it is computed.
    logits: Vec<f32>,
    begun: u16,
    /// Pages that this may still take, of those that were promised to it.
    promised: usize,
}

impl Opening {
    fn is_unfed(&self) -> bool {
        self.fed < self.job.prompt.len()
    }
}

/// An answer being computed.
struct Running {
    answer: Answer,
    pages: Vec<PageId>,
    /// All tokens so far, prompt included; the last one is not in the cache yet.
    tokens: Vec<u32>,
    promised: usize,
}

struct Engine<'a> {
    shared: &'a Shared,
    pool: Pool,
    prefixes: Prefixes,
    opening: Vec<Opening>,
    running: Vec<Running>,
    scratch: Scratch,
    logits: Vec<f32>,
    rates: Rates,
    usual_tokens: f64,
    decode_rate: f64,
    /// The last slot went to a further answer of a request: the next one is for somebody else, if anybody waits.
    further_had_its_turn: bool,
}

impl<'a> Engine<'a> {
    fn new(shared: &'a Shared) -> Engine<'a> {
        let (rates, usual_tokens) = {
            let inbox = shared.inbox();
            (inbox.rates, f64::from(inbox.usual_tokens))
        };
        Engine {
            shared,
            pool: Pool::new(shared.pages, shared.kept_pages(), shared.model.weights.page_len()),
            // What is kept for later never crowds out what runs, nor does it make the pool grow.
            prefixes: Prefixes::new(shared.kept_pages()),
            opening: Vec::new(),
            running: Vec::new(),
            scratch: Scratch::default(),
            logits: Vec::new(),
            rates,
            usual_tokens,
            decode_rate: 0.0,
            further_had_its_turn: false,
        }
    }

    fn run(mut self) {
        if self.rates == Rates::default() {
            self.warm_up();
            // Before anybody is told that it is there.
            self.publish(&mut self.shared.inbox());
        }
        self.shared.mark_warm();
        while self.gather() {
            self.step();
        }
        for opening in self.opening {
            let _ = opening.job.events.try_send(GenEvent::Failed(GenError::Stopped));
        }
        for running in self.running {
            running.answer.fail(GenError::Stopped);
        }
    }

    /// Computes a few tokens for nobody, to know this machine's speed.
    fn warm_up(&mut self) {
        #[cfg(test)]
        assert!(!self.shared.broken, "a model that a test has broken");
        let pages: Vec<PageId> = (0..2).map_while(|_| self.pool.take()).collect();
        let room = (pages.len() * PAGE).min(self.shared.context as usize);
        if room > 8 {
            let tokens = vec![0; room - 2];
            for _ in 0..2 {
                let before = self.shared.clock.now();
                self.compute(&[Span {
                    first: 0,
                    tokens: &tokens,
                    pages: &pages,
                    logits: Wanted::Last,
                }]);
                let middle = self.shared.clock.now();
                self.compute(&[Span {
                    first: tokens.len(),
                    tokens: &[0],
                    pages: &pages,
                    logits: Wanted::Last,
                }]);
                let after = self.shared.clock.now();
                self.rates.prompt_token_us = micros(middle - before) / tokens.len() as f64;
                self.rates.step_us = micros(after - middle);
            }
            // As many answers as there may be at once: their rows of logits (200 KB each, of a vocabulary of 49,152) are in
            // memory from now on, instead of with the first crowd, hours later, when they look like a leak.
            let row = Span {
                first: 0,
                tokens: &[0],
                pages: &pages,
                logits: Wanted::Last,
            };
            self.compute(&vec![row; self.shared.slots]);
        }
        for page in pages {
            self.pool.release(page);
        }
    }

    fn compute(&mut self, spans: &[Span<'_>]) {
        self.shared
            .model
            .weights
            .forward(&mut self.pool, spans, &mut self.scratch, &mut self.logits);
    }

    /// Lets go of what has no reader, takes in what there is room for, waits when there is nothing to do. False: end.
    fn gather(&mut self) -> bool {
        let shared = self.shared;
        loop {
            self.drop_left();
            let others_wait = !shared.inbox().jobs.is_empty();
            self.begin_answers(others_wait);
            let mut inbox = shared.inbox();
            if inbox.stop == Some(Stop::Now) {
                return false;
            }
            self.drop_queued(&mut inbox);
            while self.busy() < shared.slots {
                let Some(job) = inbox.jobs.pop_front() else { break };
                match self.admit(job) {
                    Ok(opening) => {
                        self.further_had_its_turn = false;
                        self.opening.push(opening);
                    }
                    Err(job) => {
                        inbox.jobs.push_front(*job);
                        break;
                    }
                }
            }
            self.publish(&mut inbox);
            // Only here: what was queued may have been let go just now, and nobody would wake us for the end.
            if inbox.stop == Some(Stop::Drain) && self.idle() && inbox.jobs.is_empty() {
                return false;
            }
            if self.can_step() {
                return true;
            }
            // Readers take this lock to wake us: what they did before is seen here, what they do later ends the wait.
            if !self.has_changed(!inbox.jobs.is_empty()) {
                drop(shared.wait(inbox));
            }
        }
    }

    /// Has a reader left, or made room for an answer to begin, since the last look?
    fn has_changed(&self, others_wait: bool) -> bool {
        self.opening.iter().any(|o| o.job.events.is_closed())
            || self.running.iter().any(|r| r.answer.is_left())
            || (0..self.opening.len()).any(|at| self.can_begin(at, others_wait))
    }

    /// Is there anything to compute? Not while all that is running waits for its readers.
    fn can_step(&self) -> bool {
        self.opening.iter().any(Opening::is_unfed) || self.running.iter().any(|r| r.answer.has_room())
    }

    /// Slots that are taken: by prompts being computed, and by answers that do not wait for their readers.
    fn busy(&self) -> usize {
        let opening = self.opening.iter().filter(|o| o.begun == 0).count();
        opening + self.running.iter().filter(|r| !r.answer.is_paused()).count()
    }

    fn idle(&self) -> bool {
        self.running.is_empty() && self.opening.is_empty()
    }

    /// Ends work whose callers have left.
    fn drop_left(&mut self) {
        let counters = &self.shared.counters;
        // The caller may leave between two looks: a request is counted once all the same.
        let count = |fate: &Fate| {
            if !fate.left.swap(true, Ordering::Relaxed) {
                counters.cancelled.fetch_add(1, Ordering::Relaxed);
            }
        };
        for opening in self
            .opening
            .extract_if(.., |opening| opening.job.events.is_closed())
        {
            count(&opening.job.fate);
            opening.pages.into_iter().for_each(|page| self.pool.release(page));
        }
        for running in self.running.extract_if(.., |running| running.answer.is_left()) {
            count(running.answer.fate());
            running.pages.into_iter().for_each(|page| self.pool.release(page));
        }
    }

    /// Takes out of the queue whose callers have left or whose time is up.
    fn drop_queued(&self, inbox: &mut Inbox) {
        if inbox.jobs.is_empty() {
            return;
        }
        let now = self.shared.clock.now();
        let counters = &self.shared.counters;
        inbox.jobs.retain(|job| {
            if job.events.is_closed() {
                counters.cancelled.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            if job.deadline.is_some_and(|deadline| now >= deadline) {
                counters.expired.fetch_add(1, Ordering::Relaxed);
                let _ = job.events.try_send(GenEvent::Failed(GenError::Expired));
                return false;
            }
            true
        });
    }

    /// Pages that are neither in use nor promised.
    fn unpromised(&self) -> usize {
        let promised: usize = self
            .opening
            .iter()
            .map(|o| o.promised)
            .chain(self.running.iter().map(|r| r.promised))
            .sum();
        (self.pool.left() + self.prefixes.reclaimable(&self.pool)).saturating_sub(promised)
    }

    /// Takes a job in when the pages that it can come to need are there; gives it back otherwise.
    fn admit(&mut self, job: Job) -> Result<Opening, Box<Job>> {
        let most = most_pages(job.prompt.len(), job.most);
        let pages = self.prefixes.find(&job.prompt, &mut self.pool);
        let promised = most - pages.len();
        if self.unpromised() < promised {
            pages.into_iter().for_each(|page| self.pool.release(page));
            return Err(Box::new(job));
        }
        let fed = pages.len() * PAGE;
        self.shared
            .counters
            .reused_tokens
            .fetch_add(fed as u64, Ordering::Relaxed);
        Ok(Opening {
            job,
            pages,
            fed,
            logits: Vec::new(),
            begun: 0,
            promised,
        })
    }

    /// Starts answers of computed prompts while there are slots and pages for them.
    fn begin_answers(&mut self, others_wait: bool) {
        let mut at = 0;
        while at < self.opening.len() {
            while self.can_begin(at, others_wait) {
                self.further_had_its_turn |= self.opening[at].begun > 0;
                self.begin_answer(at);
            }
            if self.opening[at].begun < self.opening[at].job.n {
                at += 1;
                continue;
            }
            let done = self.opening.remove(at);
            done.pages.into_iter().for_each(|page| self.pool.release(page));
        }
    }

    fn can_begin(&self, at: usize, others_wait: bool) -> bool {
        let opening = &self.opening[at];
        let job = &opening.job;
        if opening.logits.is_empty() || opening.begun == job.n || !has_room(&job.events, job.n, &job.fate) {
            return false;
        }
        // The first answer has the slot and the pages that its request was let in with.
        opening.begun == 0 || self.has_place_for_further(opening, others_wait)
    }

    /// Further answers of one request leave a slot to newcomers, and every second one to those who wait.
    fn has_place_for_further(&self, opening: &Opening, others_wait: bool) -> bool {
        let pages = further_pages(opening.job.prompt.len(), opening.job.most);
        let may = self.busy() + schedule::spare_slots(self.shared.slots) < self.shared.slots
            && !(others_wait && self.further_had_its_turn);
        // Where nothing runs, nobody else can have the place: those who wait need more pages than there are.
        (may || self.running.is_empty()) && self.unpromised() >= pages
    }

    fn begin_answer(&mut self, at: usize) {
        let opening = &mut self.opening[at];
        let choice = opening.begun;
        opening.begun += 1;
        let mut answer = Answer::new(&opening.job, choice);
        let full = opening.job.prompt.len() / PAGE;
        let mut promised = if choice == 0 {
            std::mem::take(&mut opening.promised)
        } else {
            further_pages(opening.job.prompt.len(), opening.job.most)
        };
        let mut pages = opening.pages.clone();
        for page in &pages[..full] {
            self.pool.share(*page);
        }
        let logits = std::mem::take(&mut opening.logits);
        let tokens = opening.job.prompt.clone();
        let more = answer.take(self.shared, &logits);
        self.opening[at].logits = logits;
        let Some(token) = more else {
            pages[..full].iter().for_each(|page| self.pool.release(*page));
            self.note_end(&answer);
            return;
        };
        // The prompt's last page is not full: each answer goes on in a copy of its own.
        if let Some(last) = pages.get(full).copied() {
            match self.copy_page(last) {
                Some(copy) => pages[full] = copy,
                None => {
                    pages[..full].iter().for_each(|page| self.pool.release(*page));
                    answer.fail(GenError::Model("the KV cache is full".to_owned()));
                    return;
                }
            }
            promised = promised.saturating_sub(1);
        }
        let mut tokens = tokens;
        tokens.push(token);
        self.running.push(Running {
            answer,
            pages,
            tokens,
            promised,
        });
    }

    fn take_page(&mut self) -> Option<PageId> {
        self.make_room();
        self.pool.take()
    }

    fn copy_page(&mut self, page: PageId) -> Option<PageId> {
        self.make_room();
        self.pool.copy(page)
    }

    /// Sees to it that a page is free, as long as any is kept for later prompts only; such pages go before the pool grows.
    fn make_room(&mut self) {
        while self.pool.is_beyond_kept() && self.prefixes.evict(&mut self.pool, 0) {}
        if self.pool.left() == 0 && !self.prefixes.evict(&mut self.pool, 0) {
            self.prefixes.forget(&mut self.pool);
        }
    }

    /// One pass over the weights: a token for every running answer, and a piece of the prompts that are being opened.
    fn step(&mut self) {
        #[cfg(test)]
        assert!(
            !self.shared.fault.swap(false, Ordering::AcqRel),
            "a fault that a test asked for"
        );
        // Whose reader is behind sits this step out.
        let active: Vec<bool> = self.running.iter().map(|r| r.answer.has_room()).collect();
        let decoding = active.iter().filter(|active| **active).count();
        let waiting: Vec<usize> = self.opening.iter().map(|o| o.job.prompt.len() - o.fed).collect();
        let rows = schedule::prompt_rows(decoding, self.rates, self.shared.step_target);
        let shares = schedule::share_rows(&waiting, rows);
        let prompt_rows: usize = shares.iter().sum();
        if decoding + prompt_rows == 0 {
            return;
        }
        self.grow_pages(&shares);
        let before = self.shared.clock.now();
        self.compute_rows(&active, &shares);
        let took = self.shared.clock.now() - before;
        self.note_speed(decoding, prompt_rows, took);
        let logits = std::mem::take(&mut self.logits);
        let vocabulary = self.shared.model.weights.config.vocabulary;
        let mut rows = logits.chunks_exact(vocabulary);
        let mut ended = Vec::new();
        for (at, running) in self.running.iter_mut().enumerate() {
            if active.get(at) != Some(&true) {
                continue;
            }
            match rows.next().and_then(|row| running.answer.take(self.shared, row)) {
                Some(token) => running.tokens.push(token),
                None => ended.push(at),
            }
        }
        for (opening, share) in self.opening.iter_mut().zip(&shares) {
            opening.fed += share;
            if *share > 0 && !opening.is_unfed() {
                opening.logits = rows.next().map_or_else(Vec::new, <[f32]>::to_vec);
                self.prefixes
                    .keep(&opening.job.prompt, &opening.pages, &mut self.pool);
            }
        }
        self.logits = logits;
        for at in ended.into_iter().rev() {
            let running = self.running.remove(at);
            self.end(running);
        }
    }

    /// Gives everyone the pages that this step writes to. They were promised when the work was let in.
    fn grow_pages(&mut self, shares: &[usize]) {
        for at in 0..self.opening.len() {
            let opening = &self.opening[at];
            let need = pages_for(opening.fed + shares.get(at).copied().unwrap_or(0));
            while self.opening[at].pages.len() < need {
                let Some(page) = self.take_page() else { return };
                self.opening[at].pages.push(page);
                self.opening[at].promised = self.opening[at].promised.saturating_sub(1);
            }
        }
        for at in 0..self.running.len() {
            let need = pages_for(self.running[at].tokens.len());
            while self.running[at].pages.len() < need {
                let Some(page) = self.take_page() else { return };
                self.running[at].pages.push(page);
                self.running[at].promised = self.running[at].promised.saturating_sub(1);
            }
        }
    }

    fn compute_rows(&mut self, active: &[bool], shares: &[usize]) {
        let mut spans = Vec::with_capacity(self.running.len() + shares.len());
        for (running, _) in self.running.iter().zip(active).filter(|(_, active)| **active) {
            let first = running.tokens.len() - 1;
            let tokens = &running.tokens[first..];
            spans.push(Span {
                first,
                tokens,
                pages: &running.pages,
                logits: Wanted::Last,
            });
        }
        for (opening, share) in self.opening.iter().zip(shares).filter(|(_, share)| **share > 0) {
            let tokens = &opening.job.prompt[opening.fed..opening.fed + share];
            let last = opening.fed + share == opening.job.prompt.len();
            let logits = if last { Wanted::Last } else { Wanted::Nothing };
            spans.push(Span {
                first: opening.fed,
                tokens,
                pages: &opening.pages,
                logits,
            });
        }
        self.shared
            .model
            .weights
            .forward(&mut self.pool, &spans, &mut self.scratch, &mut self.logits);
    }

    fn end(&mut self, running: Running) {
        // A next turn of the conversation may begin with all of this.
        let cached = running.tokens.len() - 1;
        self.prefixes
            .keep(&running.tokens[..cached], &running.pages, &mut self.pool);
        running.pages.into_iter().for_each(|page| self.pool.release(page));
        self.note_end(&running.answer);
    }

    fn note_end(&mut self, answer: &Answer) {
        self.usual_tokens += NEWEST * (f64::from(answer.made()) - self.usual_tokens);
        if answer.is_last_of_request() {
            self.shared.counters.finished.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn note_speed(&mut self, decoding: usize, prompt_rows: usize, took: Duration) {
        let (took, counters) = (micros(took), &self.shared.counters);
        counters.steps.fetch_add(1, Ordering::Relaxed);
        counters.rows.store(
            u32::try_from(decoding + prompt_rows).unwrap_or(u32::MAX),
            Ordering::Relaxed,
        );
        counters
            .prompt_tokens
            .fetch_add(prompt_rows as u64, Ordering::Relaxed);
        // What was never measured (a context too small for a warm-up) begins with its first measurement.
        let smooth = |old: &mut f64, new: f64| *old += if *old > 0.0 { NEWEST } else { 1.0 } * (new - *old);
        if prompt_rows == 0 {
            smooth(&mut self.rates.step_us, took);
        } else if prompt_rows >= 8 {
            // A step's fixed cost is the answers' when there are any.
            let share = if decoding == 0 {
                took
            } else {
                (took - self.rates.step_us).max(took / 4.0)
            };
            smooth(&mut self.rates.prompt_token_us, share / prompt_rows as f64);
        }
        if decoding > 0 && took > 0.0 {
            smooth(&mut self.decode_rate, decoding as f64 * 1e6 / took);
        }
    }

    /// Tells callers what is ahead of them.
    fn publish(&self, inbox: &mut Inbox) {
        let usual = self.usual_tokens as u32;
        let expected = |most: u32, made: u32| schedule::expected(most, made, usual.max(1));
        let mut running: Vec<u32> = self
            .running
            .iter()
            .filter(|r| !r.answer.is_paused())
            .map(|r| expected(r.answer.most(), r.answer.made()))
            .collect();
        let mut queued = Vec::new();
        let mut prompt_tokens = 0;
        for opening in &self.opening {
            prompt_tokens += (opening.job.prompt.len() - opening.fed) as u64;
            let each = expected(opening.job.most, 0);
            // The first answer has a slot already.
            if opening.begun == 0 {
                running.push(each);
            }
            queued.extend((opening.begun.max(1)..opening.job.n).map(|_| each));
        }
        inbox.ahead = Ahead {
            slots: self.shared.slots,
            running,
            queued,
            prompt_tokens,
        };
        inbox.rates = self.rates;
        inbox.usual_tokens = usual.max(1);
        let counters = &self.shared.counters;
        let busy = self.running.len() + self.opening.len();
        counters
            .running
            .store(u32::try_from(busy).unwrap_or(u32::MAX), Ordering::Relaxed);
        let bytes = |pages: usize| (pages * self.pool.page_bytes()) as u64;
        counters
            .kv_bytes
            .store(bytes(self.pool.in_use()), Ordering::Relaxed);
        counters
            .kv_memory
            .store(bytes(self.pool.in_memory()), Ordering::Relaxed);
        counters
            .decode_rate
            .store((self.decode_rate as f32).to_bits(), Ordering::Relaxed);
        let prefill = if self.rates.prompt_token_us > 0.0 {
            1e6 / self.rates.prompt_token_us
        } else {
            0.0
        };
        counters
            .prefill_rate
            .store((prefill as f32).to_bits(), Ordering::Relaxed);
    }
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
