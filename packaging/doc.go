// Package packaging holds what makes packages of the agent: units, maintainer
// scripts, the example configuration; nfpm.yaml at the top of the repository puts
// them together. Its tests install, upgrade, remove and purge real packages
// with dpkg, rpm and dnf in a tree of Debian (`make test-system`).
package packaging
