//! What is wrong with our files on the node, for whoever tells people.

use std::sync::{Arc, Mutex, PoisonError};

/// Why the plugin is not installed as it should be; nothing while it is, or while there is none. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Trouble(Arc<Mutex<Option<String>>>);

impl Trouble {
    /// What is wrong now.
    pub fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says what is wrong now; true if that is news.
    pub fn set(&self, now: Option<String>) -> bool {
        let mut before = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_news = *before != now;
        *before = now;
        is_news
    }
}
