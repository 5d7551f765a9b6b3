//! What a core's own handlers ask, answered on the spot: without the channel, and without the coordinator's turn. For [`super`].

use tokio::sync::oneshot;

use super::{Coordinator, State, WORK_MAX};
use crate::group::{Answer, CallId, Request};

/// What a request that is answered at once counts as: a few microseconds.
const ASK_WORK: usize = 4;

/// What became of a request that was asked at once.
pub(in crate::broker::groups) struct Asked {
    pub(in crate::broker::groups) answer: Asking,
    /// Whether the coordinator's task has something to do now.
    pub(in crate::broker::groups) needs_turn: bool,
}

/// The answer to a request.
pub(in crate::broker::groups) enum Asking {
    Done(Answer),
    /// It comes when it may go.
    Waits(oneshot::Receiver<Answer>),
}

impl Coordinator {
    /// Answers a request at once, where nothing came before it that the answer may speak of and that is not durable, and nobody who
    /// asked before waits to be heard.
    ///
    /// # Errors
    /// The request, where it has to go the way of all others: it is as if it had not been asked.
    pub(in crate::broker::groups) fn ask_now(&mut self, partition: i32, group: &str, request: Request) -> Result<Asked, Request> {
        if self.is_stopped || !self.receiver.is_empty() || self.work >= WORK_MAX {
            return Err(request);
        }
        // What is new has to be loaded, which is for a turn.
        let has_news = self.follow();
        let now = self.now();
        let Some(slot) = self.slots.get_mut(&partition) else { return Err(request) };
        let State::Active(shard) = &mut slot.state else { return Err(request) };
        if !slot.in_flight.is_empty() || !slot.out.is_empty() {
            return Err(request);
        }
        let call = CallId(self.next_call);
        self.next_call += 1;
        shard.handle(call, group, request, now, &mut slot.out);
        self.work += ASK_WORK + slot.out.records.len() + std::mem::take(&mut slot.out.work);
        let is_earlier = |next| self.sleep.as_ref().is_none_or(|(at, _)| *at > next);
        let needs_turn = has_news || shard.next_deadline().is_some_and(is_earlier);
        if slot.out.records.is_empty()
            && slot.out.replies.len() == 1
            && let Some((_, answer)) = slot.out.replies.pop_if(|(answered, _)| *answered == call)
        {
            return Ok(Asked { answer: Asking::Done(answer), needs_turn });
        }
        // It is as any other from here on: something is to be appended, or somebody else is to be answered.
        let (reply, answer) = oneshot::channel();
        slot.calls.insert(call, reply);
        Ok(Asked { answer: Asking::Waits(answer), needs_turn: true })
    }
}
