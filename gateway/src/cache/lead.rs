//! Leading a flight: the place is taken in step 7, the call begins in step 11. Who leaves in between makes room for the next.

use std::sync::Arc;
use std::time::Duration;

use super::Cache;
use super::flight::{End, Reader};
use super::keep::{ByQuestion, Keep};
use super::key::Key;
use super::pump::Pump;
use super::telling::Telling;
use crate::cascade::{Account, Answer, Driver, Failure, Head, Reply, Work};
use crate::classify::Classifier;
use crate::error::{Error, Kind};
use crate::ledger::{Ledger, Payer};
use crate::providers::render::Form;
use crate::telemetry::handles::Process;

/// Under what the answer may be kept.
#[derive(Clone, Debug, Default)]
pub struct Under {
    /// Its question, and for how long in all.
    pub exact: Option<(Key, Duration)>,
    /// Its caller's name for it, and the hash of the body.
    pub named: Option<(Key, [u8; 32])>,
}

/// See the module.
pub struct Lead {
    reader: Option<Reader>,
    cache: Arc<Cache>,
    listed: Option<Key>,
    under: Under,
    classifier: Arc<Classifier>,
}

impl Lead {
    /// Leads; `listed` is the flight's name in the list, where others may join; `classifier` reads answers where that is how
    /// they are compared.
    pub fn new(
        cache: Arc<Cache>,
        reader: Reader,
        listed: Option<Key>,
        under: Under,
        classifier: Arc<Classifier>,
    ) -> Self {
        Self {
            reader: Some(reader),
            cache,
            listed,
            under,
            classifier,
        }
    }

    /// Begins the call on this runtime and reads it as the first. The ledger of whoever leads is told by the flight what it
    /// came to, also when it has left by then.
    ///
    /// # Errors
    /// As [`crate::cascade::run`].
    pub async fn fly(self, work: Work, ledger: &mut Ledger) -> Result<Reply, Box<Failure>> {
        let process = Arc::clone(ledger.process());
        let Some(mut telling) = self.take_off(work, process) else {
            return Err(failure(
                Error::new(Kind::Bug, "a flight without its leader"),
                Head::default(),
            ));
        };
        let flight = Arc::clone(telling.reader().flight());
        ledger.payer = Some(Arc::clone(&flight) as Arc<dyn Payer>);
        let committed = telling.committed().await;
        match committed {
            Ok((head, Some(body))) => Ok(Reply {
                head,
                body: Answer::Whole(body),
                account: flight.account().unwrap_or_default(),
            }),
            // What it came to is asked for when its body has ended.
            Ok((head, None)) => Ok(Reply {
                head,
                body: Answer::Shared(Box::new(telling)),
                account: Account::default(),
            }),
            Err((end, head)) => {
                let account = flight.account().unwrap_or_default();
                let error = match end {
                    End::Failed(error) => error,
                    End::Whole | End::NotBegun => Error::new(Kind::Bug, "a flight that ended without a word"),
                };
                Err(Box::new(Failure { error, account, head }))
            }
        }
    }

    fn take_off(mut self, work: Work, process: Arc<Process>) -> Option<Telling> {
        let reader = self.reader.take()?;
        let flight = Arc::clone(reader.flight());
        let exact = self.under.exact.take().map(|(key, lives)| ByQuestion {
            key,
            lives,
            checks: work.decision.policy.verify.clone(),
            question: work.question.clone(),
        });
        let keep = Keep {
            cache: Arc::clone(&self.cache),
            listed: self.listed.take(),
            exact,
            named: self.under.named.take(),
            flight: Arc::clone(&flight),
            plan: Arc::clone(&work.plan),
            clock: work.clock.clone(),
            classifier: Arc::clone(&self.classifier),
        };
        let (form, choices) = (Form::of(&work.call), work.call.choices);
        let pump = Pump::new(Box::new(Driver::new(work)), Arc::clone(&flight), keep, process);
        let task = tokio::spawn(pump.run());
        flight.begun(task.abort_handle());
        Some(Telling::new(reader, form, choices, false))
    }
}

fn failure(error: Error, head: Head) -> Box<Failure> {
    Box::new(Failure {
        error,
        account: Account::default(),
        head,
    })
}

impl Drop for Lead {
    fn drop(&mut self) {
        let Some(reader) = self.reader.take() else { return };
        if let Some(key) = &self.listed {
            self.cache.flights().remove(key, reader.flight());
        }
        reader.flight().not_begun();
    }
}
