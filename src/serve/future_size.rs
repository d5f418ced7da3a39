//! The size of what each request and each connection has in memory for as long as it lives.

use crate::serve::connections::connection;
use crate::serve::forward;

/// The most bytes of a request's future: as measured and a tenth. A step that few requests take belongs into a box.
const REQUEST_CEILING: usize = 6_400;
/// The most bytes of a connection's future, without HTTP, which is in a box.
const CONNECTION_CEILING: usize = 1_250;

/// Returns the size of the future that a function of three arguments returns.
fn future_size<A, B, C, F>(_: fn(A, B, C) -> F) -> usize {
    size_of::<F>()
}

/// The same for a function of four arguments.
fn future_size_of_four<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn the_futures_of_a_request_and_a_connection_are_small() {
    let request = future_size(forward::answer);
    assert!(request <= REQUEST_CEILING, "a request: {request} bytes, ceiling {REQUEST_CEILING}");
    let connection = future_size_of_four(connection::serve);
    assert!(connection <= CONNECTION_CEILING, "a connection: {connection} bytes, ceiling {CONNECTION_CEILING}");
}
