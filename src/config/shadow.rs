//! `shadow_profile` of a `[provider.NAME]`: a second profile, which is compared with the present one and never sent.

use std::sync::Arc;

use crate::provider::{CallAs, Module, Profile, Settings, Shadow, ShadowCounts, Wiring};
use crate::route::Var;
use crate::syntax::{Diagnostics, Fields};

use super::provider::ReadProvider;
use super::reader::Reader;
use super::spanned_text::SpannedText;

/// A shadow as it was read.
pub(super) struct ReadShadow {
    word: SpannedText,
    profile: Arc<Profile>,
    settings: Settings,
    counts: Arc<ShadowCounts>,
}

/// Reads `shadow_profile`. Its settings are those of the provider, beside those of the present profile. `None` if there
/// is none, or it has mistakes, all of which were reported.
pub(super) fn read(fields: &Fields<'_>, reader: &Reader<'_>) -> Option<ReadShadow> {
    let word = fields.opt::<SpannedText>("shadow_profile")?;
    let profile = reader.profile(&word)?;
    for setting in profile.declared() {
        let _known = fields.take(&setting.name);
    }
    // Most mistakes in settings are those of the present profile, too, and were told.
    let own = Diagnostics::new();
    let settings = profile.read_settings(&Fields::new(fields.node(), fields.what(), &own), reader);
    reader.report.join(own);
    let counts = Arc::new(ShadowCounts::new(word.text.as_str().into()));
    Some(ReadShadow { word, profile, settings: settings?, counts })
}

impl ReadProvider {
    /// Compiles the shadow of a route's module. `route`: its table, whose `settings` count for the shadow as far as that
    /// has them. `None`: there is no shadow, or it has mistakes, all of which were reported.
    pub(super) fn shadow_of(
        &self,
        present: &Arc<Module>,
        route: Option<(&Fields<'_>, &[Var])>,
        reader: &Reader<'_>,
        report: &Diagnostics,
    ) -> Option<Arc<Shadow>> {
        let ReadShadow { word, profile, settings, counts } = self.shadow.as_ref()?;
        let mut settings = settings.clone();
        if let Some(node) = route.and_then(|(fields, _)| fields.take("settings")) {
            let own = Diagnostics::new();
            let overridden =
                profile.override_settings(&settings, &Fields::new(node, "settings of [[route]]", &own), reader);
            report.join(own);
            settings = overridden?;
        }
        if let Some((_, vars)) = route {
            let used = settings.vars().into_iter().map(|(name, _)| name).chain(profile.vars());
            for name in used.filter(|name| !vars.iter().any(|var| var.name() == name)) {
                let title =
                    format!("the shadow `{}` uses the variable `{name}`, which a route does not define", word.text);
                word.place.error(report, title, "define it in the `vars` of every [[route]] with this provider");
            }
        }
        let wiring = Wiring {
            name: &self.name,
            base_url: self.base_url.clone()?,
            token_url: self.token_url.clone().filter(|_| !profile.is_standing()),
            default_ttl: self.default_ttl.filter(|_| !profile.is_standing()),
            consent: None,
            caller: CallAs::Application,
        };
        match Module::build(profile, settings, wiring) {
            Ok(candidate) => Some(Arc::new(Shadow::new(present.clone(), Arc::new(candidate), counts.clone()))),
            Err(error) => {
                let title = format!("the shadow of [provider.{}] cannot work: {error}", self.name);
                word.place.error(report, title, "correct its settings, or take it out");
                None
            }
        }
    }

    /// What was found of the shadow so far, with what no call shows; `None`: there is no shadow.
    pub(super) fn shadow_counts(
        &self,
        present: Option<&Arc<Module>>,
        reader: &Reader<'_>,
    ) -> Option<Arc<ShadowCounts>> {
        let counts = self.shadow.as_ref()?.counts.clone();
        // Its mistakes were reported at the routes that use it.
        let shadow = present.and_then(|present| self.shadow_of(present, None, reader, &Diagnostics::new()));
        if let Some(shadow) = shadow {
            counts.set_unseen(shadow.unseen_differences());
        }
        Some(counts)
    }
}
