//! A piece of an answer on its way to who reads it.

use bytes::Bytes;

use crate::providers::event::{Event, Events, Frame};

/// Bytes for a caller, and what they say where several may read them ([`super::Work::shared`]). Small, since every event of every
/// stream is moved as one.
#[derive(Clone, Debug, Default)]
pub struct Piece {
    /// What a caller of the call's own form receives; `None`: it hears nothing of it.
    pub wire: Option<Bytes>,
    /// What is said; absent where nobody else reads.
    said: Option<Box<Events>>,
}

impl Piece {
    /// Of a frame; `None` when nobody would hear anything of it.
    pub fn of(frame: Frame, shared: bool) -> Option<Self> {
        let Frame { events, wire } = frame;
        if !shared {
            return wire.is_some().then_some(Self { wire, said: None });
        }
        let says = |event: &Event| !matches!(event, Event::Ping | Event::Signal { .. });
        (wire.is_some() || events.iter().any(says)).then(|| Self {
            wire,
            said: Some(Box::new(events)),
        })
    }

    /// The pieces of a whole answer as one: what all of them say, and the body, which came with the last.
    pub fn joined(pieces: Vec<Self>) -> Option<Self> {
        let whole = pieces.into_iter().reduce(|mut whole, piece| {
            if let Some(said) = piece.said {
                whole.said.get_or_insert_default().extend(*said);
            }
            whole.wire = piece.wire.or(whole.wire);
            whole
        });
        whole.filter(|whole| whole.wire.is_some())
    }

    /// As a frame, for those who read along.
    pub fn into_frame(self) -> Frame {
        Frame {
            events: self.said.map_or_else(Events::new, |said| *said),
            wire: self.wire,
        }
    }
}
