// Package docstest keeps the documents true.
//
// It writes docs/manifest.md out of the code: the kinds, their fields, the
// template functions, probes and facts, each with the comment that stands at its
// definition. Its tests hold all other documents to the program: manifests in
// them are valid, commands in them exist, links lead somewhere, and the tests
// that ARCHITECTURE.md names as the proof of a promise are there.
package docstest

//go:generate go test -count=1 -run ^TestTheReferenceIsCurrent$ . -update
