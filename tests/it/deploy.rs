//! What `deploy/` holds, judged by the programs that will read it: systemd, buildah, kubectl, Prometheus, the template
//! engine under Helm, and the schemas of Kubernetes. `tests/run` installs them; one that is missing is a failure.
//!
//! Every configuration in there is put before the real `countersign check`, with stand-ins for secrets and certificates.

mod chart;
mod container;
mod kustomize;
mod pods;
mod standin;
mod systemd;
mod tools;
mod watching;
