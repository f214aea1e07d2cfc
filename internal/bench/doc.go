// Package bench measures what the agent costs a machine on which everything is
// as it should be: the time from process start to READY, memory, sizes. It
// measures in a Debian system that really boots, with the packaged agent, and
// beside it cloud-init's boot without news and a shell script that looks at the
// same fifty things.
//
// A check that looks at nothing is fast. So each of the fifty things is first
// changed by hand, once, and the run counts only if the agent found and repaired
// every one of them, and the script found it too.
//
// The fifty things are fifty.yaml, the script is check.sh, and what changes them
// is the list of mutations. It is an aid for development, not linked into the agent.
package bench
