//! `GET /api/v1/routes`: what leads where, for whom.

use serde::Serialize;

/// The response body of `GET /api/v1/routes`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RoutesView {
    pub routes: Vec<RouteView>,
}

/// One route, in the order of the config.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RouteView {
    pub name: String,
    /// The listeners that serve it.
    pub listeners: Vec<String>,
    /// The host that it is for on a reverse listener; absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The path that it begins with on a reverse listener; absent: no reverse listener serves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The methods that it is for; empty: any.
    pub methods: Vec<String>,
    /// True if every caller that the listener admits may use it.
    pub open_to_everyone: bool,
    /// The clients that may use it, unless everybody may.
    pub clients: Vec<String>,
    pub provider: String,
    /// URL that requests are forwarded to: `https://host/base`.
    pub upstream: String,
    /// Owner of the tokens that it uses: `application` or `user`.
    pub r#as: &'static str,
    /// `enforce`; or `observe` where what its rules would refuse passes and is told of.
    pub mode: &'static str,
    /// The names of its variables: a token for each combination of their values.
    pub variables: Vec<String>,
    /// The largest request body that is kept for a replay, in bytes.
    pub replay_limit: u64,
    /// Requests since the start, by the class of their status.
    pub requests: StatusClasses,
}

/// Requests by the class of the status that the client got.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize)]
pub(crate) struct StatusClasses {
    #[serde(rename = "2xx")]
    pub success: u64,
    #[serde(rename = "3xx")]
    pub redirect: u64,
    #[serde(rename = "4xx")]
    pub client_error: u64,
    #[serde(rename = "5xx")]
    pub server_error: u64,
    /// The client hung up before an answer, or the connection became another protocol's.
    pub other: u64,
}

impl StatusClasses {
    pub(crate) fn add(&mut self, status: u16, count: u64) {
        let class = match status {
            200..=299 => &mut self.success,
            300..=399 => &mut self.redirect,
            // 499: the client hung up.
            400..=498 => &mut self.client_error,
            500..=599 => &mut self.server_error,
            _ => &mut self.other,
        };
        *class += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_is_of_one_class() {
        let mut classes = StatusClasses::default();
        for status in [0, 101, 200, 204, 302, 400, 498, 499, 500, 599] {
            classes.add(status, 10);
        }
        let told = [classes.success, classes.redirect, classes.client_error, classes.server_error, classes.other];
        assert_eq!(told, [20, 10, 20, 20, 30]);
    }
}
