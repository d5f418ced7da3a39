//! The recordings of a process, across configs: one goes on as long as the config asks for it in the same way.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::secret::SecretString;
use crate::base::time::Now;
use crate::config::Snapshot;
use crate::observe::metrics::Metrics;
use crate::provider::{RecordSettings, RecordingChannel};
use crate::record::start_recording;

/// The recordings that run, by provider.
#[derive(Debug, Default)]
pub(super) struct Recordings {
    running: HashMap<Arc<str>, (RecordSettings, RecordingChannel)>,
}

impl Recordings {
    /// Connects the providers of a config that is about to hold with their recordings, new ones included. A recording that
    /// cannot begin is reported, and nothing else suffers from it.
    pub(super) fn turn(&mut self, snapshot: &Snapshot, metrics: &Metrics, now: Now) {
        let mut running = HashMap::new();
        for provider in &snapshot.providers {
            let Some(recording) = &provider.recording else { continue };
            let known = self.running.remove(&provider.name).filter(|(settings, _)| *settings == recording.settings);
            let channel = match known {
                Some((_, channel)) => Ok(channel),
                None => {
                    let meters = metrics.recording(&provider.name);
                    start_recording(&provider.name, &recording.settings, &secrets(snapshot), meters, now)
                }
            };
            match channel {
                Ok(channel) => {
                    recording.connect(channel.clone());
                    running.insert(provider.name.clone(), (recording.settings.clone(), channel));
                    tracing::warn!(provider = %provider.name, folder = %recording.settings.folder.display(), "traffic is recorded");
                }
                Err(error) => tracing::error!(provider = %provider.name, %error, "the recording cannot begin"),
            }
        }
        self.running = running;
    }
}

/// The secrets of all providers, those of next credentials among them.
fn secrets(snapshot: &Snapshot) -> Vec<SecretString> {
    let routes = snapshot.routes.iter().flat_map(|route| [Some(route), route.next.as_ref()]).flatten();
    let modules = routes.map(|route| &route.module);
    let texts = modules.flat_map(|module| module.setting_texts());
    texts.filter(|(_, is_secret)| *is_secret).map(|(text, _)| text).collect()
}
