//! What `deploy/` holds, judged by the programs that will read it: systemd, buildah, kubectl, Prometheus, the template
//! engine under Helm, and the schemas of Kubernetes. `tests/run` installs them; one that is missing is a failure.
//!
//! Every configuration in there is put before the real `countersign check`, with stand-ins for secrets and certificates.

use regex::Regex;

mod chart;
mod container;
mod kustomize;
mod placeholder_files;
mod pods;
mod release;
mod systemd;
mod tools;
mod watching;

/// A manual that points nowhere is worse than none.
#[test]
fn what_the_manuals_point_at_is_there() {
    let link = Regex::new(r"\]\(([^)#:]+)(?:#[^)]*)?\)").expect("a pattern");
    let path = Regex::new(r"\bdeploy/[a-z0-9./-]*[a-z0-9]").expect("a pattern");
    for manual in ["docs/deploy.md", "docs/releasing.md", "deploy/helm/countersign/README.md"] {
        let (text, folder) = (tools::read(manual), tools::root(manual));
        let folder = folder.parent().expect("a folder");
        let mut seen = 0;
        for found in link.captures_iter(&text) {
            assert!(folder.join(&found[1]).exists(), "{manual}: {}", &found[1]);
            seen += 1;
        }
        for found in path.find_iter(&text) {
            assert!(tools::root(found.as_str()).exists(), "{manual}: {}", found.as_str());
            seen += 1;
        }
        assert!(seen > 3, "{manual}");
    }
}
