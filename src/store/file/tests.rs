//! What a disk may do to a store.
