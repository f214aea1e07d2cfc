// Package systemd holds the units of the agent, and the tests that hold them to
// what the design says of boot order, hardening and old systemd.
//
// amiagent.service provisions the machine; amiagent-health.service answers load
// balancers, apart from it and without privileges. amiagent-ready.target is what
// other units wait for, by way of amiagent-gate.service; amiagent-drain.service
// exists from READY on to be stopped first at shutdown.
package systemd
