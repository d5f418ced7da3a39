//! Panics of a run. tokio catches those of tasks, so they are heard of where every panic passes: at the hook.

use std::cell::{Cell, RefCell};
use std::panic;
use std::sync::Once;

thread_local! {
    static LISTENING: Cell<bool> = const { Cell::new(false) };
    static HEARD: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Listens on this thread until it is dropped.
pub(super) struct PanicListener(());

/// Records panics of this thread from now on, even those that other code catches.
pub(super) fn listen() -> PanicListener {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if LISTENING.get() {
                HEARD.with_borrow_mut(|heard| *heard = heard.take().or_else(|| Some(info.to_string())));
            }
            before(info);
        }));
    });
    HEARD.take();
    LISTENING.set(true);
    PanicListener(())
}

impl Drop for PanicListener {
    fn drop(&mut self) {
        LISTENING.set(false);
    }
}

/// The first panic since this thread began to listen.
pub(super) fn heard() -> Option<String> {
    HEARD.with_borrow(Option::clone)
}

#[cfg(test)]
mod tests {
    use tokio::runtime::Builder;
    use tokio::task::LocalSet;

    use super::super::simulation_world::Simulation;
    use super::listen;

    #[test]
    fn a_panic_that_tokio_catches_is_a_broken_promise() {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        LocalSet::new().block_on(&runtime, async {
            let _listening = listen();
            let world = Simulation::new(0, false);
            assert!(!world.is_broken());
            let process = LocalSet::new();
            process.spawn_local(async { panic!("a fault of the process") });
            process.await;
            assert!(world.is_broken());
            let (broken, _) = world.outcome();
            assert!(broken.is_some_and(|broken| broken.contains("a fault of the process")));
        });
    }
}
