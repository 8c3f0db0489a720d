//! A part of the configuration that its copies share.

use serde::{Deserialize, Serialize};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// A value that is copied only when a copy of it is changed.
///
/// A table of ten thousand virtual hosts of which one changes is cloned, compared and compiled for the price of the one:
/// what is the same object is equal without looking.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shared<T>(Arc<T>);

impl<T> Shared<T> {
    /// Whether both are the same object, and so equal.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.is(other) || *self.0 == *other.0
    }
}

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Shared;

    #[test]
    fn copy_is_the_same_object_until_it_is_changed() {
        let one: Shared<Vec<u8>> = vec![1].into();
        let mut two = one.clone();
        assert!(one.is(&two) && one == two);
        two.push(2);
        assert!(!one.is(&two) && one != two);
        assert_eq!((&*one, &*two), (&vec![1], &vec![1, 2]));
        let same: Shared<Vec<u8>> = vec![1].into();
        assert!(!one.is(&same) && one == same);
    }
}
