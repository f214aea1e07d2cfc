// Package systemtest holds the tests of the whole product: the package that
// users install, in a Debian system that really boots, with the metadata
// service at its own address, a real S3 server, and a real load balancer that
// decides by the health endpoint.
//
// Nothing is looked at from inside the agent. The tests see what an operator
// sees: systemd's state, files, the journal, the console, reports, and when the
// load balancer sends traffic.
//
// They are behind the build tag "system", need root on Debian, and install what
// they need.
package systemtest
