//! A bounded queue in memory. Whoever puts something in never waits: the oldest
//! goes if there is no room.
//!
//! Must not know: what it holds.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// A queue with one reader.
#[derive(Debug)]
pub(super) struct Inbox<T> {
    waiting: Mutex<VecDeque<T>>,
    limit: usize,
    news: Notify,
}

impl<T> Inbox<T> {
    pub(super) fn new(limit: usize) -> Self {
        Self { waiting: Mutex::default(), limit, news: Notify::new() }
    }

    /// Puts something at the end; says how many had to go for it.
    pub(super) fn push(&self, item: T) -> u64 {
        let mut waiting = self.waiting();
        waiting.push_back(item);
        let dropped = shorten(&mut waiting, self.limit);
        self.news.notify_one();
        dropped
    }

    /// Puts things back where they were taken from.
    pub(super) fn put_back(&self, items: Vec<T>) -> u64 {
        let mut waiting = self.waiting();
        for item in items.into_iter().rev() {
            waiting.push_front(item);
        }
        shorten(&mut waiting, self.limit)
    }

    pub(super) fn pop(&self) -> Option<T> {
        self.waiting().pop_front()
    }

    /// Takes the oldest, at most so many.
    pub(super) fn take(&self, most: usize) -> Vec<T> {
        let mut waiting = self.waiting();
        let count = waiting.len().min(most);
        waiting.drain(..count).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting().len()
    }

    /// Something has come since the last call.
    pub(super) async fn news(&self) {
        self.news.notified().await;
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shorten<T>(waiting: &mut VecDeque<T>, limit: usize) -> u64 {
    let mut dropped = 0;
    while waiting.len() > limit {
        waiting.pop_front();
        dropped += 1;
    }
    dropped
}
